"""Analysis and synthesis in NumPy float32: pixels to latents and back. Rounding may differ between machines."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.fixed import clamp
from pilc_stream.backends.base import Tile
from pilc_stream.backends.lossy.base import Floats, hyper_grid, latent_grid
from pilc_stream.backends.lossy.network import shuffled, unshuffled
from pilc_stream.models.lossy import GAIN_BITS, QUALITIES, LossyModel
from pilc_stream.models.lossy_spec import FLOAT_KNOTS, HYPER_STRIDE, LEVEL_STRIDES, MEAN_STEPS, UNIT

MID_GREY = 128
WHITE_LIMIT = 8
STRIP_PLACES = 1 << 12
"""So many places of a convolution at a time: their surroundings stay in the cache."""


class Encoded(NamedTuple):
    """In steps of the quantiser, not rounded: `hyper` `(h / 64, w / 64, c)`, `latents` `(h / 16, w / 16, c)`."""

    hyper: Floats
    latents: Floats


def blend(quality: int) -> Floats:
    """The shares of the trade-offs `FLOAT_KNOTS` in a quality: float32 `(FLOAT_KNOTS,)`."""
    place = (quality - 1) / (QUALITIES - 1) * (FLOAT_KNOTS - 1)
    return np.asarray(np.maximum(0, 1 - np.abs(place - np.arange(FLOAT_KNOTS))), np.float32)


def analyse(model: LossyModel, tile: Tile, quality: int) -> Encoded:
    """Latents of a tile uint8 `(h, w, 3)`, which is continued by its last row and column to whole strides."""
    height, width = tile.shape[:2]
    rows, columns = (HYPER_STRIDE * count for count in hyper_grid(height, width))
    whole = np.pad(tile, ((0, rows - height), (0, columns - width), (0, 0)), mode="edge")
    values = (whole.astype(np.float32) - MID_GREY) / np.float32(UNIT)
    share, floats, spec = blend(quality), model.floats, model.spec
    blocks = spec.residual_blocks("analysis")
    for level, stride in enumerate(LEVEL_STRIDES):
        values = _mixed(unshuffled(values, stride), floats[f"analysis.{level}.matrix"])
        values = _through(
            model, values, [name for name, _, _ in blocks if name.startswith(f"analysis.{level}.")], share
        )
    hyper = clamp(values / floats["latent.spread"], -WHITE_LIMIT, WHITE_LIMIT)
    for index in range(len(spec.hyper_analysis())):
        weight = floats[f"hyper_analysis.{index}.first"]
        inputs = unshuffled(hyper, 2) if index % 2 else hyper
        hyper = _convolved(inputs, weight) if index == 2 else _mixed(inputs, weight)
        hyper = hyper + share @ floats[f"hyper_analysis.{index}.bias"]
        if index < 3:
            hyper = np.maximum(hyper, 0)
    gain = model.quality(quality).gain.astype(np.float32) / np.float32(1 << GAIN_BITS)
    rows, columns = latent_grid(height, width)
    return Encoded(hyper * np.exp(share @ floats["hyper_analysis.gain"]), values[:rows, :columns] * gain)


def synthesise(model: LossyModel, latents: NDArray[np.int32], quality: int, height: int, width: int) -> Tile:
    """The pixels uint8 `(height, width, 3)` of decoded latents (16ths)."""
    gain = model.quality(quality).gain.astype(np.float32) / np.float32(1 << GAIN_BITS)
    values = latents.astype(np.float32) / (gain * np.float32(MEAN_STEPS))
    share, floats, blocks = blend(quality), model.floats, model.spec.residual_blocks("synthesis")
    for level in reversed(range(len(LEVEL_STRIDES))):
        names = [name for name, _, _ in blocks if name.startswith(f"synthesis.{level}.")]
        values = _through(model, values, names, share)
        values = shuffled(_mixed(values, floats[f"synthesis.{level}.matrix"]), LEVEL_STRIDES[level])
    levels = np.rint(values[:height, :width] * np.float32(UNIT) + MID_GREY)
    return np.clip(levels, 0, 255).astype(np.uint8)


def _through(model: LossyModel, values: Floats, names: list[str], share: Floats) -> Floats:
    for name in names:
        floats = {
            part: model.floats[f"{name}.{part}"] for part in ("spread", "first", "first_bias", "second", "second_bias")
        }
        hidden = _convolved(values / floats["spread"], floats["first"])
        hidden = np.maximum(hidden + share @ floats["first_bias"], 0)
        values = values + _mixed(hidden, floats["second"]) + floats["second_bias"]
    return values


def _mixed(values: Floats, matrix: Floats) -> Floats:
    height, width, channels = values.shape
    return np.asarray((values.reshape(-1, channels) @ matrix.T).reshape(height, width, len(matrix)))


def _convolved(values: Floats, weight: Floats) -> Floats:
    """A 3 x 3 convolution, 0 outside."""
    height, width, channels = values.shape
    wide = np.zeros((height + 2, width + 2, channels), np.float32)
    wide[1:-1, 1:-1] = values
    turned = np.ascontiguousarray(weight.T)
    out = np.empty((height, width, len(weight)), np.float32)
    step = max(1, STRIP_PLACES // width)
    for top in range(0, height, step):
        rows = min(step, height - top)
        around = np.empty((rows, width, 9, channels), np.float32)
        for y in range(3):
            for x in range(3):
                around[:, :, 3 * y + x] = wide[top + y : top + y + rows, x : x + width]
        out[top : top + rows] = (around.reshape(rows * width, 9 * channels) @ turned).reshape(rows, width, -1)
    return out

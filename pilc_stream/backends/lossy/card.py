"""The networks of the codec `lossy` in torch, for batches of tiles of one size: on a card, or on the host to prove that
they give equal latents.

Sums of the entropy nets are whole numbers below ``2**24``, which float32 holds exactly in every order: as matrix
products without TF32, and never as convolutions of cuDNN, which may choose Winograd's or Fourier's way. The transforms
round, so each of their products has a shape that depends on the tile's size alone: so many tiles at a time, the last
ones repeated where there are fewer. A batch never changes its members.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pilc_stream.arith.perceptron import ACTIVATION_LIMIT
from pilc_stream.backends.lossy.base import Shape, hyper_grid, latent_grid
from pilc_stream.backends.lossy.network import HYPER_LAYERS, SHUFFLED
from pilc_stream.backends.lossy.transforms import MID_GREY, WHITE_LIMIT, blend
from pilc_stream.models.lossy import GAIN_BITS, LossyModel
from pilc_stream.models.lossy_spec import HYPER_STRIDE, LEVEL_STRIDES, MEAN_STEPS, UNIT


class BatchTables(NamedTuple):
    """The integers of each tile's quality, int32 `(tiles, ...)` as `QualityTables`; float32 `(tiles, ...)`: the `share`
    of each trade-off, and the gain of hyper analysis."""

    gain: torch.Tensor
    scale: torch.Tensor
    hyper: torch.Tensor
    features: torch.Tensor
    share: torch.Tensor
    hyper_gain: torch.Tensor


class Encoded(NamedTuple):
    """In steps of the quantiser, not rounded: `hyper` `(tiles, h / 64, w / 64, c)`, `latents` `(tiles, h / 16, w / 16,
    c)`."""

    hyper: torch.Tensor
    latents: torch.Tensor


class CardNets:
    """The networks on a torch device. Arrays are `(tiles, rows, columns, channels)`."""

    def __init__(self, device: torch.device, chunk_places: int) -> None:
        """`chunk_places`: of latents, so many pass a transform at once, or those of one tile."""
        self.device, self._chunk_places = device, chunk_places
        self._tensors: dict[tuple[str, str], torch.Tensor] = {}

    def tables(self, model: LossyModel, qualities: Sequence[int]) -> BatchTables:
        """The tables of tiles of these qualities."""
        known = sorted(set(qualities))
        integers = zip(*(model.quality(quality) for quality in known), strict=True)
        shares = [blend(quality) for quality in known]
        gains = [np.exp(share @ model.floats["hyper_analysis.gain"]) for share in shares]
        columns = [np.stack(each).astype(np.int32) for each in integers] + [np.stack(shares), np.stack(gains)]
        of_tile = np.searchsorted(known, qualities)
        return BatchTables(*(torch.from_numpy(column[of_tile]).to(self.device) for column in columns))

    def hyper_features(self, model: LossyModel, inputs: torch.Tensor) -> torch.Tensor:
        """From hyper inputs to features, float32 whole numbers, four times as high and wide."""
        values = inputs.to(torch.float32)
        for index in range(HYPER_LAYERS):
            values = self._hidden(model, f"hyper.{index}", values)
            if index in SHUFFLED:
                values = _shuffled(values, 2)
        return values

    def outputs(
        self,
        model: LossyModel,
        number: int,
        context: torch.Tensor | None,
        features: torch.Tensor,
        quality: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Means and scales of a pass before the gain, int32, for all places. `quality`: the tables' features."""
        wide = quality.to(torch.float32)[:, None, None].expand(*features.shape[:3], -1)
        parts = [features, wide]
        if context is not None:
            parts.insert(0, self._hidden(model, f"pass.{number}.context", context.to(torch.float32)))
        hidden = self._hidden(model, f"pass.{number}.hidden", torch.cat(parts, 3))
        means, scales = self._total(model, f"pass.{number}.out", hidden).chunk(2, 3)
        return means, scales

    def analyse(self, model: LossyModel, tiles: torch.Tensor, tables: BatchTables) -> Encoded:
        """As `transforms.analyse`, of tiles uint8 of one size."""
        height, width = tiles.shape[1:3]
        grid = hyper_grid(height, width)
        down, across = (
            torch.arange(HYPER_STRIDE * count, device=self.device).clamp(max=edge - 1)
            for count, edge in zip(grid, (height, width), strict=True)
        )
        rows, columns = latent_grid(height, width)

        def some(chosen: torch.Tensor) -> Encoded:
            values = (tiles[chosen][:, down][:, :, across].to(torch.float32) - MID_GREY) / UNIT
            share = tables.share[chosen]
            for level, stride in enumerate(LEVEL_STRIDES):
                values = _unshuffled(values, stride) @ self._float(model, f"analysis.{level}.matrix").T
                values = self._blocks(model, "analysis", level, values, share)
            hyper = (values / self._float(model, "latent.spread")).clamp(-WHITE_LIMIT, WHITE_LIMIT)
            last = len(model.spec.hyper_analysis()) - 1
            for index in range(last + 1):
                inputs = _unshuffled(hyper, 2) if index % 2 else _surroundings(hyper) if index == 2 else hyper
                hyper = inputs @ self._float(model, f"hyper_analysis.{index}.first").T
                hyper = hyper + self._shared(model, f"hyper_analysis.{index}.bias", share)
                hyper = hyper if index == last else torch.relu(hyper)
            gain = tables.gain[chosen].to(torch.float32)[:, None, None] / (1 << GAIN_BITS)
            return Encoded(hyper * tables.hyper_gain[chosen][:, None, None], values[:, :rows, :columns] * gain)

        found = self._in_chunks(len(tiles), rows * columns, some)
        return Encoded(*(torch.cat(parts)[: len(tiles)] for parts in zip(*found, strict=True)))

    def synthesise(self, model: LossyModel, latents: torch.Tensor, tables: BatchTables, shape: Shape) -> torch.Tensor:
        """As `transforms.synthesise`: uint8 `(tiles, height, width, 3)`."""

        def some(chosen: torch.Tensor) -> torch.Tensor:
            gain = tables.gain[chosen].to(torch.float32)[:, None, None] / (1 << GAIN_BITS)
            values, share = latents[chosen].to(torch.float32) / (gain * MEAN_STEPS), tables.share[chosen]
            for level in reversed(range(len(LEVEL_STRIDES))):
                values = self._blocks(model, "synthesis", level, values, share)
                values = _shuffled(values @ self._float(model, f"synthesis.{level}.matrix").T, LEVEL_STRIDES[level])
            levels = torch.round(values[:, : shape.height, : shape.width] * UNIT + MID_GREY)
            return levels.clamp(0, 255).to(torch.uint8)

        places = latents.shape[1] * latents.shape[2]
        return torch.cat(self._in_chunks(len(latents), places, some))[: len(latents)]

    def _in_chunks(self, tiles: int, places: int, work: Callable[[torch.Tensor], Any]) -> list[Any]:
        """What `work` gives for the numbers of equally many tiles at a time."""
        size = max(1, self._chunk_places // places)
        numbers = torch.arange(-(-tiles // size) * size, device=self.device).clamp(max=tiles - 1)
        return [work(chosen) for chosen in numbers.view(-1, size)]

    def _blocks(self, model: LossyModel, side: str, level: int, values: torch.Tensor, share: torch.Tensor) -> Any:
        for name, _, _ in model.spec.residual_blocks(side):
            if name.startswith(f"{side}.{level}."):
                inputs = _surroundings(values / self._float(model, f"{name}.spread"))
                hidden = inputs @ self._float(model, f"{name}.first").T
                hidden = torch.relu(hidden + self._shared(model, f"{name}.first_bias", share))
                second = hidden @ self._float(model, f"{name}.second").T
                values = values + second + self._float(model, f"{name}.second_bias")
        return values

    def _shared(self, model: LossyModel, name: str, share: torch.Tensor) -> torch.Tensor:
        """A bias between its trade-offs, for each tile."""
        return (share @ self._float(model, name))[:, None, None]

    def _hidden(self, model: LossyModel, name: str, values: torch.Tensor) -> torch.Tensor:
        return self._total(model, name, values).clamp(0, ACTIVATION_LIMIT).to(torch.float32)

    def _total(self, model: LossyModel, name: str, values: torch.Tensor) -> torch.Tensor:
        """The sums scaled down, int32."""
        layer = model.layers[name]
        inputs = _surroundings(values) if model.spec.layers()[name][2] == 3 else values
        weight = self._kept(model, f"{name}.weight", layer.weight.astype(np.float32))
        bias = self._kept(model, f"{name}.bias", layer.bias.astype(np.int32))
        shift = self._kept(model, f"{name}.shift", layer.shift.astype(np.int32))
        return ((inputs @ weight.T).to(torch.int32) + bias) >> shift

    def _float(self, model: LossyModel, name: str) -> torch.Tensor:
        return self._kept(model, name, model.floats[name])

    def _kept(self, model: LossyModel, name: str, values: NDArray[Any]) -> torch.Tensor:
        key = model.sha256, name
        if key not in self._tensors:
            self._tensors[key] = torch.from_numpy(np.array(values)).to(self.device)
        return self._tensors[key]


def _surroundings(values: torch.Tensor) -> torch.Tensor:
    """`(n, h, w, c)` -> `(n, h, w, 9 c)`: each place with its eight neighbours, 0 outside."""
    _, height, width, _ = values.shape
    wide = torch.nn.functional.pad(values, (0, 0, 1, 1, 1, 1))
    return torch.cat([wide[:, y : y + height, x : x + width] for y in range(3) for x in range(3)], 3)


def _shuffled(values: torch.Tensor, stride: int) -> torch.Tensor:
    """`(n, h, w, c stride**2)` -> `(n, stride h, stride w, c)`."""
    tiles, height, width, count = values.shape
    groups = values.reshape(tiles, height, width, count // stride**2, stride, stride).permute(0, 1, 4, 2, 5, 3)
    return groups.reshape(tiles, stride * height, stride * width, count // stride**2)


def _unshuffled(values: torch.Tensor, stride: int) -> torch.Tensor:
    """The inverse of `_shuffled`."""
    tiles, height, width, channels = values.shape
    groups = values.reshape(tiles, height // stride, stride, width // stride, stride, channels)
    return groups.permute(0, 1, 3, 5, 2, 4).reshape(tiles, height // stride, width // stride, channels * stride**2)

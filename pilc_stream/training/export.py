"""From a trained network to the integer model that ships: rounding, tables, and the proof that nothing else changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pilc_stream.arith.perceptron import FRACTIONS, SCALE_STEPS_PER_OCTAVE
from pilc_stream.arith.rans import PRECISION_BITS
from pilc_stream.backends.reference import predict
from pilc_stream.errors import ModelError
from pilc_stream.models.model import SYMBOLS, Layer, WaveModel
from pilc_stream.records.tiling import DEFAULT_TILE_LOG2
from pilc_stream.training.data import PixelRows
from pilc_stream.training.network import WaveNet
from pilc_stream.training.shapes import ZERO_INDEX, ResidualShape

TOTAL = 1 << PRECISION_BITS
SHAPE_KEY = "residual_shape"
"""Where a model's recipe holds the parameters of its `ResidualShape`."""


def export_model(
    net: WaveNet, profile: str, recipe: Mapping[str, Any], tile_log2: int = DEFAULT_TILE_LOG2
) -> WaveModel:
    """The integer model of a trained network, for tiles of that size; ModelError if its sums break the integer law."""
    layers = {}
    for name in net.spec.layers():
        weight, bias, shift = net.layer(name).integers()
        layers[name] = Layer(
            weight.numpy().astype(np.int8), bias.numpy().astype(np.int32), shift.numpy().astype(np.uint8)
        )
    cdf, row_of = build_tables(net.shape)
    return WaveModel(net.spec, layers, cdf, row_of, profile, {**recipe, SHAPE_KEY: net.shape.to_json()}, tile_log2)


def import_model(model: WaveModel) -> WaveNet:
    """The network that exports to `model`: where fitting begins. ModelError where the model does not hold the shape
    that its tables were made from."""
    net = WaveNet(model.spec)
    try:
        net.shape.load_json(model.recipe[SHAPE_KEY])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"model {model.profile!r}: it does not say which shape its tables have ({error}); fit a shipped profile"
        ) from error
    with torch.no_grad():
        for name, layer in model.layers.items():
            factor = np.exp2(layer.shift.astype(np.float64))
            half = np.floor(factor / 2)
            net.layer(name).weight.copy_(torch.from_numpy(layer.weight / factor[:, None]))
            net.layer(name).bias.copy_(torch.from_numpy((layer.bias - half) / factor))
    return net


def fraction_groups(scale_index: int) -> int:
    """How many different fractions of the mean matter at a scale: 16 below one grey level, half per octave above."""
    octaves_above = (scale_index - ZERO_INDEX) // SCALE_STEPS_PER_OCTAVE + 1
    return max(1, FRACTIONS >> max(0, octaves_above))


def build_tables(shape: ResidualShape) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """The CDF table and its index: uint16 `(rows, 256)` and `(scale_count, 16)`, see `WaveModel`."""
    rows: list[NDArray[np.uint16]] = []
    row_of = np.empty((shape.scale_count, FRACTIONS), np.uint16)
    residuals = np.arange(SYMBOLS) - SYMBOLS // 2
    for scale in range(shape.scale_count):
        size = FRACTIONS // fraction_groups(scale)
        for first in range(0, FRACTIONS, size):
            fraction = (first + (size - 1) / 2 - FRACTIONS // 2) / FRACTIONS
            offsets = np.asarray(residuals - fraction, np.float64)
            # A symbol stands for residuals 256 apart; for wide scales the far ones have some mass too.
            turns = [shape.masses(scale, offsets + turn) for turn in (-SYMBOLS, 0, SYMBOLS)]
            row_of[scale, first : first + size] = len(rows)
            rows.append(cumulative(integer_frequencies(turns[0] + turns[1] + turns[2])))
    return np.stack(rows), row_of


def integer_frequencies(mass: NDArray[np.float64]) -> NDArray[np.int64]:
    """Frequencies of at least 1 with the sum `TOTAL`, as close to `mass` as whole numbers can be."""
    ideal = 1 + mass / mass.sum() * (TOTAL - len(mass))
    frequencies: NDArray[np.int64] = np.floor(ideal).astype(np.int64)
    by_remainder = np.argsort(frequencies - ideal, kind="stable")
    frequencies[by_remainder[: TOTAL - int(frequencies.sum())]] += 1
    return frequencies


def cumulative(frequencies: NDArray[np.int64]) -> NDArray[np.uint16]:
    """The start of each symbol's interval."""
    return np.concatenate([[0], np.cumsum(frequencies)[:-1]]).astype(np.uint16)


def check_parity(net: WaveNet, model: WaveModel, rows: PixelRows) -> None:
    """Raise AssertionError unless network (quantised) and integer model give equal means and scales on `rows`."""
    net.quantise()
    with torch.no_grad():
        expected = net(rows.batch(0, len(rows)))
    pixels = rows.pixels.astype(np.int64).T
    means: list[NDArray[np.int64]] = []
    table_rows: list[NDArray[np.int64]] = []

    def pixel(c: int, mean: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.int64]:
        means.append(mean)
        table_rows.append(row)
        return np.asarray(pixels[c])

    inputs, bases = rows.inputs.astype(np.int64).T, rows.bases.astype(np.int64).T
    predictions = rows.predictions.astype(np.int64).T
    exponent = rows.exponent.astype(np.int64)
    predict(model, inputs, list(bases), exponent, len(pixels), lambda c, _: np.asarray(predictions[c]), pixel)
    fraction = (np.stack(means) + FRACTIONS // 2) % FRACTIONS
    scale = expected.scale.numpy().T.astype(np.int64)
    if not np.array_equal(np.stack(means), expected.mean.numpy().T.astype(np.int64)):
        raise AssertionError("export: the integer model's means differ from the network's")
    if not np.array_equal(np.stack(table_rows), model.row_of[scale, fraction]):
        raise AssertionError("export: the integer model's scales differ from the network's")

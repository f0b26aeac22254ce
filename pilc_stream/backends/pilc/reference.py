"""The reference backend of the codec `pilc`: as FORMAT.md states it, in NumPy int64 and Python integers. Slow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith import rans
from pilc_stream.arith.blocks import BLOCK, MID_GREY, QUARTER_PIXELS, QUARTERS, rounded_prediction
from pilc_stream.arith.context import BEFORE_FIRST, CHANNELS, COLUMNS_AROUND, ROWS_ABOVE
from pilc_stream.arith.fixed import clamp
from pilc_stream.arith.perceptron import (
    hidden_activation,
    mean_centre,
    mean_fraction,
    residual_symbol,
    symbol_pixel,
)
from pilc_stream.backends.base import Tile, TileJob
from pilc_stream.backends.pilc.base import (
    MEAN_LIMIT,
    Choices,
    Ints,
    block_grid,
    code_row,
    parts,
    predictor_row,
    quarter_pixels,
)
from pilc_stream.backends.planes import coding_planes, image_tile, padded, wavefront
from pilc_stream.backends.reference import LaneReader, resolve, written_lanes
from pilc_stream.models.pilc import OUTPUTS, PilcModel


class Distributions(NamedTuple):
    """Of every sub-pixel's residual: `rows` of the table and `centres`, int64 `(3, h, w)`."""

    rows: Ints
    centres: Ints


class PilcReferenceEngine:
    """The specification, executable."""

    name = "reference"

    def encode_tiles(self, model: PilcModel, tiles: Sequence[Tile], lanes_log2: Sequence[int]) -> list[bytes]:
        """One stream per tile."""
        return [_encode_tile(model, tile, 1 << log2) for tile, log2 in zip(tiles, lanes_log2, strict=True)]

    def decode_tiles(self, model: PilcModel, jobs: Sequence[TileJob]) -> list[Tile]:
        """The tiles again."""
        return [_decode_tile(model, job) for job in jobs]


def choose(model: PilcModel, tile: Tile) -> tuple[Choices, Ints]:
    """An encoder's choices, and the predictions that follow from them: int64 `(channels, h, w)`."""
    height, width, channels = tile.shape
    planes = coding_planes(tile)
    counts = np.repeat(quarter_pixels(height, width)[None], parts(channels) // QUARTERS, 0)
    predictions = [_all_predictions(model, padded(planes), c, height, width) for c in range(len(counts))]
    sums = np.stack(
        [_quarter_sums(np.abs(planes[c] - predictions[c])) for c in range(len(counts))]
    )  # (channels, predictors, rows, columns, 4)
    log = model.tensors["encoder.log"].astype(np.int64)
    weight = counts[:, None]
    scaled = QUARTER_PIXELS * sums // np.maximum(weight, 1)
    cost = (weight * log[scaled]).sum(axis=(0, 4)) + model.tensors["encoder.predictor"].astype(np.int64)[:, None, None]
    predictors = cost.argmin(axis=0)
    chosen = np.take_along_axis(sums, predictors[None, None, :, :, None], axis=1)[:, 0]
    slope, level = (
        model.tensors[f"encoder.{name}"].astype(np.int64).reshape(-1, CHANNELS, QUARTERS)[:, : len(counts)]
        for name in ("slope", "level")
    )
    code_cost = (
        np.einsum("crkq,ncq->nrk", chosen, slope)
        + np.einsum("crkq,ncq->nrk", counts, level)
        + model.tensors["encoder.code"].astype(np.int64)[:, None, None]
    )
    by_pixel = _per_pixel(predictors, height, width)
    prediction = np.stack([np.take_along_axis(all_of, by_pixel[None], axis=0)[0] for all_of in predictions])
    return Choices(code_cost.argmin(axis=0), predictors), prediction


def _all_predictions(model: PilcModel, surrounded: Ints, channel: int, height: int, width: int) -> Ints:
    """What every predictor says of every sub-pixel of a channel: int64 `(predictors, h, w)`."""
    weight, bias = (values.astype(np.int64) for values in model.predictor(channel))
    inputs = np.stack(
        [
            surrounded[
                source,
                ROWS_ABOVE + dy : ROWS_ABOVE + dy + height,
                COLUMNS_AROUND + dx : COLUMNS_AROUND + dx + width,
            ]
            for source, dy, dx in model.spec.taps[channel]
        ]
    )
    total = np.tensordot(weight, inputs - MID_GREY, axes=1) + bias[:, None, None]
    return np.asarray(rounded_prediction(total))


def _quarter_sums(values: Ints) -> Ints:
    """`(n, h, w)` -> sums over the quarters of blocks `(n, rows, columns, 4)`."""
    count, height, width = values.shape
    rows, columns = block_grid(height, width)
    whole = np.pad(values, ((0, 0), (0, BLOCK * rows - height), (0, BLOCK * columns - width)))
    half = BLOCK // 2
    sums = whole.reshape(count, rows, 2, half, columns, 2, half).sum(axis=(3, 6))
    return np.asarray(sums.transpose(0, 1, 3, 2, 4).reshape(count, rows, columns, QUARTERS))


def _per_pixel(blocks: Ints, height: int, width: int) -> Ints:
    return np.asarray(blocks.repeat(BLOCK, 0).repeat(BLOCK, 1)[:height, :width])


def distributions(model: PilcModel, choices: Choices, height: int, width: int) -> Distributions:
    """The decoder network: from codes and predictors to table rows and centres, in one pass."""
    tensors = model.tensors
    values = np.concatenate(
        [tensors["code.features"][choices.codes], tensors["predictor.features"][choices.predictors]], axis=2
    ).astype(np.int64)
    for level in ("coarse", "middle"):
        values = _shuffled(_hidden(model, f"{level}.split", _hidden(model, level, _surroundings(values))))
    values = _hidden(model, "fine", _surroundings(values))
    outputs = _shuffled(_outputs(model, "head", values))[:height, :width]
    mean = clamp(outputs[..., :CHANNELS], -MEAN_LIMIT, MEAN_LIMIT)
    added = tensors["code.scale"].astype(np.int64)[choices.codes]
    added = added + tensors["predictor.scale"].astype(np.int64)[choices.predictors]
    scale = clamp(outputs[..., CHANNELS:OUTPUTS] + _per_pixel(added, height, width), 0, model.spec.scale_count - 1)
    rows = model.row_of[scale, mean_fraction(mean)].astype(np.int64)
    return Distributions(rows.transpose(2, 0, 1), mean_centre(mean).transpose(2, 0, 1))


def _outputs(model: PilcModel, name: str, values: Ints) -> Ints:
    layer = model.layers[name]
    # float64 BLAS: every sum is below 2**24, so the result is the integer.
    product = (values.astype(np.float64) @ layer.weight.T.astype(np.float64)).astype(np.int64)
    return np.asarray((product + layer.bias.astype(np.int64)) >> layer.shift.astype(np.int64))


def _hidden(model: PilcModel, name: str, values: Ints) -> Ints:
    return np.asarray(hidden_activation(_outputs(model, name, values), 0))


def _surroundings(values: Ints) -> Ints:
    """`(h, w, c)` -> `(h, w, 9 c)`: each place with its eight neighbours, 0 outside."""
    height, width, _ = values.shape
    wide = np.pad(values, ((1, 1), (1, 1), (0, 0)))
    return np.concatenate([wide[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=2)


def _shuffled(values: Ints) -> Ints:
    """`(h, w, 4 c)` -> `(2 h, 2 w, c)`: the four groups of a place are its top left, top right, and bottom ones."""
    height, width, count = values.shape
    groups = values.reshape(height, width, 2, 2, count // 4).transpose(0, 2, 1, 3, 4)
    return np.asarray(groups.reshape(2 * height, 2 * width, count // 4))


def _encode_tile(model: PilcModel, tile: Tile, lanes: int) -> bytes:
    height, width = tile.shape[:2]
    choices, predictions = choose(model, tile)
    intervals: list[tuple[int, int, int]] = []

    def add(number: int, starts: NDArray[np.uint16], symbol: int) -> None:
        end = int(starts[symbol + 1]) if symbol + 1 < len(starts) else 1 << rans.PRECISION_BITS
        intervals.append((number % lanes, int(starts[symbol]), end - int(starts[symbol])))

    rows, columns = block_grid(height, width)
    for block in range(rows * columns):
        y, x = divmod(block, columns)
        code_starts = model.tensors["code.cdf"][code_row(model, choices.codes, y, x)]
        add(2 * block, code_starts, int(choices.codes[y, x]))
        predictor_starts = model.tensors["predictor.cdf"][predictor_row(model, choices.predictors, y, x)]
        add(2 * block + 1, predictor_starts, int(choices.predictors[y, x]))

    found = distributions(model, choices, height, width)
    coded = coding_planes(tile)[: len(predictions)]
    symbols = residual_symbol(coded - predictions, found.centres[: len(predictions)])
    table_rows = found.rows[: len(predictions)].reshape(-1)
    for number, symbol in enumerate(symbols.reshape(-1)):
        add(number, model.cdf[table_rows[number]], int(symbol))

    return written_lanes(intervals, lanes)


def _decode_tile(model: PilcModel, job: TileJob) -> Tile:
    height, width = job.height, job.width
    coded = parts(job.channels) // QUARTERS
    lanes = LaneReader(job)
    choices = Choices(*(np.zeros(block_grid(height, width), np.int64) for _ in range(2)))
    rows, columns = choices.codes.shape
    for block in range(rows * columns):
        y, x = divmod(block, columns)
        code_starts = model.tensors["code.cdf"][code_row(model, choices.codes, y, x)]
        choices.codes[y, x] = lanes.symbol(2 * block, code_starts)
        predictor_starts = model.tensors["predictor.cdf"][predictor_row(model, choices.predictors, y, x)]
        choices.predictors[y, x] = lanes.symbol(2 * block + 1, predictor_starts)

    found = distributions(model, choices, height, width)
    table_rows = found.rows[:coded].reshape(-1)
    symbols = lanes.symbols(table_rows, model.cdf)
    lanes.finish()
    residuals = symbol_pixel(symbols.reshape(coded, height, width), found.centres[:coded])
    return image_tile(_undone(model, choices.predictors, residuals), job.channels)


def _undone(model: PilcModel, predictors: Ints, residuals: Ints) -> Ints:
    """Pixels from residuals (modulo 256), along the wavefront: int64 `(coded channels, h, w)`."""
    coded, height, width = residuals.shape
    planes = np.zeros((coded, height, width), np.int64)
    by_pixel = _per_pixel(predictors, height, width)
    for ys, xs in wavefront(height, width):
        for c in range(coded):
            weight, bias = (values.astype(np.int64)[by_pixel[ys, xs]] for values in model.predictor(c))
            total = bias
            for i, (source, dy, dx) in enumerate(model.spec.taps[c]):
                y, x, before_first = resolve(ys + dy, xs + dx, width)
                value = np.where(before_first, BEFORE_FIRST, planes[source, y, x])
                total = total + weight[:, i] * (value - MID_GREY)
            planes[c, ys, xs] = (rounded_prediction(total) + residuals[c, ys, xs]) & 255
    return planes

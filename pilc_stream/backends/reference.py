"""The reference backend: the codec as FORMAT.md states it, in NumPy int64 and Python integers. Slow and plain.

Encoding sees whole planes; decoding walks the wavefront. Both run the functions of `arith`; the two ways of getting at
neighbours (`planes.padded` and `resolve` here) are separate on purpose, so that each checks the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith import rans
from pilc_stream.arith.context import (
    BEFORE_FIRST,
    CHANNELS,
    base_predictions,
    context_inputs,
    earlier_channel_inputs,
)
from pilc_stream.arith.perceptron import (
    hidden_activation,
    mean_centre,
    mean_fraction,
    predicted_mean,
    residual_symbol,
    scale_index,
    symbol_pixel,
)
from pilc_stream.arith.predictor import SUB_PREDICTORS, sub_prediction_error, sub_predictions
from pilc_stream.backends.base import Tile, TileJob, check_end, pack_stream, split_stream
from pilc_stream.backends.planes import coding_planes, plane_context
from pilc_stream.errors import FormatError
from pilc_stream.models.model import WaveModel

Ints = NDArray[np.int64]
PixelOf = Callable[[int, Ints, Ints], Ints]
"""(channel, mean, table row) -> grey levels: looked up when encoding, decoded when decoding."""


def wavefront(height: int, width: int) -> Iterator[tuple[Ints, Ints]]:
    """The pixels `(ys, xs)` of each step ``t = x + 2 y``, rows from the top; together every pixel once."""
    for step in range(width + 2 * height - 2):
        ys = np.arange(max(0, (step - width + 2) // 2), min(height - 1, step // 2) + 1)
        if len(ys):
            yield ys, step - 2 * ys


def predict(model: WaveModel, inputs: Ints, bases: Sequence[Ints], exponent: Ints, channels: int, pixel: PixelOf) -> None:
    """Run the perceptron over `n` pixels, channel by channel, asking `pixel` for each channel's values.

    `inputs` int64 `(inputs, n)`; `bases` three of `(n,)`; `exponent` `(n,)`.
    """

    def total(name: str, values: Ints) -> tuple[Ints, Ints]:
        layer = model.layers[name]
        # float64 BLAS: every sum is below 2**24, so the result is the integer.
        product = (layer.weight.astype(np.float64) @ values.astype(np.float64)).astype(np.int64)
        return product + layer.bias.astype(np.int64)[:, None], layer.shift.astype(np.int64)[:, None]

    trunk = inputs
    for i in range(len(model.spec.trunk)):
        trunk = hidden_activation(*total(f"trunk.{i}", trunk))
    direct = inputs[: model.spec.direct]
    earlier: list[Ints] = []
    for c in range(channels):
        hidden = hidden_activation(*total(f"head.{c}.hidden", np.stack([*trunk, *earlier])))
        mean_total, mean_shift = total(f"head.{c}.mean", np.stack([*hidden, *direct, *earlier]))
        scale_total, scale_shift = total(f"head.{c}.scale", hidden)
        mean = predicted_mean(mean_total[0], mean_shift[0], bases[c], exponent)
        scale = scale_index(scale_total[0], scale_shift[0], exponent, model.spec.scale_count)
        row = model.row_of[scale, mean_fraction(mean)].astype(np.int64)
        value = pixel(c, mean, row)
        earlier += earlier_channel_inputs(value, mean, bases[c], exponent)


class ReferenceEngine:
    """The specification, executable."""

    name = "reference"

    def encode_tiles(self, model: WaveModel, tiles: Sequence[Tile], lanes_log2: Sequence[int]) -> list[bytes]:
        """One stream per tile."""
        return [_encode_tile(model, tile, 1 << log2) for tile, log2 in zip(tiles, lanes_log2, strict=True)]

    def decode_tiles(self, model: WaveModel, jobs: Sequence[TileJob]) -> list[Tile]:
        """The tiles again."""
        return [_decode_tile(model, job) for job in jobs]


def _encode_tile(model: WaveModel, tile: Tile, lanes: int) -> bytes:
    height, width, channels = tile.shape
    planes = coding_planes(tile)
    context = plane_context(model.spec.neighbours, planes)
    cdf = np.append(model.cdf.astype(np.int64), np.full((len(model.cdf), 1), 1 << rans.PRECISION_BITS), axis=1)
    starts = np.empty((channels, height * width), np.int64)
    frequencies = np.empty_like(starts)

    def pixel(c: int, mean: Ints, row: Ints) -> Ints:
        value = planes[c].reshape(-1)
        symbol = residual_symbol(value, mean_centre(mean))
        starts[c] = cdf[row, symbol]
        frequencies[c] = cdf[row, symbol + 1] - starts[c]
        return value

    flat_inputs = context.inputs.reshape(len(context.inputs), -1)
    predict(model, flat_inputs, context.bases.reshape(CHANNELS, -1), context.exponent.reshape(-1), channels, pixel)

    intervals: list[tuple[int, int, int]] = []
    for ys, xs in wavefront(height, width):
        at = ys * width + xs
        for c in range(channels):
            for k in range(len(at)):
                intervals.append((k % lanes, int(starts[c, at[k]]), int(frequencies[c, at[k]])))

    states = [rans.STATE_LOW] * lanes
    words: list[int] = []
    for lane, start, frequency in reversed(intervals):
        state = states[lane]
        if rans.must_emit(state, frequency):
            words.append(state & rans.SLOT_MASK)
            state >>= rans.WORD_BITS
        states[lane] = rans.encode_symbol(state, start, frequency)
    return pack_stream(np.array(states, np.uint32), np.array(words[::-1], np.uint16))


def _decode_tile(model: WaveModel, job: TileJob) -> Tile:
    height, width, channels = job.height, job.width, job.channels
    first_states, word_array = split_stream(job)
    states = [int(state) for state in first_states]
    words = [int(word) for word in word_array]
    used = 0
    cdf = model.cdf.astype(np.int64)

    planes = np.zeros((CHANNELS, height, width), np.int64)
    sub_errors = np.zeros((CHANNELS, SUB_PREDICTORS, height, width), np.int64)
    base_errors = np.zeros((CHANNELS, height, width), np.int64)

    for ys, xs in wavefront(height, width):

        def pixel(c: int, dy: int, dx: int, ys: Ints = ys, xs: Ints = xs) -> Ints:
            y, x, before_first = resolve(ys + dy, xs + dx, width)
            return np.where(before_first, BEFORE_FIRST, planes[c, y, x])

        def recorded(plane: Ints, dy: int, dx: int, ys: Ints = ys, xs: Ints = xs) -> Ints:
            y, x = ys + dy, xs + dx
            outside = (y < 0) | (x < 0) | (x >= width)
            return np.where(outside, 0, plane[np.maximum(y, 0), np.clip(x, 0, width - 1)])

        bases = base_predictions(pixel, lambda c, i, dy, dx: recorded(sub_errors[c, i], dy, dx))  # noqa: B023
        exponent, inputs = context_inputs(
            model.spec.neighbours,
            bases,
            pixel,
            lambda c, dy, dx: recorded(base_errors[c], dy, dx),  # noqa: B023
        )

        def decode(c: int, mean: Ints, row: Ints) -> Ints:
            nonlocal used
            symbols = np.empty(len(row), np.int64)
            for k in range(len(row)):
                lane = k % len(states)
                starts = cdf[row[k]]
                slot = rans.decode_slot(states[lane])
                symbol = int(np.searchsorted(starts, slot, side="right")) - 1
                end = int(starts[symbol + 1]) if symbol < 255 else 1 << rans.PRECISION_BITS
                state = rans.decode_advance(states[lane], int(starts[symbol]), end - int(starts[symbol]))
                if state < rans.STATE_LOW:
                    if used == len(words):
                        raise FormatError("tile: the words end before the pixels do; the stream is damaged")
                    state = state << rans.WORD_BITS | words[used]
                    used += 1
                states[lane] = state
                symbols[k] = symbol
            return symbol_pixel(symbols, mean_centre(mean))

        def pixel_of(c: int, mean: Ints, row: Ints, ys: Ints = ys, xs: Ints = xs) -> Ints:
            value = decode(c, mean, row)  # noqa: B023
            planes[c if channels == CHANNELS else slice(None), ys, xs] = value
            return value

        predict(model, np.stack(inputs), bases, exponent, channels, pixel_of)
        for c in range(CHANNELS):
            value = planes[c, ys, xs]
            predictions = sub_predictions(pixel(c, 0, -1), pixel(c, -1, 0), pixel(c, -1, -1), pixel(c, -1, 1))
            for i in range(SUB_PREDICTORS):
                sub_errors[c, i, ys, xs] = sub_prediction_error(predictions[i], value)
            base_errors[c, ys, xs] = bases[c] - 16 * value

    check_end(np.array(states, np.uint32), used, len(words))
    if channels == 1:
        return planes[0][:, :, None].astype(np.uint8)
    return np.stack([planes[1], planes[0], planes[2]], axis=2).astype(np.uint8)


def resolve(y: Ints, x: Ints, width: int) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """The padding rule as coordinates: where the value at `(y, x)` comes from, and whether it is before the first."""
    x = x + 2 * np.minimum(y, 0)
    y = np.maximum(y, 0)
    left = x < 0
    before_first = left & (y == 0)
    y = np.where(left, np.maximum(y - 1, 0), y)
    return y, np.clip(x, 0, width - 1), before_first

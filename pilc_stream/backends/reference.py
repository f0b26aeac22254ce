"""The reference backend: the codec as FORMAT.md states it, in NumPy int64 and Python integers. Slow and plain.

Encoding sees whole planes; decoding walks the wavefront. Both run the functions of `arith`; the two ways of getting at
neighbours (`planes.padded` and `resolve` here) are separate on purpose, so that each checks the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith import rans
from pilc_stream.arith.adaptive import (
    AVERAGE_SHIFTS,
    NORTH_EAST,
    WEST,
    average_input,
    features,
    inherited,
    initial_state,
    prediction,
    updated_average,
    updated_weights,
)
from pilc_stream.arith.context import (
    BEFORE_FIRST,
    CHANNELS,
    base_predictions,
    context_inputs,
    earlier_channel_inputs,
    scaled_neighbours,
)
from pilc_stream.arith.fixed import scaled_input
from pilc_stream.arith.perceptron import (
    coupled,
    hidden_activation,
    limited_mean,
    mean_centre,
    mean_fraction,
    mean_offset,
    residual_symbol,
    scale_index,
    symbol_pixel,
)
from pilc_stream.arith.predictor import SUB_PREDICTORS, sub_prediction_error, sub_predictions
from pilc_stream.backends.base import Tile, TileJob, check_end, pack_stream, split_stream
from pilc_stream.backends.planes import coding_planes, image_tile, plane_context, wavefront
from pilc_stream.errors import FormatError
from pilc_stream.models.model import WaveModel
from pilc_stream.models.spec import WaveSpec

Ints = NDArray[np.int64]
PixelOf = Callable[[int, Ints, Ints], Ints]
"""(channel, mean, table row) -> grey levels: looked up when encoding, decoded when decoding."""

AdaptiveOf = Callable[[int, list[Ints]], Ints]
"""(channel, scaled distances of the earlier channels) -> the adaptive unit's predictions, sixteenths of a level."""


def predict(
    model: WaveModel,
    inputs: Ints,
    bases: Sequence[Ints],
    exponent: Ints,
    channels: int,
    adaptive: AdaptiveOf,
    pixel: PixelOf,
) -> None:
    """Run the perceptron over `n` pixels, channel by channel, asking `pixel` for each channel's values.

    `inputs` int64 `(inputs, n)`; `bases` three of `(n,)`; `exponent` `(n,)`.
    """

    def total(name: str, values: Ints) -> tuple[Ints, Ints]:
        layer = model.layers[name]
        # float64 BLAS: every sum is below 2**24, so the result is the integer.
        product = (layer.weight.astype(np.float64) @ values.astype(np.float64)).astype(np.int64)
        return np.asarray(product + layer.bias.astype(np.int64)[:, None]), layer.shift.astype(np.int64)[:, None]

    trunk = inputs
    for i in range(len(model.spec.trunk)):
        trunk = hidden_activation(*total(f"trunk.{i}", trunk))
    direct = inputs[: model.spec.direct]
    earlier: list[Ints] = []
    errors: list[Ints] = []
    distances: list[Ints] = []
    for c in range(channels):
        predicted = adaptive(c, distances)
        adapted = [scaled_input(predicted - bases[c], exponent)]
        hidden_inputs = [*trunk, *earlier, *(adapted if c else [])]
        hidden = hidden_activation(*total(f"head.{c}.hidden", np.stack(hidden_inputs)))
        mean_total, mean_shift = total(f"head.{c}.mean", np.concatenate([hidden, direct, adapted]))
        scale_total, scale_shift = total(f"head.{c}.scale", hidden)
        mean = predicted + mean_offset(mean_total[0], mean_shift[0], exponent)
        if c:
            coupling_total, coupling_shift = total(f"head.{c}.coupling", hidden)
            for i, error in enumerate(errors):
                mean = mean + coupled(coupling_total[i], coupling_shift[i], error)
        mean = limited_mean(mean)
        scale = scale_index(scale_total[0], scale_shift[0], exponent, model.spec.scale_count)
        row = np.asarray(model.row_of[scale, mean_fraction(mean)], np.int64)
        value = pixel(c, mean, row)
        errors.append(16 * value - mean)
        earlier += earlier_channel_inputs(errors[-1], 16 * value - bases[c], exponent)
        distances.append(earlier[-1])


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
    context = plane_context(model.spec, planes, channels)
    cdf = np.append(model.cdf.astype(np.int64), np.full((len(model.cdf), 1), 1 << rans.PRECISION_BITS), axis=1)
    starts = np.empty((channels, height * width), np.int64)
    frequencies = np.empty_like(starts)

    def pixel(c: int, mean: Ints, row: Ints) -> Ints:
        value: Ints = planes[c].reshape(-1)
        symbol = residual_symbol(value, mean_centre(mean))
        starts[c] = cdf[row, symbol]
        frequencies[c] = cdf[row, symbol + 1] - starts[c]
        return value

    flat_inputs = context.inputs.reshape(len(context.inputs), -1)
    bases, predictions = (list(values.reshape(CHANNELS, -1)) for values in (context.bases, context.predictions))
    exponent = context.exponent.reshape(-1)
    predict(model, flat_inputs, bases, exponent, channels, lambda c, _: predictions[c], pixel)

    intervals: list[tuple[int, int, int]] = []
    for ys, xs in wavefront(height, width):
        at = ys * width + xs
        for c in range(channels):
            for k in range(len(at)):
                intervals.append((k % lanes, int(starts[c, at[k]]), int(frequencies[c, at[k]])))

    return written_lanes(intervals, lanes)


def written_lanes(intervals: Sequence[tuple[int, int, int]], lanes: int) -> bytes:
    """The stream of symbols given as (lane, start, frequency) in the order of their decoding."""
    states = [rans.STATE_LOW] * lanes
    words: list[int] = []
    for lane, start, frequency in reversed(intervals):
        state = states[lane]
        if rans.must_emit(state, frequency):
            words.append(state & rans.SLOT_MASK)
            state >>= rans.WORD_BITS
        states[lane] = rans.encode_symbol(state, start, frequency)
    return pack_stream(np.array(states, np.uint32), np.array(words[::-1], np.uint16))


class LaneReader:
    """A stream's lanes: symbols out, words in, in the one order that FORMAT.md states."""

    def __init__(self, job: TileJob) -> None:
        states, words = split_stream(job)
        self._states = [int(state) for state in states]
        self._words = [int(word) for word in words]
        self._used = 0

    def symbols(self, rows: Ints, cdf: NDArray[np.uint16]) -> Ints:
        """The symbols that are numbered from 0 on, by their rows of the table."""
        return np.array([self.symbol(number, cdf[row]) for number, row in enumerate(rows)], np.int64)

    def symbol(self, number: int, starts: NDArray[np.uint16]) -> int:
        """The next symbol, of the lane `number` modulo their count; `starts`: its row of the table."""
        lane = number % len(self._states)
        state = self._states[lane]
        symbol = int(np.searchsorted(starts, rans.decode_slot(state), side="right")) - 1
        start = int(starts[symbol])
        end = int(starts[symbol + 1]) if symbol + 1 < len(starts) else 1 << rans.PRECISION_BITS
        state = rans.decode_advance(state, start, end - start)
        if state < rans.STATE_LOW:
            if self._used == len(self._words):
                raise FormatError("tile: the words end before the pixels do; the stream is damaged")
            state = state << rans.WORD_BITS | self._words[self._used]
            self._used += 1
        self._states[lane] = state
        return symbol

    def finish(self) -> None:
        """Check that the stream ends as every encoder's does."""
        check_end(np.array(self._states, np.uint32), self._used, len(self._words))


class DecodedTile:
    """The decoded part of a tile, as the pixels of a step see it."""

    def __init__(self, spec: WaveSpec, height: int, width: int, channels: int) -> None:
        self.planes = np.zeros((CHANNELS, height, width), np.int64)
        self._sub_errors = np.zeros((CHANNELS, SUB_PREDICTORS, height, width), np.int64)
        self._errors = np.zeros((CHANNELS, height, width), np.int64)
        self._initial = [np.array(initial_state(c, spec.taps)) for c in range(CHANNELS)]
        self._left = [np.zeros((len(initial), height, width), np.int64) for initial in self._initial]
        self._spec, self._width, self._channels = spec, width, channels
        self.ys = self.xs = np.zeros(0, np.int64)

    def move_to(self, ys: Ints, xs: Ints) -> None:
        """Everything is about these pixels from now on: computes `bases`, `exponent` and the trunk's `inputs`."""
        self.ys, self.xs = ys, xs
        self.bases = base_predictions(self.pixel, self._sub_error)
        self.exponent, scaled, distances = scaled_neighbours(self._spec.neighbours, self.bases, self.pixel)
        self._taps = [row[: self._spec.taps] for row in scaled]
        self._states = [self._inherited(c) for c in range(CHANNELS)]
        self._features: list[list[Ints]] = []
        self._predictions: list[Ints] = []
        averages = [average_input(mean) for c in range(CHANNELS) for mean in self._state_parts(c)[1]]
        inputs = context_inputs(scaled, distances, self.bases, self.exponent, self._error, averages)
        self.inputs = np.stack([*inputs, scaled_input(self.adaptive(0, []) - self.bases[0], self.exponent)])

    def pixel(self, c: int, dy: int, dx: int) -> Ints:
        """Grey levels of a neighbour, by the padding rule."""
        y, x, before_first = resolve(self.ys + dy, self.xs + dx, self._width)
        return np.where(before_first, BEFORE_FIRST, self.planes[c, y, x])

    def adaptive(self, c: int, current: list[Ints]) -> Ints:
        """The prediction of a channel's adaptive unit; `current`: scaled distances of the earlier channels."""
        if c == len(self._predictions):
            values = features(c, self._taps, current)
            self._features.append(values)
            self._predictions.append(prediction(self._state_parts(c)[0], values, self.bases[c], self.exponent))
        return self._predictions[c]

    def record(self) -> None:
        """Keep what the step's pixels, which are in `planes` now, leave behind."""
        here = self.ys, self.xs
        for c in range(CHANNELS):
            value = self.planes[c, self.ys, self.xs]
            west, north = self.pixel(c, 0, -1), self.pixel(c, -1, 0)
            predictions = sub_predictions(west, north, self.pixel(c, -1, -1), self.pixel(c, -1, 1))
            for i in range(SUB_PREDICTORS):
                self._sub_errors[c, i, *here] = sub_prediction_error(predictions[i], value)
        for c in range(self._channels):
            error = 16 * self.planes[c, *here] - self._predictions[c]
            self._errors[c, *here] = -error
            weights, averages = self._state_parts(c)
            after = updated_weights(c, weights, self._features[c], error, self.exponent)
            after += [updated_average(i, average, error) for i, average in enumerate(averages)]
            self._left[c][:, *here] = after

    def _sub_error(self, c: int, i: int, dy: int, dx: int) -> Ints:
        return self._recorded(self._sub_errors[c, i], dy, dx, 0)

    def _error(self, c: int, dy: int, dx: int) -> Ints:
        return self._recorded(self._errors[c], dy, dx, 0)

    def _inherited(self, c: int) -> Ints:
        # A channel that a grey tile does not have never leaves the initial values.
        initial = self._initial[c][:, None]
        if c >= self._channels:
            return np.repeat(initial, len(self.ys), axis=1)
        west, north_east = (self._recorded(self._left[c], dy, dx, initial) for dy, dx in (WEST, NORTH_EAST))
        return np.asarray(inherited(west, north_east))

    def _state_parts(self, c: int) -> tuple[list[Ints], list[Ints]]:
        count = len(self._states[c]) - len(AVERAGE_SHIFTS)
        return list(self._states[c][:count]), list(self._states[c][count:])

    def _recorded(self, plane: Ints, dy: int, dx: int, outside_value: Ints | int) -> Ints:
        y, x = self.ys + dy, self.xs + dx
        outside = (y < 0) | (x < 0) | (x >= self._width)
        return np.where(outside, outside_value, plane[..., np.maximum(y, 0), np.clip(x, 0, self._width - 1)])


def _decode_tile(model: WaveModel, job: TileJob) -> Tile:
    lanes, tile = LaneReader(job), DecodedTile(model.spec, job.height, job.width, job.channels)

    def pixel(c: int, mean: Ints, row: Ints) -> Ints:
        value = symbol_pixel(lanes.symbols(row, model.cdf), mean_centre(mean))
        tile.planes[c if job.channels == CHANNELS else slice(None), tile.ys, tile.xs] = value
        return np.asarray(value)

    for ys, xs in wavefront(job.height, job.width):
        tile.move_to(ys, xs)
        predict(model, tile.inputs, tile.bases, tile.exponent, job.channels, tile.adaptive, pixel)
        tile.record()
    lanes.finish()
    return image_tile(tile.planes, job.channels)


def resolve(y: Ints, x: Ints, width: int) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """The padding rule as coordinates: where the value at `(y, x)` comes from, and whether it is before the first."""
    x = x + 2 * np.minimum(y, 0)
    y = np.maximum(y, 0)
    left = x < 0
    before_first = left & (y == 0)
    y = np.where(left, np.maximum(y - 1, 0), y)
    return y, np.clip(x, 0, width - 1), before_first

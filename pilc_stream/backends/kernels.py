"""The vector kernels of the CPU backend: context and trunk, one head per channel, and what a step leaves behind.

They work on a *gang*: tiles of equal shape decoded in lockstep. The gang's pixels are kept in skewed coordinates, in a
ring over the wavefront's steps: the pixel `(y, x)` of tile `g` lies in slot ``(x + 2 y) % SLOTS`` at element
``(y + ROWS_ABOVE) * gang + g``. So the pixels of a step are consecutive, each neighbour of all of them is one vector
load at a fixed distance, and the lanes of a vector are pixels.

What a pixel leaves to its neighbours' adaptive units (weights, running means) is looked up one step later only, so it
lies in a ring of two slots of its own.

What a step computes lies in *scratch*: blocks of `width` pixels, each a column of rows of `width` 32-bit integers
(`layout.ScratchRows`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from llvmlite import ir

from pilc_stream.arith.adaptive import (
    AVERAGE_SHIFTS,
    NORTH_EAST,
    WEST,
    average_input,
    feature_count,
    features,
    inherited,
    prediction,
    updated_average,
    updated_weights,
)
from pilc_stream.arith.context import (
    CHANNELS,
    STEPS_BACK,
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
    mean_fraction,
    mean_offset,
    scale_index,
)
from pilc_stream.arith.predictor import SUB_PREDICTORS, sub_prediction_error, sub_predictions
from pilc_stream.backends.layout import (
    EARLIER_QUADS,
    OUTPUT_BLOCK,
    QUAD,
    SIGNED_OFFSET,
    ScratchRows,
    initial_state,
    quad_count,
    state_offset,
)
from pilc_stream.backends.vector import I8, I16, I32, I64, POINTER, Lanes, VectorBuilder
from pilc_stream.models.spec import WaveSpec

SLOTS = STEPS_BACK + 1
"""Steps kept in the ring; a power of two, because slots are found by masking."""

STATE_SLOTS = 2
"""Steps of which the adaptive units' states are kept."""

COUNT_ARGUMENT = 8

ARGUMENTS = (POINTER, POINTER, POINTER, POINTER, I64, I64, I64, I64, I64, POINTER, POINTER)
"""pixels, sub-errors, errors, states, plane stride, gang, step, first element, count, scratch, parameters."""


class KernelEmitter:
    """Emits the kernels of one architecture; weights are data, so models of one architecture share the code."""

    def __init__(self, spec: WaveSpec, offsets: dict[str, int], width: int, byte_dots: bool) -> None:
        self.spec, self.offsets, self.width, self.byte_dots = spec, offsets, width, byte_dots
        self.rows = ScratchRows(spec)
        self.module = ir.Module("wave")
        self._emit("context", self._context)
        for c in range(CHANNELS):
            self._emit(f"head{c}", partial(self._head, c))
        self._emit("update", partial(self._update, CHANNELS))
        self._emit("update_grey", partial(self._update, 1))

    def _emit(self, name: str, body: Callable[[Block], None]) -> None:
        builder = VectorBuilder(self.module, name, ARGUMENTS, self.width, self.byte_dots)
        count = builder.arguments[COUNT_ARGUMENT]
        blocks = builder.ir.udiv(builder.ir.add(count, I64(self.width - 1)), I64(self.width))
        with builder.loop(blocks) as (index, _, _):
            body(Block(builder, index, self.rows.count))
        builder.ir.ret_void()

    def _context(self, block: Block) -> None:
        rows, spec = self.rows, self.spec
        bases = base_predictions(block.pixel, block.sub_error)
        exponent, scaled, distances = scaled_neighbours(spec.neighbours, bases, block.pixel)
        for c in range(CHANNELS):
            block.put(rows.bases + c, bases[c])
        block.put(rows.exponent, exponent)
        weights, _ = self._state(block, 0)
        predicted = prediction(weights, features(0, [row[: spec.taps] for row in scaled], []), bases[0], exponent)
        adapted = scaled_input(predicted - bases[0], exponent)
        block.put(rows.predictions, predicted)
        averages = [average_input(average) for c in range(CHANNELS) for average in self._state(block, c)[1]]
        inputs = [*context_inputs(scaled, distances, bases, exponent, block.error, averages), adapted]
        block.put_signed(rows.direct, inputs[: spec.direct])
        block.put_signed(rows.direct + quad_count(spec.direct), inputs[spec.direct :])
        source, quads = rows.direct, rows.inputs
        for i, width in enumerate(spec.trunk):
            self._dense(block, f"trunk.{i}", source, quads, width, rows.trunk[i])
            source, quads = rows.trunk[i], quad_count(width)
        block.put_signed(rows.adapted(0), [adapted])

    def _state(self, block: Block, c: int) -> tuple[list[Lanes], list[Lanes]]:
        """Weights and running means of a channel that the pixels start from."""
        count, first = feature_count(c, self.spec.taps), state_offset(self.spec, c)
        planes = len(initial_state(self.spec))
        state = [
            inherited(block.state(planes, plane, *WEST), block.state(planes, plane, *NORTH_EAST))
            for plane in range(first, first + count + len(AVERAGE_SHIFTS))
        ]
        return state[:count], state[count:]

    def _features(self, block: Block, c: int, exponent: Lanes) -> list[Lanes]:
        """The features of a channel's adaptive unit, from the scaled neighbours in scratch."""
        n = len(self.spec.neighbours)
        scaled = [[block.signed(self.rows.direct, n * d + i) for i in range(self.spec.taps)] for d in range(c + 1)]
        current = [scaled_input(16 * block.pixel(d, 0, 0) - block.get(self.rows.bases + d), exponent) for d in range(c)]
        return features(c, scaled, current)

    def _head(self, c: int, block: Block) -> None:
        rows, spec = self.rows, self.spec
        exponent, base = block.get(rows.exponent), block.get(rows.bases + c)
        if c:
            pixel = 16 * block.pixel(c - 1, 0, 0)
            error, distance = pixel - block.get(rows.means + c - 1), pixel - block.get(rows.bases + c - 1)
            block.put(rows.errors + c - 1, error)
            values = earlier_channel_inputs(error, distance, exponent)
            block.put_signed(rows.earlier + EARLIER_QUADS * (c - 1), values)
            predicted = prediction(self._state(block, c)[0], self._features(block, c, exponent), base, exponent)
            block.put(rows.predictions + c, predicted)
            block.put_signed(rows.adapted(c), [scaled_input(predicted - base, exponent)])
        trunk_quads = quad_count(spec.trunk[-1]) + EARLIER_QUADS * c + (c > 0)
        self._dense(block, f"head.{c}.hidden", rows.trunk[-1], trunk_quads, spec.head, rows.hidden)

        hidden = [block.get(rows.hidden + i) for i in range(quad_count(spec.head))]
        direct = [block.get(rows.direct + i) for i in range(quad_count(spec.direct))]
        adapted = block.get(rows.adapted(c))
        mean_sum = self._unit(block, f"head.{c}.mean", 0, [*hidden, *direct, adapted])
        mean = block.get(rows.predictions + c) + mean_offset(*mean_sum, exponent)
        for i in range(c):
            coupling = self._unit(block, f"head.{c}.coupling", i, hidden)
            mean = mean + coupled(*coupling, block.get(rows.errors + i))
        mean = limited_mean(mean)
        scale_total, scale_shift = self._unit(block, f"head.{c}.scale", 0, hidden)
        scale = scale_index(scale_total, scale_shift, exponent, spec.scale_count)
        block.put(rows.means + c, mean)
        block.put(rows.table_indices + c, (scale << 4) + mean_fraction(mean))

    def _update(self, channels: int, block: Block) -> None:
        inside = block.inside()
        for c in range(CHANNELS):
            pixel = block.pixel(c, 0, 0)
            predictions = sub_predictions(
                block.pixel(c, 0, -1), block.pixel(c, -1, 0), block.pixel(c, -1, -1), block.pixel(c, -1, 1)
            )
            # The elements behind the step's last pixel are pixels to come, whose recorded errors must stay 0.
            for i in range(SUB_PREDICTORS):
                block.put_sub_error(c, i, sub_prediction_error(predictions[i], pixel) * inside)
        exponent, planes = block.get(self.rows.exponent), len(initial_state(self.spec))
        for c in range(channels):
            error = 16 * block.pixel(c, 0, 0) - block.get(self.rows.predictions + c)
            block.put_error(c, -1 * error * inside)
            weights, averages = self._state(block, c)
            after = updated_weights(c, weights, self._features(block, c, exponent), error, exponent)
            after += [updated_average(i, average, error) for i, average in enumerate(averages)]
            for plane, value in enumerate(after, state_offset(self.spec, c)):
                block.put_state(planes, plane, value)

    def _dense(self, block: Block, name: str, source: int, quads: int, outputs: int, destination: int) -> None:
        builder, position, words = block.builder, self.offsets[name], block.builder.words_per_quad
        padded = quad_count(outputs) * QUAD
        for first in range(0, padded, OUTPUT_BLOCK):
            units = min(OUTPUT_BLOCK, padded - first)
            totals = [block.parameter(position + i) for i in range(units)]
            shifts = [block.parameter(position + units + i) for i in range(units)]
            weights = position + 2 * units
            with builder.loop(I64(quads), totals) as (quad, sums, end):
                values = builder.quad_parts(block.get(source, quad))
                step = builder.ir.mul(quad, I64(units * words))
                end.values = [
                    builder.dot(total, values, [block.parameter(weights + words * i + w, step) for w in range(words)])
                    for i, total in enumerate(sums)
                ]
            activations = [hidden_activation(t, s) for t, s in zip(end.results, shifts, strict=True)]
            block.put_bytes(destination + first // QUAD, activations)
            position = weights + quads * units * words

    def _unit(self, block: Block, name: str, unit: int, quads: Sequence[Lanes]) -> tuple[Lanes, Lanes]:
        """Sum and shift of one unit of a small output layer."""
        position, units = self.offsets[name], self.spec.layers()[name][0]
        builder, words = block.builder, block.builder.words_per_quad
        total, other = block.parameter(position + unit), builder.lanes(0)
        for i, quad in enumerate(quads):
            # Two running sums, so that one multiply-add need not wait for the one before.
            first = position + 2 * units + (i * units + unit) * words
            weights = [block.parameter(first + w) for w in range(words)]
            total, other = other, builder.dot(total, builder.quad_parts(quad), weights)
        return total + other, block.parameter(position + units + unit)


class Block:
    """The pixels of one vector: their neighbours in the ring, their rows in scratch."""

    def __init__(self, builder: VectorBuilder, index: ir.Value, rows: int) -> None:
        self.builder = builder
        (self._pixels, self._sub_errors, self._errors, self._states, self._stride) = builder.arguments[:5]
        (self._gang, self._step, self._first, self._count, self._scratch, self._parameters) = builder.arguments[5:]
        self._offset = builder.ir.mul(index, I64(builder.width))
        self._row0 = builder.ir.mul(index, I64(rows * builder.width))
        self._loaded: dict[tuple[int, ...], Lanes] = {}

    def pixel(self, c: int, dy: int, dx: int) -> Lanes:
        """Grey levels of a neighbour, or of the pixel itself at (0, 0)."""
        return self._from_ring((0, c, dy, dx), self._pixels, CHANNELS, c, dy, dx, I8, signed=False)

    def sub_error(self, c: int, i: int, dy: int, dx: int) -> Lanes:
        """A neighbour's recorded error of one sub-predictor."""
        plane = c * SUB_PREDICTORS + i
        return self._from_ring(
            (1, plane, dy, dx), self._sub_errors, CHANNELS * SUB_PREDICTORS, plane, dy, dx, I8, signed=False
        )

    def error(self, c: int, dy: int, dx: int) -> Lanes:
        """A neighbour's adaptive prediction minus its pixel, sixteenths of a level."""
        return self._from_ring((2, c, dy, dx), self._errors, CHANNELS, c, dy, dx, I16, signed=True)

    def state(self, planes: int, plane: int, dy: int, dx: int) -> Lanes:
        """What a neighbour of the step before left to the adaptive units."""
        return self._from_ring(
            (3, plane, dy, dx), self._states, planes, plane, dy, dx, I16, signed=True, slots=STATE_SLOTS
        )

    def put_sub_error(self, c: int, i: int, value: Lanes) -> None:
        """Record a sub-predictor's error at the pixels themselves."""
        plane = c * SUB_PREDICTORS + i
        index = self._ring_index(CHANNELS * SUB_PREDICTORS, plane, 0, 0)
        self.builder.store(value, self._sub_errors, index, I8)

    def put_error(self, c: int, value: Lanes) -> None:
        """Record prediction minus pixel at the pixels themselves."""
        self.builder.store(value, self._errors, self._ring_index(CHANNELS, c, 0, 0), I16)

    def put_state(self, planes: int, plane: int, value: Lanes) -> None:
        """Leave a weight or running mean to the next step."""
        self.builder.store(value, self._states, self._ring_index(planes, plane, 0, 0, STATE_SLOTS), I16)

    def inside(self) -> Lanes:
        """1 for lanes that are pixels of this step, 0 for those behind the last."""
        lane = Lanes(self.builder, ir.Constant(self.builder.vector, list(range(self.builder.width))))
        left = self.builder.ir.trunc(self.builder.ir.sub(self._count, self._offset), I32)
        return lane < self.builder.splat(left)

    def get(self, row: int, further: ir.Value | None = None) -> Lanes:
        """A row of scratch, `further` rows behind `row`."""
        return self.builder.load(self._scratch, self._scratch_index(row, further), I32)

    def put(self, row: int, value: Lanes) -> None:
        """Write a row of scratch."""
        self.builder.store(value, self._scratch, self._scratch_index(row, None), I32)

    def signed(self, row: int, index: int) -> Lanes:
        """One value of those that `put_signed` wrote from `row` on."""
        return ((self.get(row + index // QUAD) >> 8 * (index % QUAD)) & 255) - SIGNED_OFFSET

    def put_signed(self, row: int, values: Sequence[Lanes]) -> None:
        """Write values in ``[-127, 127]`` as quads, plus `SIGNED_OFFSET`."""
        self.put_bytes(row, [value + SIGNED_OFFSET for value in values])

    def put_bytes(self, row: int, values: Sequence[Lanes]) -> None:
        """Write values in ``[0, 255]`` as quads, the last filled up with zeros."""
        for first in range(0, len(values), QUAD):
            quad, *others = values[first : first + QUAD]
            for i, value in enumerate(others, 1):
                quad = quad | (value << 8 * i)
            self.put(row + first // QUAD, quad)

    def parameter(self, position: int, further: ir.Value | None = None) -> Lanes:
        """One parameter in every lane."""
        index: ir.Value = I64(position)
        if further is not None:
            index = self.builder.ir.add(index, further)
        return self.builder.load_scalar(self._parameters, index)

    def _scratch_index(self, row: int, further: ir.Value | None) -> ir.Value:
        index = self.builder.ir.add(self._row0, I64(row * self.builder.width))
        if further is None:
            return index
        return self.builder.ir.add(index, self.builder.ir.mul(further, I64(self.builder.width)))

    def _ring_index(self, planes: int, plane: int, dy: int, dx: int, slots: int = SLOTS) -> ir.Value:
        b = self.builder.ir
        slot = b.and_(b.add(self._step, I64(2 * dy + dx)), I64(slots - 1))
        plane_start = b.mul(b.add(b.mul(slot, I64(planes)), I64(plane)), self._stride)
        return b.add(b.add(plane_start, b.mul(self._gang, I64(dy))), b.add(self._first, self._offset))

    def _from_ring(
        self,
        key: tuple[int, ...],
        ring: ir.Value,
        planes: int,
        plane: int,
        dy: int,
        dx: int,
        element: ir.IntType,
        *,
        signed: bool,
        slots: int = SLOTS,
    ) -> Lanes:
        if key not in self._loaded:
            index = self._ring_index(planes, plane, dy, dx, slots)
            self._loaded[key] = self.builder.load(ring, index, element, signed)
        return self._loaded[key]

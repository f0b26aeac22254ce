"""The vector kernels of the CPU backend: context and trunk, one head per channel, and what a pixel leaves behind.

They work on a *gang*: tiles of equal shape coded in lockstep. The gang's pixels are kept in skewed coordinates, in a
ring over the wavefront's steps: the pixel `(y, x)` of tile `g` lies in slot ``(x + 2 y) % SLOTS`` at element
``(y + ROWS_ABOVE) * gang + g``. So the pixels of a step are consecutive, each neighbour of all of them is one vector
load at a fixed distance, and the lanes of a vector are pixels.

What a pixel leaves to its neighbours' adaptive units (weights, running means) is looked up one step later only, so it
lies in a ring of two slots of its own.

What a step computes lies in *scratch*: blocks of `width` pixels, each a column of rows (`layout.ScratchRows`).
`PERFORMANCE.md` says where the cycles go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pilc_stream.arith.adaptive import (
    AVERAGE_ONE,
    AVERAGE_SHIFTS,
    NORTH_EAST,
    WEIGHT_LIMIT,
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
    base_predictions,
    context_inputs,
    earlier_channel_inputs,
    scaled_neighbours,
)
from pilc_stream.arith.fixed import scaled_input
from pilc_stream.arith.perceptron import (
    coupled,
    limited_mean,
    mean_fraction,
    mean_offset,
    scale_index,
)
from pilc_stream.arith.predictor import SUB_PREDICTORS, sub_prediction_error, sub_predictions
from pilc_stream.backends.block import LARGEST_ERROR, Block
from pilc_stream.backends.emitter import ZMM_WIDTH
from pilc_stream.backends.lanes import I64
from pilc_stream.backends.layout import QUAD, SIGNED_OFFSET, ScratchRows, initial_state, quad_count, state_offset
from pilc_stream.backends.narrow import Narrow
from pilc_stream.models.spec import WaveSpec

LARGEST_AVERAGE = AVERAGE_ONE * LARGEST_ERROR


def block_units(width: int, byte_dots: bool) -> int:
    """Units of a layer whose sums are held in registers at once: AVX-512 has 32 of these, others have 16."""
    return 24 if width == ZMM_WIDTH and byte_dots else 12


class Model:
    """The arithmetic of one architecture for a block of pixels; weights are data, so models share the code."""

    def __init__(self, spec: WaveSpec, offsets: Mapping[str, int], width: int, byte_dots: bool) -> None:
        self.spec, self.offsets = spec, offsets
        self.rows = ScratchRows(spec)
        self.planes = len(initial_state(spec))
        self._block_units = block_units(width, byte_dots)

    def context(self, block: Block) -> None:
        """The context of the block's pixels and the trunk."""
        rows, spec = self.rows, self.spec
        bases = base_predictions(block.pixel, block.sub_error)
        exponent, scaled, distances = scaled_neighbours(spec.neighbours, bases, block.pixel)
        for c in range(CHANNELS):
            block.put(rows.bases + c, bases[c])
            for i in range(spec.taps):
                block.put(rows.taps + c * spec.taps + i, scaled[c][i])
        block.put(rows.exponent, exponent)
        weights, _ = self._state(block, 0)
        predicted = prediction(weights, self._features(block, 0), bases[0], exponent)
        adapted = scaled_input(predicted - bases[0], exponent)
        block.put(rows.predictions, predicted)
        averages = [average_input(average) for c in range(CHANNELS) for average in self._state(block, c)[1]]
        inputs = [*context_inputs(scaled, distances, bases, exponent, block.error, averages), adapted]
        block.put_quads(rows.inputs, inputs)
        source, quads = rows.inputs, quad_count(spec.inputs)
        for i, width in enumerate(spec.trunk):
            self._dense(block, f"trunk.{i}", source, quads, width, rows.trunk[i])
            source, quads = rows.trunk[i], quad_count(width)

    def head(self, block: Block, c: int) -> None:
        """Mean and table index of a channel, once the earlier channels' pixels are known."""
        rows, spec = self.rows, self.spec
        exponent, base = block.exponent(), block.base(c)
        if c:
            pixel = 16 * block.pixel(c - 1, 0, 0)
            error, distance = pixel - block.mean(c - 1), pixel - block.base(c - 1)
            block.put(rows.errors + c - 1, error)
            predicted = prediction(self._state(block, c)[0], self._features(block, c), base, exponent)
            block.put(rows.predictions + c, predicted)
            adapted = scaled_input(predicted - base, exponent)
            values = earlier_channel_inputs(error, distance, exponent)
            if c == 1:
                block.put_quads(rows.earlier, [*values, adapted])
            else:
                block.replace_last_byte(rows.earlier, adapted)
                block.put_quads(rows.earlier + 2 * (c - 1), values)
        else:
            adapted = scaled_input(block.prediction(0) - base, exponent)
        self._dense(
            block, f"head.{c}.hidden", rows.trunk[-1], quad_count(spec.trunk[-1]) + c, spec.head, rows.hidden,
            [adapted + SIGNED_OFFSET]
        )  # fmt: skip

        hidden = [block.quad(rows.hidden + 2 * i) for i in range(quad_count(spec.head))]
        seen = [block.quad(rows.hidden + 2 * i) for i in range(quad_count(spec.head + 1))]
        direct = [block.quad(rows.inputs + 2 * i) for i in range(quad_count(spec.direct))]
        mean_sum = self._unit(block, f"head.{c}.mean", 0, [*seen, *direct])
        mean = block.prediction(c) + mean_offset(*mean_sum, exponent)
        for i in range(c):
            coupling = self._unit(block, f"head.{c}.coupling", i, hidden)
            mean = mean + coupled(*coupling, block.mean_error(i))
        mean = limited_mean(mean)
        scale_total, scale_shift = self._unit(block, f"head.{c}.scale", 0, hidden)
        scale = scale_index(scale_total, scale_shift, exponent, spec.scale_count)
        block.put(rows.means + c, mean)
        block.put(rows.table_index + c, (scale << 4) + mean_fraction(mean))

    def leave(self, block: Block, c: int, rests: bool) -> None:
        """What the known pixels of a channel leave behind: sub-errors, and unless its unit `rests`, error and state."""
        inside, pixel = block.inside(), block.pixel(c, 0, 0)
        predictions = sub_predictions(
            block.pixel(c, 0, -1), block.pixel(c, -1, 0), block.pixel(c, -1, -1), block.pixel(c, -1, 1)
        )
        # The elements behind the step's last pixel are pixels to come, whose recorded errors must stay 0.
        for i in range(SUB_PREDICTORS):
            block.put_sub_error(c, i, sub_prediction_error(predictions[i], pixel) * inside)
        if rests:
            return
        error = 16 * pixel - block.prediction(c)
        block.put_error(c, -1 * error * inside)
        weights, averages = self._state(block, c)
        after = updated_weights(c, weights, self._features(block, c), error, block.exponent())
        after += [updated_average(i, average, error) for i, average in enumerate(averages)]
        for plane, value in enumerate(after, state_offset(self.spec, c)):
            block.put_state(self.planes, plane, value)

    def _state(self, block: Block, c: int) -> tuple[list[Narrow], list[Narrow]]:
        """Weights and running means of a channel that the pixels start from."""
        count, first = feature_count(c, self.spec.taps), state_offset(self.spec, c)
        state = []
        for plane in range(first, first + count + len(AVERAGE_SHIFTS)):
            limits = (-WEIGHT_LIMIT, WEIGHT_LIMIT) if plane < first + count else (0, LARGEST_AVERAGE)
            west, north_east = (block.state(self.planes, plane, *offset, limits) for offset in (WEST, NORTH_EAST))
            state.append(inherited(west, north_east))
        return state[:count], state[count:]

    def _features(self, block: Block, c: int) -> list[Narrow]:
        """The features of a channel's adaptive unit."""
        scaled = [[block.tap(d, i) for i in range(self.spec.taps)] for d in range(c + 1)]
        current = [scaled_input(16 * block.pixel(d, 0, 0) - block.base(d), block.exponent()) for d in range(c)]
        return features(c, scaled, current)

    def _dense(
        self, block: Block, name: str, source: int, quads: int, outputs: int, destination: int,
        behind: Sequence[Narrow] = ()
    ) -> None:  # fmt: skip
        """A layer of bytes; `behind`: bytes that follow its units in the last quads."""
        builder, position, words = block.builder, self.offsets[name], block.builder.words_per_quad
        for first in range(0, outputs, self._block_units):
            units = min(self._block_units, outputs - first)
            totals = [block.parameter(position + i) for i in range(units)]
            weights = position + 2 * units
            with builder.loop(I64(quads), totals) as (quad, sums, end):
                values = builder.quad_parts(block.quad(source, quad))
                step = builder.ir.mul(quad, I64(units * words))
                end.values = [
                    builder.dot(total, values, [block.parameter(weights + words * i + w, step) for w in range(words)])
                    for i, total in enumerate(sums)
                ]
            shifted = [total >> block.parameter(position + units + i) for i, total in enumerate(end.results)]
            if first + units == outputs:
                shifted += behind
            for i in range(0, len(shifted), QUAD):
                block.put_quad(destination + 2 * ((first + i) // QUAD), builder.pack_saturated(shifted[i : i + QUAD]))
            position = weights + quads * units * words

    def _unit(self, block: Block, name: str, unit: int, quads: Sequence[Narrow]) -> tuple[Narrow, Narrow]:
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

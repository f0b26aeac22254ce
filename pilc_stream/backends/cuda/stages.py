"""What one thread does for one pixel, as stages (see `trace`): context, trunk, head, symbol, and what is left behind.

Values go from stage to stage in registers: `context` gives the pixel's inputs, exponent, bases and first adaptive
prediction, then the states of its adaptive units, packed; kernels pass them on, adding values of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pilc_stream.arith.adaptive import (
    AVERAGE_SHIFTS,
    NORTH_EAST,
    WEST,
    average_input,
    features,
    prediction,
    updated_average,
    updated_weights,
)
from pilc_stream.arith.context import (
    CHANNELS,
    ERROR_NEIGHBOURS,
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
from pilc_stream.arith.predictor import blend, sub_prediction_error, sub_predictions
from pilc_stream.backends.cuda.plan import BYTES, Plan, words_of
from pilc_stream.backends.cuda.ring import PLACE, Ring, pack_all, pack_state, unpacked
from pilc_stream.backends.cuda.trace import stage

Values = Sequence[Any]
BASE_NEIGHBOURS = (WEST, (-1, 0), (-1, -1), NORTH_EAST)
"""What the sub-predictors see, in the order of their arguments."""


@dataclass(frozen=True)
class Known:
    """What `context` gives, read back from its values."""

    plan: Plan
    ops: Any
    values: Values

    @property
    def inputs(self) -> Values:
        """The words of inputs."""
        return self.values[: self.plan.inputs]

    @property
    def exponent(self) -> Any:
        """The local exponent."""
        return self.values[self.plan.inputs]

    def base(self, c: int) -> Any:
        """A channel's base."""
        return self.values[self.plan.inputs + 1 + c]

    @property
    def first_prediction(self) -> Any:
        """The adaptive prediction of channel 0."""
        return self.values[self.plan.inputs + 1 + CHANNELS]

    def state(self, c: int) -> tuple[list[Any], list[Any]]:
        """Weights and running means that the pixel starts from."""
        first = self.plan.inputs + 2 + CHANNELS
        words = self.values[first + self.plan.state_offset(c) : first + self.plan.state_offset(c + 1)]
        values = [self.ops.signed_half(word, shift) for word in words for shift in (0, 16)]
        count = self.plan.state_values(c) - len(AVERAGE_SHIFTS)
        return values[:count], values[count : count + len(AVERAGE_SHIFTS)]

    def features(self, c: int, pixels: Values) -> list[Any]:
        """The features of a channel's adaptive unit; `pixels`: the earlier channels."""
        n = len(self.plan.spec.neighbours)
        taps = range(self.plan.spec.taps)
        scaled = [
            [self.ops.signed_byte(self.inputs[(n * d + i) // BYTES], 8 * ((n * d + i) % BYTES)) for i in taps]
            for d in range(c + 1)
        ]
        current = [scaled_input(16 * pixels[d] - self.base(d), self.exponent) for d in range(c)]
        return features(c, scaled, current)


def context(stashing: bool, plan: Plan, ops: Any, memory: Values, values: Values) -> Values:
    """Inputs of the trunk, exponent, bases, first prediction, states. `values`: the place.

    `stashing`: the states go to `memory[1]` instead, before all else, so that they need no registers meanwhile;
    `values`: the place, then the thread's first word there and the stride.
    """
    spec = plan.spec
    ring = Ring(plan, ops, memory[0], values[:PLACE])
    if stashing:
        stash = values[PLACE:]
        states = ring.inherited_state()
        averages = _average_inputs(states)
        for word, value in enumerate(_packed(ops, states)):
            memory[1][stash[0] + word * stash[1]] = value
    words = {(dy, dx): ring.pixel_word(dy, dx) for dy, dx in dict.fromkeys([*BASE_NEIGHBOURS, *spec.neighbours])}

    def pixel(c: int, dy: int, dx: int) -> Any:
        return unpacked(words[dy, dx], c)

    errors = ring.recent_errors()
    bases = [
        blend(sub_predictions(*(pixel(c, dy, dx) for dy, dx in BASE_NEIGHBOURS)), errors[c]) for c in range(CHANNELS)
    ]
    exponent, scaled, distances = scaled_neighbours(spec.neighbours, bases, pixel)
    if stashing:
        again = [memory[1][stash[0] + word * stash[1]] for word in range(plan.state_words(0))]
        weights = [ops.signed_half(word, shift) for word in again for shift in (0, 16)][: spec.taps]
    else:
        states = ring.inherited_state()
        averages = _average_inputs(states)
        weights = states[0][: spec.taps]
    predicted = prediction(weights, features(0, [row[: spec.taps] for row in scaled], []), bases[0], exponent)

    recorded = {}
    for dy, dx in ERROR_NEIGHBOURS:
        at = ring.error_place(dy, dx)
        both, last = memory[0][at], memory[0][at + ring.rows]
        recorded[dy, dx] = ops.signed_half(both, 0), ops.signed_half(both, 16), last
    inputs = context_inputs(scaled, distances, bases, exponent, lambda c, dy, dx: recorded[dy, dx][c], averages)
    inputs += [scaled_input(predicted - bases[0], exponent)]
    known = [*pack_all(ops, inputs), exponent, *bases, predicted]
    return known if stashing else [*known, *_packed(ops, states)]


def _average_inputs(states: Sequence[Values]) -> list[Any]:
    return [average_input(average) for row in states for average in row[-len(AVERAGE_SHIFTS) :]]


def _packed(ops: Any, states: Sequence[Values]) -> list[Any]:
    return [word for row in states for word in pack_state(ops, row)]


def stashed(plan: Plan, ops: Any, memory: Values, values: Values) -> Values:
    """The states that `context` put by. `values`: the thread's first word there, the stride."""
    return [memory[0][values[0] + word * values[1]] for word in range(plan.stashed_words)]


def adaptive(c: int, plan: Plan, ops: Any, memory: Values, values: Values) -> Values:
    """The adaptive prediction of a later channel. `values`: of `context`, then the earlier channels' pixels."""
    known = Known(plan, ops, values)
    unit = known.features(c, values[-c:])
    return [prediction(known.state(c)[0], unit, known.base(c), known.exponent)]


def dense(
    plan: Plan, ops: Any, memory: Any, parameters: Any, name: str, inputs: Values, out: Any, threads: Any
) -> None:
    """A layer of hidden units to the words ``out, out + threads, ...``, four units a word."""
    words, at, size = plan.layer_words(name), plan.place(name), plan.group_words(name)

    def group(index: Any) -> None:
        first = at + BYTES + index * size
        totals, shifts = parameters.vector(first), parameters.vector(first + BYTES)
        for j, (word, value) in enumerate(zip(words, inputs, strict=True)):
            weights = parameters.vector(first + BYTES * (2 + j))
            totals = [ops.dot(total, value, weight, word.signed) for total, weight in zip(totals, weights, strict=True)]
        units = [hidden_activation(total, shift) for total, shift in zip(totals, shifts, strict=True)]
        memory[out + index * threads] = ops.pack_bytes(*units)

    # The number of groups comes from memory, so that the compiler does not unroll the loop.
    ops.repeat(parameters[at], group)


def trunk(plan: Plan, ops: Any, memory: Values, values: Values) -> Values:
    """The trunk's units to what the thread keeps. `memory`: that, parameters.

    `values`: of `context`, then the thread's first word of them, the stride.
    """
    *_, out, threads = values
    inputs = Known(plan, ops, values).inputs
    for i, width in enumerate(plan.spec.trunk):
        dense(plan, ops, memory[0], memory[1], f"trunk.{i}", inputs, out, threads)
        inputs = [memory[0][out + j * threads] for j in range(words_of(width))]
    return [0]


def own_inputs(c: int, plan: Plan, ops: Any, values: Values) -> tuple[list[Any], list[Any]]:
    """A head's inputs beside the trunk's units, and the earlier channels' errors. `values`: as `head` takes them."""
    known = Known(plan, ops, values)
    predicted = values[-3]
    earlier, errors = [], []
    for d in range(c):
        mean, pixel = values[len(values) - 3 - 2 * c + 2 * d :][:2]
        errors.append(16 * pixel - mean)
        earlier += earlier_channel_inputs(errors[-1], 16 * pixel - known.base(d), known.exponent)
    return [*earlier, scaled_input(predicted - known.base(c), known.exponent)], errors


def head(c: int, plan: Plan, ops: Any, memory: Values, values: Values) -> Values:
    """A channel's mean and table row. `memory`: what the thread keeps, parameters, `row_of`.

    `values`: of `context`, then for each earlier channel its mean and its pixel, then this channel's adaptive
    prediction, the thread's first word of hidden units and the stride.
    """
    spec, kept = plan.spec, memory[0]
    *_, out, threads = values
    inputs = [kept[out + j * threads] for j in range(words_of(spec.trunk[-1]))]
    if c:
        inputs += pack_all(ops, own_inputs(c, plan, ops, values)[0])
    dense(plan, ops, kept, memory[1], f"head.{c}.hidden", inputs, out + plan.head_at * threads, threads)
    return outputs(c, plan, ops, memory, values)


def outputs(c: int, plan: Plan, ops: Any, memory: Values, values: Values) -> Values:
    """A channel's mean and table row from its head's hidden units. `memory`, `values`: as `head` takes them."""
    spec, known = plan.spec, Known(plan, ops, values)
    kept, parameters, row_of = memory
    *_, predicted, out, threads = values
    exponent = known.exponent
    (*_, adapted), errors = own_inputs(c, plan, ops, values)
    hidden = out + plan.head_at * threads

    name = f"head.{c}.mean"
    at = plan.place(name)
    totals, shifts = parameters.vector(at), parameters.vector(at + BYTES)
    for j in range(words_of(spec.head)):
        units, weights = kept[hidden + j * threads], parameters.vector(at + BYTES * (2 + j))
        totals = [ops.dot(total, units, weight, False) for total, weight in zip(totals, weights, strict=True)]
    mean_total = totals[0]
    direct = [*known.inputs[: len(plan.direct_words) - 1], adapted]
    behind = at + plan.group_words(name)
    for j in range(0, len(direct), BYTES):
        weights = parameters.vector(behind + j)
        for value, weight in zip(direct[j : j + BYTES], weights, strict=False):
            mean_total = ops.dot(mean_total, value, weight, True)

    mean = predicted + mean_offset(mean_total, shifts[0], exponent)
    for d in range(c):
        mean = mean + coupled(totals[2 + d], shifts[2 + d], errors[d])
    mean = limited_mean(mean)
    scale = scale_index(totals[1], shifts[1], exponent, spec.scale_count)
    return [mean, row_of[(scale << 4) + mean_fraction(mean)]]


def leave(channels: int, plan: Plan, ops: Any, memory: Values, values: Values) -> Values:
    """What the pixel leaves in the ring: itself, its errors, its adaptive units' states. The pixel word.

    `values`: of `context`, then the predictions of the channels 1 and 2, the three pixels, the place.
    """
    known = Known(plan, ops, values)
    *later, p0, p1, p2 = values[-PLACE - 2 * CHANNELS + 1 : -PLACE]
    pixels, predictions = [p0, p1, p2], [known.first_prediction, *later]
    ring = Ring(plan, ops, memory[0], values[-PLACE:])
    words = [ring.pixel_word(dy, dx) for dy, dx in BASE_NEIGHBOURS]
    errors = [
        sub_prediction_error(guess, pixels[c])
        for c in range(CHANNELS)
        for guess in sub_predictions(*(unpacked(word, c) for word in words))
    ]
    memory[0].put_vector(ring.sub_place(0, 0), pack_all(ops, errors))
    misses = [16 * pixels[c] - predictions[c] if c < channels else 0 for c in range(CHANNELS)]
    at = ring.error_place(0, 0)
    memory[0][at] = ops.pack_halves(-1 * misses[0], -1 * misses[1])
    memory[0][at + ring.rows] = -1 * misses[2]
    for c in range(channels):
        weights, averages = known.state(c)
        after = updated_weights(c, weights, known.features(c, pixels[:c]), misses[c], known.exponent)
        after += [updated_average(i, average, misses[c]) for i, average in enumerate(averages)]
        for word, packed in enumerate(pack_state(ops, after), plan.state_offset(c)):
            memory[0][ring.state_place(word, 0)] = packed
    packed = ops.pack_bytes(*pixels, 0)
    memory[0][ring.pixel_place(0, ring.column(0))] = packed
    return [packed]


def begin_row(plan: Plan, ops: Any, memory: Values, values: Values) -> Values:
    """At the first pixel of a row: what the row below sees to its left. `values`: the pixel word, the place."""
    ring = Ring(plan, ops, memory[0], values[1:])
    for steps in (-1, 0, 1):
        memory[0][ring.pixel_place(steps, ring.column(1))] = values[0]
    ring.forget(1, (0, 1))
    return [0]


def carry_on(plan: Plan, ops: Any, memory: Values, values: Values) -> Values:
    """Right of a row that has ended, its last pixel stands on. `values`: the place, of that row."""
    ring = Ring(plan, ops, memory[0], values)
    memory[0][ring.pixel_place(0, ring.column(0))] = memory[0][ring.pixel_place(-1, ring.column(0))]
    return [0]


def end_row(plan: Plan, ops: Any, memory: Values, values: Values) -> Values:
    """Right of a row that has just ended there are no errors, and the initial state. `values`: the place."""
    Ring(plan, ops, memory[0], values).forget(0, (0,))
    return [0]


def save_context(channels: int, plan: Plan, ops: Any, memory: Values, values: Values) -> Values:
    """Everything that the perceptron needs of a pixel, to device memory: words `pixels` apart.

    `memory`: contexts. `values`: of `context`, predictions of the channels 1 and 2, the three pixels, then the pixel's
    index and the number of pixels.
    """
    known = Known(plan, ops, values)
    second, third, *pixels, index, count = values[-2 * CHANNELS - 1 :]
    out = [*known.inputs, ops.pack_bytes(*pixels, known.exponent | (8 if channels == 1 else 0))]
    for c, predicted in enumerate([known.first_prediction, second, third]):
        out.append(ops.pack_halves(known.base(c), predicted))
    for word, value in enumerate(out):
        memory[0][index + word * count] = value
    return [0]


def load_context(plan: Plan, ops: Any, memory: Values, values: Values) -> Values:
    """The inverse: inputs, exponent, bases, predictions, pixels, number of channels. `values`: index, count."""
    index, count = values
    words = [memory[0][index + word * count] for word in range(plan.inputs + 1 + CHANNELS)]
    about, pairs = words[plan.inputs], words[plan.inputs + 1 :]
    channels = CHANNELS - ((about >> 27) & 1) * (CHANNELS - 1)
    bases, predictions = ([(pair >> shift) & 0xFFFF for pair in pairs] for shift in (0, 16))
    pixels = [unpacked(about, c) for c in range(CHANNELS)]
    return [*words[: plan.inputs], (about >> 24) & 7, *bases, *predictions, *pixels, channels]


class Stages:
    """The stages of one architecture as functions for kernels: see the functions of the same names."""

    def __init__(self, plan: Plan) -> None:
        def made(body: Callable[..., Values], results: int = 1) -> Any:
            return stage(partial(body, plan), results)

        known = plan.inputs + 2 + CHANNELS
        self.context = stage(partial(context, False, plan), known + len(plan.initial_state))
        self.stashing_context = stage(partial(context, True, plan), known)
        self.adaptive_1, self.adaptive_2 = (stage(partial(adaptive, c, plan), 1) for c in (1, 2))
        self.trunk = made(trunk)
        self.head_0, self.head_1, self.head_2 = (stage(partial(head, c, plan), 2) for c in range(CHANNELS))
        self.outputs_0, self.outputs_1, self.outputs_2 = (stage(partial(outputs, c, plan), 2) for c in range(CHANNELS))
        self.stashed = made(stashed, max(1, plan.stashed_words))
        self.leave_grey, self.leave_colour = (stage(partial(leave, count, plan), 1) for count in (1, CHANNELS))
        self.begin_row, self.carry_on, self.end_row = made(begin_row), made(carry_on), made(end_row)
        self.save_grey, self.save_colour = (stage(partial(save_context, count, plan), 1) for count in (1, CHANNELS))
        self.load_context = made(load_context, plan.inputs + 2 + 3 * CHANNELS)

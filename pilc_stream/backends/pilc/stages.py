"""What one thread of a kernel of the codec `pilc` does, as stages (see `backends.cuda.trace`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from pilc_stream.arith import rans
from pilc_stream.arith.blocks import HIGHEST, MID_GREY, QUARTER_PIXELS, QUARTERS, WEIGHT_BITS
from pilc_stream.arith.context import BEFORE_FIRST, CHANNELS
from pilc_stream.arith.fixed import clamp, maximum
from pilc_stream.arith.perceptron import hidden_activation, mean_centre, mean_fraction, residual_symbol, symbol_pixel
from pilc_stream.backends.cuda.plan import BYTES
from pilc_stream.backends.cuda.trace import stage
from pilc_stream.backends.pilc.base import MEAN_LIMIT
from pilc_stream.backends.pilc.plan import CURRENT, GROUP_UNITS, GROUP_WORDS, HEAD_UNITS, PilcPlan
from pilc_stream.models.model import SYMBOLS
from pilc_stream.models.pilc import OUTPUTS

Values = Sequence[Any]

BEFORE = ((BEFORE_FIRST - MID_GREY) & 255) * 0x010101
"""The pixel word before a tile's first pixel."""

STEPS_KEPT = 16
"""Of the wavefront, when the prediction is undone: a tap lies seven steps back, beyond the left edge eight."""


def resolve(ops: Any, y: Any, x: Any, width: Any, dy: int, dx: int) -> tuple[Any, Any, Any]:
    """Row and column of a neighbour by the padding rule, and whether it lies before the first pixel (row 0 then)."""
    row, column = y + dy, x + dx
    if dy < 0:
        column = ops.choose(row < 0, column + row + row, column)
        row = maximum(row, 0)
    row = row - (column < 0) * 1
    column = clamp(column, 0, width - 1)
    return maximum(row, 0), column, row < 0


def around(plan: PilcPlan, ops: Any, memory: Values, values: Values) -> list[Any]:
    """The pixel words of a pixel's neighbours, then its own. `memory`: the tiles' bytes.

    `values`: first byte of the tile, bytes of a row, of a pixel; row, column, the tile's width.
    """
    first, row_bytes, depth, y, x, width = values
    # Of a grey tile's pixel all three are the same byte.
    last = depth - 1
    red, green, blue = 0, last >> 1, last

    def word(row: Any, column: Any) -> Any:
        at = first + row * row_bytes + column * depth
        # Coding order.
        levels = [memory[0][at + part] - MID_GREY for part in (green, red, blue)]
        return ops.pack_bytes(*levels, 0)

    found = []
    for dy, dx in plan.positions:
        row, column, before = resolve(ops, y, x, width, dy, dx)
        found.append(ops.choose(before, BEFORE, word(row, column)))
    return [*found, word(y, x)]


def stash(plan: PilcPlan, ops: Any, memory: Values, values: Values) -> Values:
    """`around` to shared memory. `memory`: the bytes, shared. `values`: as `around`, then the first word there."""
    found = around(plan, ops, memory[:1], values[:-1])
    found += [0] * (plan.pixel_words - len(found))
    for at in range(0, len(found), BYTES):
        memory[1].put_vector(values[-1] + at, found[at : at + BYTES])
    return [0]


def load_predictor(plan: PilcPlan, ops: Any, memory: Values, values: Values) -> Values:
    """A predictor's words. `memory`: predictors. `values`: the first of them."""
    return [word for at in range(0, plan.predictor_words, BYTES) for word in memory[0].vector(values[0] + at)]


def grey(plan: PilcPlan, ops: Any, c: int, weights: Values, neighbours: Values, current: Any) -> Any:
    """What a predictor says of a channel, less mid grey. `current`: the pixel word, of earlier channels at least."""
    total, first = weights[c], plan.first_pair(c)
    for i, term in enumerate(plan.terms[c]):
        word = current if term.position == CURRENT else neighbours[term.position]
        total = ops.pair_dot(total, weights[first + i], word, term.high)
    return clamp(total >> WEIGHT_BITS, -MID_GREY, HIGHEST - MID_GREY)


def residual(plan: PilcPlan, ops: Any, c: int, weights: Values, pixel: Values) -> Any:
    """A channel less its prediction. `pixel`: what `around` gives."""
    return ops.signed_byte(pixel[-1], 8 * c) - grey(plan, ops, c, weights, pixel[:-1], pixel[-1])


def add_residuals(plan: PilcPlan, ops: Any, memory: Values, values: Values) -> Values:
    """Sums of absolute residuals with one more pixel. `memory`: shared.

    `values`: a predictor's words, the pixel's first word, three sums.
    """
    weights, (at, *sums) = values[: plan.predictor_words], values[plan.predictor_words :]
    pixel = [word for i in range(0, plan.pixel_words, BYTES) for word in memory[0].vector(at + i)]
    out = []
    for c in range(CHANNELS):
        value = residual(plan, ops, c, weights, pixel[: len(plan.positions) + 1])
        out.append(sums[c] + abs(value))
    return out


def quarter_bits(ops: Any, memory: Values, values: Values) -> Values:
    """What residuals of a quarter cost, in 256ths of a bit. `memory`: bits by mean. `values`: sum, number of pixels."""
    total, count = values
    return [count * memory[0][ops.unsigned(QUARTER_PIXELS * total) // ops.unsigned(count)]]


def code_bits(parts: int, ops: Any, memory: Values, values: Values) -> Values:
    """What a code costs a block, in 256ths of a bit. `memory`: shared, bits by code, slopes and levels by part, code.

    `values`: the code, how many there are, where the parts' sums are and how far apart, pixels of the four quarters.
    """
    code, codes, first, stride, *counts = values
    total = memory[1][code]
    for part in range(parts):
        at = code + part * codes
        total = total + memory[0][first + part * stride] * memory[2][at] + counts[part % QUARTERS] * memory[3][at]
    return [total]


def residual_intervals(plan: PilcPlan, ops: Any, memory: Values, values: Values) -> Values:
    """The intervals of a pixel's three residuals. `memory`: bytes, predictors, CDF, table words.

    `values`: as `around`, the predictor's first word, where the table words of the three channels are.
    """
    *place, predictor, at_0, at_1, at_2 = values
    pixel = around(plan, ops, memory[:1], place)
    weights = load_predictor(plan, ops, memory[1:2], [predictor])
    out: list[Any] = []
    for c, at in enumerate((at_0, at_1, at_2)):
        table = memory[3][at]
        symbol = residual_symbol(residual(plan, ops, c, weights, pixel), table >> 16)
        out += table_interval(ops, memory[2:3], [SYMBOLS * (table & 0xFFFF), symbol, SYMBOLS])
    return out


def table_interval(ops: Any, memory: Values, values: Values) -> Values:
    """Start and frequency of a symbol, as halves of one word. `memory`: CDF, 16 bits.

    `values`: where the row begins, the symbol, how many there are.
    """
    row, symbol, symbols = values
    start = memory[0][row + symbol]
    # Behind the last row's last entry there is no other, so the look stays within the row.
    inside = symbol < symbols - 1
    end = ops.choose(inside, memory[0][row + symbol + inside * 1], 1 << rans.PRECISION_BITS)
    return [ops.pack_halves(start, end - start)]


def begin_units(ops: Any, memory: Values, values: Values) -> Values:
    """The biases of a group of units. `memory`: shared."""
    return [word for at in range(0, GROUP_UNITS, BYTES) for word in memory[0].vector(at)]


def add_products(words: int, ops: Any, memory: Values, values: Values) -> Values:
    """The products of a group of units with one place. `memory`: shared, activations.

    `values`: the sums; the place in its first plane, words of a plane, the tap's first weight.
    """
    *sums, at, plane, first = values
    for j in range(words):
        value = memory[1][at + j * plane]
        for unit in range(0, GROUP_UNITS, BYTES):
            weights = memory[0].vector(first + j * GROUP_UNITS + unit)
            for i, weight in enumerate(weights, unit):
                sums[i] = ops.dot(sums[i], value, weight, False)
    return sums


def end_units(ops: Any, memory: Values, values: Values) -> Values:
    """The activations of a group of units, four to a word. `memory`: shared. `values`: the sums."""
    units = []
    for at in range(0, GROUP_UNITS, BYTES):
        shifts = memory[0].vector(GROUP_UNITS + at)
        sums = values[at : at + BYTES]
        units.append([hidden_activation(total, shift) for total, shift in zip(sums, shifts, strict=True)])
    return [ops.pack_bytes(*four) for four in units]


def load_place(words: int, ops: Any, memory: Values, values: Values) -> Values:
    """The words of a place. `memory`: activations. `values`: the place in the first plane, words of a plane."""
    return [memory[0][values[0] + j * values[1]] for j in range(words)]


def tables(plan: PilcPlan, ops: Any, memory: Values, values: Values) -> Values:
    """The last layer for one pixel: for each channel the table's row, and the centre in the high half.

    `memory`: shared, scales, `row_of`. `values`: the words of the place, the pixel's first parameter, where the scales
    of its code and of its predictor are, the number of scales.
    """
    *words, first, code, predictor, scale_count = values
    totals = [*memory[0].vector(first), *memory[0].vector(first + BYTES)]
    shifts = [*memory[0].vector(first + 2 * BYTES), *memory[0].vector(first + 3 * BYTES)]
    for j, value in enumerate(words):
        at = first + HEAD_UNITS * (2 + j)
        weights = [*memory[0].vector(at), *memory[0].vector(at + BYTES)]
        totals = [ops.dot(total, value, weight, False) for total, weight in zip(totals, weights, strict=True)]
    outputs = [total >> shift for total, shift in zip(totals[:OUTPUTS], shifts[:OUTPUTS], strict=True)]
    added = [a + b for a, b in zip(memory[1].vector(code), memory[1].vector(predictor), strict=True)]
    out = []
    for c in range(CHANNELS):
        mean = clamp(outputs[c], -MEAN_LIMIT, MEAN_LIMIT)
        scale = clamp(outputs[CHANNELS + c] + added[c], 0, scale_count - 1)
        row = memory[2][(scale << 4) + mean_fraction(mean)]
        out.append(ops.pack_halves(row, mean_centre(mean)))
    return out


def undo(plan: PilcPlan, ops: Any, memory: Values, values: Values) -> Values:
    """A pixel from its residuals: the bytes of its channels. `memory`: shared, predictors.

    Row `y` of the tile has the column ``y & mask`` of each step's slot; the pixel's own word is left there. `values`:
    the first slot, that mask, row, column, the tile's width, the predictor's first word, the residuals.
    """
    first, mask, y, x, width, predictor, residuals = values

    def place(row: Any, column: Any) -> Any:
        return first + ((row + row + column) & (STEPS_KEPT - 1)) * (mask + 1) + (row & mask)

    neighbours = []
    for dy, dx in plan.positions:
        row, column, before = resolve(ops, y, x, width, dy, dx)
        neighbours.append(ops.choose(before, BEFORE, memory[0][place(row, column)]))
    weights = load_predictor(plan, ops, memory[1:], [predictor])
    current, pixels = 0, []
    for c in range(CHANNELS):
        value = grey(plan, ops, c, weights, neighbours, current)
        # The residual counts modulo 256.
        pixel = (value + MID_GREY + (residuals >> 8 * c)) & HIGHEST
        byte = ((pixel - MID_GREY) & 255) << 8 * c
        current = current | byte if c else byte
        pixels.append(pixel)
    memory[0][place(y, x)] = current
    return pixels


def coded_residual(ops: Any, memory: Values, values: Values) -> Values:
    """A residual modulo 256. `values`: symbol, table word."""
    return [symbol_pixel(values[0], values[1] >> 16)]


def advance(ops: Any, memory: Values, values: Values) -> Values:
    """The state behind a symbol and whether it needs a word. `values`: state, start, frequency."""
    state, start, frequency = (ops.unsigned(value) for value in values)
    after = rans.decode_advance(state, start, frequency)
    return [ops.signed(after), (after < rans.STATE_LOW) * 1]


def zeros(ops: Any, memory: Values, values: Values) -> Values:
    """Three sums before the first pixel."""
    return [0, 0, 0]


class PilcStages:
    """The stages of one architecture as functions for kernels: see the functions of the same names."""

    def __init__(self, plan: PilcPlan) -> None:
        self.stash = stage(partial(stash, plan), 1)
        self.load_predictor = stage(partial(load_predictor, plan), plan.predictor_words)
        self.add_residuals = stage(partial(add_residuals, plan), CHANNELS)
        self.residual_intervals = stage(partial(residual_intervals, plan), CHANNELS)
        self.load_place = stage(partial(load_place, plan.head_words), plan.head_words)
        self.tables = stage(partial(tables, plan), CHANNELS)
        self.undo = stage(partial(undo, plan), CHANNELS)


begin_stage = stage(begin_units, GROUP_UNITS)
end_stage = stage(end_units, GROUP_WORDS)
quarter_stage = stage(quarter_bits, 1)
colour_code_stage = stage(partial(code_bits, CHANNELS * QUARTERS), 1)
grey_code_stage = stage(partial(code_bits, QUARTERS), 1)
interval_stage = stage(table_interval, 1)
residual_stage = stage(coded_residual, 1)
advance_stage = stage(advance, 2)
zeros_stage = stage(zeros, CHANNELS)
"""Stages that no architecture changes."""


def products_stage(words: int) -> Any:
    """`add_products` for so many words of inputs."""
    return stage(partial(add_products, words), GROUP_UNITS)

"""Symbols, as stages: from mean and table row to an interval, and the steps of a rANS lane either way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pilc_stream.arith import rans
from pilc_stream.arith.perceptron import mean_centre, residual_symbol, symbol_pixel
from pilc_stream.backends.cuda.trace import stage

Values = Sequence[Any]
FINE = 16
"""A CDF row is searched in two looks of 16 entries: every 16th, then the 16 from there."""

LAST_OF_CDF = 1 << rans.PRECISION_BITS


def interval(ops: Any, memory: Values, values: Values) -> Values:
    """Start and frequency of a pixel's symbol, as halves of one word. `memory`: CDF, 16-bit entries.

    `values`: mean, table row, pixel.
    """
    mean, row, pixel = values
    symbol = residual_symbol(pixel, mean_centre(mean))
    start = memory[0][row * 256 + symbol]
    # Behind the last row's last entry there is no other, so the look stays within the row.
    end = memory[0][row * 256 + symbol + (symbol < 255) * 1]
    end = ops.choose(symbol < 255, end, LAST_OF_CDF)
    return [ops.pack_halves(start, end - start)]


def search(ops: Any, vectors: Values, value: Any, end: Any) -> tuple[Any, Any, Any]:
    """Which of 16 rising entries, two to a word, is the last that is at most `value`; that entry; the next or `end`.

    The entries stay in registers: each comparison keeps one half of them.
    """
    words, index, low, high = list(vectors), 0, words_low(vectors[0]), end
    while len(words) > 1:
        half = len(words) // 2
        middle = words_low(words[half])
        above = middle <= value
        words = [ops.choose(above, right, left) for left, right in zip(words[:half], words[half:], strict=True)]
        index = index + ops.choose(above, 2 * half, 0)
        low, high = ops.choose(above, middle, low), ops.choose(above, high, middle)
    middle = (words[0] >> 16) & 0xFFFF
    above = middle <= value
    return (
        index + ops.choose(above, 1, 0),
        ops.choose(above, middle, low),
        ops.choose(above, high, middle),
    )


def words_low(word: Any) -> Any:
    """The low half of a word, unsigned."""
    return word & 0xFFFF


def decode(ops: Any, memory: Values, values: Values) -> Values:
    """One symbol: itself, the state behind it, whether a word is needed. `memory`: coarse table, CDF, as words.

    `values`: table row, state.
    """
    row, state = values
    coarse, cdf = memory
    slot = rans.decode_slot(state)
    at = row * (FINE // 2)
    group, low, high = search(ops, [*coarse.vector(at), *coarse.vector(at + 4)], slot, LAST_OF_CDF)
    at = row * 128 + group * (FINE // 2)
    within, low, high = search(ops, [*cdf.vector(at), *cdf.vector(at + 4)], slot, high)
    start, frequency = ops.unsigned(low), ops.unsigned(high - low)
    after = rans.decode_advance(ops.unsigned(state), start, frequency)
    return [group * FINE + within, ops.signed(after), (after < rans.STATE_LOW) * 1]


def refill(ops: Any, memory: Values, values: Values) -> Values:
    """The state with one more word. `values`: state, word."""
    state, word = values
    return [ops.signed((ops.unsigned(state) << rans.WORD_BITS) + ops.unsigned(word))]


def pixel_of(ops: Any, memory: Values, values: Values) -> Values:
    """The pixel of a symbol. `values`: symbol, mean."""
    return [symbol_pixel(values[0], mean_centre(values[1]))]


def must_emit(ops: Any, memory: Values, values: Values) -> Values:
    """Whether a word leaves before a symbol, that word, and the state without it. `values`: state, interval."""
    state, frequency = ops.unsigned(values[0]), ops.unsigned((values[1] >> 16) & 0xFFFF)
    emit = rans.must_emit(state, frequency)
    rest = ops.choose(emit, ops.signed(state >> rans.WORD_BITS), values[0])
    return [emit * 1, words_low(values[0]), rest]


def encode(ops: Any, memory: Values, values: Values) -> Values:
    """The state after a symbol. `values`: state, interval."""
    state, start, frequency = (ops.unsigned(v) for v in (values[0], values[1] & 0xFFFF, (values[1] >> 16) & 0xFFFF))
    return [ops.signed(rans.encode_symbol(state, start, frequency))]


interval_stage = stage(interval, 1)
decode_stage = stage(decode, 3)
refill_stage = stage(refill, 1)
pixel_stage = stage(pixel_of, 1)
emit_stage = stage(must_emit, 3)
encode_stage = stage(encode, 1)

"""The streaming coder against rANS on one unbounded integer (Duda 2013), and against the exact cost of the symbols."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from small_model import bell_frequencies, cumulative

from pilc_stream.arith import rans

TOTAL = 1 << 16
Interval = tuple[int, int]


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    frequency = draw(st.one_of(st.integers(1, 40), st.integers(1, TOTAL - 255), st.integers(60000, TOTAL - 255)))
    return draw(st.integers(0, TOTAL - frequency)), frequency


def streamed(symbols: list[Interval]) -> tuple[int, list[int]]:
    """The state and the words of one lane, by the functions of `arith`."""
    state, words = rans.STATE_LOW, []
    for start, frequency in reversed(symbols):
        if rans.must_emit(state, frequency):
            words.append(state & rans.SLOT_MASK)
            state >>= rans.WORD_BITS
        state = rans.encode_symbol(state, start, frequency)
    return state, words[::-1]


def ideal(symbols: list[Interval], number: int = TOTAL) -> int:
    """Duda's coding function on an integer that may grow without end."""
    for start, frequency in reversed(symbols):
        number = number // frequency * TOTAL + number % frequency + start
    return number


def as_one_number(state: int, words: list[int]) -> int:
    """The stream read as digits of one number in base 2**16, the state on top."""
    for word in words:
        state = state << 16 | word
    return state


def window_coded(symbols: list[Interval]) -> int:
    """The whole stream as one number, in which a symbol rewrites the digits at the top and leaves the others alone.

    `low` counts the digits below the window. The window is the longest part at the top of the number whose code still
    lies below 2**32: no rule about when a word leaves, no words, no state.
    """
    number, low = TOTAL, 0
    for start, frequency in reversed(symbols):
        for digits in (low, low + 1):
            coded = ideal([(start, frequency)], number >> 16 * digits)
            if coded < 1 << 32:
                break
        assert TOTAL <= coded < 1 << 32
        low = digits
        number = coded << 16 * low | number & (1 << 16 * low) - 1
    return number


@given(st.lists(intervals(), max_size=60))
def test_while_everything_fits_the_state_it_is_the_ideal_coder(symbols: list[Interval]) -> None:
    while ideal(symbols) >= 1 << 32:
        symbols = symbols[1:]
    assert streamed(symbols) == (ideal(symbols), [])


@settings(max_examples=200)
@given(st.lists(intervals(), max_size=80))
def test_the_stream_is_one_number_whose_top_digits_are_coded_ideally(symbols: list[Interval]) -> None:
    assert as_one_number(*streamed(symbols)) == window_coded(symbols)


@settings(max_examples=100)
@given(st.lists(intervals(), min_size=1, max_size=200))
def test_no_symbol_costs_a_bit_more_or_less_than_it_should(symbols: list[Interval]) -> None:
    number = as_one_number(*streamed(symbols))
    cost = Fraction(TOTAL)
    for _, frequency in symbols:
        cost *= Fraction(TOTAL, frequency)
    # With quotient q, code and exact value both lie in [q 2**16, (q + 1) 2**16), and q is at least 1.
    assert cost / 2 ** len(symbols) < number < cost * 2 ** len(symbols)


def test_a_long_stream_costs_what_its_symbols_cost() -> None:
    random = np.random.default_rng(4)
    frequencies = bell_frequencies(width=60, centre=3)
    starts = cumulative(frequencies)
    drawn = random.choice(256, size=20000, p=frequencies / TOTAL)
    _, words = streamed([(int(starts[v]), int(frequencies[v])) for v in drawn])
    entropy_bits = -np.log2(frequencies[drawn] / TOTAL).sum()
    assert abs(16 * len(words) - entropy_bits) < 32 + entropy_bits / 2000

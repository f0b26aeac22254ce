from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilc_stream.arith import rans

TOTAL = 1 << rans.PRECISION_BITS

states = st.integers(rans.STATE_LOW, (1 << 32) - 1)


@st.composite
def intervals(draw: st.DrawFn) -> tuple[int, int]:
    """Start and frequency of a symbol that others leave room for."""
    frequency = draw(st.one_of(st.integers(1, 3), st.integers(1, TOTAL - 255), st.just(TOTAL - 255)))
    return draw(st.integers(0, TOTAL - frequency)), frequency


def encode(symbols: Sequence[tuple[int, int]], state: int = rans.STATE_LOW) -> tuple[int, list[int]]:
    """Final state and the words in a decoder's order, for one lane."""
    words = []
    for start, frequency in reversed(symbols):
        if rans.must_emit(state, frequency):
            words.append(state & rans.SLOT_MASK)
            state >>= rans.WORD_BITS
        state = rans.encode_symbol(state, start, frequency)
    return state, words[::-1]


@given(states, intervals())
def test_decoding_undoes_encoding_and_at_most_one_word_leaves(state: int, interval: tuple[int, int]) -> None:
    start, frequency = interval
    emitted = rans.must_emit(state, frequency)
    word, kept = (state & rans.SLOT_MASK, state >> rans.WORD_BITS) if emitted else (0, state)
    assert not rans.must_emit(kept, frequency)
    coded = rans.encode_symbol(kept, start, frequency)
    assert rans.STATE_LOW <= coded < 1 << 32

    assert start <= rans.decode_slot(coded) < start + frequency
    back = rans.decode_advance(coded, start, frequency)
    # A decoder needs a word exactly where the encoder moved one out.
    assert (back < rans.STATE_LOW) == bool(emitted)
    assert (back << rans.WORD_BITS | word if emitted else back) == state


@given(states, intervals(), st.integers(0, TOTAL - 1))
def test_encoding_undoes_decoding_so_a_stream_is_the_only_one_of_its_symbols(
    state: int, interval: tuple[int, int], word: int
) -> None:
    start, frequency = interval
    coded = (state >> 16 << 16) + start + state % frequency  # a state whose slot lies in the interval
    back = rans.decode_advance(coded, start, frequency)
    if back < rans.STATE_LOW:
        back = back << rans.WORD_BITS | word
        assert back >= rans.STATE_LOW, "one word is always enough"
        assert rans.must_emit(back, frequency)
        assert back & rans.SLOT_MASK == word
        back >>= rans.WORD_BITS
    else:
        assert not rans.must_emit(back, frequency)
    assert rans.encode_symbol(back, start, frequency) == coded


def test_uint64_states_give_what_python_numbers_give() -> None:
    random = np.random.default_rng(3)
    for state, frequency in zip(
        random.integers(1 << 16, 1 << 32, 200), random.integers(1, TOTAL - 254, 200), strict=True
    ):
        kept = int(state) >> 16 if rans.must_emit(int(state), int(frequency)) else int(state)
        narrow = rans.encode_symbol(np.uint64(kept), np.uint64(7), np.uint64(frequency))
        assert int(narrow) == rans.encode_symbol(kept, 7, int(frequency))


@pytest.mark.parametrize("largest", [1, 2, 255, 4096, 40000, 60000, TOTAL - 255])
@pytest.mark.parametrize("place", ["first", "last"])
def test_no_lane_decodes_more_symbols_between_words_than_the_bound_says(largest: int, place: str) -> None:
    bound = rans.most_symbols_per_word(largest)
    start = 0 if place == "first" else TOTAL - largest
    state, words = encode([(start, largest)] * (3 * bound))
    runs, run = [], 0
    for _ in range(3 * bound):
        state = rans.decode_advance(state, start, largest)
        run += 1
        if state < rans.STATE_LOW:
            state = state << rans.WORD_BITS | words.pop(0)
            runs.append(run)
            run = 0
    assert state == rans.STATE_LOW
    assert not words
    assert max([*runs, run]) <= bound
    if runs[1:]:
        # Not idle either: within a factor of what the most probable symbol costs.
        assert bound <= 2.5 * max(runs)


@settings(max_examples=300)
@given(states, st.integers(1, TOTAL - 255), st.data())
def test_the_bound_of_a_step_holds_for_every_state_below(state: int, largest: int, data: st.DataObject) -> None:
    near = max(rans.STATE_LOW, state - 70000)
    lower = data.draw(st.one_of(st.integers(rans.STATE_LOW, state), st.integers(near, state)))
    slot = rans.decode_slot(lower)
    frequency = data.draw(st.integers(1, largest))
    start = data.draw(st.integers(max(0, slot - frequency + 1), min(slot, TOTAL - frequency)))
    reached = rans.decode_advance(lower, start, frequency)
    assert reached <= largest * (state >> 16) + min(state & rans.SLOT_MASK, largest - 1)

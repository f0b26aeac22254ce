"""Compiled loops of the CPU backend: lanes of values with a table row each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from pilc_stream.arith.rans import PRECISION_BITS, SLOT_MASK, STATE_LOW, WORD_BITS

OUT_OF_WORDS = -1


@njit(nogil=True, cache=True)
def encode_lanes(starts: Any, rows: Any, symbols: Any, states: Any, words: Any) -> int:
    """Code the symbols backwards into `states` (uint32, initial) and the end of `words`; how many words there are."""
    lanes = states.shape[0]
    used = 0
    for i in range(symbols.shape[0] - 1, -1, -1):
        lane = i % lanes
        start = np.int64(starts[rows[i], symbols[i]])
        size = np.int64(starts[rows[i], symbols[i] + 1]) - start
        state = np.int64(states[lane])
        if state >= size << WORD_BITS:
            used += 1
            words[words.shape[0] - used] = state & SLOT_MASK
            state >>= WORD_BITS
        quotient = state // size
        states[lane] = (quotient << PRECISION_BITS) + (state - quotient * size) + start
    return used


@njit(nogil=True, cache=True)
def decode_lanes(starts: Any, rows: Any, first: int, states: Any, words: Any, used: int, symbols: Any) -> int:
    """Decode into `symbols`; the first is the number `first` of the tile. How many words were used, or OUT_OF_WORDS."""
    lanes = states.shape[0]
    for i in range(symbols.shape[0]):
        lane = (first + i) % lanes
        row = rows[i]
        state = np.int64(states[lane])
        slot = state & SLOT_MASK
        low, high = 0, starts.shape[1] - 1
        while high - low > 1:
            middle = (low + high) >> 1
            if np.int64(starts[row, middle]) <= slot:
                low = middle
            else:
                high = middle
        start = np.int64(starts[row, low])
        state = (np.int64(starts[row, low + 1]) - start) * (state >> PRECISION_BITS) + slot - start
        if state < STATE_LOW:
            if used == words.shape[0]:
                return OUT_OF_WORDS
            state = state << WORD_BITS | np.int64(words[used])
            used += 1
        states[lane] = state
        symbols[i] = low
    return used

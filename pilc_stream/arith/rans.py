"""The rANS step (Duda 2013): 32-bit states, 16-bit words, 16-bit probabilities.

A state lies in ``[2**16, 2**32)``. Probabilities have the full 16 bits, so that the least probable of 256 residuals
costs 16 bits and their floors together take 0.4 % of the mass. At most one word leaves or enters per symbol: an
encoder's state is below ``frequency << 16`` after one shift by 16, a decoder's at least ``2**16`` after one.
"""

from __future__ import annotations

from typing import Any

PRECISION_BITS = 16
WORD_BITS = 16
STATE_LOW = 1 << 16
"""Every lane's state before the first symbol is encoded, and after the last one is decoded."""

SLOT_MASK = (1 << PRECISION_BITS) - 1


def encode_symbol(state: Any, start: Any, frequency: Any) -> Any:
    """The state after coding a symbol of the interval ``[start, start + frequency)``.

    The caller has moved out a word if ``state >= frequency << 16`` (`must_emit`).
    """
    quotient = state // frequency
    return (quotient << PRECISION_BITS) + (state - quotient * frequency) + start


def must_emit(state: Any, frequency: Any) -> Any:
    """Whether a word has to leave before this symbol: the low 16 bits of the state, which then loses them."""
    return state >= (frequency << WORD_BITS)


def decode_slot(state: Any) -> Any:
    """The 16-bit value whose CDF interval is the next symbol's."""
    return state & SLOT_MASK


def decode_advance(state: Any, start: Any, frequency: Any) -> Any:
    """The state after removing the symbol; if below `STATE_LOW`, shift in one word."""
    return frequency * (state >> PRECISION_BITS) + (state & SLOT_MASK) - start


def most_symbols_per_word(largest_frequency: int) -> int:
    """How many symbols a lane can decode at most between two words, if no frequency exceeds `largest_frequency`.

    From a state ``q 2**16 + t`` a symbol leads to ``frequency q + (t - start)`` with ``t - start`` in
    ``[0, frequency)``, so to at most ``largest_frequency q + min(t, largest_frequency - 1)``, which rises with the
    state. Following that bound down from the largest state, until a word is needed, counts at least as many symbols as
    any lane decodes from its first state or from any word. Tables give all 256 symbols at least 1 of ``2**16``, so
    ``largest_frequency <= 2**16 - 255`` and every step loses at least 255: the count is finite.

    >>> [most_symbols_per_word(frequency) for frequency in (1, 2**8, 2**15, 2**16 - 255)]
    [1, 2, 16, 2993]
    """
    state, symbols = (1 << 32) - 1, 0
    while state >= STATE_LOW:
        state = largest_frequency * (state >> PRECISION_BITS) + min(state & SLOT_MASK, largest_frequency - 1)
        symbols += 1
    return symbols

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

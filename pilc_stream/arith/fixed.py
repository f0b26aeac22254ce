"""Fixed-point helpers: minimum, clamp, rounding shift, logarithm. All exact, all branch-free.

Each works on Python integers, NumPy int64 arrays, traced vectors and Numba scalars alike (see the package).
"""

from __future__ import annotations

from typing import Any

LOG2_STEPS = 8
"""`log2_eighths` counts eighths of an octave."""


def minimum(a: Any, b: Any) -> Any:
    """The smaller of `a` and `b`.

    >>> minimum(3, -4)
    -4
    """
    return a + (b - a) * (b < a)


def maximum(a: Any, b: Any) -> Any:
    """The larger of `a` and `b`.

    >>> maximum(3, -4)
    3
    """
    return a + (b - a) * (b > a)


def known(value: Any, low: int, high: int) -> Any:
    """`value`, which the caller has proved to lie in ``[low, high]``: traced code may hold it in narrower lanes.

    >>> known(7, 0, 255)
    7
    """
    own = getattr(value, "known", None)
    return value if own is None else own(low, high)


def clamp(value: Any, low: Any, high: Any) -> Any:
    """`value` limited to ``[low, high]``.

    >>> [clamp(v, -127, 127) for v in (-300, 5, 300)]
    [-127, 5, 127]
    """
    return minimum(maximum(value, low), high)


def floor_log2(value: Any) -> Any:
    """``floor(log2(value))`` for ``1 <= value < 2**24``.

    >>> [floor_log2(v) for v in (1, 2, 3, 4, 65535, 2**24 - 1)]
    [0, 1, 1, 2, 15, 23]
    """
    own = getattr(value, "floor_log2", None)
    if own is not None:
        # A traced value whose machine finds the highest bit in one instruction.
        return own()
    # Halving the range five times: the bits of the result, the highest first.
    sixteen = (value >= 65536) * 16
    rest = value >> sixteen
    eight = (rest >= 256) * 8
    rest = rest >> eight
    four = (rest >= 16) * 4
    rest = rest >> four
    two = (rest >= 4) * 2
    rest = rest >> two
    return sixteen + eight + four + two + (rest >= 2) * 1


def log2_eighths(value: Any) -> Any:
    """``8 log2(value)``, linear between powers of two, rounded down, for ``1 <= value < 2**24``.

    >>> [log2_eighths(v) for v in (1, 2, 3, 4, 6, 1000)]
    [0, 8, 12, 16, 20, 79]
    """
    own = getattr(value, "log2_eighths", None)
    if own is not None:
        # A traced value whose machine reads it off a float.
        return own()
    exponent = floor_log2(value)
    mantissa = (value << 3) >> exponent  # in [8, 16): the leading bit is already in `exponent`
    return exponent * LOG2_STEPS + mantissa - LOG2_STEPS


def scaled_input(value: Any, exponent: Any) -> Any:
    """`value` in sixteenths of a grey level -> sixteenths of ``2**exponent`` levels, rounded, in ``[-127, 127]``.

    >>> [scaled_input(v, 0) for v in (16, -16, 3, 100000)]
    [16, -16, 3, 127]
    """
    return clamp((value + ((1 << exponent) >> 1)) >> exponent, -127, 127)

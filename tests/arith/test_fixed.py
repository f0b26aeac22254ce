from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilc_stream.arith.fixed import clamp, floor_log2, log2_eighths, maximum, minimum, scaled_input

wide = st.integers(-(1 << 30), (1 << 30) - 1)
below_the_bound = st.integers(1, (1 << 24) - 1)


@given(wide, wide)
def test_minimum_and_maximum(a: int, b: int) -> None:
    assert (minimum(a, b), maximum(a, b)) == (min(a, b), max(a, b))


@given(wide, st.integers(-5000, 5000), st.integers(0, 5000))
def test_clamp(value: int, low: int, extent: int) -> None:
    assert clamp(value, low, low + extent) == max(low, min(value, low + extent))


@given(below_the_bound)
def test_floor_log2_is_the_highest_bit(value: int) -> None:
    assert floor_log2(value) == value.bit_length() - 1


@given(below_the_bound)
def test_log2_eighths_is_the_logarithm_between_powers_of_two_cut_into_eighths(value: int) -> None:
    exponent = value.bit_length() - 1
    assert log2_eighths(value) == int(8 * (exponent + Fraction(value, 1 << exponent) - 1))


def test_log2_eighths_never_falls() -> None:
    values = np.arange(1, 1 << 18)
    assert (np.diff(log2_eighths(values)) >= 0).all()


@given(st.integers(-(1 << 20), 1 << 20), st.integers(0, 7))
def test_scaled_input_rounds_half_up(value: int, exponent: int) -> None:
    exact = Fraction(value, 1 << exponent) + Fraction(1, 2)
    assert scaled_input(value, exponent) == max(-127, min(127, exact.__floor__()))


@pytest.mark.parametrize(
    "function", [floor_log2, log2_eighths, lambda v: minimum(v, 1000), lambda v: scaled_input(v - 5000, 3)]
)
def test_arrays_give_what_numbers_give(function) -> None:  # type: ignore[no-untyped-def]
    values = np.concatenate([np.arange(1, 300), 1 << np.arange(24), (1 << np.arange(1, 25)) - 1]).astype(np.int64)
    together = function(values)
    assert together.dtype == np.int64
    assert together.tolist() == [function(value) for value in values.tolist()]


@settings(max_examples=500)
@given(st.integers(0, (1 << 24) - 1), below_the_bound)
def test_a_float32_quotient_truncated_is_the_integer_quotient(a: int, b: int) -> None:
    # The second law of the package: what lets vector units without integer division divide.
    assert int(np.float32(a) / np.float32(b)) == a // b


@given(below_the_bound, st.integers(1, 4095))
def test_a_float32_quotient_just_below_a_whole_number_is_not_rounded_up(b: int, quotient: int) -> None:
    a = min(b * quotient, 1 << 24) - 1
    assert int(np.float32(a) / np.float32(b)) == a // b

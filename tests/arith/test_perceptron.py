from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pilc_stream.arith.perceptron import (
    ACTIVATION_LIMIT,
    COUPLING_LIMIT,
    MEAN_HIGH,
    MEAN_LOW,
    SUM_LIMIT,
    coupled,
    hidden_activation,
    limited_mean,
    mean_centre,
    mean_fraction,
    mean_offset,
    residual_symbol,
    scale_index,
    symbol_pixel,
)

totals = st.integers(1 - SUM_LIMIT, SUM_LIMIT - 1)
shifts = st.integers(0, 24)
exponents = st.integers(0, 7)


@given(totals, shifts)
def test_hidden_units_are_unsigned_bytes(total: int, shift: int) -> None:
    assert hidden_activation(total, shift) == max(0, min(ACTIVATION_LIMIT, total // 2**shift))


@given(totals, shifts, exponents)
def test_offsets_scale_with_the_local_scale_and_fit_32_bits(total: int, shift: int, exponent: int) -> None:
    offset = mean_offset(total, shift, exponent)
    assert offset == (max(-8191, min(8191, total // 2**shift)) * 2**exponent + 2) // 4
    assert abs(offset) < 1 << 19


@given(totals, shifts, st.integers(-4592, 4592))
def test_shares_of_an_earlier_error_are_limited(total: int, shift: int, error: int) -> None:
    share = coupled(total, shift, error)
    assert share == (max(-COUPLING_LIMIT, min(COUPLING_LIMIT, total // 2**shift)) * error + 32) // 64
    assert abs(share) <= 2 * abs(error)
    assert coupled(total, shift, 0) == 0


@given(st.integers(-(1 << 22), 1 << 22))
def test_means_leave_the_range_of_pixels_by_32_levels_at_most(value: int) -> None:
    mean = limited_mean(value)
    assert MEAN_LOW <= mean <= MEAN_HIGH
    assert -32 <= mean_centre(mean) <= 287


@given(st.integers(MEAN_LOW, MEAN_HIGH))
def test_centre_and_fraction_hold_the_whole_mean(mean: int) -> None:
    centre, fraction = mean_centre(mean), mean_fraction(mean)
    assert 0 <= fraction < 16
    assert 16 * centre + fraction - 8 == mean


@given(totals, shifts, exponents, st.integers(1, 256))
def test_scale_indices_stay_in_the_table(total: int, shift: int, exponent: int, count: int) -> None:
    assert scale_index(total, shift, exponent, count) == max(0, min(count - 1, total // 2**shift + 8 * exponent))


@given(st.integers(0, 255), st.integers(-32, 287))
def test_a_symbol_gives_its_pixel_back(pixel: int, centre: int) -> None:
    symbol = residual_symbol(pixel, centre)
    assert 0 <= symbol < 256
    assert symbol_pixel(symbol, centre) == pixel
    assert residual_symbol(centre & 255, centre) == 128

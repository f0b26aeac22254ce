from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_model import ALL_NEIGHBOURS

from pilc_stream.arith.adaptive import AVERAGE_ONE, average_input
from pilc_stream.arith.context import (
    MAX_EXPONENT,
    base_predictions,
    check_neighbours,
    context_inputs,
    earlier_channel_inputs,
    input_count,
    local_exponent,
    log_error,
    scaled_neighbours,
)


@pytest.mark.parametrize(
    "neighbours",
    [[(0, 0)], [(0, 1)], [(-1, 2)], [(-1, 3)], [(1, -3)], [(-4, 0)], [(0, -4)], [(-2, 4)], [(-3, -2)], [(-3, -3)]],
)
def test_neighbours_not_yet_decoded_or_too_far_are_refused(neighbours: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="the neighbour"):
        check_neighbours(neighbours)


def test_a_neighbour_listed_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        check_neighbours([(0, -1), (-1, 0), (0, -1)])


def test_twenty_neighbours_are_allowed() -> None:
    check_neighbours(ALL_NEIGHBOURS)
    assert len(ALL_NEIGHBOURS) == 20


@given(st.integers(0, 16 * 255 * 3 * 20), st.integers(1, 20))
def test_the_local_scale_is_the_power_of_two_at_or_below_one_plus_the_mean_distance(total: int, count: int) -> None:
    exponent = local_exponent(total, count)
    values = 48 * count
    assert 0 <= exponent <= MAX_EXPONENT
    assert values * (1 << exponent) <= values + total
    assert exponent == MAX_EXPONENT or values * (2 << exponent) > values + total


@given(st.integers(0, 6 * 4080))
def test_log_errors_fit_an_input(magnitude: int) -> None:
    assert 0 <= log_error(magnitude) <= 95
    assert log_error(magnitude) <= log_error(magnitude + 1)


@settings(max_examples=60)
@given(st.randoms(use_true_random=False), st.sampled_from([1, 2, 6, 20]), st.booleans())
def test_inputs_are_signed_bytes_in_the_announced_number(random, count: int, extremes: bool) -> None:  # type: ignore[no-untyped-def]
    neighbours = ALL_NEIGHBOURS[-count:]

    def level(*_: int) -> int:
        return random.choice([0, 255]) if extremes else random.randint(0, 255)

    levels = {(c, dy, dx): level() for c in range(3) for dy in range(-3, 1) for dx in range(-3, 4)}

    def pixel(c: int, dy: int, dx: int) -> int:
        return levels[c, dy, dx]

    bases = base_predictions(pixel, lambda *_: random.randint(0, 255))
    assert all(0 <= base <= 4080 for base in bases)
    exponent, scaled, distances = scaled_neighbours(neighbours, bases, pixel)
    averages = [average_input(random.randint(0, 4080 * AVERAGE_ONE)) for _ in range(6)]
    inputs = context_inputs(scaled, distances, bases, exponent, lambda *_: random.randint(-4080, 4080), averages)
    assert len(inputs) == input_count(count) - 1
    assert all(-127 <= value <= 127 for value in inputs)
    assert 0 <= exponent <= MAX_EXPONENT
    assert inputs[0] == max(
        -127, min(127, (16 * pixel(0, *neighbours[0]) - bases[0] + ((1 << exponent) >> 1)) >> exponent)
    )


@given(st.integers(-4592, 4592), st.integers(-4080, 4080), st.integers(0, 7))
def test_earlier_channels_give_signed_bytes(error: int, distance: int, exponent: int) -> None:
    values = earlier_channel_inputs(error, distance, exponent)
    assert len(values) == 3
    assert all(-127 <= value <= 127 for value in values)
    assert values[1] == earlier_channel_inputs(-error, distance, exponent)[1]

"""The adaptive units: against plain floating-point NLMS, and within the integers that they promise."""

from __future__ import annotations

import random as random_module

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilc_stream.arith import adaptive
from pilc_stream.arith.adaptive import (
    AVERAGE_ONE,
    INITIAL_AVERAGE,
    LEARNING_RATE,
    REGULARISERS,
    WEIGHT_LIMIT,
    WEIGHT_ONE,
    average_input,
    feature_count,
    features,
    inherited,
    initial_weights,
    prediction,
    products_per_pixel,
    updated_average,
    updated_weights,
)
from pilc_stream.arith.fixed import scaled_input

INT32 = 1 << 31
signed_bytes = st.integers(-127, 127)


@settings(max_examples=200)
@given(st.randoms(use_true_random=False), st.integers(0, 2), st.integers(1, 20), st.booleans(), st.integers(0, 7))
def test_every_value_stays_within_32_bits(
    random: random_module.Random, c: int, taps: int, extremes: bool, exponent: int
) -> None:
    def pick(limit: int) -> int:
        return random.choice([-limit, limit]) if extremes else random.randint(-limit, limit)

    scaled = [[pick(127) for _ in range(taps)] for _ in range(c + 1)]
    values = features(c, scaled, [pick(127) for _ in range(c)])
    assert len(values) == feature_count(c, taps) == len(initial_weights(c, taps))
    assert all(abs(value) <= 508 for value in values)
    weights = [pick(WEIGHT_LIMIT) for _ in values]
    total = sum(abs(weight * value) for weight, value in zip(weights, values, strict=True))
    assert ((total + 512) >> 10) << exponent < INT32
    assert total + 512 < INT32
    predicted = prediction(weights, values, random.randint(0, 4080), exponent)
    assert 0 <= predicted <= 4080
    error = 16 * random.choice([0, 255]) - predicted
    # The quotient's operands are below 2**24, so that a float division truncated gives it (`backends.vector`).
    power = REGULARISERS[c] * len(values) + sum(value * value for value in values)
    assert power < 1 << 24
    gain = (scaled_input(error, exponent) * (adaptive.RECIPROCAL // power) * LEARNING_RATE + 32) >> 6
    assert all(abs(gain * value) + 32 < INT32 for value in values)
    after = updated_weights(c, weights, values, error, exponent)
    assert all(abs(weight) <= WEIGHT_LIMIT for weight in after)


@given(st.lists(signed_bytes, min_size=6, max_size=6), st.integers(-500, 500), st.integers(0, 3))
def test_an_update_is_that_of_normalised_least_mean_squares(values: list[int], error: int, exponent: int) -> None:
    weights = [WEIGHT_ONE // 4] * 6
    after = updated_weights(0, weights, values, error, exponent)
    scaled = min(127.0, max(-127.0, error / 2**exponent))
    power = REGULARISERS[0] * 6 + sum(value * value for value in values)
    for weight, value in zip(after, values, strict=True):
        ideal = 0.25 + LEARNING_RATE / 16 * scaled * value / power
        # One unit of a rounded error or gain moves a weight by less than this.
        assert abs(weight / WEIGHT_ONE - ideal) < 0.006 + 0.02 * abs(ideal - 0.25)


def test_a_unit_learns_the_weights_of_a_linear_picture() -> None:
    generator = np.random.default_rng(1)
    truth = np.array([0.75, -0.25, 0.5, 0.0])
    weights = initial_weights(0, 4)
    errors = []
    for _ in range(600):
        values = [int(v) for v in generator.integers(-60, 61, 4)]
        target = 2000 + round(float(truth @ values))
        predicted = prediction(weights, values, 2000, 0)
        errors.append(abs(target - predicted))
        weights = updated_weights(0, weights, values, target - predicted, 0)
    assert np.abs(np.array(weights) / WEIGHT_ONE - truth).max() < 0.05
    assert np.mean(errors[-50:]) < 0.1 * np.mean(errors[:20])


def test_initially_a_pixel_moves_with_its_earlier_channels() -> None:
    for c in (1, 2):
        weights = initial_weights(c, 3)
        values = features(c, [[5, -7, 9]] * 3, [40] * c)
        assert prediction(weights, values, 1000, 0) == 1040
    assert prediction(initial_weights(0, 3), [5, 6, 7], 1000, 2) == 1000


@pytest.mark.parametrize("index", [0, 1])
def test_a_running_mean_comes_near_the_error_and_fits_16_bits(index: int) -> None:
    for error in (0, 3, 200, 4080):
        average = INITIAL_AVERAGE
        for _ in range(200):
            average = updated_average(index, average, -error)
            assert 0 <= average < 1 << 15
        # Steps of less than half are rounded away.
        assert abs(average - error * AVERAGE_ONE) <= 8
    assert average_input(4080 * AVERAGE_ONE) <= 95
    assert average_input(0) == 0


@given(st.integers(-WEIGHT_LIMIT, WEIGHT_LIMIT), st.integers(-WEIGHT_LIMIT, WEIGHT_LIMIT))
def test_what_is_inherited_lies_between(west: int, north_east: int) -> None:
    assert min(west, north_east) <= inherited(west, north_east) <= max(west, north_east)


def test_products_are_counted() -> None:
    # Six, seven and eight features, three products each; two for each gain and two for the running means.
    assert products_per_pixel(6) == 3 * (6 + 7 + 8) + 3 * 4

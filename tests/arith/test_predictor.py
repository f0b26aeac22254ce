from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pilc_stream.arith.predictor import (
    ERROR_LIMIT,
    SUB_PREDICTORS,
    blend,
    recent_error,
    sub_prediction_error,
    sub_predictions,
)

level = st.integers(0, 255)
error = st.integers(0, ERROR_LIMIT)
recent = st.one_of(st.integers(0, 40), st.integers(0, 10 * ERROR_LIMIT))


@given(level, level, level, level)
def test_sub_predictions_stay_in_range_and_agree_on_a_flat_picture(w: int, n: int, nw: int, ne: int) -> None:
    assert all(0 <= prediction <= 1020 for prediction in sub_predictions(w, n, nw, ne))
    assert sub_predictions(w, w, w, w) == (4 * w,) * SUB_PREDICTORS


@given(st.integers(0, 1020), level)
def test_a_recorded_error_fits_a_byte(prediction: int, pixel: int) -> None:
    assert sub_prediction_error(prediction, pixel) == min(abs(prediction - 4 * pixel), 255)


@given(error, error, error, error, error, error)
def test_far_neighbours_count_half(w: int, n: int, nw: int, ne: int, ww: int, nn: int) -> None:
    assert recent_error(w, n, nw, ne, ww, nn) == 2 * (w + n + nw + ne) + ww + nn <= 10 * ERROR_LIMIT


@given(st.lists(st.integers(0, 1020), min_size=5, max_size=5), st.lists(recent, min_size=5, max_size=5))
def test_the_base_lies_between_the_sub_predictions(predictions: list[int], errors: list[int]) -> None:
    base = blend(predictions, errors)
    assert 4 * min(predictions) <= base <= 4 * max(predictions)


@given(st.lists(st.integers(0, 1020), min_size=5, max_size=5), st.integers(0, 4))
def test_a_predictor_that_alone_was_right_rules(predictions: list[int], best: int) -> None:
    errors = [0 if i == best else 10 * ERROR_LIMIT for i in range(5)]
    # Its weight is 256 to 1 for each of the others.
    assert abs(blend(predictions, errors) - 4 * predictions[best]) <= 4 * 1020 * 4 / 260 + 1


@given(st.lists(recent, min_size=5, max_size=5), st.permutations(range(5)))
def test_the_order_of_the_predictors_does_not_matter(errors: list[int], order: list[int]) -> None:
    predictions = [0, 300, 500, 900, 1020]
    assert blend(predictions, errors) == blend([predictions[i] for i in order], [errors[i] for i in order])


def test_the_weighted_sum_stays_below_the_bound_of_the_law() -> None:
    # The largest weight is 256 (u = 8), the largest prediction 1020 quarters.
    assert 4 * SUB_PREDICTORS * (16384 // 8**2) * 1020 < 1 << 24
    assert blend([1020] * 5, [0] * 5) == 4080

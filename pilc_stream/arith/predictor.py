"""The base prediction: five classic predictors, weighted by their recent errors at the neighbours.

Units: pixels are grey levels ``[0, 255]``; sub-predictions and their errors are quarters of a level; the base
prediction is sixteenths of a level. The weights fall with the square of the recent error, as in the weighted
predictors of TMW and JPEG XL; here they are integers from one division each.
"""

from __future__ import annotations

from typing import Any

from pilc_stream.arith.fixed import clamp, floor_log2, known, minimum

SUB_PREDICTORS = 5
ERROR_LIMIT = 255
"""Recorded errors are clamped to this many quarters of a level, so that they fit a byte."""

ERROR_REGULARISER = 8
"""Added to each sum of recent errors (eighths of a level): one grey level of doubt."""


def sub_predictions(west: Any, north: Any, north_west: Any, north_east: Any) -> tuple[Any, Any, Any, Any, Any]:
    """The five predictions of one sub-pixel from its causal neighbours, quarters of a level in ``[0, 1020]``.

    >>> sub_predictions(10, 20, 10, 30)
    (40, 80, 80, 80, 80)
    """
    return (
        4 * west,
        4 * north,
        clamp(4 * (west + north - north_west), 0, 1020),
        clamp(2 * (west + north) + (north_east - north_west), 0, 1020),
        clamp(4 * (west + north_east - north), 0, 1020),
    )


def sub_prediction_error(prediction: Any, pixel: Any) -> Any:
    """The magnitude of a sub-predictor's error, quarters of a level in ``[0, 255]``."""
    return minimum(abs(prediction - 4 * pixel), ERROR_LIMIT)


def recent_error(west: Any, north: Any, north_west: Any, north_east: Any, west_west: Any, north_north: Any) -> Any:
    """The sum of one sub-predictor's errors at six neighbours, the far two at half weight; ``[0, 2550]``."""
    return 2 * (west + north + north_west + north_east) + west_west + north_north


def blend(predictions: Any, recent_errors: Any) -> Any:
    """The base prediction, sixteenths of a level in ``[0, 4080]``: a weighted mean of the sub-predictions.

    `predictions` and `recent_errors` are sequences of `SUB_PREDICTORS` values. The weights are
    ``16384 // u**2`` with `u` the recent error scaled by a power of two so that the smallest lies in ``[8, 16)``:
    each weight is in ``[1, 256]``, and the weighted sum of quarters, times four, stays below ``2**24``.
    """
    smallest = recent_errors[0]
    for i in range(1, SUB_PREDICTORS):
        smallest = minimum(smallest, recent_errors[i])
    shift = floor_log2(smallest + ERROR_REGULARISER) - 3
    weight_sum = 0
    weighted_sum = 0
    for i in range(SUB_PREDICTORS):
        u = known(minimum((recent_errors[i] + ERROR_REGULARISER) >> shift, 127), 8, 127)
        weight = 16384 // (u * u)
        weight_sum = weight_sum + weight
        weighted_sum = weighted_sum + weight * predictions[i]
    return known((4 * weighted_sum) // weight_sum, 0, 4080)

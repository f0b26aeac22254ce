"""The causal context of a pixel: from decoded neighbours to the inputs of the perceptron.

Channels are in coding order (G, R, B); a grey image stands three times in the context and is coded once. Neighbours
are offsets ``(dy, dx)`` that a wavefront ``t = x + 2 y`` decoded 1 to 7 steps ago, so ``-7 <= 2 dy + dx < 0`` for each.

Outside the tile (`padding rule`): the pixel left of a row repeats the first pixel of the row above, the pixel right of
a row repeats the last one of that row, a row above the first repeats row 0 moved right by two pixels per row (the same
wavefront step), and what lies before the tile's first pixel is `BEFORE_FIRST`. Recorded errors are 0 outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pilc_stream.arith.fixed import clamp, log2_eighths, scaled_input
from pilc_stream.arith.predictor import SUB_PREDICTORS, blend, recent_error, sub_predictions

CHANNELS = 3
BEFORE_FIRST = 128
MAX_EXPONENT = 7
ROWS_ABOVE = 3
COLUMNS_AROUND = 3
STEPS_BACK = 7
"""How many steps of the wavefront a neighbour may lie back, so that a decoder can keep the last eight steps only."""

ERROR_NEIGHBOURS = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0))
"""Where recorded errors are looked up: W, N, NW, NE, WW, NN. The first four are inputs one by one."""

Offset = tuple[int, int]


def check_neighbours(neighbours: Sequence[Offset]) -> None:
    """Raise ValueError unless all `neighbours` are causal, recent enough, distinct and inside the padding."""
    for dy, dx in neighbours:
        if not (-STEPS_BACK <= 2 * dy + dx < 0 and -ROWS_ABOVE <= dy <= 0 and abs(dx) <= COLUMNS_AROUND):
            raise ValueError(
                f"the neighbour (dy={dy}, dx={dx}) lies beyond the padding of {ROWS_ABOVE} rows and {COLUMNS_AROUND} "
                f"columns, or not 1 to {STEPS_BACK} steps of the wavefront before its pixel"
            )
    if len(set(neighbours)) != len(neighbours):
        raise ValueError("a neighbour is listed twice")


def input_count(neighbour_count: int) -> int:
    """How many inputs the trunk of the perceptron has: 47 with six neighbours."""
    return CHANNELS * neighbour_count + 3 * CHANNELS + 1 + 6 * CHANNELS + 1


def local_exponent(distance_sum: Any, neighbour_count: int) -> Any:
    """The local scale as a power of two: the largest not above 1 + the mean distance of neighbours from the base.

    `distance_sum`: over all neighbours and channels, sixteenths of a level.
    """
    unit = 16 * CHANNELS * neighbour_count
    exponent = 0
    for j in range(1, MAX_EXPONENT + 1):
        exponent = exponent + (distance_sum >= (unit << j) - unit) * 1
    return exponent


def log_error(magnitude: Any) -> Any:
    """A magnitude in sixteenths of a level on a logarithmic scale: 0 for 0, 8 per octave, at most 95."""
    return log2_eighths(magnitude + 8) - 24


def base_predictions(
    pixel: Callable[[int, int, int], Any], sub_error: Callable[[int, int, int, int], Any]
) -> list[Any]:
    """The base prediction of each channel, sixteenths of a level in ``[0, 4080]``.

    `pixel(channel, dy, dx)`: grey level; `sub_error(channel, predictor, dy, dx)`: `sub_prediction_error` there.
    Where they return arrays or vectors, many pixels are done at once.
    """
    bases = []
    for c in range(CHANNELS):
        predictions = sub_predictions(pixel(c, 0, -1), pixel(c, -1, 0), pixel(c, -1, -1), pixel(c, -1, 1))
        errors = [
            recent_error(*(sub_error(c, i, dy, dx) for dy, dx in ERROR_NEIGHBOURS)) for i in range(SUB_PREDICTORS)
        ]
        bases.append(blend(predictions, errors))
    return bases


def scaled_neighbours(
    neighbours: Sequence[Offset], bases: Sequence[Any], pixel: Callable[[int, int, int], Any]
) -> tuple[Any, list[list[Any]], list[Any]]:
    """The local scale's exponent, 0 to 7; per channel, each neighbour's distance from the base in that scale; and per
    channel the sum of the distances' magnitudes, sixteenths of a level."""
    differences = [[16 * pixel(c, dy, dx) - bases[c] for dy, dx in neighbours] for c in range(CHANNELS)]
    distances = [_magnitude_sum(row) for row in differences]
    exponent = local_exponent(distances[0] + distances[1] + distances[2], len(neighbours))
    return exponent, [[scaled_input(value, exponent) for value in row] for row in differences], distances


def context_inputs(
    scaled: Sequence[Sequence[Any]],
    distances: Sequence[Any],
    bases: Sequence[Any],
    exponent: Any,
    error: Callable[[int, int, int], Any],
    averages: Sequence[Any],
) -> list[Any]:
    """The inputs of the trunk in ``[-127, 127]``, scaled neighbours first; all `input_count` but the last.

    `scaled`, `distances`: see `scaled_neighbours`. `error(channel, dy, dx)`: adaptive prediction minus pixel there,
    sixteenths of a level. `averages`: two inputs per channel, of the running means of `arith.adaptive`. The last input
    is the first channel's adaptive prediction, as a scaled distance from the base.
    """
    inputs = [value for row in scaled for value in row]
    floor = 16 * len(scaled[0])
    inputs += [log2_eighths(distance + floor) - log2_eighths(floor) for distance in distances]
    base_sum = bases[0] + bases[1] + bases[2]
    inputs += [clamp((3 * base - base_sum) >> 6, -127, 127) for base in bases]
    inputs += [(base_sum >> 6) - 96]
    for c in range(CHANNELS):
        recent = [error(c, dy, dx) for dy, dx in ERROR_NEIGHBOURS]
        inputs += [scaled_input(value, exponent) for value in recent[:4]]
        inputs += [log_error(_magnitude_sum(recent))]
    return [*inputs, *averages]


def earlier_channel_inputs(error: Any, distance: Any, exponent: Any) -> list[Any]:
    """What a later head sees of an earlier channel of the same pixel: three values in ``[-127, 127]``.

    `error` is pixel minus predicted mean, `distance` pixel minus base, both in sixteenths of a level. The inputs are
    the error, its magnitude on a logarithmic scale, and the distance.
    """
    return [scaled_input(error, exponent), log_error(abs(error)), scaled_input(distance, exponent)]


def _magnitude_sum(values: Sequence[Any]) -> Any:
    total = abs(values[0])
    for value in values[1:]:
        total = total + abs(value)
    return total

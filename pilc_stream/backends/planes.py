"""Tiles as whole planes: padding and the causal context of every pixel at once, in NumPy int64.

This is the encoder's view (all pixels are known) and the source of training data; `reference.py` codes with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.adaptive import (
    AVERAGE_SHIFTS,
    INITIAL_AVERAGE,
    average_input,
    features,
    inherited,
    initial_state,
    prediction,
    updated_average,
    updated_weights,
)
from pilc_stream.arith.context import (
    BEFORE_FIRST,
    CHANNELS,
    COLUMNS_AROUND,
    ROWS_ABOVE,
    base_predictions,
    context_inputs,
    scaled_neighbours,
)
from pilc_stream.arith.fixed import scaled_input
from pilc_stream.arith.predictor import SUB_PREDICTORS, sub_prediction_error, sub_predictions
from pilc_stream.models.spec import WaveSpec

Plane = NDArray[np.int64]


def coding_planes(tile: NDArray[np.uint8]) -> Plane:
    """uint8 `(h, w, 3)` RGB or `(h, w, 1)` grey -> int64 `(3, h, w)` in coding order; grey stands three times."""
    channels = (1, 0, 2) if tile.shape[2] == CHANNELS else (0, 0, 0)
    return np.stack([tile[:, :, c].astype(np.int64) for c in channels])


def image_tile(planes: Plane, channels: int) -> NDArray[np.uint8]:
    """The inverse of `coding_planes`."""
    order = (1, 0, 2) if channels == CHANNELS else (0,)
    return np.stack([planes[c] for c in order], axis=2).astype(np.uint8)


def padded(planes: Plane) -> Plane:
    """`(c, h, w)` -> `(c, h + 3, w + 6)` by the padding rule of `arith.context`."""
    count, height, width = planes.shape
    out = np.full((count, height + ROWS_ABOVE, width + 2 * COLUMNS_AROUND), BEFORE_FIRST, np.int64)
    inside = out[:, ROWS_ABOVE:]
    inside[:, :, COLUMNS_AROUND : COLUMNS_AROUND + width] = planes
    inside[:, :, COLUMNS_AROUND + width :] = planes[:, :, -1:]
    inside[:, 1:, :COLUMNS_AROUND] = planes[:, :-1, :1]
    for above in range(1, ROWS_ABOVE + 1):
        moved = 2 * above
        if moved < out.shape[2]:
            out[:, ROWS_ABOVE - above, moved:] = inside[:, 0, : out.shape[2] - moved]
    return out


def _padded_with_zeros(planes: Plane) -> Plane:
    return np.pad(planes, ((0, 0), (ROWS_ABOVE, 0), (COLUMNS_AROUND, COLUMNS_AROUND)))


def wavefront(height: int, width: int) -> Iterator[tuple[Plane, Plane]]:
    """The pixels `(ys, xs)` of each step ``t = x + 2 y``, rows from the top; together every pixel once."""
    for step in range(width + 2 * height - 2):
        ys = np.arange(max(0, (step - width + 2) // 2), min(height - 1, step // 2) + 1)
        if len(ys):
            yield ys, step - 2 * ys


@dataclass(frozen=True)
class PlaneContext:
    """The context of every pixel of a tile.

    `bases`, `predictions` (the adaptive ones) int64 `(3, h, w)`, sixteenths of a level; `exponent` int64 `(h, w)`;
    `inputs` int64 `(inputs, h, w)`.
    """

    bases: Plane
    predictions: Plane
    exponent: Plane
    inputs: Plane


def plane_context(spec: WaveSpec, planes: Plane, channels: int = CHANNELS) -> PlaneContext:
    """The causal context of all pixels of a tile: `planes` int64 `(3, h, w)` as `coding_planes` gives them.

    In a grey tile (`channels` is 1) the adaptive units of channels 1 and 2 rest.
    """
    _, height, width = planes.shape

    def shifted(plane: Plane, dy: int, dx: int) -> Plane:
        y, x = ROWS_ABOVE + dy, COLUMNS_AROUND + dx
        return plane[y : y + height, x : x + width]

    pixels = padded(planes)

    def pixel(c: int, dy: int, dx: int) -> Plane:
        return shifted(pixels[c], dy, dx)

    sub_errors = np.empty((CHANNELS, SUB_PREDICTORS, height + ROWS_ABOVE, width + 2 * COLUMNS_AROUND), np.int64)
    for c in range(CHANNELS):
        predictions = sub_predictions(pixel(c, 0, -1), pixel(c, -1, 0), pixel(c, -1, -1), pixel(c, -1, 1))
        errors = np.stack([sub_prediction_error(prediction, planes[c]) for prediction in predictions])
        sub_errors[c] = _padded_with_zeros(errors)
    bases = np.stack(base_predictions(pixel, lambda c, i, dy, dx: shifted(sub_errors[c, i], dy, dx)))
    exponent, scaled, distances = scaled_neighbours(spec.neighbours, list(bases), pixel)

    taps = [row[: spec.taps] for row in scaled]
    current = [scaled_input(16 * planes[c] - bases[c], exponent) for c in range(CHANNELS)]
    adapted = bases.copy()
    averages = np.full((CHANNELS, len(AVERAGE_SHIFTS), height, width), INITIAL_AVERAGE, np.int64)
    for c in range(channels):
        values = np.stack(features(c, taps, current))
        adapted[c], averages[c] = _walk_unit(c, values, bases[c], exponent, planes[c])
    errors = np.zeros_like(planes)
    errors[:channels] = (adapted - 16 * planes)[:channels]
    padded_errors = _padded_with_zeros(errors)
    inputs = context_inputs(
        scaled,
        distances,
        list(bases),
        exponent,
        lambda c, dy, dx: shifted(padded_errors[c], dy, dx),
        [average_input(average) for row in averages for average in row],
    )
    inputs += [scaled_input(adapted[0] - bases[0], exponent)]
    return PlaneContext(bases, adapted, exponent, np.stack(inputs))


def _walk_unit(c: int, values: Plane, base: Plane, exponent: Plane, target: Plane) -> tuple[Plane, Plane]:
    """A channel's adaptive unit over the wavefront: its predictions `(h, w)` and the running means `(2, h, w)` that
    each pixel starts from. `values` int64 `(features, h, w)`."""
    count, height, width = values.shape
    start = np.array(initial_state(c, count - c))
    predictions = np.empty((height, width), np.int64)
    averages = np.empty((len(AVERAGE_SHIFTS), height, width), np.int64)
    # What the pixel of each row left behind one step ago, row -1 first; where there is none, the initial values.
    left = np.repeat(start[:, None], height + 1, axis=1)
    for ys, xs in wavefront(height, width):
        y = slice(ys[0], ys[-1] + 1)
        west, north_east = left[:, ys[0] + 1 : ys[-1] + 2], left[:, y]
        state = inherited(west, north_east)
        weights, means = list(state[:count]), state[count:]
        feature = list(values[:, ys, xs])
        predicted = prediction(weights, feature, base[ys, xs], exponent[ys, xs])
        predictions[ys, xs], averages[:, ys, xs] = predicted, means
        error = 16 * target[ys, xs] - predicted
        after = updated_weights(c, weights, feature, error, exponent[ys, xs])
        after += [updated_average(i, mean, error) for i, mean in enumerate(means)]
        # Rows without a pixel in this step leave nothing: they have not begun, or have ended.
        left[:] = start[:, None]
        # A tile of one column has an empty step behind each pixel.
        if width > 1:
            left[:, ys[0] + 1 : ys[-1] + 2] = after
    return predictions, averages

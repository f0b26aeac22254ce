"""Tiles as whole planes: padding and the causal context of every pixel at once, in NumPy int64.

This is the encoder's view (all pixels are known) and the source of training data; `reference.py` codes with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.context import (
    BEFORE_FIRST,
    CHANNELS,
    COLUMNS_AROUND,
    ROWS_ABOVE,
    Offset,
    base_predictions,
    context_inputs,
)
from pilc_stream.arith.predictor import SUB_PREDICTORS, sub_prediction_error, sub_predictions

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


@dataclass(frozen=True)
class PlaneContext:
    """The context of every pixel of a tile.

    `bases` int64 `(3, h, w)`, sixteenths of a level; `exponent` int64 `(h, w)`; `inputs` int64 `(inputs, h, w)`.
    """

    bases: Plane
    exponent: Plane
    inputs: Plane


def plane_context(neighbours: Sequence[Offset], planes: Plane) -> PlaneContext:
    """The causal context of all pixels of a tile: `planes` int64 `(3, h, w)` as `coding_planes` gives them."""
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
    bases = base_predictions(pixel, lambda c, i, dy, dx: shifted(sub_errors[c, i], dy, dx))
    base_errors = _padded_with_zeros(np.stack(bases) - 16 * planes)
    exponent, inputs = context_inputs(neighbours, bases, pixel, lambda c, dy, dx: shifted(base_errors[c], dy, dx))
    return PlaneContext(np.stack(bases), exponent, np.stack(inputs))

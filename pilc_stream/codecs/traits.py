"""What an image looks like, at a glance: whether it is worth trying more than the profile's codec on it.

Cheap, because every image of a data set pays for it: a sample of rows and columns, of many small images at once. The
answer decides only how much is tried; the choice is by size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

STACK_BYTES = 1 << 22
REPEATED = 0.3
"""Of the pixels that equal their neighbour: drawings and screens have more than half, photographs less than a tenth."""

FEW_COLOURS = 48
GRID = 16
"""Pixels a side of the grid on which colours are counted: 256 pixels of a photograph have some 200."""

LEAST_STEP, MOST_LINES = 4, 64
"""Of the rows, and of the columns, every fourth is looked at, or as many as make up `MOST_LINES`."""

GAP_SHARE = 0.9
GAP_SAMPLES = 4096
"""Only of so many samples on do missing levels say anything."""

_LEVELS = bytes(range(256))


class Traits(NamedTuple):
    """`repetitive`: drawn rather than photographed; `grey`: three colours that seem equal; `gaps`: levels that seem
    never used between those that are."""

    repetitive: bool
    grey: bool
    gaps: bool


def traits_of(images: Sequence[NDArray[Any]]) -> list[Traits]:
    """The traits of each image, uint8 `(h, w)` or `(h, w, c)`."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(image.shape, []).append(index)
    found: dict[int, Traits] = {}
    for shape, members in groups.items():
        together = max(1, STACK_BYTES // max(1, int(np.prod(shape))))
        for start in range(0, len(members), together):
            chosen = members[start : start + together]
            stack = np.stack([images[i] for i in chosen]) if len(chosen) > 1 else images[chosen[0]][None]
            found.update(zip(chosen, _of_stack(stack.reshape(*stack.shape[:3], -1)), strict=True))
    return [found[index] for index in range(len(images))]


def _of_stack(stack: NDArray[Any]) -> list[Traits]:
    """Of images `(n, h, w, c)`."""
    row_step, column_step = (max(LEAST_STEP, size // MOST_LINES) for size in stack.shape[1:3])
    rows, columns = stack[:, ::row_step], stack[:, :, ::column_step]
    west = _share_of_equal(rows[:, :, 1:], rows[:, :, :-1])
    north = _share_of_equal(columns[:, 1:], columns[:, :-1])
    repetitive = (np.maximum(west, north) >= REPEATED) | (_colours(stack) <= FEW_COLOURS)
    grey, gaps = _grey(stack), _gaps(stack, 2 * row_step)
    return [Traits(*map(bool, each)) for each in zip(repetitive, grey, gaps, strict=True)]


def _grey(stack: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether the colours of each image are equal: seen on the middle row, as scans have borders, then on all."""
    if stack.shape[3] <= 2:
        return np.zeros(len(stack), np.bool_)
    middle = stack[:, stack.shape[1] // 2]
    grey = (middle[:, :, :1] == middle[:, :, 1:3]).all(axis=(1, 2))
    for index in np.flatnonzero(grey):
        grey[index] = (stack[index, :, :, :1] == stack[index, :, :, 1:3]).all()
    return np.asarray(grey)


def _gaps(stack: NDArray[Any], row_step: int) -> NDArray[np.bool_]:
    """Whether each image leaves levels out: seen on some rows, then on all."""
    gaps = np.zeros(len(stack), np.bool_)
    few = stack[:, ::row_step, :, :3]
    if few[0].size >= GAP_SAMPLES:
        for index, image in enumerate(stack):
            gaps[index] = _leaves_levels_out(few[index]) and _leaves_levels_out(image[:, :, :3])
    return gaps


def _leaves_levels_out(samples: NDArray[Any]) -> bool:
    # Deleting bytes from a text marks them in a table of 256: counting them takes seven times as long.
    unused = _LEVELS.translate(None, samples.tobytes())
    used = _LEVELS.translate(None, unused)
    return len(used) < GAP_SHARE * (used[-1] - used[0] + 1)


def _share_of_equal(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    # Channel by channel: NumPy's innermost loop would be over the three samples of a pixel.
    equal = one[..., 0] == other[..., 0]
    for k in range(1, one.shape[3]):
        equal &= one[..., k] == other[..., k]
    return equal.mean(axis=(1, 2)) if equal[0].size else np.zeros(len(one))


def _colours(stack: NDArray[Any]) -> NDArray[Any]:
    """Different colours on a grid, or as many as there could be where the image is smaller than the grid."""
    height, width = stack.shape[1:3]
    grid = stack[:, :: max(1, height // GRID), :: max(1, width // GRID)]
    packed = np.zeros(grid.shape[:3], np.int64)
    for k in range(grid.shape[3]):
        packed = packed << 16 | grid[:, :, :, k]
    ordered = np.sort(packed.reshape(len(stack), -1), axis=1)
    count: NDArray[Any] = 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1)
    return count

"""Lossy tiles of one size on a card: their pixels up, and down or to their places in the caller's memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from pilc_stream.backends.base import Tile, TileJob
from pilc_stream.backends.lossy.base import Shape, latent_grid
from pilc_stream.models.lossy_spec import LATENT_STRIDE

COLOURS = 3


class Members(NamedTuple):
    """Tiles of a batch by number; `shape`: of all of them, in whole strides of latents."""

    numbers: list[int]
    shape: Shape
    lanes_log2: int


def batches(shapes: Sequence[Shape], lanes_log2: Sequence[int], most_places: int) -> Iterator[Members]:
    """The tiles in batches of one grid of latents and as many lanes, of at most so many places or one tile."""
    kinds: dict[tuple[int, int, int], list[int]] = {}
    for number, (shape, log2) in enumerate(zip(shapes, lanes_log2, strict=True)):
        kinds.setdefault((*latent_grid(*shape), log2), []).append(number)
    for (rows, columns, log2), numbers in kinds.items():
        size = max(1, most_places // (rows * columns))
        for first in range(0, len(numbers), size):
            shape = Shape(LATENT_STRIDE * rows, LATENT_STRIDE * columns)
            yield Members(numbers[first : first + size], shape, log2)


def continued(tiles: Sequence[Tile], shape: Shape) -> torch.Tensor:
    """Tiles uint8 `(tiles, *shape, 3)`, each continued by its last row and column, on the host."""
    out = np.empty((len(tiles), *shape, COLOURS), np.uint8)
    for place, tile in zip(out, tiles, strict=True):
        height, width = tile.shape[:2]
        place[:height, :width] = tile
        place[height:, :width] = tile[-1]
        place[:, width:] = place[:, width - 1 : width]
    return torch.from_numpy(out)


def squared_errors(tiles: torch.Tensor, again: torch.Tensor, shapes: Sequence[Shape]) -> list[int]:
    """Sums over each tile's pixels inside its shape."""
    device = tiles.device
    inside = [
        torch.arange(tiles.shape[axis + 1], device=device)
        < torch.tensor([[shape[axis]] for shape in shapes], device=device)
        for axis in range(2)
    ]
    errors = (tiles.to(torch.int32) - again.to(torch.int32)).square().sum(3)
    counted = errors * (inside[0][:, :, None] & inside[1][:, None])
    found: list[int] = counted.sum((1, 2)).tolist()
    return found


def as_grey(pixels: torch.Tensor) -> torch.Tensor:
    """One channel of three that were equal: their mean, rounded."""
    return ((pixels.sum(3, keepdim=True, dtype=torch.int32) + 1) // COLOURS).to(torch.uint8)


def put_tiles(
    pixels: torch.Tensor, jobs: Sequence[TileJob], places: Sequence[tuple[int, int]], out: torch.Tensor
) -> None:
    """Put tiles, of `pixels` uint8 `(tiles, ..., 3)`, to their places: first byte in `out`, bytes from row to row."""
    kinds: dict[tuple[int, int, int], list[int]] = {}
    for number, job in enumerate(jobs):
        kinds.setdefault((job.height, job.width, job.channels), []).append(number)
    for (height, width, channels), numbers in kinds.items():
        chosen = pixels if len(numbers) == len(jobs) else pixels[torch.tensor(numbers, device=pixels.device)]
        chosen = chosen[:, :height, :width]
        rows = (chosen if channels == COLOURS else as_grey(chosen)).flatten(2)
        firsts = np.array([places[number] for number in numbers], np.int64)
        steps = np.diff(firsts, axis=0)
        if len(numbers) > 1 and (steps == (steps[0, 0], 0)).all() and steps[0, 0] > 0:
            # Images of one size, side by side.
            whole = (len(numbers), height, width * channels)
            out.as_strided(whole, (int(steps[0, 0]), int(firsts[0, 1]), 1), int(firsts[0, 0])).copy_(rows)
            continue
        for row, (first, row_bytes) in zip(rows, firsts.tolist(), strict=True):
            out.as_strided((height, width * channels), (row_bytes, 1), first).copy_(row)

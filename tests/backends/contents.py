"""Tiles to code: what a picture can be, from nothing to everything at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Tile = NDArray[np.uint8]


def noise(height: int, width: int, channels: int, seed: int) -> Tile:
    """Every level as likely as any other, from pixel to pixel."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.uint8)


def gradient(height: int, width: int, channels: int, seed: int) -> Tile:
    """A slope that wraps around."""
    y, x, c = np.indices((height, width, channels))
    return ((3 + seed % 5) * x + 2 * y + 40 * c + seed).astype(np.uint8)


def constant(height: int, width: int, channels: int, seed: int) -> Tile:
    """One level everywhere."""
    return np.full((height, width, channels), seed * 51 % 256, np.uint8)


def checker(height: int, width: int, channels: int, seed: int) -> Tile:
    """0 and 255 by turns: every prediction is wrong by as much as can be."""
    y, x, c = np.indices((height, width, channels))
    return ((x + y + c * (seed % 2)) % 2 * 255).astype(np.uint8)


def photo(height: int, width: int, channels: int, seed: int) -> Tile:
    """Smooth with some noise, channels alike, an edge across."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    light = 110 + 70 * np.sin(x / 9 + random.random()) * np.cos(y / 13 + random.random())
    light += 60 * (x + y > (height + width) / 2)
    tile = light[:, :, None] + random.normal(0, 3, (height, width, channels)) + 7 * np.arange(channels)
    return np.clip(tile, 0, 255).astype(np.uint8)


CONTENTS: dict[str, Callable[[int, int, int, int], Tile]] = {
    "noise": noise,
    "gradient": gradient,
    "constant": constant,
    "checker": checker,
    "photo": photo,
}

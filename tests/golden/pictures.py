"""Pictures of the golden payloads: from integers alone, so that every machine makes the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8] | NDArray[np.uint16]


def scene(height: int, width: int, channels: int | None) -> Image:
    """Slopes, a disc and some texture."""
    y, x, c = np.indices((height, width, channels or 1))
    disc = (x - width // 2) ** 2 + (y - height // 2) ** 2 < min(height, width) ** 2 // 9
    level = 90 + (3 * x + 2 * y) // 4 + 12 * c + 50 * disc + (x * y + 7 * x * c) % 5
    pixels = np.clip(level, 0, 255).astype(np.uint8)
    return pixels if channels else pixels[:, :, 0]


def checker(height: int, width: int) -> Image:
    """0 and 255 by turns, in blocks of 3, RGB."""
    y, x, c = np.indices((height, width, 3))
    return ((x // 3 + y // 3 + c // 2) % 2 * 255).astype(np.uint8)


def sixteen_bits(height: int, width: int) -> Image:
    """Grey levels of 16 bits."""
    y, x = np.mgrid[:height, :width]
    return (x * 2711 + y * 13007).astype(np.uint16)


def deep_scene(height: int, width: int, channels: int | None) -> Image:
    """The scene with sixteen bits that are all used."""
    y, x, c = np.indices((height, width, channels or 1))
    coarse = scene(height, width, channels or 1).astype(np.uint16)
    pixels = (coarse * 193 + x * x + 5 * y * y + 31 * c + (x * y) % 17).astype(np.uint16)
    return pixels if channels else pixels[:, :, 0]


def masked(image: Image) -> Image:
    """The image with a disc as its last channel: opaque inside, transparent outside."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    inside = (x - width // 2) ** 2 + (y - height // 2) ** 2 < min(height, width) ** 2 // 6
    image[:, :, -1] = np.where(inside, np.iinfo(image.dtype).max, 0)
    return image


def solid(image: Image, opacity: int) -> Image:
    """The image with this number as its last channel."""
    image[:, :, -1] = opacity
    return image


def same(image: Image) -> Image:
    """The image with its first colour as all three."""
    image[:, :, 1:3] = image[:, :, :1]
    return image


def drawing(height: int, width: int, channels: int) -> Image:
    """A few flat areas."""
    y, x, c = np.indices((height, width, channels))
    return ((x // 5 + y // 4) % 3 * 90 + 20 * c).astype(np.uint8)


def one_bit(height: int, width: int) -> Image:
    """0 and 255, two axes."""
    y, x = np.mgrid[:height, :width]
    return ((x * x + y * y) // 40 % 2 * 255).astype(np.uint8)

"""Variations of training pictures: orientation, grey, and the traces that other formats leave in photographs.

Many photographs kept losslessly today were stored with halved colour resolution before, on Photo CD, as video or as
JPEG; their colour differences are smooth, which a network learns only from pictures that are so. Kodak's are: trained
with such pictures, a model of 2 kMAC gains 0.5 % there (`EXPERIMENTS.md`).
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G, B in luma (ITU-R BT.601)."""

JPEG_QUALITIES = (80, 98)
RESAMPLING = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
REDUCING = (Image.Resampling.BOX, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)

SMALLEST_REDUCTION = 0.5
GAMMAS = (0.7, 1.4)
GAINS = (0.8, 1.15)

Pixels = NDArray[np.uint8]


def oriented(tile: Pixels, generator: np.random.Generator) -> Pixels:
    """One of the eight orientations of the tile at random."""
    if generator.random() < 0.5:
        tile = tile.swapaxes(0, 1)
    if generator.random() < 0.5:
        tile = tile[:, ::-1]
    if generator.random() < 0.5:
        tile = tile[::-1]
    return np.ascontiguousarray(tile)


def reduced(tile: Pixels, generator: np.random.Generator) -> Pixels:
    """The tile at `SMALLEST_REDUCTION` to 1 of its size: sharper, as photographs made smaller are."""
    share = generator.uniform(SMALLEST_REDUCTION, 1)
    height, width = (max(1, round(edge * share)) for edge in tile.shape[:2])
    filter = REDUCING[int(generator.integers(len(REDUCING)))]
    return np.asarray(Image.fromarray(tile).resize((width, height), filter), np.uint8)


def recoloured(tile: Pixels, generator: np.random.Generator) -> Pixels:
    """The tile as if exposed and balanced otherwise: each channel gets a gain, all of them one gamma.

    Noise of one unit before rounding hides that some of the values can no longer occur.
    """
    gamma = generator.uniform(*GAMMAS)
    gains = generator.uniform(*GAINS, size=3)
    table = 255 * (np.arange(256) / 255)[:, None] ** gamma * gains
    values = np.stack([table[:, channel].astype(np.float32)[tile[:, :, channel]] for channel in range(3)], axis=2)
    values += generator.random(values.shape, np.float32)
    return np.clip(values, 0, 255).astype(np.uint8)


def with_halved_colour(tile: Pixels, generator: np.random.Generator) -> Pixels:
    """The tile with its colour differences at half the resolution, across or both ways, and at any phase."""
    values = tile.astype(np.float32)
    luma = values @ np.array(LUMA, np.float32)
    both_ways = generator.random() < 0.7
    phase = (int(generator.integers(2)) if both_ways else 0, int(generator.integers(2)))
    resampling = RESAMPLING[int(generator.integers(len(RESAMPLING)))]
    differences = [
        _halved(values[:, :, channel] - luma, 2 if both_ways else 1, phase, resampling) for channel in (0, 2)
    ]
    if generator.random() < 0.5:
        # Stored as bytes of luma and scaled colour differences on the way.
        luma = np.rint(luma)
        differences = [np.rint(difference / 1.5) * 1.5 for difference in differences]
    red, blue = (luma + difference for difference in differences)
    green = (luma - LUMA[0] * red - LUMA[2] * blue) / LUMA[1]
    pixels = np.clip(np.rint(np.stack([red, green, blue], axis=2)), 0, 255)
    return np.asarray(pixels, np.uint8)


def _halved(
    plane: NDArray[np.float32], rows: int, phase: tuple[int, int], resampling: Image.Resampling
) -> NDArray[np.float32]:
    """The plane averaged over blocks of `rows` x 2 that begin `phase` before it, and enlarged again."""
    height, width = plane.shape
    before = ((2 - phase[0]) % rows, 2 - phase[1])
    behind = (-(height + before[0]) % rows, -(width + before[1]) % 2)
    wide = np.pad(plane, ((before[0], behind[0]), (before[1], behind[1])), mode="edge")
    small = wide.reshape(wide.shape[0] // rows, rows, wide.shape[1] // 2, 2).mean(axis=(1, 3))
    again = Image.fromarray(small).resize((wide.shape[1], wide.shape[0]), resampling)
    return np.asarray(again)[before[0] : before[0] + height, before[1] : before[1] + width]


def through_jpeg(tile: Pixels, generator: np.random.Generator) -> Pixels:
    """The tile as it comes out of a JPEG file of good quality."""
    file = io.BytesIO()
    quality, subsampling = int(generator.integers(*JPEG_QUALITIES)), int(generator.integers(3))
    Image.fromarray(tile).save(file, "JPEG", quality=quality, subsampling=subsampling)
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"), np.uint8)

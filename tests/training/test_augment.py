"""Variations of training pictures keep what they promise: size, type, and the trace that they imitate."""

from __future__ import annotations

import numpy as np
import pytest

from pilc_stream.training.augment import LUMA, oriented, recoloured, reduced, through_jpeg, with_halved_colour


def noise(height: int, width: int, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def roughness(plane: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    """Mean square of the second differences across."""
    return float((np.diff(plane, 2, axis=1) ** 2).mean())


@pytest.mark.parametrize("shape", [(7, 9), (8, 8), (33, 20)])
@pytest.mark.parametrize("seed", range(8))
def test_halved_colour_smooths_colour_and_leaves_luma(shape: tuple[int, int], seed: int) -> None:
    # Muted colours: what leaves the range of bytes would be clipped.
    tile = (noise(*shape) // 4 + 96).astype(np.uint8)
    halved = with_halved_colour(tile, np.random.default_rng(seed))
    assert halved.shape == tile.shape
    assert halved.dtype == np.uint8
    luma, halved_luma = (values.astype(np.float64) @ np.array(LUMA) for values in (tile, halved))
    assert np.abs(luma - halved_luma).max() < 2
    for channel in (0, 2):
        before, after = tile[:, :, channel] - luma, halved[:, :, channel] - halved_luma
        assert roughness(after) < 0.35 * roughness(before)


def test_the_phase_of_halved_colour_varies() -> None:
    tile = (noise(16, 16) // 4 + 96).astype(np.uint8)
    assert len({with_halved_colour(tile, np.random.default_rng(seed)).tobytes() for seed in range(20)}) > 5


def test_jpeg_damages_a_little() -> None:
    y, x = np.mgrid[:40, :48]
    tile = np.stack([2 * x + y, 100 + x, 200 - y], axis=2).astype(np.uint8)
    damaged = through_jpeg(tile, np.random.default_rng(3))
    assert damaged.shape == tile.shape
    difference = np.abs(damaged.astype(int) - tile)
    assert 0 < difference.max() <= 40
    assert difference.mean() < 4


def test_there_are_eight_orientations() -> None:
    tile = noise(3, 5)
    seen = {(out.shape, out.tobytes()) for out in (oriented(tile, np.random.default_rng(i)) for i in range(200))}
    assert len(seen) == 8


@pytest.mark.parametrize("seed", range(6))
def test_reduced_tiles_show_the_same_picture_smaller(seed: int) -> None:
    y, x = np.mgrid[0:60, 0:80]
    tile = np.stack([2 * x, 3 * y, x + y], axis=2).astype(np.uint8)
    small = reduced(tile, np.random.default_rng(seed))
    assert small.dtype == np.uint8
    height, width = small.shape[:2]
    assert 30 <= height <= 60
    assert 40 <= width <= 80
    assert abs(height / 60 - width / 80) < 0.02
    assert np.abs(small.reshape(-1, 3).mean(axis=0) - tile.reshape(-1, 3).mean(axis=0)).max() < 1.5


@pytest.mark.parametrize("seed", range(6))
def test_recoloured_tiles_keep_the_order_of_a_channels_values(seed: int) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(200, axis=0)
    other = recoloured(ramp, np.random.default_rng(seed))
    assert other.shape == ramp.shape
    assert other.dtype == np.uint8
    means = other.mean(axis=0)
    assert np.all(np.diff(means[::8], axis=0) >= -0.2)
    assert np.ptp(other[:, 128, 0]) <= 1  # the noise is less than one unit


def test_colours_change_from_draw_to_draw() -> None:
    tile = noise(16, 16)
    assert len({recoloured(tile, np.random.default_rng(seed)).tobytes() for seed in range(20)}) == 20

"""Variations of training pictures keep what they promise: size, type, and the trace that they imitate."""

from __future__ import annotations

import numpy as np
import pytest

from pilc_stream.training.augment import LUMA, oriented, through_jpeg, with_halved_colour


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

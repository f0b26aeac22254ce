"""Run the CUDA backend of `pilc` in the simulator: ``NUMBA_ENABLE_CUDASIM=1 python simulated_pilc.py CASE``."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from contents import CONTENTS
from small_pilc import SMALL_PILC_SPEC, WIDE_PILC_SPEC, random_pilc_model, small_pilc_model

from pilc_stream.backends.base import TileJob
from pilc_stream.backends.pilc.cuda import PilcCudaEngine
from pilc_stream.backends.pilc.reference import PilcReferenceEngine
from pilc_stream.errors import FormatError


def check(model, tiles, lanes, budget_bytes: int = 1 << 28) -> list[bytes]:
    engine = PilcCudaEngine(budget_bytes)
    streams = engine.encode_tiles(model, tiles, lanes)
    assert streams == PilcReferenceEngine().encode_tiles(model, tiles, lanes)
    jobs = [TileJob(memoryview(s), *t.shape, n) for s, t, n in zip(streams, tiles, lanes, strict=True)]
    for tile, back in zip(tiles, engine.decode_tiles(model, jobs), strict=True):
        assert np.array_equal(tile, back)
    return streams


def shapes() -> None:
    makers = list(CONTENTS.values())
    sizes = [(1, 1, 3), (1, 9, 1), (9, 2, 3), (8, 8, 1), (11, 13, 3)]
    tiles = [makers[i % len(makers)](*size, i) for i, size in enumerate(sizes)]
    # Two of one shape, in one batch and in two.
    tiles.append(tiles[2][::-1].copy())
    for budget_bytes in (1, 1 << 28):
        check(small_pilc_model(), tiles, [0, 1, 2, 5, 3, 2], budget_bytes)


def architectures() -> None:
    for spec in (SMALL_PILC_SPEC, WIDE_PILC_SPEC):
        for at_the_bound in (False, True):
            model = random_pilc_model(spec, 5, at_the_bound=at_the_bound)
            check(model, [CONTENTS["photo"](9, 10, 3, 1)], [1])


def damage() -> None:
    model, tile = small_pilc_model(), CONTENTS["photo"](9, 10, 3, 2)
    good = check(model, [tile], [1])[0]
    for data in (good[:-2], good + b"\0\0", good[:8], good[:3], bytes(4) + good[4:]):
        with pytest.raises(FormatError, match=r"^tile: "):
            PilcCudaEngine().decode_tiles(model, [TileJob(memoryview(data), *tile.shape, 1)])


def wide() -> None:
    # More rows under way than a warp has threads, and tiles that stay on the card, each at its place.
    model, tiles = small_pilc_model(), [CONTENTS["photo"](33, 66, 1, 5), CONTENTS["photo"](9, 3, 3, 6)]
    streams = PilcReferenceEngine().encode_tiles(model, tiles, [4, 1])
    jobs = [TileJob(memoryview(s), *t.shape, n) for s, t, n in zip(streams, tiles, [4, 1], strict=True)]
    found = PilcCudaEngine().decode_to_tensor(model, jobs, [(5, 100), (5 + 33 * 100, 9)], 5 + 33 * 100 + 81)
    pixels = found.numpy()[5:]
    assert np.array_equal(pixels[: 33 * 100].reshape(33, 100)[:, :66], tiles[0][:, :, 0])
    assert np.array_equal(pixels[33 * 100 :].reshape(9, 3, 3), tiles[1])


CASES: dict = {
    "shapes": shapes,
    "architectures": architectures,
    "damage": damage,
    "wide": wide,
}

if __name__ == "__main__":
    CASES[sys.argv[1]]()

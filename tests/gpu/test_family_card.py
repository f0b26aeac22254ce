"""The lossy family on a CUDA card: the latents of the CPU from the same bytes, whoever wrote them."""

from __future__ import annotations

import numpy as np
import pytest
from small_family import SMALL, picture, small_family_model

from pilc_stream.backends.base import TileJob
from pilc_stream.backends.lossy.family import open_family_engine

pytestmark = pytest.mark.gpu

SHAPES = [(70, 101), (1, 20), (256, 300)]
LANES = [1, 0, 4]


@pytest.mark.parametrize("kind", SMALL)
def test_the_card_and_the_cpu_read_each_others_streams(kind: str) -> None:
    model, tiles = small_family_model(kind), [picture(*shape) for shape in SHAPES]
    engines = [open_family_engine(name) for name in ("cuda", "cpu")]
    for writer in engines:
        coded = writer.encode_tiles(model, tiles, [1] * len(tiles), LANES)
        jobs = [
            TileJob(memoryview(each.stream), *shape, 3, lanes)
            for each, shape, lanes in zip(coded, SHAPES, LANES, strict=True)
        ]
        pictures = []
        for reader in engines:
            found = reader.decode_latents(model, jobs)
            assert all(np.array_equal(latents, each.latents) for (_, latents), each in zip(found, coded, strict=True))
            pictures.append(reader.decode_tiles(model, jobs))
        for one, other in zip(*pictures, strict=True):
            assert np.abs(one.astype(np.int64) - other).max() <= 1

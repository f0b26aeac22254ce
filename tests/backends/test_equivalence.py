"""Every backend writes the same bytes and reads them back: any shape, any content, any model, any batch."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
from contents import CONTENTS, Tile
from engines import ENGINES, engine, every_engine
from hypothesis import given, settings
from hypothesis import strategies as st
from small_model import SPECS, random_model, small_model

from pilc_stream.backends.base import TileJob
from pilc_stream.models.model import WaveModel

SHAPES = [(1, 1), (1, 2), (2, 1), (2, 2), (1, 17), (17, 1), (1, 70), (70, 1), (3, 5), (31, 33), (63, 65), (70, 70)]
LANES_LOG2 = range(6)


def fixed_tiles() -> tuple[list[Tile], list[int]]:
    """Each shape in grey and RGB, contents and lanes taking turns."""
    makers = list(CONTENTS.values())
    tiles, lanes = [], []
    for number, (height, width) in enumerate(SHAPES):
        for channels in (1, 3):
            turn = 2 * number + channels
            tiles.append(makers[turn % len(makers)](height, width, channels, turn))
            lanes.append(turn % len(LANES_LOG2))
    return tiles, lanes


def jobs_of(streams: Sequence[bytes], tiles: Sequence[Tile], lanes: Sequence[int]) -> list[TileJob]:
    """What a decoder is asked."""
    return [
        TileJob(memoryview(stream), *tile.shape, lanes_log2)
        for stream, tile, lanes_log2 in zip(streams, tiles, lanes, strict=True)
    ]


def assert_same(decoded: Sequence[Tile], tiles: Sequence[Tile]) -> None:
    assert len(decoded) == len(tiles)
    for ours, theirs in zip(decoded, tiles, strict=True):
        assert ours.dtype == np.uint8
        assert np.array_equal(ours, theirs)


@cache
def model_named(name: str) -> WaveModel:
    return small_model() if name == "formula" else random_model(SPECS[name], seed=11)


@cache
def reference_streams(model_name: str) -> list[bytes]:
    return engine("reference").encode_tiles(model_named(model_name), *fixed_tiles())


@every_engine
@pytest.mark.parametrize("model_name", ["formula", "six", "all neighbours"])
def test_fixed_tiles(engine_name: str, model_name: str) -> None:
    model, (tiles, lanes) = model_named(model_name), fixed_tiles()
    streams = engine(engine_name).encode_tiles(model, tiles, lanes)
    assert streams == reference_streams(model_name)
    small = slice(None) if engine_name != "reference" else slice(-6)  # the reference's own decoder is slow
    jobs = jobs_of(streams, tiles, lanes)
    assert_same(engine(engine_name).decode_tiles(model, jobs[small]), tiles[small])


@every_engine
@pytest.mark.parametrize("model_name", SPECS)
@pytest.mark.parametrize("bound", [False, True], ids=["at random", "at the bound"])
def test_models_at_the_edges(engine_name: str, model_name: str, bound: bool) -> None:
    model = random_model(SPECS[model_name], seed=23, at_the_bound=bound)
    tiles = [maker(11, 19, channels, 5) for maker in CONTENTS.values() for channels in (1, 3)]
    lanes = [number % 3 for number in range(len(tiles))]
    streams = engine(engine_name).encode_tiles(model, tiles, lanes)
    assert streams == engine("reference").encode_tiles(model, tiles, lanes)
    assert_same(engine(engine_name).decode_tiles(model, jobs_of(streams, tiles, lanes)), tiles)


@every_engine
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_batch(engine_name: str, data: st.DataObject) -> None:
    model = small_model()
    slow = engine_name == "reference"
    edge = st.integers(1, 9 if slow else 70)
    tiles, lanes = [], []
    for _ in range(data.draw(st.integers(1, 3 if slow else 6))):
        make = CONTENTS[data.draw(st.sampled_from(sorted(CONTENTS)))]
        tile = make(data.draw(edge), data.draw(edge), data.draw(st.sampled_from([1, 3])), data.draw(st.integers(0, 99)))
        # Twins fall into one gang, tiles of other shapes into others.
        for twin in range(data.draw(st.integers(1, 3))):
            tiles.append(tile if twin == 0 else tile[::-1, ::-1])
            lanes.append(data.draw(st.sampled_from(LANES_LOG2)))
    order = data.draw(st.permutations(range(len(tiles))))
    tiles, lanes = [tiles[i] for i in order], [lanes[i] for i in order]
    streams = engine(engine_name).encode_tiles(model, tiles, lanes)
    one_by_one = engine("reference").encode_tiles
    assert streams == [one_by_one(model, [t], [n])[0] for t, n in zip(tiles, lanes, strict=True)]
    assert_same(engine(engine_name).decode_tiles(model, jobs_of(streams, tiles, lanes)), tiles)


@every_engine
def test_a_gang_larger_than_one(engine_name: str) -> None:
    # Enough equal tiles for several gangs of the CPU backend, the last not full.
    model = small_model()
    tiles = [CONTENTS["photo"](40, 6, 3, seed) for seed in range(29)]
    lanes = [1] * len(tiles)
    streams = engine(engine_name).encode_tiles(model, tiles, lanes)
    assert streams == [engine("reference").encode_tiles(model, [tile], [1])[0] for tile in tiles]
    if engine_name != "reference":
        assert_same(engine(engine_name).decode_tiles(model, jobs_of(streams, tiles, lanes)), tiles)


@every_engine
def test_tiles_of_sixteen_lanes(engine_name: str) -> None:
    # Gangs of four, two and one, whose vectors hold as many lanes of each tile; all counts of vectors in a step.
    model = small_model()
    tiles = [CONTENTS["photo"](75, 33, 3, seed) for seed in range(7)]
    lanes = [4] * len(tiles)
    streams = engine(engine_name).encode_tiles(model, tiles, lanes)
    assert streams == [engine("reference").encode_tiles(model, [tile], [4])[0] for tile in tiles]
    if engine_name != "reference":
        assert_same(engine(engine_name).decode_tiles(model, jobs_of(streams, tiles, lanes)), tiles)


@every_engine
def test_two_models_in_turn(engine_name: str) -> None:
    # Models of one architecture share compiled code; their numbers must not mix.
    tiles = [CONTENTS["photo"](9, 12, 3, 1)]
    models = [random_model(SPECS["small"], seed) for seed in (1, 2)]
    streams = [engine(engine_name).encode_tiles(model, tiles, [0]) for model in (*models, *models)]
    assert streams[0] == streams[2] != streams[1] == streams[3]
    for model, stream in zip(models, streams, strict=False):
        assert_same(engine(engine_name).decode_tiles(model, jobs_of(stream, tiles, [0])), tiles)


@every_engine
def test_an_engine_may_be_shared_by_threads(engine_name: str) -> None:
    model, shared = random_model(SPECS["small"], seed=77), ENGINES[engine_name]()
    tiles = [CONTENTS["photo"](12, 14, 3, seed) for seed in range(8)]
    alone = [engine("reference").encode_tiles(model, [tile], [1])[0] for tile in tiles]

    def there_and_back(tile: Tile) -> tuple[bytes, Tile]:
        stream = shared.encode_tiles(model, [tile], [1])[0]
        return stream, shared.decode_tiles(model, jobs_of([stream], [tile], [1]))[0]

    # The first calls meet an engine that has nothing compiled yet.
    with ThreadPoolExecutor(4) as pool:
        for tile, stream, (ours, back) in zip(tiles, alone, pool.map(there_and_back, tiles), strict=True):
            assert ours == stream
            assert np.array_equal(back, tile)


@every_engine
def test_nothing_to_do(engine_name: str) -> None:
    assert engine(engine_name).encode_tiles(small_model(), [], []) == []
    assert engine(engine_name).decode_tiles(small_model(), []) == []


@every_engine
@pytest.mark.slow
@pytest.mark.parametrize("model_name", SPECS)
def test_every_shape_up_to_seventy(engine_name: str, model_name: str) -> None:
    model = model_named(model_name)
    edges = [1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 47, 64, 65, 69, 70]
    tiles = [
        list(CONTENTS.values())[(h + w) % 5](h, w, 1 if (h * w) % 3 else 3, h * w)
        for h in edges
        for w in edges
        if engine_name != "reference" or h * w < 260
    ]
    lanes = [n % 6 for n in range(len(tiles))]
    streams = engine(engine_name).encode_tiles(model, tiles, lanes)
    assert streams == engine("reference").encode_tiles(model, tiles, lanes)
    assert_same(engine(engine_name).decode_tiles(model, jobs_of(streams, tiles, lanes)), tiles)

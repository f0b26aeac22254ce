from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pilc_stream.records.tiling import MAX_LANES_LOG2, Region, Tiling, default_lanes_log2

edges = st.integers(1, 3000)
tile_log2s = st.integers(4, 10)


@given(st.integers(1, 150), st.integers(1, 150), st.integers(4, 6))
def test_tiles_cover_each_pixel_once_in_raster_order(height: int, width: int, tile_log2: int) -> None:
    tiling = Tiling(height, width, tile_log2)
    owner = np.full((height, width), -1)
    for index, (y, x, tile_height, tile_width) in enumerate(tiling.tiles()):
        place = owner[y : y + tile_height, x : x + tile_width]
        assert place.shape == (tile_height, tile_width)
        assert (place == -1).all()
        place[:] = index
    assert (owner >= 0).all()
    assert owner.max() == tiling.count - 1
    assert list(dict.fromkeys(owner.reshape(-1).tolist())) == list(range(tiling.count))


@given(edges, edges, tile_log2s)
def test_tiles_are_as_few_as_can_be_and_no_larger_than_allowed(height: int, width: int, tile_log2: int) -> None:
    tiling = Tiling(height, width, tile_log2)
    limit = 1 << tile_log2
    assert tiling.rows == (height + limit - 1) // limit
    for index in {0, tiling.columns - 1, tiling.count - 1}:
        _, _, tile_height, tile_width = tiling.tile(index)
        assert 1 <= tile_height <= tiling.tile_height <= limit
        assert 1 <= tile_width <= tiling.tile_width <= limit


@given(st.integers(1, 1 << 24), st.integers(1, 1 << 24), tile_log2s)
def test_the_last_tile_of_the_largest_images_is_not_empty(height: int, width: int, tile_log2: int) -> None:
    tiling = Tiling(height, width, tile_log2)
    y, x, tile_height, tile_width = tiling.tile(tiling.count - 1)
    assert (y + tile_height, x + tile_width) == (height, width)
    assert min(tile_height, tile_width) >= 1


@given(st.integers(1, 120), st.integers(1, 120), st.integers(4, 5), st.data())
def test_the_tiles_that_touch_a_region(height: int, width: int, tile_log2: int, data: st.DataObject) -> None:
    tiling = Tiling(height, width, tile_log2)
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    region = Region(y, x, data.draw(st.integers(1, height - y)), data.draw(st.integers(1, width - x)))
    expected = [
        index
        for index, tile in enumerate(tiling.tiles())
        if tile.y < y + region.height
        and y < tile.y + tile.height
        and tile.x < x + region.width
        and x < tile.x + tile.width
    ]
    assert tiling.touching(region) == expected


@given(edges, edges, tile_log2s)
def test_lanes_cost_little_at_every_size(height: int, width: int, tile_log2: int) -> None:
    tiling = Tiling(height, width, tile_log2)
    lanes_log2 = default_lanes_log2(tiling)
    assert 0 <= lanes_log2 <= MAX_LANES_LOG2
    area = tiling.tile_height * tiling.tile_width
    # A lane takes four bytes; for a photo of 1 byte per pixel that is below half a percent where there is a choice.
    assert lanes_log2 == 0 or 4 << lanes_log2 <= area / 200


def test_lanes_of_usual_tiles() -> None:
    edges = (16, 32, 64, 128, 256, 512, 1024)
    assert [default_lanes_log2(Tiling(edge, edge, 10)) for edge in edges] == [0, 0, 2, 3, 4, 5, 5]

"""Views of tiles: every one can be undone, in memory and on a device, and only named ones are taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from engines import engine
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_model import small_model

from pilc_stream.backends import Tile, TileJob
from pilc_stream.codecs.view_search import ViewSearch
from pilc_stream.codecs.views import (
    ORDERS,
    ORIENTATIONS,
    checked_view,
    decode_views,
    from_view,
    tensor_from_view,
    view_of,
    view_shape,
    views_of,
)
from pilc_stream.codecs.wave import WaveCodec, WaveDecoder
from pilc_stream.errors import FormatError
from pilc_stream.models.model import WaveModel
from pilc_stream.records.payload import parse_payload

VIEWS = ORIENTATIONS * len(ORDERS)

tiles_and_views = st.integers(1, 6).flatmap(
    lambda height: st.tuples(
        st.just(height), st.integers(1, 6), st.sampled_from([1, 3]), st.integers(1, 3), st.integers(0, VIEWS - 1)
    )
)


def numbered(count: int, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    return (np.arange(count * height * width * channels) * 37 % 251).astype(np.uint8).reshape(count, height, width, -1)


@given(tiles_and_views)
def test_every_view_can_be_undone(case: tuple[int, int, int, int, int]) -> None:
    height, width, channels, count, view = case
    view %= VIEWS if channels == 3 else ORIENTATIONS
    tiles = numbered(count, height, width, channels)
    seen = view_of(tiles, view)
    assert seen.shape[1:3] == view_shape(height, width, view)
    assert (view_shape(*seen.shape[1:3], view)) == (height, width)
    assert np.array_equal(from_view(seen, view), tiles)
    assert torch.equal(tensor_from_view(torch.from_numpy(seen.copy()), view), torch.from_numpy(tiles))


@pytest.mark.parametrize("view", range(VIEWS))
def test_a_view_shows_each_pixel_where_the_format_says(view: int) -> None:
    tile = numbered(1, 4, 3, 3)
    coded = view_of(tile, view)[0]
    height, width = coded.shape[:2]
    order = ORDERS[view // ORIENTATIONS]
    for y, x, channel in np.ndindex(height, width, 3):
        # The steps of the document: reverse columns, reverse rows, exchange the axes, name the channels.
        row, column = (height - 1 - y if view & 2 else y), (width - 1 - x if view & 1 else x)
        row, column = (column, row) if view & 4 else (row, column)
        assert coded[y, x, channel] == tile[0, row, column, order[channel]]


def test_all_views_of_an_asymmetric_tile_differ() -> None:
    tile = numbered(1, 4, 4, 3)
    assert len({view_of(tile, view).tobytes() for view in range(VIEWS)}) == VIEWS


def test_tiles_of_many_shapes_and_views_at_once() -> None:
    tiles = [numbered(1, 2 + k % 3, 4, 3)[0] + k for k in range(20)]
    views = [(7 * k) % VIEWS for k in range(20)]
    for tile, view, seen in zip(tiles, views, views_of(tiles, views), strict=True):
        assert np.array_equal(seen, view_of(tile[None], view)[0])


@pytest.mark.parametrize(
    ("stream", "channels"), [(b"", 3), (b"\x30", 3), (b"\xff", 3), (b"\x08", 1), (b"", 1)], ids=str
)
def test_what_is_no_view_is_refused(stream: bytes, channels: int) -> None:
    with pytest.raises(FormatError, match="where its view should be"):
        checked_view(memoryview(stream), channels)


def test_the_last_view_of_each_kind_is_taken() -> None:
    assert checked_view(memoryview(b"\x2f..."), 3) == VIEWS - 1
    assert checked_view(memoryview(b"\x07"), 1) == ORIENTATIONS - 1


class OnADevice:
    """The engine of a device whose memory is a torch tensor on the host."""

    name = "device"

    def encode_tiles(self, model: WaveModel, tiles: Sequence[Tile], lanes_log2: Sequence[int]) -> list[bytes]:
        return engine("cpu").encode_tiles(model, tiles, lanes_log2)

    def decode_tiles(self, model: WaveModel, jobs: Sequence[TileJob]) -> list[Tile]:
        return engine("cpu").decode_tiles(model, jobs)

    def decode_to_tensor(
        self, model: WaveModel, jobs: Sequence[TileJob], places: Sequence[tuple[int, int]], pixel_bytes: int
    ) -> Any:
        memory = torch.zeros(pixel_bytes, dtype=torch.uint8)
        for (place, row_bytes), tile in zip(places, self.decode_tiles(model, jobs), strict=True):
            height, width, channels = tile.shape
            memory.as_strided((height, width, channels), (row_bytes, channels, 1), place).copy_(torch.from_numpy(tile))
        return memory


@pytest.mark.parametrize("small_tile_bytes", [0, 1 << 14])
def test_views_are_put_right_in_a_devices_memory(small_tile_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilc_stream.codecs.views.SMALL_TILE_BYTES", small_tile_bytes)
    model, random = small_model(), np.random.default_rng(3)
    image = random.integers(0, 256, (11, 20, 3)).astype(np.uint8)
    # Four tiles in an image whose rows are 60 bytes, then one of another shape behind it.
    corners = [(0, 0), (0, 10), (6, 0), (6, 10)]
    tiles = [image[y : y + 6, x : x + 10] for y, x in corners] + [image[:4, :3]]
    places = [(y * 60 + x * 3, 60) for y, x in corners] + [(660, 9)]
    views = [0, 5, 5, 47, 6]
    seen = views_of(tiles, views)
    streams = engine("cpu").encode_tiles(model, seen, [0] * 5)
    jobs = [TileJob(memoryview(s), *tile.shape, 0) for s, tile in zip(streams, seen, strict=True)]
    found = decode_views(OnADevice(), model, jobs, places, 660 + 36, views).numpy()
    assert np.array_equal(found[:660].reshape(11, 20, 3), image)
    assert np.array_equal(found[660:].reshape(4, 3, 3), image[:4, :3])


@pytest.mark.parametrize("shapes", [[(12, 9, 3)] * 6, [(40, 20, 3), (9, 9, 1), (33, 17, 3)]], ids=["alike", "mixed"])
def test_images_with_views_as_tensors(shapes: list[tuple[int, int, int]]) -> None:
    y, x, c = np.indices((40, 20, 3))
    picture = (60 + 3 * x + y - 9 * c + (x * y) % 5).astype(np.uint8)
    images = [np.roll(picture, k, axis=1)[:h, :w, :channels] for k, (h, w, channels) in enumerate(shapes)]
    codec = WaveCodec(small_model(), engine("cpu"), 4, ViewSearch(small_model(), orders=True))
    payloads = [parse_payload(payload) for payload in codec.encode(images)]
    assert any(tile[0] for payload in payloads for tile in payload.tiles)
    found = WaveDecoder(small_model(), OnADevice()).decode_to_tensors(payloads)
    for tensor, image in zip(found, images, strict=True):
        assert np.array_equal(tensor.numpy(), image)

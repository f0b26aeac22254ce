"""Views of a tile: turned, mirrored, its channels in another order, as an encoder may code it (FORMAT.md, section 4).

Bits of a view: 1 reverses the columns, 2 the rows, 4 exchanges rows and columns, and does so first; the rest counts
orders of the channels. View 0 is the tile itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.context import CHANNELS
from pilc_stream.backends import DeviceEngine, Tile, TileJob
from pilc_stream.errors import FormatError

Model = TypeVar("Model")
ORIENTATIONS = 8
ORDERS = tuple(permutations(range(CHANNELS)))
"""A tile's channel ``ORDERS[k][i]`` is channel `i` of its view of order `k`."""

SMALL_TILE_BYTES = 1 << 14
"""Smaller tiles are put into a device's memory many at once."""

_MIRRORED, _UPENDED, _TRANSPOSED = 1, 2, 4


def checked_view(stream: memoryview, channels: int) -> int:
    """The view that a stream begins with; FormatError where there is none for so many channels."""
    views = ORIENTATIONS * (len(ORDERS) if channels == CHANNELS else 1)
    if not len(stream) or stream[0] >= views:
        found = stream[0] if len(stream) else "no byte"
        raise FormatError(f"tile: {found} where its view should be, of which {channels} channels have {views}")
    return stream[0]


def view_shape(height: int, width: int, view: int) -> tuple[int, int]:
    """Height and width of a tile's view; the other way as well."""
    return (width, height) if view & _TRANSPOSED else (height, width)


def view_of(tiles: NDArray[np.uint8], view: int) -> NDArray[np.uint8]:
    """The views `(n, h', w', c)` of equally large tiles `(n, h, w, c)`."""
    pixels = _as_pixels(tiles[..., list(ORDERS[view // ORIENTATIONS])] if view >= ORIENTATIONS else tiles)
    if view & _TRANSPOSED:
        pixels = pixels.swapaxes(1, 2)
    return _as_samples(_mirrored(pixels, view))


def from_view(coded: NDArray[np.uint8], view: int) -> NDArray[np.uint8]:
    """The tiles `(n, h, w, c)` of equally large views `(n, h', w', c)`: the inverse of `view_of`."""
    pixels = _mirrored(_as_pixels(coded), view)
    tiles = _as_samples(pixels.swapaxes(1, 2) if view & _TRANSPOSED else pixels)
    return tiles[..., _inverse(view)] if view >= ORIENTATIONS else tiles


def planes_in_view(tile: Tile, view: int) -> tuple[Tile, ...]:
    """The channels `(h', w')` of a tile's view, each of which lies in the tile itself `(h, w, c)`."""
    pixels = tile.swapaxes(0, 1) if view & _TRANSPOSED else tile
    pixels = pixels[:: -1 if view & _UPENDED else 1, :: -1 if view & _MIRRORED else 1]
    order = ORDERS[view // ORIENTATIONS] if tile.shape[2] == CHANNELS else (0,)
    return tuple(pixels[:, :, channel] for channel in order)


def tensor_from_view(coded: Any, view: int) -> Any:
    """`from_view` of a torch tensor."""
    axes = [axis for axis, bit in ((1, _UPENDED), (2, _MIRRORED)) if view & bit]
    tiles = coded.flip(axes) if axes else coded
    tiles = tiles.transpose(1, 2) if view & _TRANSPOSED else tiles
    return tiles[..., _inverse(view)] if view >= ORIENTATIONS else tiles


def decode_views(
    engine: DeviceEngine[Model],
    model: Model,
    jobs: Sequence[TileJob],
    places: Sequence[tuple[int, int]],
    pixel_bytes: int,
    views: Sequence[int],
) -> Any:
    """`engine.decode_to_tensor` where `jobs` are of these `views`, and `places` those of the tiles themselves."""
    groups: dict[_Group, list[int]] = {}
    for number, (job, view) in enumerate(zip(jobs, views, strict=True)):
        if view:
            group = _Group(view, job.height, job.width, job.channels, places[number][1])
            groups.setdefault(group, []).append(number)
    # What has to be turned is decoded behind the rest, group by group.
    decoded_at, end = list(places), pixel_bytes
    for group, members in groups.items():
        for number in members:
            decoded_at[number] = end, group.width * group.channels
            end += group.tile_bytes
    pixels, begin = engine.decode_to_tensor(model, jobs, decoded_at, end), pixel_bytes
    for group, members in groups.items():
        coded = pixels[begin : begin + len(members) * group.tile_bytes]
        begin += len(members) * group.tile_bytes
        tiles = tensor_from_view(coded.view(-1, group.height, group.width, group.channels), group.view)
        _put(pixels, tiles, [places[number][0] for number in members], group.row_bytes)
    return pixels[:pixel_bytes]


class _Group(NamedTuple):
    """Tiles of one view and shape, from row to row `row_bytes` apart where they belong."""

    view: int
    height: int
    width: int
    channels: int
    row_bytes: int

    @property
    def tile_bytes(self) -> int:
        return self.height * self.width * self.channels


def _put(pixels: Any, tiles: Any, places: Sequence[int], row_bytes: int) -> None:
    """Copy tiles `(n, h, w, c)` to where they begin in `pixels`."""
    count, height, width, channels = tiles.shape
    if height * width * channels > SMALL_TILE_BYTES:
        for place, tile in zip(places, tiles, strict=True):
            pixels.as_strided((height, width, channels), (row_bytes, channels, 1), place).copy_(tile)
        return
    # Thousands of icons would be as many launches.
    columns = np.arange(width * channels)
    offsets = (row_bytes * np.arange(height)[:, None] + columns).reshape(-1)
    index = pixels.new_empty(0).long().new_tensor(np.array(places, np.int64)[:, None] + offsets)
    pixels[index] = tiles.reshape(count, -1)


def views_of(tiles: Sequence[Tile], views: Sequence[int]) -> list[Tile]:
    """Of each tile `(h, w, c)` its view; equally large tiles of one view are turned at once."""
    return _turned(tiles, views, view_of)


def from_views(coded: Sequence[Tile], views: Sequence[int]) -> list[Tile]:
    """The tiles that these are the views of."""
    return _turned(coded, views, from_view)


def _turned(tiles: Sequence[Tile], views: Sequence[int], turn: Callable[[Tile, int], Tile]) -> list[Tile]:
    groups: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for number, (tile, view) in enumerate(zip(tiles, views, strict=True)):
        if view:
            groups.setdefault((view, tile.shape), []).append(number)
    out = list(tiles)
    for (view, _), members in groups.items():
        together = np.stack([tiles[number] for number in members]) if len(members) > 1 else tiles[members[0]][None]
        for number, turned in zip(members, turn(together, view), strict=True):
            out[number] = turned
    return out


def _mirrored(pixels: NDArray[Any], view: int) -> NDArray[Any]:
    pixels = pixels[:, ::-1] if view & _UPENDED else pixels
    return pixels[:, :, ::-1] if view & _MIRRORED else pixels


def _inverse(view: int) -> list[int]:
    order = ORDERS[view // ORIENTATIONS]
    return [order.index(channel) for channel in range(CHANNELS)]


# NumPy turns whole pixels twice as fast as their samples one by one.
def _as_pixels(tiles: NDArray[np.uint8]) -> NDArray[Any]:
    return np.ascontiguousarray(tiles).view(f"V{tiles.shape[3]}")[..., 0]


def _as_samples(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pixels)[..., None].view(np.uint8)

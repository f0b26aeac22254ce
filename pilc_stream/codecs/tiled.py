"""What codecs have in common that code each tile alone and know no model: heads, checksums, regions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.codecs.base import Image, TileCoder, check_all_tiles, header_fields
from pilc_stream.errors import TruncatedError
from pilc_stream.records.payload import Header, Payload, pack_payload
from pilc_stream.records.tiling import Region

EncodeTile = Callable[[NDArray[Any]], bytes | None]
DecodeTile = Callable[[memoryview, int, int, Header], NDArray[Any]]


def encode_tiled(
    image: NDArray[Any], extras: bytes | None, codec: str, tile_log2: int, encode_tile: EncodeTile
) -> bytes | None:
    """The payload of an image; None where a tile has no stream.

    `encode_tile` takes a tile `(h, w, c)`.
    """
    header = Header(codec=codec, tile_log2=tile_log2, extras=extras or b"", **header_fields(image))
    three_axes = image.reshape(header.height, header.width, header.channels)
    streams = []
    for y, x, height, width in header.tiling.tiles():
        stream = encode_tile(three_axes[y : y + height, x : x + width])
        if stream is None:
            return None
        streams.append(stream)
    return pack_payload(header, streams)


def tile_coder(image: NDArray[Any], codec: str, tile_log2: int, encode_tile: EncodeTile) -> TileCoder:
    """What codes the tiles of an image like this one by one."""
    header = Header(codec=codec, tile_log2=tile_log2, **header_fields(image))
    return TileCoder(header, lambda tiles: [encode_tile(tile) for tile in tiles])


class TiledDecoder:
    """Decodes payloads of such a codec, tile by tile."""

    def __init__(self, decode_tile: DecodeTile, samples_per_byte: int) -> None:
        """`decode_tile(stream, height, width, header)` gives a tile `(height, width, channels)`.

        A stream of fewer bytes than a tile's samples divided by `samples_per_byte` is refused before anything is
        allocated: memory and time stay in proportion to the bytes.
        """
        self._decode_tile, self._samples_per_byte = decode_tile, samples_per_byte

    def decode(self, payloads: Sequence[Payload], regions: Sequence[Region | None]) -> list[Image]:
        """The images, or their regions from the tiles that touch them."""
        wanted_tiles = [self._checked(*each) for each in zip(payloads, regions, strict=True)]
        return [self._image(*each) for each in zip(payloads, regions, wanted_tiles, strict=True)]

    def _checked(self, payload: Payload, region: Region | None) -> list[int]:
        header = payload.header
        wanted = list(range(len(payload.tiles))) if region is None else header.tiling.touching(region)
        check_all_tiles(payload, wanted)
        for index in wanted:
            _, _, height, width = header.tiling.tile(index)
            stream_bytes = len(payload.tiles[index])
            if height * width * header.channels > self._samples_per_byte * stream_bytes:
                raise TruncatedError(
                    f"payload ({header.codec}), tile {index}: a stream of {stream_bytes} bytes cannot hold "
                    f"{height} x {width} pixels of {header.channels} channels; the header is not what was written"
                )
        return wanted

    def _image(self, payload: Payload, region: Region | None, wanted: Sequence[int]) -> Image:
        header = payload.header
        kind = np.uint16 if header.bit_depth == 16 else np.uint8
        if region is None and len(wanted) == 1:
            tile = self._decode_tile(payload.tiles[0], header.height, header.width, header)
            return _shaped(np.ascontiguousarray(tile, kind), header)
        y0, x0, rows, columns = region or Region(0, 0, header.height, header.width)
        image: Any = np.empty((rows, columns, header.channels), kind)
        for index in wanted:
            place = header.tiling.tile(index)
            paste(image, y0, x0, self._decode_tile(payload.tiles[index], place.height, place.width, header), place)
        return _shaped(image, header)


def _shaped(pixels: Any, header: Header) -> Image:
    image: Image = pixels[:, :, 0] if header.two_axes else pixels
    return image


def paste(image: NDArray[Any], y0: int, x0: int, tile: NDArray[Any], place: Region) -> None:
    """Copy what `tile` at `place` shares with `image`, whose top left corner lies at `(y0, x0)`."""
    top, left = max(place.y, y0), max(place.x, x0)
    bottom = min(place.y + place.height, y0 + image.shape[0])
    right = min(place.x + place.width, x0 + image.shape[1])
    part = tile[top - place.y : bottom - place.y, left - place.x : right - place.x]
    image[top - y0 : bottom - y0, left - x0 : right - x0] = part

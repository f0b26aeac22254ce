"""Rows of files that hold them as they are: BMP and binary PNM. A band is cut out behind their header."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, cast

from numpy.typing import NDArray
from PIL import ImageFile

from pilc_stream.errors import ImageError
from pilc_stream.images.bands_png import BAND_BYTES
from pilc_stream.images.decode import decode_image
from pilc_stream.images.pixels import ImageHeader, NotBanded, Pixels

MAX_HEAD_BYTES = 1 << 16
"""Of what a BMP file has before its rows: header, palette and profile."""

_OS2_HEADER_BYTES = 12
_SAMPLES = {b"P4": 0, b"P5": 1, b"P6": 3}

Small = Callable[[int, int], bytes]
"""From first row and number of rows, from the top, to a file of these rows."""


def pnm_rows(
    data: bytes, header: ImageHeader, tile: ImageFile._Tile, metadata: bool
) -> tuple[Pixels, Callable[[], Iterator[NDArray[Any]]]]:
    """The first row as an image of its own, and what reads all rows in bands."""
    magic, arguments = data[:2], cast(Any, tile.args)
    largest = int(arguments[-1]) if tile.codec_name == "ppm" else 65535 if "16" in str(arguments) else 255
    if magic not in _SAMPLES or tile.codec_name not in ("raw", "ppm"):
        raise NotBanded("its samples are text")
    sample_bytes = 2 if largest > 255 else 1
    row_bytes = -(-header.width // 8) if magic == b"P4" else header.width * _SAMPLES[magic] * sample_bytes
    start = tile.offset
    limit = b"" if magic == b"P4" else b"%d\n" % largest

    def small(first: int, count: int) -> bytes:
        at = start + first * row_bytes
        return b"%b\n%d %d\n%b" % (magic, header.width, count, limit) + data[at : at + count * row_bytes]

    return _in_bands(data, start, row_bytes, header, small, metadata)


def bmp_rows(
    data: bytes, header: ImageHeader, tile: ImageFile._Tile, metadata: bool
) -> tuple[Pixels, Callable[[], Iterator[NDArray[Any]]]]:
    """The first row as an image of its own, and what reads all rows in bands."""
    if tile.codec_name != "raw" or tile.offset > MAX_HEAD_BYTES:
        raise NotBanded("its rows are run lengths")
    _, row_bytes, direction = cast(Any, tile.args)
    start = tile.offset
    is_short = struct.unpack_from("<I", data, 14)[0] == _OS2_HEADER_BYTES
    at, kind = (20, "<H") if is_short else (22, "<i")

    def small(first: int, count: int) -> bytes:
        head = bytearray(data[:start])
        struct.pack_into(kind, head, at, count if direction < 0 else -count)
        # Most files have their lowest row first.
        top = header.height - first - count if direction < 0 else first
        return bytes(head) + data[start + top * row_bytes : start + (top + count) * row_bytes]

    return _in_bands(data, start, row_bytes, header, small, metadata)


def _in_bands(
    data: bytes, start: int, row_bytes: int, header: ImageHeader, small: Small, metadata: bool
) -> tuple[Pixels, Callable[[], Iterator[NDArray[Any]]]]:
    missing = start + row_bytes * header.height - len(data)
    if missing > 0:
        raise ImageError(f"the {header.format} file is {missing} bytes too short for its {header.height} rows")
    at_once = max(1, BAND_BYTES // row_bytes)

    def read() -> Iterator[NDArray[Any]]:
        for first in range(0, header.height, at_once):
            count = min(at_once, header.height - first)
            file = small(first, count)
            yield decode_image(file, max_pixels=count * header.width, metadata=False).array

    return decode_image(small(0, 1), max_pixels=header.width, metadata=metadata), read

"""Rows of PNG files that are not interlaced: inflated a band at a time, unfiltered by Pillow.

A band becomes a PNG of its own: the row above, unfiltered, then the band's rows as the file has them, deflated without
compression. Filters work on bytes, so samples of fewer than 8 bits, and grey of 16, are read as bytes of another image.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.errors import ImageError
from pilc_stream.images.decode import decode_image
from pilc_stream.images.metadata import PNG_SIGNATURE, Chunk, iterate_png_chunks, png_chunk
from pilc_stream.images.pixels import ImageHeader, NotBanded, Pixels

BAND_BYTES = 1 << 23
"""Bytes of a band, unless a row has more."""

_INPUT_BYTES = 1 << 16
_IHDR_AT, _DEPTH_AT, _COLOUR_AT, _INTERLACE_AT = 16, 24, 25, 28
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_AS_BYTES = {1: (8, 0), 2: (8, 4), 3: (8, 2), 4: (8, 6), 6: (16, 2), 8: (16, 6)}
"""Bytes of a pixel -> depth and colour type of an image whose filters reach as far back."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """How a file lays its rows out, in bytes, without the filter's byte."""

    width: int
    depth: int
    colour_type: int

    @property
    def row_bytes(self) -> int:
        return -(-self.width * _CHANNELS[self.colour_type] * self.depth // 8)

    @property
    def pixel_bytes(self) -> int:
        return max(1, _CHANNELS[self.colour_type] * self.depth // 8)


def png_rows(data: bytes, header: ImageHeader, metadata: bool) -> tuple[Pixels, Callable[[], Iterator[NDArray[Any]]]]:
    """The image's first row as an image of its own (black, with the metadata), and what reads all rows in bands."""
    if data[_INTERLACE_AT]:
        raise NotBanded("its rows are interlaced")
    rows = _Rows(header.width, data[_DEPTH_AT], data[_COLOUR_AT])
    if rows.colour_type not in _CHANNELS:
        raise ImageError(f"the PNG header says colour type {rows.colour_type}, which does not exist")
    ihdr = struct.pack(">II", header.width, 1) + data[_DEPTH_AT : _INTERLACE_AT + 1]
    others = [chunk for chunk in iterate_png_chunks(data) if chunk.name not in (b"IHDR", b"IDAT")]
    black = Chunk(b"IDAT", zlib.compress(bytes(1 + rows.row_bytes)))
    head = decode_image(_file([Chunk(b"IHDR", ihdr), *others, black]), max_pixels=header.width, metadata=metadata)

    def read() -> Iterator[NDArray[Any]]:
        inflated = _Inflated(data)
        above = np.zeros(rows.row_bytes, np.uint8)
        left, at_once = header.height, max(1, BAND_BYTES // (1 + rows.row_bytes))
        while left:
            count = min(left, at_once)
            filtered = inflated.read(count * (1 + rows.row_bytes))
            if len(filtered) < count * (1 + rows.row_bytes):
                raise ImageError(f"the PNG file's data end {left} rows or less before the last")
            band = _unfiltered(filtered, above, rows)
            above = band[-1]
            left -= count
            if not left:
                inflated.finish()
            yield _samples(band, rows, head.mode)

    return head, read


class _Inflated:
    """What the IDAT chunks hold, inflated as it is asked for."""

    def __init__(self, data: bytes) -> None:
        self._inflater = zlib.decompressobj()
        self._pieces = _pieces(data)
        self._tail: bytes | memoryview = b""

    def read(self, size: int) -> bytes:
        """So many bytes; fewer where there are no more."""
        parts = []
        while size:
            part = self._inflater.decompress(self._tail, size)
            self._tail = self._inflater.unconsumed_tail
            if not part and not self._tail:
                piece = None if self._inflater.eof else next(self._pieces, None)
                if piece is None:
                    break
                self._tail = piece
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def finish(self) -> None:
        """Read on to the checksum of what was inflated, where the data end with the last row as they should."""
        self.read(1)


def _pieces(data: bytes) -> Iterator[memoryview]:
    """The contents of the IDAT chunks, which follow one another, a little at a time. Sound chunks are expected."""
    view, position, found = memoryview(data), len(PNG_SIGNATURE), False
    while position + 12 <= len(view):
        (length,) = struct.unpack_from(">I", view, position)
        name = bytes(view[position + 4 : position + 8])
        if name == b"IDAT":
            found = True
            content = view[position + 8 : position + 8 + length]
            for start in range(0, len(content), _INPUT_BYTES):
                yield content[start : start + _INPUT_BYTES]
        elif found:
            return
        position += 12 + length


def _unfiltered(filtered: bytes, above: NDArray[np.uint8], rows: _Rows) -> NDArray[np.uint8]:
    """The bytes of the rows, uint8 `(rows, row_bytes)`."""
    count = len(filtered) // (1 + rows.row_bytes)
    depth, colour_type = _AS_BYTES[rows.pixel_bytes]
    ihdr = struct.pack(">IIBBBBB", rows.row_bytes // rows.pixel_bytes, count + 1, depth, colour_type, 0, 0, 0)
    stored = zlib.compress(b"".join((b"\0", above.tobytes(), filtered)), 0)
    whole = decode_image(
        _file([Chunk(b"IHDR", ihdr), Chunk(b"IDAT", stored)]), max_pixels=rows.row_bytes * (count + 1), metadata=False
    ).array
    # Samples of 16 bits have their high byte first in the file.
    as_stored = whole if depth == 8 else whole.astype(">u2")
    return as_stored.reshape(count + 1, -1).view(np.uint8)[1:]


def _samples(band: NDArray[np.uint8], rows: _Rows, mode: str) -> NDArray[Any]:
    """Rows of bytes as `decode_image` gives their samples."""
    channels = _CHANNELS[rows.colour_type]
    samples: NDArray[Any] = band
    if rows.depth == 16:
        samples = band.view(">u2").astype(np.uint16)
    elif rows.depth < 8:
        highest = (1 << rows.depth) - 1
        shifts = np.arange(8 - rows.depth, -1, -rows.depth, dtype=np.uint8)
        samples = (band[:, :, None] >> shifts & highest).reshape(len(band), -1)[:, : rows.width]
        samples = samples if mode == "P" else samples * np.uint8(255 // highest)
    return samples if channels == 1 else samples.reshape(len(band), rows.width, channels)


def _file(chunks: list[Chunk]) -> bytes:
    return PNG_SIGNATURE + b"".join(png_chunk(*chunk) for chunk in (*chunks, Chunk(b"IEND", b"")))

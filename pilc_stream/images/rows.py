"""Files written a band of rows at a time, for images that are too large to be held: PNG, and the arrays of NumPy."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pilc_stream.images.encode import check_pixels, filtered, png_chunks
from pilc_stream.images.metadata import PNG_SIGNATURE, png_chunk
from pilc_stream.images.pixels import Pixels

PART_BYTES = 1 << 22
"""Bytes of pixels that are filtered and deflated at a time, unless a row has more."""

_LEVEL = 3
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_INDEXED = 3


class _Sink(Protocol):
    def write(self, piece: bytes, /) -> object:
        """Take these bytes."""


class PngWriter:
    """Writes a PNG that `decode_image` reads as the bands that were pushed, their mode and metadata.

    Rows are filtered as Pillow chooses; colours of 16 bits as `encode_png` does it.
    """

    def __init__(self, sink: _Sink, image: Pixels) -> None:
        """`image` says shape, mode and metadata; its samples are not looked at.

        Raises ImageError where shape and mode do not belong together, FormatError for malformed metadata.
        """
        check_pixels(image.array, image.mode)
        self._sink, self._mode = sink, image.mode
        height, width = image.array.shape[:2]
        channels = 1 if image.array.ndim == 2 else image.array.shape[2]
        colour_type = _INDEXED if image.mode == "P" else _COLOUR_TYPES[channels]
        depth = 1 if image.mode == "1" else 8 * image.array.itemsize
        self._above: NDArray[Any] = np.zeros((1, *image.array.shape[1:]), image.array.dtype)
        self._deflater = zlib.compressobj(_LEVEL)
        self._chunk(b"", PNG_SIGNATURE)
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
        for chunk in png_chunks(image):
            self._chunk(*chunk)

    def push(self, band: NDArray[Any]) -> None:
        """Write the next rows."""
        step = max(1, PART_BYTES * len(band) // band.nbytes)
        for y in range(0, len(band), step):
            rows = band[y : y + step]
            self._data(self._deflater.compress(self._filtered(rows)))
            self._above = rows[-1:].copy()

    def finish(self) -> None:
        """Write the end; all rows must have been pushed."""
        self._data(self._deflater.flush())
        self._chunk(b"IEND", b"")

    def _filtered(self, rows: NDArray[Any]) -> bytes:
        """Rows as a PNG has them, each behind the number of its filter."""
        if self._mode in ("1", "P"):
            plain = np.packbits(rows > 0, axis=1) if self._mode == "1" else rows
            return np.pad(plain, ((0, 0), (1, 0))).tobytes()
        both = np.ascontiguousarray(np.concatenate((self._above, rows)))
        if both.dtype == np.uint16 and both.ndim == 3:
            return filtered(both)[1:].tobytes()
        file = io.BytesIO()
        Image.fromarray(both).save(file, "PNG", compress_level=0)
        return zlib.decompress(_data_of(file.getvalue()))[1 + both[0].nbytes :]

    def _data(self, deflated: bytes) -> None:
        if deflated:
            self._chunk(b"IDAT", deflated)

    def _chunk(self, name: bytes, data: bytes) -> None:
        self._sink.write(png_chunk(name, data) if name else data)


def npy_head(image: Pixels) -> bytes:
    """What a `.npy` file has before the samples of an array like this, which follow in C order."""
    file = io.BytesIO()
    said = {
        "descr": np.lib.format.dtype_to_descr(image.array.dtype),
        "fortran_order": False,
        "shape": image.array.shape,
    }
    np.lib.format.write_array_header_1_0(file, said)
    return file.getvalue()


def _data_of(file: bytes) -> bytes:
    """What the IDAT chunks of a file of Pillow's hold."""
    parts, position = [], len(PNG_SIGNATURE)
    while position < len(file):
        (length,) = struct.unpack_from(">I", file, position)
        if file[position + 4 : position + 8] == b"IDAT":
            parts.append(file[position + 8 : position + 8 + length])
        position += 12 + length
    return b"".join(parts)

"""A source file as its pixels and what lies around them: how a coded image gives its file back byte for byte.

For files that hold their samples as they are, which is where pixels cost most: BMP, PNM, TIFF without compression. The
samples are looked for in the file in the few orders that such formats have; what is before and behind them is the
*frame*. What is compressed is not framed: its bytes depend on the program that compressed it, which another machine may
not have in the same version.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pilc_stream.errors import FormatError
from pilc_stream.images.metadata import FRAME, Chunk, pack_extras, unpack_extras
from pilc_stream.images.pixels import Pixels

MAX_FRAME_BYTES = 1 << 20
"""Of a frame inflated; a file with more around its samples is kept as it is."""

MIRRORED, UPWARDS, PADDED, BIG_ENDIAN = 1, 2, 4, 8
"""Colours from blue to red; the lowest row first; rows filled up to four bytes; the high byte first."""

_FIELD_BYTES = 5


def framed(data: bytes, pixels: Pixels) -> Pixels | None:
    """`pixels` with the frame of their file `data` among the extras; None where the file does not hold the samples."""
    if len(data) < pixels.array.nbytes or len(data) - pixels.array.nbytes > MAX_FRAME_BYTES:
        return None
    for order in _orders(pixels.array):
        samples = _laid_out(pixels.array, order)
        at = data.find(samples)
        if at >= 0:
            around = zlib.compress(data[:at] + data[at + len(samples) :], 9)
            frame = Chunk(FRAME, bytes([order]) + at.to_bytes(_FIELD_BYTES - 1, "little") + around)
            chunks = _chunks(pixels)
            return replace(pixels, extras=pack_extras([*chunks, frame]))
    return None


def source_of(pixels: Pixels) -> bytes | None:
    """The file that `framed` was given; None without a frame. Raises FormatError where the extras are malformed."""
    frame = next((chunk.data for chunk in _chunks(pixels) if chunk.name == FRAME), None)
    if frame is None:
        return None
    order, at = frame[0], int.from_bytes(frame[1:_FIELD_BYTES], "little")
    inflater = zlib.decompressobj()
    try:
        around = inflater.decompress(frame[_FIELD_BYTES:], MAX_FRAME_BYTES + 1)
    except zlib.error as error:
        raise FormatError(f"image metadata: the frame of the source file cannot be inflated: {error}") from error
    if not inflater.eof or at > len(around) or order not in _orders(pixels.array):
        raise FormatError("image metadata: the frame of the source file is not what was written")
    return around[:at] + _laid_out(pixels.array, order) + around[at:]


def _chunks(pixels: Pixels) -> list[Chunk]:
    channels = 1 if pixels.array.ndim == 2 else pixels.array.shape[2]
    return unpack_extras(pixels.extras, channels, 8 * pixels.array.itemsize)


def _orders(array: npt.NDArray[np.uint8 | np.uint16]) -> Iterator[int]:
    """The orders that differ for such an array, the most frequent ones first."""
    wide, coloured = array.itemsize == 2, array.ndim == 3 and array.shape[2] > 2
    padded = array.nbytes // array.shape[0] % 4 != 0
    for order in range(2 * BIG_ENDIAN):
        mirrored, fills, big = order & MIRRORED, order & PADDED, order & BIG_ENDIAN
        if (coloured or not mirrored) and (padded or not fills) and (wide or not big):
            yield order


def _laid_out(array: npt.NDArray[np.uint8 | np.uint16], order: int) -> bytes:
    """The samples as a file has them."""
    if order & MIRRORED:
        array = array[:, :, [2, 1, 0, 3][: array.shape[2]]]
    if order & UPWARDS:
        array = array[::-1]
    kind = (">" if order & BIG_ENDIAN else "<") + f"u{array.itemsize}"
    rows = np.ascontiguousarray(array, kind).reshape(len(array), -1).view(np.uint8)
    if order & PADDED:
        rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    return rows.tobytes()

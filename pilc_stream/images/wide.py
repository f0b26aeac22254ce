"""Samples of 16 bits where Pillow gives 8: colour and alpha of PNG, TIFF and PNM files.

Pillow has no mode for more than one channel of 16 bits and keeps the high byte of each sample. Its unpackers take
either byte, so such a file is decoded twice, once for each; a PNG of grey and alpha, whose four bytes a pixel are those
of an RGBA file of 8 bits, is read as one.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from pilc_stream.errors import ImageError

Wide = NDArray[np.uint16]
Reopen = Callable[[bytes], ImageFile.ImageFile]

_IHDR_AT = 16
_DEPTH_AT, _COLOUR_AT, _CRC_AT = 24, 25, 29
_GREY_ALPHA, _RGBA = 4, 6
_NATIVE = "L" if sys.byteorder == "little" else "B"


def wide_png(data: bytes, reopen: Reopen) -> Wide:
    """The samples of a sound PNG of several channels of 16 bits: uint16 `(h, w, 2..4)`."""
    if data[_COLOUR_AT] == _GREY_ALPHA:
        header = data[_IHDR_AT - 4 : _DEPTH_AT] + bytes([8, _RGBA]) + data[_COLOUR_AT + 1 : _CRC_AT]
        crc = struct.pack(">I", zlib.crc32(header))
        pixels = np.asarray(reopen(data[: _IHDR_AT - 4] + header + crc + data[_CRC_AT + 4 :]))
        return pixels.view(">u2").astype(np.uint16)
    return _both_bytes(data, reopen, "B")


def wide_tiff(data: bytes, reopen: Reopen) -> Wide:
    """The samples of a sound TIFF of several channels of 16 bits. Raises ImageError for layouts not known here."""
    return _both_bytes(data, reopen, None)


def wide_ppm(data: bytes, start: int, height: int, width: int) -> Wide:
    """The samples of a sound binary PPM whose largest value is 65535, from the byte `start` on: uint16 `(h, w, 3)`."""
    samples = np.frombuffer(data, ">u2", 3 * height * width, start)
    return samples.astype(np.uint16).reshape(height, width, 3)


def _both_bytes(data: bytes, reopen: Reopen, order: str | None) -> Wide:
    """Decode by the unpacker that takes the high bytes, then by the one that takes the low ones."""
    halves = []
    for is_high in (True, False):
        image = reopen(data)
        image.tile = [_retiled(tile, image.mode, order, is_high) for tile in image.tile]
        image.load()
        halves.append(np.asarray(image).astype(np.uint16))
    return (halves[0] << 8 | halves[1]).astype(np.uint16)


def _retiled(tile: ImageFile._Tile, mode: str, order: str | None, is_high: bool) -> ImageFile._Tile:
    """The tile of a file with another unpacker: ";16B" takes the first byte of a sample, ";16L" the second."""
    arguments = tile.args
    rawmode = arguments if isinstance(arguments, str) else arguments[0] if isinstance(arguments, tuple) else ""
    found = order or rawmode.removeprefix(f"{mode};16").replace("N", _NATIVE)
    if rawmode[:-1] != f"{mode};16" or found not in ("B", "L"):
        raise ImageError(f"samples of 16 bits are laid out as {rawmode!r}, which is not known here")
    taken = f"{mode};16{found if is_high else 'L' if found == 'B' else 'B'}"
    return tile._replace(args=(taken, *arguments[1:]) if isinstance(arguments, tuple) else taken)


def open_as(kind: str) -> Reopen:
    """What opens bytes as a file of Pillow's format `kind`, without a limit of its own."""
    factory = Image.OPEN[kind][0]
    return lambda data: factory(io.BytesIO(data), "")

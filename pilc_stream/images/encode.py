"""Pixels to PNG bytes, with the metadata that came with them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pilc_stream.errors import ImageError
from pilc_stream.images.metadata import FRAME, PNG_SIGNATURE, Chunk, png_chunk, unpack_extras
from pilc_stream.images.pixels import MODE_CHANNELS, WIDE_MODES, Pixels

# A PNG begins with 8 bytes of signature and an IHDR chunk of 25.
_AFTER_IHDR = 33
# On photographs level 6 takes almost three times as long as level 3 and saves 0.1 %.
_COMPRESS_LEVEL = 3
_SMALLEST = 9
_COLOUR_TYPES = {2: 4, 3: 2, 4: 6}
_INDEXED = 3
# These stand before a palette, all others behind it.
_BEFORE_PALETTE = frozenset((b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"mDCV", b"cLLI", b"sBIT"))


def encode_png(pixels: Pixels, *, optimize: bool = False) -> bytes:
    """A PNG file that `decode_image` reads as the same array, mode and metadata; `optimize`: smaller, and slow.

    PNG has no big-endian or 32-bit grey: Pillow opens such images again as "I;16". Raises ImageError where array and
    mode do not belong together, FormatError where the metadata blob is malformed.
    """
    array, mode = pixels.array, pixels.mode
    check_pixels(array, mode)
    chunks = png_chunks(pixels)
    if mode == "P":
        level = _SMALLEST if optimize else _COMPRESS_LEVEL
        return _png_file(array.astype(np.uint8, copy=False), _INDEXED, chunks, level)
    if array.dtype == np.uint16 and array.ndim == 3:
        return _png_file(filtered(array), _COLOUR_TYPES[array.shape[2]], chunks, _SMALLEST if optimize else 6, array)
    buffer = io.BytesIO()
    # PNG has one kind of 16-bit grey.
    image = Image.fromarray(np.ascontiguousarray(array)) if mode in WIDE_MODES else picture(pixels)
    image.save(buffer, format="PNG", compress_level=_COMPRESS_LEVEL, optimize=optimize)
    plain = buffer.getvalue()
    # The chunks are spliced in here because Pillow's writer passes on only some of them.
    return plain[:_AFTER_IHDR] + b"".join(png_chunk(*chunk) for chunk in chunks) + plain[_AFTER_IHDR:]


def png_chunks(pixels: Pixels) -> list[Chunk]:
    """The metadata as a PNG has it before its data. Raises FormatError where the blob is malformed."""
    found = unpack_extras(pixels.extras, MODE_CHANNELS[pixels.mode], 8 * pixels.array.itemsize)
    chunks = [chunk for chunk in found if chunk.name != FRAME]
    if pixels.mode == "P":
        chunks.sort(key=lambda chunk: chunk.name not in _BEFORE_PALETTE)
    return chunks


def check_pixels(array: npt.NDArray[Any], mode: str) -> None:
    """Raise ImageError unless `array` can be an image of this mode."""
    channels = MODE_CHANNELS.get(mode, 0)
    expected = array.shape[:2] if channels == 1 else (*array.shape[:2], channels)
    narrow, deep = mode not in WIDE_MODES, mode in WIDE_MODES or channels > 1
    fits = (narrow and array.dtype == np.uint8) or (deep and array.dtype == np.uint16)
    if not channels or not fits or array.shape != expected or array.size == 0:
        raise ImageError(f"an array of {array.dtype} {array.shape} in mode {mode!r} cannot be written as PNG")


def picture(pixels: Pixels) -> Image.Image:
    """The image as Pillow's decode of the source gives it, but for its metadata; of colours of 16 bits the high bytes.

    Raises ImageError where array and mode do not belong together.
    """
    array, mode = pixels.array, pixels.mode
    check_pixels(array, mode)
    if array.dtype == np.uint16 and array.ndim == 3:
        array = (array >> 8).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(array))
    if mode == "1":
        return image.convert("1", dither=Image.Dither.NONE)
    if mode == "I":
        return image.convert("I")
    if mode == "I;16B":
        return Image.frombytes(mode, image.size, np.ascontiguousarray(array, ">u2").tobytes())
    if mode == "P":
        chunks = unpack_extras(pixels.extras, 1)
        image.putpalette(chunks[0].data)
        if len(chunks) > 1 and chunks[1].name == b"tRNS":
            image.info["transparency"] = chunks[1].data
    return image


def shown(array: npt.NDArray[Any], palette: tuple[bytes, bytes]) -> npt.NDArray[np.uint8]:
    """Indices as the colours of their palette: uint8 `(h, w, 3)`, or `(h, w, 4)` where some are transparent.

    `palette`: as `metadata.palette_of` gives it. Indices beyond it are black.
    """
    colours, opacities = palette
    channels = 4 if opacities else 3
    table = np.zeros((256, channels), np.uint8)
    entries = np.frombuffer(colours[: len(colours) // 3 * 3], np.uint8).reshape(-1, 3)[:256]
    table[: len(entries), :3] = entries
    if opacities:
        table[:, 3] = 255
        table[: len(opacities), 3] = np.frombuffer(opacities[:256], np.uint8)
    out: npt.NDArray[np.uint8] = table[array]
    return out


def _png_file(
    rows: npt.NDArray[np.uint8],
    colour_type: int,
    chunks: Sequence[Chunk],
    level: int,
    wide: npt.NDArray[Any] | None = None,
) -> bytes:
    """A PNG of `rows` `(h, bytes)`, unfiltered indices, or already filtered rows of the 16-bit image `wide`."""
    if wide is None:
        height, width, depth = *rows.shape, 8
        rows = np.pad(rows, ((0, 0), (1, 0)))
    else:
        height, width, depth = *wide.shape[:2], 16
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    data = zlib.compress(np.ascontiguousarray(rows).tobytes(), level)
    middle = [*chunks, Chunk(b"IDAT", data), Chunk(b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(png_chunk(*chunk) for chunk in (Chunk(b"IHDR", header), *middle))


def filtered(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Rows of a 16-bit image `(h, w, c)` as PNG filters them, each by the filter that leaves least, one byte before."""
    height, width, channels = array.shape
    pixel_bytes = 2 * channels
    rows = np.ascontiguousarray(array, ">u2").view(np.uint8).reshape(height, width * pixel_bytes)
    left, up = np.zeros_like(rows), np.zeros_like(rows)
    left[:, pixel_bytes:] = rows[:, :-pixel_bytes]
    up[1:] = rows[:-1]
    corner = np.zeros_like(rows)
    corner[1:, pixel_bytes:] = rows[:-1, :-pixel_bytes]
    candidates = [rows, rows - left, rows - up, rows - ((left.astype(np.uint16) + up) >> 1).astype(np.uint8)]
    candidates.append(rows - _paeth(left.astype(np.int16), up.astype(np.int16), corner.astype(np.int16)))
    stack = np.stack(candidates)
    best = np.abs(stack.view(np.int8).astype(np.int16)).sum(axis=2, dtype=np.int64).argmin(axis=0)
    out = np.empty((height, 1 + width * pixel_bytes), np.uint8)
    out[:, 0] = best
    out[:, 1:] = stack[best, np.arange(height)]
    return out


def _paeth(a: npt.NDArray[np.int16], b: npt.NDArray[np.int16], c: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
    to_a, to_b, to_c = abs(b - c), abs(a - c), abs(a + b - 2 * c)
    return np.where((to_a <= to_b) & (to_a <= to_c), a, np.where(to_b <= to_c, b, c)).astype(np.uint8)

"""What Pillow does not say: whether a decoded 8-bit array is all that the file held.

Pillow opens some deeper or richer files as plain 8-bit "RGB" or "L" (16-bit RGB PNG, TIFF, PNM and JPEG 2000, 10-bit
AVIF, a fourth TIFF sample, a tRNS colour). Coding such pixels would drop data silently, so each container is asked
itself. Every function returns a short reason why the file is not taken, or None.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from pilc_stream.images.metadata import iterate_png_chunks

DEPTH_UNKNOWN = "sample depth that is not 8 or 16 bits"
WIDEST = 65535
"""Largest value of a PNM file of 16 bits; Pillow rescales others."""

# TIFF tags that say how the pixels are stored, or that other fields of `Pixels` carry (density, profile, XMP).
_TIFF_STRUCTURE = frozenset(
    (254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 274, 277, 278, 279, 280, 281, 282, 283, 284, 290, 291, 296)
) | frozenset((297, 317, 322, 323, 324, 325, 338, 339, 347, 529, 530, 531, 532, 700, 34675))
_TIFF_DEPTHS = {"1": {1}, "L": {8}, "P": {8}, "I;16": {12, 16}, "I;16B": {16}}
TIFF_DESCRIPTION = (269, 270, 271, 272, 305, 306, 315, 316, 318, 319, 33432)
"""TIFF tags that mean the same in an EXIF block: names, dates, authors, white point and primaries."""


def png_bit_depth(data: bytes) -> int:
    """Bits per sample of a PNG, from its IHDR; 0 where the header is not where it must be."""
    return data[24] if data[12:16] == b"IHDR" and len(data) > 24 else 0


def tiff_bit_depth(tags: Mapping[int, Any]) -> int:
    """Bits of the deepest sample of a TIFF."""
    return max((int(depth) for depth in _numbers(tags.get(258, 1))), default=1)


def png_refusal(data: bytes, mode: str) -> str | None:
    """Refuses transparency by colour key, a background in levels of another depth, and animation.

    Raises FormatError where the file ends before IEND, which Pillow forgives once it has all pixels.
    """
    names = {chunk.name for chunk in iterate_png_chunks(data)}
    if b"tRNS" in names and mode != "P":
        return "transparent colour"
    if b"bKGD" in names and mode == "L" and png_bit_depth(data) < 8:
        return "background in levels of a smaller depth"
    if b"acTL" in names:
        return "animation or several pages"
    return None


def tiff_refusal(tags: Mapping[int, Any], mode: str, channels: int) -> str | None:
    """Refuses samples that are not unsigned or of odd depths, that Pillow leaves out or has multiplied, and tags that
    would be lost."""
    depths = set(_numbers(tags.get(258, 1)))
    if len(depths) != 1 or not depths <= _TIFF_DEPTHS.get(mode, {8, 16}):
        return DEPTH_UNKNOWN
    if mode in ("LA", "RGBA") and tags.get(338) not in (2, (2,)):
        return "premultiplied alpha"
    if any(sample_format != 1 for sample_format in _numbers(tags.get(339, 1))):
        return "samples that are not unsigned integers"
    if tags.get(277, 1) != channels:
        return "extra samples"
    if any(tag not in _TIFF_STRUCTURE and tag not in TIFF_DESCRIPTION for tag in tags):
        return "TIFF tags without a place in a PNG"
    return None


def avif_refusal(data: bytes) -> str | None:
    """Refuses AV1 of more than 8 bits, by the flags of every av1C box, and files that hold no such box."""
    position = data.find(b"av1C")
    if position < 0:
        return DEPTH_UNKNOWN
    while position >= 0:
        # Byte 0 is marker and version, byte 1 profile and level, byte 2 tier (0x80) and high_bitdepth (0x40).
        if position + 6 >= len(data) or data[position + 6] & 0x40:
            return "10 or 12 bits per sample"
        position = data.find(b"av1C", position + 4)
    return None


def jpeg2000_refusal(data: bytes) -> str | None:
    """Refuses components that are not 8-bit unsigned, by the SIZ marker that follows the start of the codestream."""
    position = data.find(b"\xff\x4f\xff\x51")
    components_at = position + 4 + 36
    if position < 0 or len(data) < components_at + 2:
        return DEPTH_UNKNOWN
    (components,) = struct.unpack_from(">H", data, components_at)
    depths = data[components_at + 2 : components_at + 2 + 3 * components : 3]
    return None if len(depths) == components and all(depth == 7 for depth in depths) else DEPTH_UNKNOWN


def pnm_refusal(decoder: str, arguments: Any, mode: str) -> str | None:
    """Refuses largest values that Pillow rescales, and colours of 16 bits as text; the first two are Pillow's tile."""
    largest = arguments[-1] if isinstance(arguments, tuple) else 255
    whole = largest == 255 or (largest == WIDEST and (mode == "I" or decoder == "ppm"))
    return None if decoder == "raw" or whole else DEPTH_UNKNOWN


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)

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

SIXTEEN_BITS = "16 bits per sample"
DEPTH_UNKNOWN = "sample depth that is not 8 bits"

# TIFF tags that say how the pixels are stored, or that other fields of `Pixels` carry (density, profile, XMP).
_TIFF_STRUCTURE = frozenset(
    (254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 274, 277, 278, 279, 280, 281, 282, 283, 284, 290, 291, 296)
) | frozenset((297, 317, 322, 323, 324, 325, 338, 339, 347, 529, 530, 531, 532, 700, 34675))
TIFF_DESCRIPTION = (269, 270, 271, 272, 305, 306, 315, 316, 318, 319, 33432)
"""TIFF tags that mean the same in an EXIF block: names, dates, authors, white point and primaries."""


def png_bit_depth(data: bytes) -> int:
    """Bits per sample of a PNG, from its IHDR; 0 where the header is not where it must be."""
    return data[24] if data[12:16] == b"IHDR" and len(data) > 24 else 0


def tiff_bit_depth(tags: Mapping[int, Any]) -> int:
    """Bits of the deepest sample of a TIFF."""
    return max((int(depth) for depth in _numbers(tags.get(258, 1))), default=1)


def png_refusal(data: bytes) -> str | None:
    """Refuses depths other than 8, transparency by colour key, and animation.

    Raises FormatError where the file ends before IEND, which Pillow forgives once it has all pixels.
    """
    names = {chunk.name for chunk in iterate_png_chunks(data)}
    depth = png_bit_depth(data)
    if depth != 8:
        return f"{depth} bits per sample"
    if b"tRNS" in names:
        return "transparent colour"
    if b"acTL" in names:
        return "animation or several pages"
    return None


def tiff_refusal(tags: Mapping[int, Any], channels: int) -> str | None:
    """Refuses samples that are not 8-bit unsigned, samples that Pillow leaves out, and tags that would be lost."""
    if any(depth != 8 for depth in _numbers(tags.get(258, 1))):
        return SIXTEEN_BITS if tiff_bit_depth(tags) == 16 else DEPTH_UNKNOWN
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


def pnm_refusal(decoder: str, arguments: Any) -> str | None:
    """Refuses a largest value other than 255, which Pillow rescales; `decoder` and `arguments` are Pillow's tile."""
    if decoder == "raw" or (isinstance(arguments, tuple) and arguments[-1] == 255):
        return None
    return DEPTH_UNKNOWN


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)

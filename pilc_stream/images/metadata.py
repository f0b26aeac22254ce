"""Image metadata as a small blob: the ancillary chunks of a PNG, in the order of the file.

A payload carries pixels and, as opaque `extras`, this blob. PNG chunks are its vocabulary because they name
everything that changes how pixels are shown (gAMA, cHRM, iCCP, sRGB, cICP) or that a user would miss (eXIf, pHYs,
text), because their bytes then survive unchanged, and because `encode_png` needs no translation. Other formats'
metadata is put into the same chunks by `images.decode`.

Layout: b"" where there is no chunk at all; else one version byte (1), then for each chunk a tag byte, the length of
its data as unsigned LEB128, and the data. Tag 0 is a chunk without a tag of its own: its four letters lead the data.
Tags are part of the stored format: they are never renumbered.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pilc_stream.errors import FormatError

EXTRAS_VERSION = 1

TAGS: dict[bytes, int] = {
    b"gAMA": 1,
    b"cHRM": 2,
    b"sRGB": 3,
    b"iCCP": 4,
    b"cICP": 5,
    b"mDCV": 6,
    b"cLLI": 7,
    b"sBIT": 8,
    b"bKGD": 9,
    b"pHYs": 10,
    b"tIME": 11,
    b"eXIf": 12,
    b"tEXt": 13,
    b"zTXt": 14,
    b"iTXt": 15,
    b"PLTE": 16,
    b"tRNS": 17,
    b"frAm": 18,
}
"""Chunk type to tag byte, for the chunks whose meaning is known."""

FRAME = b"frAm"
"""A chunk of our own: what a source file has around its samples (`images.frame`). It is not written into PNG files."""

MAX_EXTRAS_BYTES = 1 << 24
"""Largest blob taken; a file with more metadata is kept as it came."""

MAX_INFLATED_BYTES = 1 << 20
"""Largest decompressed profile or text. Pillow refuses to read a PNG with more, so one must not be written."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_NAMES = {tag: name for name, tag in TAGS.items()}
_FIXED_LENGTHS = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4, b"mDCV": 24, b"cLLI": 8, b"pHYs": 9, b"tIME": 7}
_REPEATABLE = frozenset((b"tEXt", b"zTXt", b"iTXt"))
# Chunks that say how the pixel data of this very file is stored; the pixels are stored anew.
_STRUCTURAL = frozenset((FRAME, b"PLTE", b"tRNS", b"hIST", b"sPLT", b"acTL", b"fcTL", b"fdAT"))


class Chunk(NamedTuple):
    """One PNG chunk: `name` is its four letters, `data` its content without length and CRC."""

    name: bytes
    data: bytes


def iterate_png_chunks(data: bytes) -> Iterator[Chunk]:
    """Yield the chunks of a PNG file up to and without IEND, IDAT and fdAT with empty `data`.

    Raises FormatError where the file ends before IEND.
    """
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        name = data[position + 4 : position + 8]
        if name == b"IEND":
            return
        if length > len(data) - position - 12:
            break
        yield Chunk(name, b"" if name in (b"IDAT", b"fdAT") else data[position + 8 : position + 8 + length])
        position += 12 + length
    raise FormatError(f"truncated at byte {len(data)}: there is no IEND chunk")


def kept(name: bytes) -> bool:
    """Whether a PNG chunk travels with the pixels.

    All that are known do, and unknown ones that the PNG specification calls ancillary and safe to copy (first and
    fourth letter in lower case). Unsafe unknown ones depend on how the data was stored and must not be copied.
    """
    if name in _STRUCTURAL:
        return False
    return name in TAGS or (name.isalpha() and name[0:1].islower() and name[3:4].islower())


def palette_of(extras: bytes) -> tuple[bytes, bytes] | None:
    """The palette and the opacities of an image of mode "P", as PLTE and tRNS hold them; None for other images.

    `extras` must have come through `unpack_extras` or `pack_extras`.
    """
    # The palette comes first, so that those who must know need not read on.
    if extras[1:2] != bytes([TAGS[b"PLTE"]]):
        return None
    length, start = _read_leb128(extras, 2)
    behind = start + length
    if extras[behind : behind + 1] != bytes([TAGS[b"tRNS"]]):
        return extras[start:behind], b""
    length, after = _read_leb128(extras, behind + 1)
    return extras[start:behind], extras[after : after + length]


def palette_only(extras: bytes) -> bytes:
    """The blob with nothing left but what pixels mean nothing without."""
    found = palette_of(extras)
    if found is None:
        return b""
    return pack_extras(palette_chunks(*found))


def palette_chunks(palette: bytes, opacities: bytes) -> list[Chunk]:
    """The chunks that an image of mode "P" begins with."""
    return [Chunk(b"PLTE", palette), *([Chunk(b"tRNS", opacities)] if opacities else [])]


def pack_extras(chunks: Iterable[Chunk]) -> bytes:
    """The blob of these chunks, b"" for none. Chunks are taken as they are: check them with `find_fault` first."""
    parts: list[bytes] = []
    for name, data in chunks:
        tag = TAGS.get(name, 0)
        body = data if tag else name + data
        parts.append(bytes([tag]) + _leb128(len(body)) + body)
    return bytes([EXTRAS_VERSION]) + b"".join(parts) if parts else b""


def unpack_extras(extras: bytes, channels: int, bit_depth: int = 8) -> list[Chunk]:
    """The chunks of a blob that belongs to an image of `channels` (1 to 4) channels of `bit_depth` bits.

    Raises FormatError for anything that `pack_extras` does not write for valid chunks.
    """
    if not extras:
        return []
    if extras[0] != EXTRAS_VERSION:
        raise FormatError(f"image metadata is of version {extras[0]}, this release knows version {EXTRAS_VERSION}")
    chunks: list[Chunk] = []
    position = 1
    while position < len(extras):
        tag = extras[position]
        length, position = _read_leb128(extras, position + 1)
        body = extras[position : position + length]
        if len(body) != length:
            raise FormatError(f"image metadata announces {length} bytes at offset {position}, {len(body)} are there")
        position += length
        if tag == 0:
            chunk = Chunk(body[:4], body[4:])
            if chunk.name in TAGS or chunk.name in _STRUCTURAL or not kept(chunk.name) or len(chunk.name) != 4:
                raise FormatError(f"image metadata holds a chunk named {chunk.name!r}, which does not belong there")
        elif tag in _NAMES:
            chunk = Chunk(_NAMES[tag], body)
        else:
            raise FormatError(f"image metadata holds the tag {tag}, which this release does not know")
        chunks.append(chunk)
    fault = find_fault(chunks, channels, bit_depth) if chunks else "a version byte and no chunk"
    if fault:
        raise FormatError(f"image metadata is malformed: {fault}")
    return chunks


def find_fault(chunks: Sequence[Chunk], channels: int, bit_depth: int = 8) -> str | None:
    """What a PNG specification would object to in these chunks of such an image; None if nothing.

    A palette makes one channel one of indices; it must come first, and its opacities behind it.
    """
    seen: set[bytes] = set()
    total_bytes = 0
    entries = len(chunks[0].data) // 3 if chunks and chunks[0].name == b"PLTE" else 0
    if entries and (channels != 1 or bit_depth != 8):
        return f"a palette for {channels} channels of {bit_depth} bits"
    sample = _Sample(channels, bit_depth, entries)
    for place, (name, data) in enumerate(chunks):
        text = name.decode("latin-1")
        if name in seen and name in TAGS and name not in _REPEATABLE:
            return f"two {text} chunks"
        seen.add(name)
        total_bytes += len(data)
        if total_bytes > MAX_EXTRAS_BYTES:
            return f"more than {MAX_EXTRAS_BYTES} bytes of metadata"
        if (name == b"PLTE" and place != 0) or (name == b"tRNS" and (place != 1 or not entries)):
            return f"a {text} chunk where none belongs"
        if not _well_formed(name, data, sample):
            return f"a malformed {text} chunk"
    return None


def png_chunk(name: bytes, data: bytes) -> bytes:
    """A chunk as a PNG file holds it: length, name, data, CRC-32."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))


def icc_chunk(profile: bytes) -> Chunk:
    """An iCCP chunk for a colour profile that came from another format."""
    return Chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile, 9))


def density_chunk(dpi: tuple[float, float]) -> Chunk | None:
    """A pHYs chunk for a density in dots per inch, None where it is not a positive number that fits."""
    try:
        per_metre = tuple(int(value / 0.0254 + 0.5) for value in dpi)
    except (OverflowError, ValueError):  # infinity and NaN, which broken headers do hold
        return None
    if len(per_metre) != 2 or not all(0 < value < 1 << 31 for value in per_metre):
        return None
    return Chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1))


def xmp_chunk(xmp: bytes) -> Chunk:
    """An iTXt chunk under the keyword that Adobe's specification names for XMP."""
    return Chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)


class _Sample(NamedTuple):
    """What chunks depend on: channels, bits of each, entries of the palette (0 without one)."""

    channels: int
    bits: int
    entries: int


def _well_formed(name: bytes, data: bytes, sample: _Sample) -> bool:
    fixed = _FIXED_LENGTHS.get(name)
    if fixed is not None and len(data) != fixed:
        return False
    match name:
        case b"frAm":
            return len(data) > 5
        case b"PLTE":
            return len(data) % 3 == 0 and 3 <= len(data) <= 768
        case b"tRNS":
            return 1 <= len(data) <= sample.entries
        case b"sBIT":
            return len(data) == (3 if sample.entries else sample.channels) and all(
                1 <= bits <= sample.bits for bits in data
            )
        case b"bKGD":
            return len(data) == (1 if sample.entries else 2 * (3 if sample.channels > 2 else 1))
        case b"sRGB":
            return data[0] <= 3
        case b"pHYs":
            return data[8] <= 1
        case b"eXIf":
            return len(data) > 0
        case b"tEXt":
            keyword, separator, text = data.partition(b"\0")
            return _keyword(keyword) and separator == b"\0" and b"\0" not in text
        case b"iCCP" | b"zTXt":
            keyword, separator, rest = data.partition(b"\0")
            return _keyword(keyword) and rest[:1] == b"\0" and _inflates(rest[1:])
        case b"iTXt":
            return _international_text(data)
    return True


def _keyword(keyword: bytes) -> bool:
    return 1 <= len(keyword) <= 79


def _international_text(data: bytes) -> bool:
    keyword, _, rest = data.partition(b"\0")
    fields = rest[2:].split(b"\0", 2)
    if not _keyword(keyword) or len(rest) < 2 or rest[0] > 1 or rest[1] != 0 or len(fields) != 3:
        return False
    return rest[0] == 0 or _inflates(fields[2])


def _inflates(data: bytes) -> bool:
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(data, MAX_INFLATED_BYTES)
    except zlib.error:
        return False
    return inflater.eof


def _leb128(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_leb128(data: bytes, position: int) -> tuple[int, int]:
    start, value = position, 0
    # Five groups of seven bits hold any length below 2**35; a longer number is nonsense, not a large file.
    while position < min(len(data), start + 5):
        byte = data[position]
        value |= (byte & 0x7F) << 7 * (position - start)
        position += 1
        if byte < 0x80:
            # One number has one spelling: a last group of zeros would be a second one.
            if byte == 0 and position - start > 1:
                break
            return value, position
    raise FormatError(f"image metadata holds no valid length at offset {start}")

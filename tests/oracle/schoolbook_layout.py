"""The layout of payloads in plain Python integers, written from FORMAT.md alone: heads, varints, checksums, tiles."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

RAW, WAVE, PLANES, DEEP = 0, 1, 3, 5
"""The codecs that this book knows."""


class RefusedError(Exception):
    """The bytes break a MUST."""


def must(condition: bool, sentence: str) -> None:
    if not condition:
        raise RefusedError(sentence)


# Section 1: layout.


@dataclass
class Head:
    codec: int
    channels: int
    bits: int
    two_axes: bool
    height: int
    width: int
    digest: bytes = b""
    tile_log2: int = 0
    lanes_log2: int = 0
    extras: bytes = b""
    views: bool = False
    fields: list[tuple[int, int, str]] = field(default_factory=list)
    """First byte, byte behind the last, what it says."""


@dataclass
class Picture:
    shape: tuple[int, ...]
    bits: int
    samples: list[int]
    """In C order."""
    extras: bytes
    fields: list[tuple[int, int, str]]


Tile = list[list[list[int]]]
"""Rows of pixels of array channels."""


def crc32c(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ 0x82F63B78 * (register & 1)
    return register ^ 0xFFFFFFFF


def varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for count in range(5):
        must(position < len(data), "ends inside a varint")
        byte = data[position]
        position += 1
        value += (byte & 127) << 7 * count
        if byte < 128:
            must(byte != 0 or count == 0, "a varint is not in its shortest form")
            return value, position
    raise RefusedError("a varint has more than five bytes")


def read_head(data: bytes) -> tuple[Head, int]:
    must(len(data) >= 4 and data[:2] == b"\xb1\x1c", "not a payload")
    must(data[2] >> 4 == 1, "another version")
    codec, flags = data[2] & 15, data[3]
    must(codec in (RAW, WAVE, PLANES, DEEP), "an unknown codec")
    must(flags & 0xC0 == 0, "a reserved flag")
    must(codec == WAVE or not flags & 32, "views of another codec")
    head = Head(codec, (flags & 3) + 1, 16 if flags & 4 else 8, bool(flags & 8), 0, 0, views=bool(flags & 32))
    must(not (head.two_axes and head.channels > 1), "two axes with several channels")
    head.height, after_height = varint(data, 4)
    head.width, position = varint(data, after_height)
    must(1 <= head.height < 1 << 24 and 1 <= head.width < 1 << 24, "an edge out of limits")
    axes = ", two axes" if head.two_axes else ""
    head.fields += [
        (0, 2, "magic"),
        (2, 3, f"version 1, codec {codec}"),
        (3, 4, f"{head.channels} channel{'s' * (head.channels > 1)} of {head.bits} bits{axes}"),
        (4, after_height, f"height {head.height}"),
        (after_height, position, f"width {head.width}"),
    ]
    if codec == WAVE:
        must(len(data) >= position + 5, "ends inside the digest")
        head.digest = data[position : position + 4]
        head.fields.append((position, position + 4, "model digest"))
        position += 4
    if codec in (WAVE, DEEP):
        must(len(data) > position, "ends before the tiling")
        head.tile_log2, head.lanes_log2 = data[position] >> 4, data[position] & 15
        must(4 <= head.tile_log2 <= 10 and head.lanes_log2 <= (5 if codec == WAVE else 0), "tiling out of limits")
        lanes = f", lanes: {1 << head.lanes_log2}" if codec == WAVE else ""
        head.fields.append((position, position + 1, f"tiles of at most {1 << head.tile_log2} a side{lanes}"))
        position += 1
    if flags & 16:
        length, begin = varint(data, position)
        must(0 < length <= len(data) - begin, "extras longer than the payload")
        head.extras = data[begin : begin + length]
        head.fields += [(position, begin, f"extras of {length} bytes"), (begin, begin + length, "extras")]
        position = begin + length
    return head, position


def read_streams(payload: bytes) -> tuple[Head, list[bytes]]:
    """The head, and the stream of each tile under its checksum."""
    head, position = read_head(payload)
    count = len(tiles_of(head))
    lengths = []
    must(len(payload) - position >= 5 * count - 1, "too short for its directory")
    for index in range(count - 1):
        length, behind = varint(payload, position)
        head.fields.append((position, behind, f"tile {index} has {length} bytes"))
        lengths.append(length)
        position = behind
    rest = len(payload) - position - sum(lengths) - 4 * count
    must(rest >= 0, "tiles longer than the payload")
    head_bytes = payload[:position]
    streams = []
    for index, length in enumerate([*lengths, rest]):
        stream = payload[position : position + length]
        stored = int.from_bytes(payload[position + length : position + length + 4], "little")
        must(crc32c(head_bytes + struct.pack("<I", index) + stream) == stored, "a checksum differs")
        head.fields += [
            (position, position + length, f"tile {index}"),
            (position + length, position + length + 4, f"checksum of tile {index}"),
        ]
        streams.append(stream)
        position += length + 4
    return head, streams


# Section 3: tiles.


def tiles_of(head: Head) -> list[tuple[int, int, int, int]]:
    """Top, left, height, width of each tile."""
    if head.codec in (RAW, PLANES):
        return [(0, 0, head.height, head.width)]
    edge = 1 << head.tile_log2
    rows, columns = (head.height + edge - 1) // edge, (head.width + edge - 1) // edge
    high, wide = (head.height + rows - 1) // rows, (head.width + columns - 1) // columns
    return [
        (r * high, k * wide, min(high, head.height - r * high), min(wide, head.width - k * wide))
        for r in range(rows)
        for k in range(columns)
    ]

"""The codec `planes`, written from section 12 of FORMAT.md alone."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from schoolbook_layout import PLANES, Head, must, read_head, varint

GREY, ALPHA, TABLE, ALPHA_TABLE = (1 << bit for bit in range(4))


def planes_samples(head: Head, stream: bytes, decode_part: Callable[[bytes], list[int]]) -> list[int]:
    """The image's samples in C order; `decode_part` gives those of a payload."""
    must(len(stream) > 0, "no layout")
    layout, position = stream[0], 1
    with_alpha = head.channels in (2, 4)
    must(layout < 16, "a layout bit without a meaning")
    must(not layout & GREY or head.channels >= 3, "one colour cannot stand for three that are not there")
    must(not layout & ALPHA or with_alpha, "an alpha part without alpha")
    must(not layout & ALPHA_TABLE or bool(layout & ALPHA), "an alpha table without an alpha part")

    opacity = 0
    if with_alpha and not layout & ALPHA:
        must(len(stream) >= position + head.bits // 8, "ends inside the opacity")
        opacity = int.from_bytes(stream[position : position + head.bits // 8], "little")
        position += head.bits // 8

    def taken(position: int) -> tuple[bytes, int]:
        length, begin = varint(stream, position)
        must(begin + length <= len(stream), "a length beyond the stream")
        return stream[begin : begin + length], begin + length

    tables: list[list[int] | None] = [None, None]
    for number, bit in enumerate((TABLE, ALPHA_TABLE)):
        if layout & bit:
            deflated, position = taken(position)
            tables[number] = read_table(deflated, head.bits)
    parts = []
    if layout & ALPHA:
        colour, position = taken(position)
        parts.append(colour)
    parts.append(stream[position:])

    colours = 3 if head.channels >= 3 and not layout & GREY else 1
    planes = []
    for part, channels, table in zip(parts, (colours, 1), tables, strict=False):
        planes.append(part_samples(head, part, channels, table, decode_part))
    samples = []
    for place in range(head.height * head.width):
        colour_samples = planes[0][place * colours : (place + 1) * colours]
        samples += colour_samples * 3 if layout & GREY else colour_samples
        if with_alpha:
            samples.append(planes[1][place] if layout & ALPHA else opacity)
    return samples


def part_samples(
    head: Head, part: bytes, channels: int, table: list[int] | None, decode_part: Callable[[bytes], list[int]]
) -> list[int]:
    own, _ = read_head(part)
    must(own.codec != PLANES, "planes in planes")
    must((own.height, own.width, own.channels) == (head.height, head.width, channels), "a part of another shape")
    must(not own.two_axes and not own.extras, "a part with two axes or extras")
    must(own.bits == (8 if table is not None and len(table) <= 256 else head.bits), "a part of another depth")
    samples = decode_part(part)
    if table is None:
        return samples
    must(max(samples) < len(table), "an index beyond the table")
    return [table[index] for index in samples]


def read_table(deflated: bytes, bits: int) -> list[int]:
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(deflated)
    except zlib.error:
        must(False, "no zlib stream")
    must(inflater.eof and not inflater.unused_data, "a zlib stream that ends elsewhere")
    must(1 <= len(inflated) <= 196608, "a table out of limits")
    values, position, last = [], 0, -1
    while position < len(inflated):
        gap, position = varint(inflated, position)
        last += gap + 1
        must(last < 1 << bits, "a value beyond the depth")
        values.append(last)
    return values

"""Rows of TIFF files: some strips, or one row of tiles, with the tags of the file, are a TIFF of their own."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.errors import ImageError
from pilc_stream.images.bands_png import BAND_BYTES
from pilc_stream.images.decode import decode_image
from pilc_stream.images.pixels import ImageHeader, NotBanded, Pixels

MAX_STRIP_BYTES = 1 << 27
"""Of a strip or a row of tiles, decoded: these are decoded at once."""

_HEIGHT, _COMPRESSION, _STRIPS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES = 257, 259, 273, 277, 278, 279
_ORIENTATION, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 274, 284, 322, 323, 324, 325
_DEPTHS = 258
_NONE = 1
_INDEPENDENT = frozenset((_NONE, 4, 5, 7, 8, 32773, 32946, 50000))
"""Compressions whose strips do not need each other: none, G4, LZW, JPEG, deflate (twice), PackBits, Zstandard."""

_SHORT, _LONG = 3, 4
_TYPE_BYTES = {1: 1, 2: 1, _SHORT: 2, _LONG: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_MAX_ENTRIES = 4096


@dataclass(frozen=True, slots=True)
class _Entry:
    """One tag: its type, its number of values, and their bytes as the file has them."""

    kind: int
    count: int
    content: bytes


@dataclass(slots=True)
class _Directory:
    """The first directory of a classic TIFF file. `order`: of its bytes, as `struct` writes it."""

    order: str
    entries: dict[int, _Entry] = field(default_factory=dict)

    def numbers(self, tag: int, otherwise: int | None = None) -> list[int]:
        """The values of a tag of whole numbers. Raises ImageError where it is missing and nothing stands for it."""
        entry = self.entries.get(tag)
        if entry is None and otherwise is not None:
            return [otherwise]
        if entry is None or entry.kind not in (_SHORT, _LONG) or not entry.count:
            raise ImageError(f"the TIFF directory has no whole numbers for tag {tag}")
        values: list[int] = np.frombuffer(entry.content, f"{self.order}u{_TYPE_BYTES[entry.kind]}").tolist()
        return values

    def file(self, changed: dict[int, list[int]], body: bytes, places: int) -> bytes:
        """A TIFF with these entries, some `changed`; values of the tag `places` are offsets into `body`."""
        entries = dict(self.entries)
        for tag, values in changed.items():
            entries[tag] = _Entry(_LONG, len(values), struct.pack(f"{self.order}{len(values)}I", *values))
        values_at = 8 + 2 + 12 * len(entries) + 4
        body_at = values_at + sum(len(each.content) + 1 for each in entries.values() if len(each.content) > 4)
        offsets = [body_at + offset for offset in changed[places]]
        entries[places] = _Entry(_LONG, len(offsets), struct.pack(f"{self.order}{len(offsets)}I", *offsets))
        table, values_bytes = bytearray(), bytearray()
        for tag in sorted(entries):
            kind, count, content = entries[tag].kind, entries[tag].count, entries[tag].content
            table += struct.pack(f"{self.order}HHI", tag, kind, count)
            if len(content) > 4:
                table += struct.pack(f"{self.order}I", values_at + len(values_bytes))
                values_bytes += content + bytes(len(content) % 2)
            else:
                table += content.ljust(4, b"\0")
        start = (b"II*\0" if self.order == "<" else b"MM\0*") + struct.pack(f"{self.order}IH", 8, len(entries))
        head = start + bytes(table) + bytes(4) + bytes(values_bytes)
        return head.ljust(body_at, b"\0") + body


def tiff_rows(data: bytes, header: ImageHeader, metadata: bool) -> tuple[Pixels, Callable[[], Iterator[NDArray[Any]]]]:
    """Some rows as an image of their own, and what reads all rows in bands."""
    directory = _parse(data)
    (compression,) = directory.numbers(_COMPRESSION, _NONE)[:1]
    samples = directory.numbers(_SAMPLES, 1)[0]
    if compression not in _INDEPENDENT:
        raise NotBanded(f"its compression is number {compression}")
    if directory.numbers(_ORIENTATION, 1) != [1] or (directory.numbers(_PLANAR, 1) != [1] and samples > 1):
        raise NotBanded("its rows are turned or its channels apart")
    row_bytes = -(-header.width * samples * max(directory.numbers(_DEPTHS, 1)) // 8)
    if _TILES in directory.entries:
        bands = _tile_rows(data, directory, header, row_bytes)
    else:
        bands = _strips(data, directory, header, row_bytes, compression == _NONE)
    first = next(iter(bands()), None)
    if first is None:
        raise ImageError("the TIFF file holds no rows")
    head = decode_image(first[1], max_pixels=header.width * first[0], metadata=metadata)
    one_row = Pixels(head.array[:1].copy(), head.mode, head.extras)

    def read() -> Iterator[NDArray[Any]]:
        for rows, file in bands():
            yield decode_image(file, max_pixels=rows * header.width, metadata=False).array

    return one_row, read


def _parse(data: bytes) -> _Directory:
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        raise NotBanded("its offsets have 64 bits")
    directory = _Directory(order)
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, at)
    if count > _MAX_ENTRIES:
        raise ImageError(f"the TIFF directory announces {count} tags")
    for position in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, values = struct.unpack_from(f"{order}HHI", data, position)
        if kind not in _TYPE_BYTES:
            raise ImageError(f"the TIFF directory has a tag {tag} of type {kind}, which is not known")
        length = values * _TYPE_BYTES[kind]
        start = position + 8 if length <= 4 else struct.unpack_from(f"{order}I", data, position + 8)[0]
        directory.entries[tag] = _Entry(kind, values, _cut(data, start, length))
    return directory


def _strips(
    data: bytes, directory: _Directory, header: ImageHeader, row_bytes: int, is_plain: bool
) -> Callable[[], Iterator[tuple[int, bytes]]]:
    """Files of some strips each, with their rows; where nothing is compressed a strip is cut."""
    rows = min(directory.numbers(_ROWS_PER_STRIP, header.height)[0], header.height)
    count = -(-header.height // max(1, rows))
    places = directory.numbers(_STRIPS)
    if is_plain:
        lengths = [row_bytes * min(rows, header.height - rows * index) for index in range(count)]
    else:
        lengths = directory.numbers(_STRIP_BYTES)
    if rows < 1 or not len(places) == len(lengths) == count:
        raise ImageError(f"the TIFF directory has {len(places)} strips of {rows} rows for {header.height} rows")
    if is_plain:
        cut = max(1, BAND_BYTES // row_bytes)
        pieces = [
            (min(cut, strip_bytes // row_bytes - first), place + first * row_bytes)
            for place, strip_bytes in zip(places, lengths, strict=True)
            for first in range(0, strip_bytes // row_bytes, cut)
        ]
        return lambda: (
            (high, _strip_file(directory, [_cut(data, place, high * row_bytes)], high, high)) for high, place in pieces
        )
    if rows * row_bytes > MAX_STRIP_BYTES:
        raise NotBanded(f"its strips have {rows} rows, too many to be decoded one at a time")
    together = max(1, BAND_BYTES // (rows * row_bytes))

    def files() -> Iterator[tuple[int, bytes]]:
        for index in range(0, count, together):
            streams = [
                _cut(data, place, length)
                for place, length in zip(
                    places[index : index + together], lengths[index : index + together], strict=True
                )
            ]
            high = min(rows * len(streams), header.height - rows * index)
            yield high, _strip_file(directory, streams, rows, high)

    return files


def _strip_file(directory: _Directory, streams: list[bytes], rows: int, high: int) -> bytes:
    lengths = [len(stream) for stream in streams]
    changed = {_HEIGHT: [high], _ROWS_PER_STRIP: [rows], _STRIP_BYTES: lengths, _STRIPS: _starts(lengths)}
    return directory.file(changed, b"".join(streams), _STRIPS)


def _tile_rows(
    data: bytes, directory: _Directory, header: ImageHeader, row_bytes: int
) -> Callable[[], Iterator[tuple[int, bytes]]]:
    """Files of one row of tiles each, with their rows of pixels."""
    wide, high = directory.numbers(_TILE_WIDTH)[0], directory.numbers(_TILE_HEIGHT)[0]
    places, lengths = directory.numbers(_TILES), directory.numbers(_TILE_BYTES)
    if min(wide, high) < 1 or wide > 2 * header.width + 1024:
        raise ImageError(f"the TIFF directory has tiles of {wide} x {high}")
    across, down = -(-header.width // wide), -(-header.height // high)
    if not len(places) == len(lengths) == across * down:
        raise ImageError(f"the TIFF directory has {len(places)} tiles; {across} x {down} are needed")
    if high * row_bytes > MAX_STRIP_BYTES:
        raise NotBanded(f"its tiles have {high} rows, too many to be decoded a row of tiles at a time")

    def files() -> Iterator[tuple[int, bytes]]:
        for row in range(down):
            these = range(row * across, (row + 1) * across)
            streams = [_cut(data, places[index], lengths[index]) for index in these]
            sizes = [len(stream) for stream in streams]
            rows = min(high, header.height - row * high)
            changed = {_HEIGHT: [rows], _TILE_BYTES: sizes, _TILES: _starts(sizes)}
            yield rows, directory.file(changed, b"".join(streams), _TILES)

    return files


def _starts(lengths: list[int]) -> list[int]:
    return list(accumulate(lengths[:-1], initial=0))


def _cut(data: bytes, start: int, length: int) -> bytes:
    if start + length > len(data):
        raise ImageError(f"the TIFF file ends at byte {len(data)}, before what should lie at {start}")
    return data[start : start + length]

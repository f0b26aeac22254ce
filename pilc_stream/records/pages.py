"""Where in a Parquet file each payload lies, found by walking the pages of its column.

A payload column is written without compression and dictionary, so a page is a header (Thrift, compact
protocol), the definition levels, then for each value its length (4 bytes, little-endian) and its bytes.
Walking that structure cannot be fooled by payloads that look like others, as a search could.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pyarrow.parquet as pq

from pilc_stream.errors import FormatError, TruncatedError
from pilc_stream.records.schema import PAYLOAD_LEAF

LENGTH_BYTES: Final = 4
"""Bytes between the end of one payload and the start of the next of the same page: its length."""

# Numbers of parquet.thrift and of the compact protocol.
_DATA_PAGE = 0
_ENCODING_PLAIN = 0
_FIELD_TYPE, _FIELD_STORED_BYTES, _FIELD_DATA_HEADER = 1, 3, 5
_FIELD_VALUES, _FIELD_ENCODING = 1, 2
_STOP, _TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _STRUCT = 0, 1, 2, 3, 4, 5, 6, 7, 8, 12

_Struct = dict[int, "int | _Struct"]


def locate_payloads(file: bytes, metadata: pq.FileMetaData) -> list[tuple[int, int]]:
    """Return offset and length of each payload in the Parquet `file`, in row order.

    Raises FormatError where the payload column is compressed, dictionary-encoded, has nulls, or breaks off.
    """
    ranges: list[tuple[int, int]] = []
    for group_index in range(metadata.num_row_groups):
        group = metadata.row_group(group_index)
        column = next(
            (c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == PAYLOAD_LEAF), None
        )
        if column is None:
            raise FormatError(f"Row group {group_index} has no column {PAYLOAD_LEAF}: the file is not a shard.")
        if column.compression != "UNCOMPRESSED" or column.has_dictionary_page:
            raise FormatError(f"Row group {group_index}: payloads are compressed or in a dictionary; both MUST NOT be.")
        start = column.data_page_offset
        found = list(_values(memoryview(file), start, start + column.total_compressed_size))
        if len(found) != group.num_rows:
            raise FormatError(f"Row group {group_index} has {group.num_rows} rows but {len(found)} payloads.")
        ranges.extend(found)
    return ranges


def _values(file: memoryview, position: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield offset and length of each value in a column chunk."""
    if end > len(file):
        raise TruncatedError(f"A column chunk ends at byte {end}, the file at {len(file)}.")
    while position < end:
        header, body = _struct(file, position)
        data = header.get(_FIELD_DATA_HEADER)
        stored_bytes = header.get(_FIELD_STORED_BYTES)
        if header.get(_FIELD_TYPE) != _DATA_PAGE or not isinstance(data, dict) or not isinstance(stored_bytes, int):
            raise FormatError(f"Byte {position}: expected a data page (version 1).")
        values = data.get(_FIELD_VALUES)
        if data.get(_FIELD_ENCODING) != _ENCODING_PLAIN or not isinstance(values, int):
            raise FormatError(f"Byte {position}: the page is not PLAIN.")
        page_end = body + stored_bytes
        if stored_bytes < 0 or page_end > end:
            raise TruncatedError(f"The page at byte {position} ends at {page_end}, its column chunk at {end}.")
        # The definition levels (is a value null?) come first, behind their own length.
        cursor = body + LENGTH_BYTES + _length(file, body, page_end)
        for _ in range(values):
            length = _length(file, cursor, page_end)
            cursor += LENGTH_BYTES
            yield cursor, length
            cursor += length
        if cursor != page_end:
            raise FormatError(f"The page at byte {position} has {page_end - cursor} bytes that are no value.")
        position = page_end


def _length(file: memoryview, position: int, end: int) -> int:
    length = int.from_bytes(file[position : position + LENGTH_BYTES], "little")
    if position + LENGTH_BYTES + length > end:
        raise TruncatedError(f"A value of {length} bytes at byte {position} passes the end of its page at {end}.")
    return length


def _struct(file: memoryview, position: int) -> tuple[_Struct, int]:
    """Read a Thrift struct: its integers and structs by field number, and the position behind it."""
    fields: _Struct = {}
    number = 0
    while True:
        byte = _byte(file, position)
        position += 1
        kind = byte & 15
        if kind == _STOP:
            return fields, position
        if byte >> 4:
            number += byte >> 4
        else:
            number, position = _zigzag(file, position)
        if kind == _STRUCT:
            fields[number], position = _struct(file, position)
        elif kind in (_BYTE, _I16, _I32, _I64):
            fields[number], position = (
                (_byte(file, position), position + 1) if kind == _BYTE else _zigzag(file, position)
            )
        elif kind == _BINARY:
            length, position = _varint(file, position)
            position += length
        elif kind == _DOUBLE:
            position += 8
        elif kind not in (_TRUE, _FALSE):
            raise FormatError(f"Byte {position}: a page header has a field of type {kind}, which no page header has.")


def _zigzag(file: memoryview, position: int) -> tuple[int, int]:
    value, position = _varint(file, position)
    return (value >> 1) ^ -(value & 1), position


def _varint(file: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = _byte(file, position)
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
        if shift > 63:
            raise FormatError(f"Byte {position}: a number in a page header is longer than 64 bits.")


def _byte(file: memoryview, position: int) -> int:
    if position >= len(file):
        raise TruncatedError(f"A page header passes the end of the file at byte {len(file)}.")
    return file[position]

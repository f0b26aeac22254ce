"""One shard, from records to the bytes of its file: a Parquet file and the place of each payload in it.

A shard is built whole in memory, because a writer that fails halfway leaves a readable, shorter file. Row groups are
written as they fill, so that a shard can be built while its last images are coded, and a payload that was written is
held no longer. The same records give the same bytes with the same PyArrow, in any process and however they come.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import google_crc32c
import pyarrow as pa
import pyarrow.parquet as pq

from pilc_stream.errors import FormatError, UsageError
from pilc_stream.records.pages import locate_payloads
from pilc_stream.records.record import Record
from pilc_stream.records.schema import PAYLOAD_LEAF, infer_columns, shard_schema, to_table

ROW_GROUP_ROWS: Final = 256
ROW_GROUP_BYTES: Final = 16_000_000
"""Payload bytes of a row group; a larger payload has a group of its own. DATASET.md allows four times as many: what is
left to write when the last image is coded should be little."""
MAX_PAYLOAD_BYTES: Final = 2**31 - 2**16
"""A Parquet page counts its bytes in 31 bits, and a payload is never split."""

TRAILER_BYTES: Final = 8
"""The end of a Parquet file: the length of its footer, and its mark."""
GUARD_MAGIC: Final = b"PFCK"
GUARD_BYTES: Final = 8
"""In front of the footer: this mark and the footer's checksum."""

_BATCH_ROWS: Final = 16
_END_BYTES: Final = 32
# Values that hardly repeat: a dictionary would only be in the way.
_PLAIN: Final = frozenset({"key", PAYLOAD_LEAF, "image.path", "source_bytes", "pixel_sha256", "source_sha256"})
_WITHOUT_STATISTICS: Final = frozenset({PAYLOAD_LEAF, "image.path", "pixel_sha256", "source_sha256"})


@dataclass(frozen=True, slots=True)
class BuiltShard:
    """The bytes of a shard file, offset and length of each payload in it, and its SHA-256 (hex)."""

    file: bytes
    ranges: list[tuple[int, int]]
    sha256: str


@dataclass(frozen=True, slots=True)
class _Written:
    """What is kept of a record to find its payload again: its length, how it begins and how it ends."""

    key: str
    payload_bytes: int
    begin: bytes
    end: bytes

    def is_at(self, file: bytes, offset: int, length: int) -> bool:
        """Whether the payload lies there. Payloads are written in one piece: with both ends in place it is whole."""
        if length != self.payload_bytes:
            return False
        return file.startswith(self.begin, offset) and file.startswith(self.end, offset + length - len(self.end))


def build_shard(records: Sequence[Record], columns: pa.Schema | None = None) -> tuple[bytes, list[tuple[int, int]]]:
    """Return a Parquet file of `records` and, in their order, offset and length of each payload in it.

    `columns` is the schema of the user's own columns; without it their types are inferred from the values.
    Raises UsageError for a doubled key, a payload above MAX_PAYLOAD_BYTES or a value that does not fit its column.
    """
    builder = ShardBuilder(columns)
    builder.add(records)
    built = builder.finish()
    return built.file, built.ranges


class ShardBuilder:
    """Builds a shard from records that come bit by bit. For one thread at a time."""

    def __init__(self, columns: pa.Schema | None = None) -> None:
        """`columns` as for `build_shard`; without it, all records are held until the last has come."""
        self._columns = columns
        self._written: list[_Written] = []
        self._keys: set[str] = set()
        self._group: list[Record] = []
        self._group_bytes = 0
        self._sink = io.BytesIO()
        self._sha256 = hashlib.sha256()
        self._hashed_bytes = 0
        self._schema: pa.Schema | None = None
        self._writer: Any = None
        if columns is not None:
            self._open(columns)

    def add(self, records: Sequence[Record]) -> None:
        """Add records, in their order. Raises as `build_shard`; what was added before does not matter then."""
        for record in records:
            self._check(record)
            full = len(self._group) == ROW_GROUP_ROWS or self._group_bytes + len(record.payload) > ROW_GROUP_BYTES
            if self._columns is not None and self._group and full:
                self._write_group()
            self._group.append(record)
            self._group_bytes += len(record.payload)

    def finish(self) -> BuiltShard:
        """The shard. Nothing can be added any more.

        Raises as `build_shard`, FormatError where PyArrow has laid the payloads out in an unknown way.
        """
        if self._columns is None:
            held, self._group, self._group_bytes = self._group, [], 0
            self._columns = infer_columns(held)
            self._open(self._columns)
            self._keys.clear()
            self.add(held)
        if self._group:
            self._write_group()
        self._writer.close()
        guard(self._sink)
        self._hash(self._sink.tell())
        file = self._sink.getvalue()
        ranges = locate_payloads(file, pq.read_metadata(pa.BufferReader(file)))
        for written, (offset, length) in zip(self._written, ranges, strict=True):
            if not written.is_at(file, offset, length):
                raise FormatError(
                    f"Record {written.key!r}: its payload is not at byte {offset} where the page structure puts it. "
                    "This PyArrow writes pages in an unknown way; install a supported version."
                )
        return BuiltShard(file, ranges, self._sha256.hexdigest())

    def _open(self, columns: pa.Schema) -> None:
        self._schema = shard_schema(columns)
        self._writer = _writer(self._sink, self._schema, _leaves(self._schema))

    def _check(self, record: Record) -> None:
        if record.key in self._keys:
            raise UsageError(f"Two records of one shard have the key {record.key!r}. Keys must be unique.")
        self._keys.add(record.key)
        if len(record.payload) > MAX_PAYLOAD_BYTES:
            raise UsageError(
                f"Record {record.key!r}: its payload of {len(record.payload)} bytes is above the limit of "
                f"{MAX_PAYLOAD_BYTES} that Parquet pages set. Leave the file out or cut the image."
            )

    def _write_group(self) -> None:
        group, self._group, self._group_bytes = self._group, [], 0
        self._writer.write_table(to_table(group, self._schema), row_group_size=len(group))
        self._written += [
            _Written(each.key, len(each.payload), each.payload[:_END_BYTES], each.payload[-_END_BYTES:])
            for each in group
        ]
        # Only the footer is yet to be written, so what is there stays.
        self._hash(self._sink.tell())

    def _hash(self, end: int) -> None:
        with self._sink.getbuffer() as view:
            self._sha256.update(view[self._hashed_bytes : end])
        self._hashed_bytes = end


def guard(sink: io.BytesIO) -> None:
    """Put the checksum of a Parquet file's footer in front of it. Offsets in the file stay; other readers pass over."""
    with sink.getbuffer() as view:
        start = len(view) - int.from_bytes(view[-TRAILER_BYTES:-4], "little") - TRAILER_BYTES
        footer = bytes(view[start:])
    sink.seek(start)
    sink.write(b"".join((GUARD_MAGIC, google_crc32c.value(footer).to_bytes(4, "little"), footer)))


def _leaves(schema: pa.Schema) -> list[str]:
    """Return the Parquet columns of `schema`: nested types have several, named by PyArrow."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, schema):
        pass
    parquet = pq.read_metadata(pa.BufferReader(sink.getvalue())).schema
    return [parquet.column(index).path for index in range(len(parquet))]


def _writer(sink: io.BytesIO, schema: pa.Schema, leaves: Sequence[str]) -> Any:
    return pq.ParquetWriter(
        sink,
        schema,
        version="2.6",
        data_page_version="1.0",
        compression={leaf: "none" if leaf == PAYLOAD_LEAF else "zstd" for leaf in leaves},
        use_dictionary=[leaf for leaf in leaves if leaf not in _PLAIN],
        write_statistics=[leaf for leaf in leaves if leaf not in _WITHOUT_STATISTICS],
        write_page_checksum=True,
        # A page ends at the first batch of rows that fills 1 MB: small batches keep large payloads from being
        # gathered, group by group, once more in memory.
        write_batch_size=_BATCH_ROWS,
    )

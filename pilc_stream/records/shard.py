"""One shard: records to Parquet bytes with the place of each payload, and back with ranged reads only.

A shard is built whole in memory, because a writer that fails halfway leaves a readable, shorter file. The same
records give the same bytes with the same PyArrow, in any process.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import google_crc32c
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pilc_stream.errors import ChecksumError, FormatError, PilcError, TruncatedError, UsageError
from pilc_stream.records.commit import read_ranges
from pilc_stream.records.pages import locate_payloads
from pilc_stream.records.record import Record, ShardEntry
from pilc_stream.records.schema import PAYLOAD_LEAF, check_schema, infer_columns, shard_schema, to_table
from pilc_stream.records.sparse import SparseFile
from pilc_stream.storage import Store

ROW_GROUP_ROWS: Final = 256
ROW_GROUP_BYTES: Final = 64_000_000
"""Payload bytes of a row group; a larger payload has a group of its own."""
MAX_PAYLOAD_BYTES: Final = 2**31 - 2**16
"""A Parquet page counts its bytes in 31 bits, and a payload is never split."""

_MAGIC: Final = b"PAR1"
_TRAILER_BYTES: Final = 8
_GUARD_MAGIC: Final = b"PFCK"
_GUARD_BYTES: Final = 8
_TAIL_BYTES: Final = 1 << 16
_BATCH_ROWS: Final = 16
_MERGE_GAP_BYTES: Final = 1 << 17
# Values that hardly repeat: a dictionary would only be in the way.
_PLAIN: Final = frozenset({"key", PAYLOAD_LEAF, "image.path", "source_bytes", "pixel_sha256", "source_sha256"})
_WITHOUT_STATISTICS: Final = frozenset({PAYLOAD_LEAF, "image.path", "pixel_sha256", "source_sha256"})


def build_shard(records: Sequence[Record], columns: pa.Schema | None = None) -> tuple[bytes, list[tuple[int, int]]]:
    """Return a Parquet file of `records` and, in their order, offset and length of each payload in it.

    `columns` is the schema of the user's own columns; without it their types are inferred from the values.
    Raises UsageError for a doubled key, a payload above MAX_PAYLOAD_BYTES or a value that does not fit its column.
    """
    _check_keys(records)
    schema = shard_schema(infer_columns(records) if columns is None else columns)
    sink = io.BytesIO()
    with _writer(sink, schema, _leaves(schema)) as writer:
        for group in _row_groups(records):
            writer.write_table(to_table(group, schema), row_group_size=len(group))
    file = sink.getvalue()
    ranges = locate_payloads(file, pq.read_metadata(pa.BufferReader(file)))
    for record, (offset, length) in zip(records, ranges, strict=True):
        # Compares in place; comparing a slice takes a copy, and that of a memoryview many times as long.
        if length != len(record.payload) or not file.startswith(record.payload, offset):
            raise FormatError(
                f"Record {record.key!r}: its payload is not at byte {offset} where the page structure puts it. "
                "This PyArrow writes pages in an unknown way; install a supported version."
            )
    return _guarded(file), ranges


def read_table(file: bytes, place: str) -> pa.Table:
    """Return all columns of a whole shard, page checksums verified. `place` names the shard in messages.

    Raises ChecksumError, TruncatedError or FormatError where the bytes are not those of a shard.
    """
    _footer(file, len(file), place)
    with _reading(place):
        parquet = pq.ParquetFile(pa.BufferReader(file), page_checksum_verification=True)
        check_schema(parquet.schema_arrow, place)
        return _checked(parquet.read(use_threads=False))


class ShardReader:
    """Reads columns and payloads of one committed shard, fetching only the bytes that they need.

    `load_ranges` gives the payloads' offsets and lengths, int64 `(rows, 2)`, when they are first needed; without
    it they are read from the commit file. Columns are checked against the page checksums; payloads carry their own.
    """

    def __init__(
        self, store: Store, entry: ShardEntry, load_ranges: Callable[[], npt.NDArray[np.int64]] | None = None
    ) -> None:
        self.store = store
        self.entry = entry
        self._load_ranges = load_ranges or partial(read_ranges, store, entry)
        self._ranges: npt.NDArray[np.int64] | None = None
        self._metadata: pq.FileMetaData | None = None

    @property
    def place(self) -> str:
        """The shard's URL, for messages."""
        return f"{self.store.url}/{self.entry.path}"

    @property
    def metadata(self) -> pq.FileMetaData:
        """The Parquet footer, read once. Raises FormatError where it is damaged or contradicts the commit."""
        if self._metadata is None:
            self._metadata = self._read_footer()
        return self._metadata

    @property
    def schema(self) -> pa.Schema:
        """The shard's Arrow schema with the user's columns."""
        return self.metadata.schema.to_arrow_schema()

    @property
    def ranges(self) -> npt.NDArray[np.int64]:
        """Offset and length of each payload in the file, in row order: int64 `(rows, 2)`."""
        if self._ranges is None:
            self._ranges = self._load_ranges()
        return self._ranges

    def keys(self) -> list[str]:
        """Return the keys, in row order."""
        keys: list[str] = self.columns(["key"]).column("key").to_pylist()
        return keys

    def columns(self, names: Sequence[str] | None = None, groups: Sequence[int] | None = None) -> pa.Table:
        """Return the named columns of all rows, or of some row groups; without names, all but the image.

        Raises UsageError for an unknown name, FormatError or ChecksumError where the bytes are damaged.
        """
        known = self.schema.names
        wanted = [name for name in known if name != "image"] if names is None else list(names)
        for name in wanted:
            if name not in known:
                raise UsageError(f"{self.place}: there is no column {name!r}. It has {', '.join(known)}.")
        groups = range(self.metadata.num_row_groups) if groups is None else groups
        spans = self._spans(wanted, groups)
        pieces = self.store.read_ranges(self.entry.path, spans)
        file = SparseFile(
            self.entry.shard_bytes, [(offset, piece) for (offset, _), piece in zip(spans, pieces, strict=True)]
        )
        with _reading(self.place):
            parquet = pq.ParquetFile(
                pa.PythonFile(file, mode="r"),
                metadata=self.metadata,
                pre_buffer=False,
                page_checksum_verification=True,
            )
            table = parquet.read_row_groups(list(groups), columns=wanted, use_threads=False).select(wanted)
            return _checked(table).unify_dictionaries()

    def payload(self, row: int) -> bytes:
        """Return the payload of one row with one ranged read."""
        return self.payloads([row])[0]

    def payloads(self, rows: Sequence[int]) -> list[bytes]:
        """Return the payloads of `rows`, one ranged read each, concurrently where the storage can."""
        for row in rows:
            if not 0 <= row < self.entry.rows:
                raise UsageError(f"{self.place}: there is no row {row}; the shard has {self.entry.rows}.")
        ranges = self.ranges[np.asarray(rows, np.int64)].tolist()
        return self.store.read_ranges(self.entry.path, [(offset, length) for offset, length in ranges])

    def _read_footer(self) -> pq.FileMetaData:
        size = self.entry.shard_bytes
        tail = self.store.read_range(self.entry.path, max(0, size - _TAIL_BYTES), min(size, _TAIL_BYTES))
        framed_bytes = int.from_bytes(tail[-_TRAILER_BYTES:-4], "little") + _TRAILER_BYTES + _GUARD_BYTES
        if len(tail) < framed_bytes <= size and tail[-4:] == _MAGIC:
            tail = self.store.read_range(self.entry.path, size - framed_bytes, framed_bytes)
        footer = _footer(tail, size, self.place)
        with _reading(self.place):
            # A footer alone, framed like a file: its offsets are not followed here.
            metadata = pq.read_metadata(pa.BufferReader(_MAGIC + footer))
            check_schema(metadata.schema.to_arrow_schema(), self.place)
        if metadata.num_rows != self.entry.rows:
            raise FormatError(
                f"{self.place}: the file has {metadata.num_rows} rows, its commit says {self.entry.rows}. "
                "It was replaced; restore it or make it again."
            )
        return metadata

    def _spans(self, names: Sequence[str], groups: Sequence[int]) -> list[tuple[int, int]]:
        """Return offset and length of what to fetch for `names`: their column chunks, close ones merged."""
        # A column's own name may have dots, and those of nested types are paths: what begins with it may be of it.
        heads = tuple(f"{name}." for name in names)
        chunks = []
        for group in map(self.metadata.row_group, groups):
            for column in map(group.column, range(group.num_columns)):
                if f"{column.path_in_schema}.".startswith(heads):
                    start = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
                    chunks.append((start, start + column.total_compressed_size))
        spans: list[tuple[int, int]] = []
        for start, end in sorted(chunks):
            if spans and start - spans[-1][1] <= _MERGE_GAP_BYTES:
                spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
            else:
                spans.append((start, end))
        return [(start, end - start) for start, end in spans]


def _guarded(file: bytes) -> bytes:
    """The file with the checksum of its footer in front of that. Offsets in it stay, and other readers pass over it."""
    start = len(file) - int.from_bytes(file[-_TRAILER_BYTES:-4], "little") - _TRAILER_BYTES
    footer = file[start:]
    return b"".join((memoryview(file)[:start], _GUARD_MAGIC, google_crc32c.value(footer).to_bytes(4, "little"), footer))


def _footer(tail: bytes, shard_bytes: int, place: str) -> bytes:
    """The footer and what follows it, from the end of a file of `shard_bytes`, compared with its checksum.

    PyArrow must not see a damaged one: some end the process. Raises TruncatedError or ChecksumError.
    """
    framed_bytes = int.from_bytes(tail[-_TRAILER_BYTES:-4], "little") + _TRAILER_BYTES
    if tail[-4:] != _MAGIC or framed_bytes + _GUARD_BYTES > min(len(tail), shard_bytes):
        raise TruncatedError(
            f"{place}: the file is damaged: it does not end as Parquet does. Restore it or make it again."
        )
    guard, footer = tail[-framed_bytes - _GUARD_BYTES : -framed_bytes], tail[-framed_bytes:]
    if guard[:4] != _GUARD_MAGIC:
        raise FormatError(
            f"{place}: this Parquet file is not a pilc-stream shard, or is damaged: its footer has no checksum."
        )
    if guard[4:] != google_crc32c.value(footer).to_bytes(4, "little"):
        raise ChecksumError(
            f"{place}: the file is damaged: its footer differs from its checksum. Restore it or make it again."
        )
    return footer


def _check_keys(records: Sequence[Record]) -> None:
    seen = set()
    for record in records:
        if record.key in seen:
            raise UsageError(f"Two records of one shard have the key {record.key!r}. Keys must be unique.")
        seen.add(record.key)
        if len(record.payload) > MAX_PAYLOAD_BYTES:
            raise UsageError(
                f"Record {record.key!r}: its payload of {len(record.payload)} bytes is above the limit of "
                f"{MAX_PAYLOAD_BYTES} that Parquet pages set. Leave the file out or cut the image."
            )


def _row_groups(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Cut at ROW_GROUP_ROWS rows and before ROW_GROUP_BYTES would be passed; no group is empty."""
    start = payload_bytes = 0
    for index, record in enumerate(records):
        full = index - start == ROW_GROUP_ROWS or payload_bytes + len(record.payload) > ROW_GROUP_BYTES
        if full and index > start:
            yield records[start:index]
            start, payload_bytes = index, 0
        payload_bytes += len(record.payload)
    if start < len(records):
        yield records[start:]


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


def _checked(table: pa.Table) -> pa.Table:
    """Check what page checksums do not cover: a damaged page header can leave indices that point outside."""
    table.validate(full=True)
    return table


@contextmanager
def _reading(place: str) -> Iterator[None]:
    """Turn what PyArrow raises over damaged bytes into a sentence. A damaged footer can raise nearly anything."""
    try:
        yield
    except PilcError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, ArithmeticError, MemoryError) as error:
        kind = ChecksumError if "checksum" in str(error).lower() else FormatError
        raise kind(f"{place}: the file is damaged: {error}. Restore it or make it again.") from error

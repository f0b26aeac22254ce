"""One committed shard: its columns and payloads, with ranged reads only. How one is built is in `records.build`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import google_crc32c
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pilc_stream.errors import ChecksumError, FormatError, PilcError, TruncatedError, UsageError
from pilc_stream.records.build import GUARD_BYTES, GUARD_MAGIC, TRAILER_BYTES
from pilc_stream.records.commit import read_ranges
from pilc_stream.records.record import ShardEntry
from pilc_stream.records.schema import check_schema
from pilc_stream.records.sparse import SparseFile
from pilc_stream.storage import Store

_MAGIC: Final = b"PAR1"
_TAIL_BYTES: Final = 1 << 16
_MERGE_GAP_BYTES: Final = 1 << 17


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
        framed_bytes = int.from_bytes(tail[-TRAILER_BYTES:-4], "little") + TRAILER_BYTES + GUARD_BYTES
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


def _footer(tail: bytes, shard_bytes: int, place: str) -> bytes:
    """The footer and what follows it, from the end of a file of `shard_bytes`, compared with its checksum.

    PyArrow must not see a damaged one: some end the process. Raises TruncatedError or ChecksumError.
    """
    framed_bytes = int.from_bytes(tail[-TRAILER_BYTES:-4], "little") + TRAILER_BYTES
    if tail[-4:] != _MAGIC or framed_bytes + GUARD_BYTES > min(len(tail), shard_bytes):
        raise TruncatedError(
            f"{place}: the file is damaged: it does not end as Parquet does. Restore it or make it again."
        )
    guard, footer = tail[-framed_bytes - GUARD_BYTES : -framed_bytes], tail[-framed_bytes:]
    if guard[:4] != GUARD_MAGIC:
        raise FormatError(
            f"{place}: this Parquet file is not a pilc-stream shard, or is damaged: its footer has no checksum."
        )
    if guard[4:] != google_crc32c.value(footer).to_bytes(4, "little"):
        raise ChecksumError(
            f"{place}: the file is damaged: its footer differs from its checksum. Restore it or make it again."
        )
    return footer


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

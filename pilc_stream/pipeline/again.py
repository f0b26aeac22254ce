"""A committed shard as records again: what a retry keeps of it, so that only what failed is read and coded anew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from pilc_stream.pipeline.reading import COLUMNS, rows_of
from pilc_stream.pipeline.sources.tables import values_of
from pilc_stream.records.commit import read_errors, read_ranges
from pilc_stream.records.record import Record, RecordError, ShardEntry
from pilc_stream.records.schema import user_columns
from pilc_stream.records.shard import read_table
from pilc_stream.storage import Store

MISFIT_STAGE: Final = "columns"
"""Stage of the errors that say that a column could not take a value; such a record has not failed."""


@dataclass(frozen=True)
class KeptShard:
    """A committed shard: its `records` in order, the keys of those that `failed`, and the `errors` of the others.

    `columns`: the schema of the user's own columns.
    """

    records: tuple[Record, ...]
    failed: frozenset[str]
    errors: tuple[RecordError, ...]
    columns: pa.Schema

    @classmethod
    def of(cls, store: Store, entry: ShardEntry) -> KeptShard:
        """Read a committed shard whole. Raises FormatError or StorageError where that cannot be."""
        file = store.read(entry.path)
        table = read_table(file, f"{store.url}/{entry.path}")
        ranges = read_ranges(store, entry).tolist()
        own = user_columns(table.schema)
        values = {name: values_of(table.column(name)) for name in own.names}
        records = []
        for row, (offset, length) in zip(rows_of(table.select(COLUMNS)), ranges, strict=True):
            columns = {name: column[row.position] for name, column in values.items()}
            known = {name: getattr(row, name) for name in COLUMNS}
            records.append(Record(payload=file[offset : offset + length], columns=columns, **known))
        errors = read_errors(store, entry.index)
        failed = frozenset(failed_keys(errors))
        return cls(tuple(records), failed, tuple(error for error in errors if error.key not in failed), own)

    def merged(self, made: Iterable[Record]) -> list[Record]:
        """The records with those that failed replaced by `made`."""
        anew = {record.key: record for record in made}
        return [anew.get(record.key, record) for record in self.records]


def failed_keys(errors: Iterable[RecordError]) -> list[str]:
    """The keys of the records that failed, in order."""
    return list(dict.fromkeys(error.key for error in errors if error.stage != MISFIT_STAGE))

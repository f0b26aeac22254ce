"""What a reader keeps of the shards that it uses: where payloads lie and the columns asked for, in bounded memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pilc_stream.errors import FormatError
from pilc_stream.readers.fetch import REQUESTS, SideBySide
from pilc_stream.records.manifest import Manifest
from pilc_stream.records.record import SOURCE_CODEC
from pilc_stream.records.shard import ShardReader

KEPT_BYTES = 512 << 20
"""Byte ranges and columns kept by one reader; the shards used longest ago go first."""

AHEAD = 4
"""Shards whose ranges and columns are asked for before their turn, where shards are read one after another."""


@dataclass(frozen=True)
class Shard:
    """The rows of one shard without their images.

    `place`: its URL; `path`: its path in the data set. `ranges`: int64 `(rows, 2)`, offset and length of each payload.
    `has_kept`: whether some payloads are source files as they came; then `table` has what tells and checks them.
    `damage`: the rows whose columns cannot be read, by row group, and why; of these `table` has the keys at most.
    """

    place: str
    path: str
    has_kept: bool
    ranges: NDArray[np.int64]
    table: pa.Table
    damage: tuple[tuple[range, FormatError], ...] = ()

    @cached_property
    def columns(self) -> dict[str, pa.Array]:
        """The columns of `table` by name, each in one piece."""
        # An empty table may have no piece.
        return {
            name: column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
            for name, column in zip(self.table.column_names, self.table.columns, strict=True)
        }


class Place(NamedTuple):
    """Where a sample lies: its row in the data set, its shard, and its row there."""

    row: int
    shard: Shard
    shard_row: int

    def __str__(self) -> str:
        key = self.value("key")
        name = f"sample {self.row}" if key is None else f"sample {self.row}, {key!r}"
        return f"{name} in {self.shard.place}"

    @property
    def damage(self) -> FormatError | None:
        """Why the columns of this row cannot be read, if they cannot."""
        for rows, error in self.shard.damage:
            if self.shard_row in rows:
                return type(error)(f"{self}: its columns are lost: {error}")
        return None

    @property
    def is_kept(self) -> bool:
        """Whether the payload is the source file as it came."""
        return self.shard.has_kept and self.value("codec") == SOURCE_CODEC

    def value(self, name: str) -> Any:
        """The value of a column, as Python has it."""
        return self.shard.columns[name][self.shard_row].as_py()


class ShardCache:
    """Loads shards' ranges and columns when they are first used. Belongs to one process; threads may share it.

    `columns` are loaded besides the keys, and `pixel_sha256` with `verify`.
    """

    def __init__(self, manifest: Manifest, columns: Sequence[str], verify: bool) -> None:
        self._manifest = manifest
        self._names = list(dict.fromkeys(["key", *columns, *(["pixel_sha256"] if verify else [])]))
        self._lock = threading.Lock()
        self._shards: OrderedDict[int, Shard | FormatError] = OrderedDict()
        self._expected: dict[int, Future[Shard | FormatError]] = {}
        self._pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="pilc-shard")
        self._held_bytes = 0

    def __getitem__(self, index: int) -> Shard | FormatError:
        """The shard at a position in the manifest; its error where it is damaged. Raises StorageError."""
        with self._lock:
            if index in self._shards:
                self._shards.move_to_end(index)
                return self._shards[index]
            expected = self._expected.get(index)
        try:
            loaded = expected.result() if expected is not None else self._load(index)
        finally:
            with self._lock:
                self._expected.pop(index, None)
        with self._lock:
            if index not in self._shards:
                self._shards[index] = loaded
                self._held_bytes += _held_bytes(loaded)
            while self._held_bytes > KEPT_BYTES and len(self._shards) > 1:
                self._held_bytes -= _held_bytes(self._shards.popitem(last=False)[1])
        return loaded

    def expect(self, indices: Iterable[int]) -> None:
        """Begin to load shards that will be asked for soon."""
        with self._lock:
            for index in indices:
                if index not in self._shards and index not in self._expected:
                    self._expected[index] = self._pool.submit(self._load, index)

    def get_many(self, indices: Sequence[int]) -> list[Shard | FormatError]:
        """Several shards, those that are not here yet loaded side by side."""
        with self._lock:
            missing = sum(index not in self._shards for index in indices)
        if missing < 2:
            return [self[index] for index in indices]
        with ThreadPoolExecutor(min(REQUESTS, missing)) as pool:
            return list(pool.map(self.__getitem__, indices))

    def _load(self, index: int) -> Shard | FormatError:
        reader = self._manifest.reader(index)
        # Columns lie in pieces, some for each row group.
        reader.store = SideBySide(reader.store)
        has_kept = bool(reader.entry.failed or reader.entry.fallback)
        # A source file carries no checksum of its own.
        names = list(dict.fromkeys([*self._names, "codec", "source_sha256"])) if has_kept else self._names
        try:
            # Side by side, because each costs the latency of its requests.
            with ThreadPoolExecutor(1) as pool:
                ranges = pool.submit(lambda: reader.ranges)
                table, damage = _read_columns(reader, names)
            return Shard(reader.place, reader.entry.path, has_kept, ranges.result(), table, damage)
        except FormatError as error:
            # Kept like a shard: what is stored under a content's name does not heal.
            return error


def _read_columns(reader: ShardReader, names: Sequence[str]) -> tuple[pa.Table, tuple[tuple[range, FormatError], ...]]:
    """The columns, and `Shard.damage`. Raises FormatError where the footer is damaged."""
    try:
        return reader.columns(names).combine_chunks(), ()
    except FormatError:
        counts = [reader.metadata.row_group(group).num_rows for group in range(reader.metadata.num_row_groups)]
    parts, damage, start = [], [], 0
    for group, rows in enumerate(counts):
        try:
            parts.append(reader.columns(names, [group]))
        except FormatError as error:
            parts.append(_keys_alone(reader, names, group, rows))
            damage.append((range(start, start + rows), error))
        start += rows
    return pa.concat_tables(parts).unify_dictionaries().combine_chunks(), tuple(damage)


def _keys_alone(reader: ShardReader, names: Sequence[str], group: int, rows: int) -> pa.Table:
    """A table of a damaged row group: null but for the keys, where these are sound."""
    columns = {name: pa.nulls(rows, reader.schema.field(name).type) for name in names}
    with suppress(FormatError):
        columns["key"] = reader.columns(["key"], [group]).column("key")
    return pa.table(columns)


def _held_bytes(shard: Shard | FormatError) -> int:
    return int(shard.ranges.nbytes + shard.table.nbytes) if isinstance(shard, Shard) else 0

"""What a reader keeps of the shards that it uses: where payloads lie and the columns asked for, in bounded memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pilc_stream.errors import FormatError
from pilc_stream.readers.fetch import REQUESTS, SideBySide
from pilc_stream.records.manifest import Manifest
from pilc_stream.records.record import SOURCE_CODEC

KEPT_BYTES = 512 << 20
"""Byte ranges and columns kept by one reader; the shards used longest ago go first."""


AHEAD = 4
"""Shards whose ranges and columns are asked for before their turn, where shards are read one after another."""


@dataclass(frozen=True, slots=True)
class Shard:
    """The rows of one shard without their images.

    `place`: its URL; `path`: its path in the data set. `ranges`: int64 `(rows, 2)`, offset and length of each payload.
    `has_kept`: whether some payloads are source files as they came; then `table` has what tells and checks them.
    """

    place: str
    path: str
    has_kept: bool
    ranges: NDArray[np.int64]
    table: pa.Table


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sample lies: its row in the data set, its shard, and its row there."""

    row: int
    shard: Shard
    shard_row: int

    def __str__(self) -> str:
        return f"sample {self.row}, {self.value('key')!r} in {self.shard.place}"

    @property
    def is_kept(self) -> bool:
        """Whether the payload is the source file as it came."""
        return self.shard.has_kept and self.value("codec") == SOURCE_CODEC

    def value(self, name: str) -> Any:
        """The value of a column, as Python has it."""
        return self.shard.table.column(name)[self.shard_row].as_py()


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
            return Shard(
                reader.place, reader.entry.path, has_kept, reader.ranges, reader.columns(names).combine_chunks()
            )
        except FormatError as error:
            # Kept like a shard: what is stored under a content's name does not heal.
            return error


def _held_bytes(shard: Shard | FormatError) -> int:
    return int(shard.ranges.nbytes + shard.table.nbytes) if isinstance(shard, Shard) else 0

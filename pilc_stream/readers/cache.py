"""Payloads on a local disk: read once from far away, then from here, by all processes of a machine.

One file per shard, named by the shard's content, so it never grows stale and data sets that share shards share it:

    a table of 8 bytes per row: 1 << 32 | CRC-32C of the payload, or 0 where it is not here
    the payloads, each as far behind the table as it lies in the shard; what is not here is a hole and takes no room

A payload is written before its place in the table, and compared with its checksum whenever it is read. So a process
may be killed at any moment, and what a damaged disk returns is a miss. Processes take turns at writing by a lock on
the folder itself, which the system opens again when a process dies: nothing has to be cleaned up, ever.

The limit holds for all files together. To make room, files of shards that are not this data set's go, those used
longest ago first, unless they were used within `IDLE_S` seconds. Where only its own are left, what is here stays and
nothing more comes: an epoch reads everything once, so any exchange would lose as much as it gains.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from pilc_stream.errors import UsageError
from pilc_stream.readers.pieces import Pieces

DEFAULT_CACHE_BYTES = 32 << 30
"""How much a cache may hold where nobody says."""

IDLE_S = 600.0
"""How long a shard of another data set must be unused before it makes room."""

PATIENCE_S = 5.0
"""How long a writer waits for its turn; then its payloads are not kept. A process that was halted holds up no other."""

SUFFIX = ".pilc-cache-1"

_SLOT_BYTES = 8
_PRESENT = 1 << 32
_PAGE_BYTES = 4096
_TOUCH_S = 60.0
_POLL_S = 0.01


class PayloadCache:
    """The cache in `folder`, for the shards of one data set. Holds no open file: picklable, safe to fork."""

    def __init__(self, folder: str | Path, limit_bytes: int, shard_rows: Mapping[str, int]) -> None:
        """`limit_bytes`: room on disk for all shards in the folder. `shard_rows`: rows of each shard, by its path.

        Raises UsageError where the folder cannot be made or the limit is not above 0.
        """
        if limit_bytes < 1:
            raise UsageError(f"The cache's limit is {limit_bytes} bytes: give 1 or more, or no cache.")
        self.folder = Path(folder).absolute()
        self.limit_bytes = limit_bytes
        self._shard_rows = shard_rows
        self._own = frozenset(map(_name, shard_rows))
        self._broken = False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{self.folder}: cannot keep a cache there: {error}. Give another folder.") from error

    @property
    def used_bytes(self) -> int:
        """Room on disk that the shards in the folder take."""
        return sum(used for _, _, used in self._files())

    def holds(self, pieces: Pieces) -> NDArray[np.bool_]:
        """Which of the pieces are here, damaged perhaps."""
        out = np.zeros(len(pieces.length), np.bool_)
        for path, numbers, rows in _by_shard(pieces):
            with contextlib.suppress(OSError), self._opened(path, os.O_RDONLY) as file:
                out[numbers] = self._slots(file, rows) != 0
        return out

    def read(self, pieces: Pieces) -> list[bytes | None]:
        """The pieces that are here, None for the others. Pieces that are not whole payloads never are."""
        out: list[bytes | None] = [None] * len(pieces.length)
        for path, numbers, rows in _by_shard(pieces):
            with contextlib.suppress(OSError), self._opened(path, os.O_RDONLY) as file:
                slots = self._slots(file, rows)
                self._touch(file)
                for number, slot in zip(numbers.tolist(), slots.tolist(), strict=True):
                    if slot:
                        start = self._table_bytes(path) + int(pieces.offset[number])
                        data = os.pread(file, int(pieces.length[number]), start)
                        if slot == _PRESENT | google_crc32c.value(data):
                            out[number] = data
        return out

    def write(self, pieces: Pieces, payloads: Iterable[tuple[int, bytes]]) -> None:
        """Keep some of the pieces, given by number, as far as there is room. Warns once where the disk refuses."""
        if self._broken:
            return
        wanted = dict(payloads)
        chosen = np.array(sorted(wanted), np.int64)
        try:
            with self._locked() as locked:
                if not locked:
                    return
                for path, numbers, rows in _by_shard(pieces.take(chosen)):
                    data = [wanted[number] for number in chosen[numbers].tolist()]
                    room = sum(-(-len(each) // _PAGE_BYTES) + 2 for each in data) * _PAGE_BYTES + self._table_bytes(
                        path
                    )
                    if self._make_room(room):
                        self._store(path, pieces.offset[chosen[numbers]].tolist(), rows.tolist(), data)
        except OSError as error:
            self._broken = True
            warnings.warn(f"{self.folder}: the cache takes nothing more in this process: {error}.", stacklevel=2)

    def forget(self, path: str, row: int) -> None:
        """Let go of a payload that turned out to be damaged, so that it is read from its shard again."""
        with contextlib.suppress(OSError), self._opened(path, os.O_RDWR) as file:
            os.pwrite(file, bytes(_SLOT_BYTES), _SLOT_BYTES * row)

    def _store(self, path: str, offsets: Sequence[int], rows: Sequence[int], payloads: Sequence[bytes]) -> None:
        with self._opened(path, os.O_RDWR | os.O_CREAT) as file:
            for offset, row, data in zip(offsets, rows, payloads, strict=True):
                _write_at(file, data, self._table_bytes(path) + offset)
                slot = _PRESENT | google_crc32c.value(data)
                _write_at(file, slot.to_bytes(_SLOT_BYTES, "little"), _SLOT_BYTES * row)

    def _make_room(self, wanted_bytes: int) -> bool:
        """Whether so many bytes more stay within the limit, after others have gone if need be."""
        files = self._files()
        free = self.limit_bytes - sum(used for _, _, used in files)
        for name, modified, used in sorted(files, key=lambda file: file[1]):
            if free >= wanted_bytes or modified > time.time() - IDLE_S:
                break
            if name not in self._own:
                with contextlib.suppress(FileNotFoundError):
                    (self.folder / name).unlink()
                free += used
        return free >= wanted_bytes

    def _files(self) -> list[tuple[str, float, int]]:
        """Name, time of last use and room on disk of every shard in the folder."""
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX):
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat()
                        found.append((entry.name, status.st_mtime, 512 * status.st_blocks))
        return found

    def _slots(self, file: int, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The table's entries for `rows`; 0 beyond the end of the file."""
        first, last = int(rows.min()), int(rows.max())
        data = os.pread(file, _SLOT_BYTES * (last + 1 - first), _SLOT_BYTES * first)
        table = np.zeros(last + 1 - first, "<u8")
        whole = len(data) // _SLOT_BYTES
        table[:whole] = np.frombuffer(data[: whole * _SLOT_BYTES], "<u8")
        return table[rows - first]

    def _table_bytes(self, path: str) -> int:
        return -(-_SLOT_BYTES * self._shard_rows[path] // _PAGE_BYTES) * _PAGE_BYTES

    @staticmethod
    def _touch(file: int) -> None:
        if os.fstat(file).st_mtime < time.time() - _TOUCH_S:
            # A cache that may only be read is of use as well.
            with contextlib.suppress(OSError):
                os.utime(file)

    @contextlib.contextmanager
    def _opened(self, path: str, flags: int) -> Iterator[int]:
        file = os.open(self.folder / _name(path), flags | os.O_CLOEXEC, 0o666)
        try:
            yield file
        finally:
            os.close(file)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[bool]:
        """Hold the lock on the folder; False where others have held it for too long."""
        folder = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield _lock(folder, time.monotonic() + PATIENCE_S)
        finally:
            os.close(folder)


def _lock(folder: int, until_s: float) -> bool:
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > until_s:
                return False
        time.sleep(_POLL_S)


def _name(path: str) -> str:
    """The name of a shard's file here; the shard's own tells its content."""
    return path.rpartition("/")[2].removesuffix(".parquet") + SUFFIX


def _by_shard(pieces: Pieces) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.int64]]]:
    """The path of each shard, the numbers of the whole payloads in it, and their rows."""
    whole = pieces.row >= 0
    for path in np.unique(pieces.path[whole]).tolist():
        numbers = np.flatnonzero(whole & (pieces.path == path))
        yield pieces.paths[path], numbers, pieces.row[numbers]


def _write_at(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written

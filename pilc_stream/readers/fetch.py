"""Getting payloads: ranges that lie close are read in one request, requests run side by side, memory is bounded.

A request costs as much as its latency: at 100 ms and 50 MB/s that is 5 MB, shared by the requests in flight. So up
to `GAP_BYTES` between two payloads are read and thrown away rather than asked around, and `REQUESTS` requests of
160 kB in flight keep such a line busy.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pilc_stream.readers.cache import PayloadCache
from pilc_stream.readers.pieces import Pieces
from pilc_stream.storage import Store

GAP_BYTES = 1 << 16
"""Bytes between two payloads that are still read along with them."""

REQUEST_BYTES = 1 << 22
"""About where a long run of payloads is cut into requests, so that they run side by side."""

REQUESTS = 32
"""Requests in flight for one reader."""

TASK_BYTES = 1 << 19
"""Bytes that one thread asks for at a time, unless a single request has more."""

_Tag = TypeVar("_Tag")


class SideBySide(Store):
    """A store whose ranges are asked for by several threads: not every storage asks for them at once by itself."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.url, store.storage_options, store.retries)
        self._store = store

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """As `Store.read_ranges`."""
        share = max(1, -(-len(ranges) // REQUESTS))
        parts = [ranges[start : start + share] for start in range(0, len(ranges), share)]
        if len(parts) < 2:
            return self._store.read_ranges(path, ranges)
        with ThreadPoolExecutor(len(parts)) as pool:
            return [data for part in pool.map(lambda part: self._store.read_ranges(path, part), parts) for data in part]


class Reading:
    """A parcel of pieces to read: `begin` asks for them, `result` waits and returns them in the order of `pieces`.

    What `cache` has is taken from there, and what it lacks is given to it.
    """

    def __init__(self, store: Store, pieces: Pieces, cache: PayloadCache | None = None) -> None:
        self._store, self._pieces, self._cache = store, pieces, cache
        self._out: list[bytes | None] = [None] * len(pieces.length)
        self._futures: list[Future[list[tuple[int, bytes]]]] = []
        self.claimed_bytes = 0
        """Bytes of pieces for which there was room."""

    def begin(self, pool: Executor, claim: Callable[[int], bool] = lambda _: True) -> bool:
        """Ask `pool` for everything, each part when `claim` has found room for its bytes; False where it refuses."""
        if self._cache is not None:
            held_bytes = int(self._pieces.length[self._cache.holds(self._pieces)].sum())
            if held_bytes:
                if not claim(held_bytes):
                    return False
                self.claimed_bytes += held_bytes
                self._out = self._cache.read(self._pieces)
        for number in np.flatnonzero(self._pieces.length == 0).tolist():
            self._out[number] = b""
        numbers = np.array([number for number, data in enumerate(self._out) if data is None], np.int64)
        missing = self._pieces.take(numbers)
        for task in _tasks(missing, _merge(missing)):
            wanted_bytes = sum(int(missing.length[request].sum()) for request in task)
            if not claim(wanted_bytes):
                return False
            self.claimed_bytes += wanted_bytes
            self._futures.append(pool.submit(_read, self._store, missing, numbers, task, self._cache))
        return True

    def result(self) -> list[bytes]:
        """The pieces, once: nothing is held here afterwards. Raises StorageError."""
        while self._futures:
            for number, data in self._futures.pop().result():
                self._out[number] = data
        out, self._out = self._out, []
        return [data for data in out if data is not None]


def fetch(store: Store, pieces: Pieces, cache: PayloadCache | None = None) -> list[bytes]:
    """Read the pieces now and return them in their order. Raises StorageError."""
    if len(pieces.length) == 1 and pieces.length[0] and cache is None:
        return [store.read_range(pieces.paths[pieces.path[0]], int(pieces.offset[0]), int(pieces.length[0]))]
    with ThreadPoolExecutor(REQUESTS) as pool:
        reading = Reading(store, pieces, cache)
        reading.begin(pool)
        return reading.result()


class Prefetcher(Generic[_Tag]):
    """Reads ahead of its consumer, in the order of `plan`, holding at most about `limit_bytes` of pieces at a time.

    `plan` gives a tag and the pieces that belong to it; it runs in a thread of its own. Iterating gives each tag with
    its pieces as bytes, and raises what the plan or a read raised. Whoever lets go of a part of them says so with
    `release`, so that reading goes on meanwhile; the next step of the iteration lets go of the rest. One parcel larger
    than the limit is read alone. Use it as a context manager: leaving it stops the reading.
    """

    def __init__(
        self, store: Store, plan: Iterable[tuple[_Tag, Pieces]], limit_bytes: int, cache: PayloadCache | None = None
    ) -> None:
        self._store = store
        self._cache = cache
        self._plan = plan
        self._limit_bytes = limit_bytes
        # Held by parcels that are ready or in the consumer's hands, and by the one that is being asked for.
        self._ready_bytes = self._asked_bytes = 0
        # Of the parcel in the consumer's hands.
        self._unreleased_bytes = 0
        self._stopped = False
        self._changed = threading.Condition()
        self._ready: queue.SimpleQueue[tuple[_Tag, Reading] | Exception | None] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(REQUESTS, thread_name_prefix="pilc-read")
        # A daemon: a loop that is left in the middle must not keep its process alive.
        self._thread = threading.Thread(target=self._run, name="pilc-prefetch", daemon=True)

    def __enter__(self) -> Prefetcher[_Tag]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def __iter__(self) -> Iterator[tuple[_Tag, list[bytes]]]:
        while (parcel := self._ready.get()) is not None:
            if isinstance(parcel, Exception):
                raise parcel
            tag, reading = parcel
            self._unreleased_bytes = reading.claimed_bytes
            yield tag, reading.result()
            self.release(self._unreleased_bytes)

    def release(self, some_bytes: int) -> None:
        """Say that so many bytes of the parcel at hand are held no longer."""
        with self._changed:
            released = min(some_bytes, self._unreleased_bytes)
            self._unreleased_bytes -= released
            self._ready_bytes -= released
            self._changed.notify()

    def _run(self) -> None:
        try:
            for tag, pieces in self._plan:
                reading = Reading(self._store, pieces, self._cache)
                if not reading.begin(self._pool, self._claim):
                    return
                with self._changed:
                    self._ready_bytes += self._asked_bytes
                    self._asked_bytes = 0
                self._ready.put((tag, reading))
            self._ready.put(None)
        except Exception as error:
            self._ready.put(error)

    def _claim(self, wanted_bytes: int) -> bool:
        """Wait until there is room for `wanted_bytes`; False where the consumer has gone."""
        with self._changed:
            # With nothing ready the consumer waits for this parcel: then it must come, however large.
            self._changed.wait_for(
                lambda: (
                    self._stopped
                    or not self._ready_bytes
                    or self._ready_bytes + self._asked_bytes + wanted_bytes <= self._limit_bytes
                )
            )
            self._asked_bytes += wanted_bytes
            return not self._stopped


def _merge(pieces: Pieces) -> list[NDArray[np.int64]]:
    """The piece numbers of each request: pieces of one object, ascending, with small gaps between them."""
    if not len(pieces.length):
        return []
    by_place = np.lexsort((pieces.offset, pieces.path))
    path, start = pieces.path[by_place], pieces.offset[by_place]
    end = start + pieces.length[by_place]
    apart = (np.diff(path) != 0) | (start[1:] - end[:-1] > GAP_BYTES)
    apart |= np.diff(start // REQUEST_BYTES) != 0
    return np.split(by_place, np.flatnonzero(apart) + 1)


def _tasks(pieces: Pieces, requests: Sequence[NDArray[np.int64]]) -> Iterator[Sequence[NDArray[np.int64]]]:
    """Deal the requests, neighbours together, into tasks: enough for all threads, and none of many bytes.

    Threads take tasks in order, so what was asked for first comes first, rather than everything at the end.
    """
    share = -(-len(requests) // REQUESTS)
    task: list[NDArray[np.int64]] = []
    task_bytes = 0
    for request in requests:
        request_bytes = int(pieces.length[request].sum())
        if task and (len(task) == share or task_bytes + request_bytes > TASK_BYTES):
            yield task
            task, task_bytes = [], 0
        task.append(request)
        task_bytes += request_bytes
    if task:
        yield task


def _read(
    store: Store,
    pieces: Pieces,
    numbers: NDArray[np.int64],
    requests: Sequence[NDArray[np.int64]],
    cache: PayloadCache | None,
) -> list[tuple[int, bytes]]:
    """Read some requests and cut them into pieces: `(number, bytes)`, `numbers` being those of all pieces."""
    # Storage reads the ranges of one object together.
    by_path: dict[int, list[NDArray[np.int64]]] = {}
    for request in requests:
        by_path.setdefault(int(pieces.path[request[0]]), []).append(request)
    out: list[tuple[int, bytes]] = []
    for path, group in by_path.items():
        starts = [int(pieces.offset[request[0]]) for request in group]
        ends = [int(pieces.offset[request[-1]] + pieces.length[request[-1]]) for request in group]
        ranges = [(start, end - start) for start, end in zip(starts, ends, strict=True)]
        for request, start, data in zip(group, starts, store.read_ranges(pieces.paths[path], ranges), strict=True):
            # Slices of bytes are copies: the bytes between the pieces are let go.
            cuts = zip(request.tolist(), (pieces.offset[request] - start).tolist(), strict=True)
            out += [(index, data[at : at + int(pieces.length[index])]) for index, at in cuts]
    if cache is not None:
        cache.write(pieces, out)
    return [(int(numbers[index]), data) for index, data in out]

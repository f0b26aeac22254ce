"""Getting payloads: ranges that lie close are read in one request, requests run side by side, memory is bounded.

A request costs as much as its latency: at 100 ms and 50 MB/s that is 5 MB, shared by the requests in flight. So up
to `GAP_BYTES` between two payloads are read and thrown away rather than asked around.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
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

REQUESTS = 16
"""Requests in flight for one reader."""

_Tag = TypeVar("_Tag")


class Reading:
    """Reads under way. `result()` waits for them and returns the pieces in the order in which they were given.

    What `cache` has is taken from there, and what it lacks is given to it.
    """

    def __init__(self, store: Store, pieces: Pieces, pool: Executor, cache: PayloadCache | None = None) -> None:
        self._out: list[bytes | None] = [None] * len(pieces.length) if cache is None else cache.read(pieces)
        self._missing = [number for number, data in enumerate(self._out) if data is None]
        rest = pieces.take(np.array(self._missing, np.int64))
        tasks = _tasks(_merge(rest))
        self._futures = [pool.submit(_read, store, rest, task, cache) for task in tasks]

    def result(self) -> list[bytes]:
        """The pieces. Raises StorageError."""
        for future in self._futures:
            for index, data in future.result():
                self._out[self._missing[index]] = data
        return [data for data in self._out if data is not None]


def fetch(store: Store, pieces: Pieces, cache: PayloadCache | None = None) -> list[bytes]:
    """Read the pieces now and return them in their order. Raises StorageError."""
    if len(pieces.length) == 1 and cache is None:
        return [store.read_range(pieces.paths[pieces.path[0]], int(pieces.offset[0]), int(pieces.length[0]))]
    with ThreadPoolExecutor(REQUESTS) as pool:
        return Reading(store, pieces, pool, cache).result()


class Prefetcher(Generic[_Tag]):
    """Reads ahead of its consumer, in the order of `plan`, holding at most about `limit_bytes` of pieces at a time.

    `plan` gives a tag and the pieces that belong to it; it runs in a thread of its own. Iterating gives each tag with
    its pieces as bytes, and raises what the plan or a read raised. One parcel larger than the limit is read alone.
    Use it as a context manager: leaving it stops the reading.
    """

    def __init__(
        self, store: Store, plan: Iterable[tuple[_Tag, Pieces]], limit_bytes: int, cache: PayloadCache | None = None
    ) -> None:
        self._store = store
        self._cache = cache
        self._plan = plan
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._stopped = False
        self._changed = threading.Condition()
        self._ready: queue.SimpleQueue[tuple[_Tag, int, Reading] | Exception | None] = queue.SimpleQueue()
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
            tag, held_bytes, reading = parcel
            yield tag, reading.result()
            with self._changed:
                self._held_bytes -= held_bytes
                self._changed.notify()

    def _run(self) -> None:
        try:
            for tag, pieces in self._plan:
                if not self._claim(pieces.total_bytes):
                    return
                self._ready.put((tag, pieces.total_bytes, Reading(self._store, pieces, self._pool, self._cache)))
            self._ready.put(None)
        except Exception as error:
            self._ready.put(error)

    def _claim(self, wanted_bytes: int) -> bool:
        """Wait until there is room for `wanted_bytes`; False where the consumer has gone."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopped or not self._held_bytes or self._held_bytes + wanted_bytes <= self._limit_bytes
            )
            self._held_bytes += wanted_bytes
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


def _tasks(requests: Sequence[NDArray[np.int64]]) -> Iterator[Sequence[NDArray[np.int64]]]:
    """Deal the requests, neighbours together, into about as many tasks as there are threads."""
    share = -(-len(requests) // REQUESTS)
    for start in range(0, len(requests), max(1, share)):
        yield requests[start : start + share]


def _read(
    store: Store, pieces: Pieces, requests: Sequence[NDArray[np.int64]], cache: PayloadCache | None
) -> list[tuple[int, bytes]]:
    """Read some requests and cut them into pieces: `(piece number, bytes)`."""
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
    return out

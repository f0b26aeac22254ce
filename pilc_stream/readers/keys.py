"""From a key to its row: all keys in Arrow memory, sorted once, then found by bisection."""

from __future__ import annotations

import difflib
import threading
from bisect import bisect_left
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pilc_stream.errors import UnknownKeyError
from pilc_stream.readers.fetch import REQUESTS
from pilc_stream.records.manifest import Manifest

_NEIGHBOURS = 20
_NAMESAKES = 50


class KeyIndex:
    """The keys of a data set; read from all shards when first asked. Threads may share it."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._lock = threading.Lock()

    def find(self, key: str) -> int:
        """The row of `key`. Raises UnknownKeyError, FormatError or StorageError."""
        with self._lock:
            keys, by_key = self._sorted
        place = bisect_left(by_key, key, key=lambda row: str(keys[int(row)].as_py()))
        if place < len(by_key) and keys[int(by_key[place])].as_py() == key:
            return int(by_key[place])
        close = self._close(key, keys, by_key[max(0, place - _NEIGHBOURS) : place + _NEIGHBOURS])
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise UnknownKeyError(f"{self._manifest.url}: no sample has the key {key!r} among {len(keys)}.{hint}")

    @cached_property
    def _sorted(self) -> tuple[pa.Array, NDArray[np.uint64]]:
        """All keys by row, and the rows in the order of their keys."""
        readers = [self._manifest.reader(position) for position in range(len(self._manifest.shards))]
        with ThreadPoolExecutor(REQUESTS) as pool:
            tables = list(pool.map(lambda reader: reader.columns(["key"]), readers))
        # Large strings: the keys of a big data set together pass 2 GB.
        chunks = [chunk.cast(pa.large_string()) for table in tables for chunk in table.column("key").chunks]
        keys = pa.chunked_array(chunks, pa.large_string()).combine_chunks()
        # Arrow sorts by UTF-8 bytes, which is the order of code points, as Python compares.
        return keys, pc.array_sort_indices(keys).to_numpy()

    @staticmethod
    def _close(key: str, keys: pa.Array, neighbours: NDArray[np.uint64]) -> list[str]:
        """Keys that look like `key`, from its neighbours in the alphabet and those with the same file name."""
        name = key.rpartition("/")[2]
        namesakes = pc.indices_nonzero(pc.ends_with(keys, name))[:_NAMESAKES] if name else []
        rows = [*neighbours.tolist(), *(index.as_py() for index in namesakes)]
        candidates = dict.fromkeys(str(keys[row].as_py()) for row in rows)
        return difflib.get_close_matches(key, candidates, n=3)

"""Sorting more than memory should hold: sorted runs on disk, merged while they are read.

A bucket may have ten million names under one prefix. Their order is that of keys, which no storage promises, so they
are sorted here; beyond `RUN_ITEMS` of them, memory holds one run and a block of each other.
"""

from __future__ import annotations

import heapq
import pickle
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import IO, Any, Final, TypeVar

RUN_ITEMS: Final = 100_000
"""Items sorted in memory; of names and sizes some 30 MB."""
_BLOCK_ITEMS: Final = 500

_Item = TypeVar("_Item", bound=Any)


def sorted_stream(items: Iterable[_Item], run_items: int = RUN_ITEMS) -> Iterator[_Item]:
    """Yield `items` (picklable, comparable) in rising order, with about `run_items` of them in memory at a time.

    Up to so many are sorted at once, without a disk. Raises OSError where temporary files cannot be written.
    """
    source = iter(items)
    run = sorted(islice(source, run_items))
    if len(run) < run_items:
        yield from run
        return
    with ExitStack() as files:
        runs: list[IO[bytes]] = []
        while run:
            # Without a name: gone with the process, however that ends.
            file = files.enter_context(tempfile.TemporaryFile(prefix="pilc-sort-"))
            for start in range(0, len(run), _BLOCK_ITEMS):
                pickle.dump(run[start : start + _BLOCK_ITEMS], file, pickle.HIGHEST_PROTOCOL)
            file.seek(0)
            runs.append(file)
            run.clear()
            run = sorted(islice(source, run_items))
        yield from heapq.merge(*map(_items, runs))


def _items(file: IO[bytes]) -> Iterator[Any]:
    """The items of a run: bytes that this process has written itself, so that unpickling them is safe."""
    while True:
        try:
            yield from pickle.load(file)
        except EOFError:
            return

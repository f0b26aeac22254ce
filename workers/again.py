"""`--retry-failed`: committed shards that hold records that failed are made once more, from the files as they are now.

A shard is made with the keys that it has, whatever the listing says today: a repaired file has another size, which
would cut the following shards elsewhere. Its new commit replaces the old one in one step, so at every moment each
image is in the data set exactly once. The data set is declared unfinished before the first replacement and finished
after the last; an interrupted retry is simply run again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pilc_stream.errors import JobError
from pilc_stream.pipeline.plan import ShardTask
from pilc_stream.records import layout
from pilc_stream.records.commit import Commit, read_commit
from pilc_stream.records.record import ShardEntry
from pilc_stream.records.shard import ShardReader
from pilc_stream.storage import SourceFile, Store
from workers.planning import Work


class Recommit(Store):
    """A data set in which the commit of one shard is not seen, and is replaced when it is created."""

    def __init__(self, store: Store, index: int) -> None:
        super().__init__(store.url, store.storage_options, store.retries)
        self._hidden = layout.commit_path(index)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a Recommit stays in the process that replaces the commit")

    def read_or_none(self, path: str) -> bytes | None:
        """Return the whole object; None for the commit that is to be replaced."""
        return None if path == self._hidden else super().read_or_none(path)

    def create(self, path: str, data: bytes) -> None:
        """Create the object; the commit replaces the one that is there."""
        if path == self._hidden:
            self.put(path, data)
        else:
            super().create(path, data)


def works_again(store: Store, entries: Sequence[ShardEntry], files: Iterable[SourceFile]) -> Iterator[Work]:
    """Yield each of the shards `entries` (by number) as work: its keys, with the files that are there under them now.

    `files` are sorted by key, and so are keys in shards and through shards: one shard is in memory at a time.
    Raises JobError where a key is no longer among the files.
    """
    listed = iter(files)
    for entry in entries:
        items = []
        keys = ShardReader(store, entry).keys()
        for key in keys:
            file = next((file for file in listed if file.key >= key), None)
            if file is None or file.key != key:
                raise JobError(
                    f"{key}: the file is no longer in the source, but the shard {entry.path} holds it and is to be "
                    "made again. Put the file back, or leave --retry-failed out."
                )
            items.append(file)
        yield Work(ShardTask(entry.index, tuple(items)), again=True)


def reopen(store: Store) -> None:
    """Declare a data set unfinished, before its first commit is replaced."""
    store.delete(layout.SUCCESS_PATH)
    store.delete(layout.MANIFEST_PATH)


def tidy(store: Store, replaced: Iterable[Commit]) -> None:
    """Delete shard files and error lists that only the `replaced` commits named."""
    for old in replaced:
        new = read_commit(store, old.entry.index)
        if new.entry.path != old.entry.path:
            store.delete(old.entry.path)
        if old.errors is not None and new.errors != old.errors:
            store.delete(old.errors)

"""`--retry-failed`: of committed shards that hold records that failed, those records are made once more.

The others stay as they are, byte for byte in their payloads. A shard keeps its keys, whatever the listing says today: a
repaired file has another size, which would cut the following shards elsewhere. Its new commit replaces the old one in
one step, so at every moment each image is in the data set exactly once. The data set is declared unfinished before the
first replacement and finished after the last; an interrupted retry is simply run again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pilc_stream.errors import JobError
from pilc_stream.pipeline.again import failed_keys
from pilc_stream.pipeline.plan import ShardTask
from pilc_stream.pipeline.sources import Part
from pilc_stream.records import layout
from pilc_stream.records.commit import Commit, read_commit, read_errors
from pilc_stream.records.record import ShardEntry
from pilc_stream.storage import Store
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


def works_of_repaired(store: Store, entries: Sequence[ShardEntry], parts: Iterable[Part]) -> list[Work]:
    """Each of the shards `entries` as work: the files that are there now under the keys of what failed of it.

    For sources whose parts are images of their own and whose listing has changed since the shards were cut.
    Raises JobError where such a key is no longer among `parts`.
    """
    failed = {entry.index: failed_keys(read_errors(store, entry.index)) for entry in entries}
    wanted = {key for keys in failed.values() for key in keys}
    found = {part.key: part for part in parts if part.key in wanted}
    for entry in entries:
        for key in failed[entry.index]:
            if key not in found:
                raise JobError(
                    f"{key}: the file is no longer in the source, but the shard {entry.path} holds it and it is to be "
                    "made again. Put the file back, or leave --retry-failed out."
                )
    return [
        Work(ShardTask(entry.index, tuple(found[key] for key in failed[entry.index])), again=True) for entry in entries
    ]


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

"""Reading a data set: which shards it has, where each payload lies, and the models that travel with it."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pilc_stream.errors import ManifestError, UsageError
from pilc_stream.records import layout
from pilc_stream.records.commit import list_commits, read_job, read_model, read_ranges
from pilc_stream.records.documents import (
    damaged,
    dump,
    pack_entry,
    parse,
    take_count,
    take_list,
    take_object,
    unpack_entry,
)
from pilc_stream.records.record import ShardEntry
from pilc_stream.records.shard import ShardReader
from pilc_stream.storage import Store

_CACHED_ROWS: Final = 4_000_000
"""Byte ranges kept in memory per manifest, 16 bytes each."""
_SHORT_DIGEST_BYTES: Final = 4


class _RangeCache:
    """The byte ranges of the shards used last, up to _CACHED_ROWS rows; empty again in another process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ranges: OrderedDict[int, npt.NDArray[np.int64]] = OrderedDict()

    def __reduce__(self) -> tuple[type[_RangeCache], tuple[()]]:
        return _RangeCache, ()

    def get(self, index: int) -> npt.NDArray[np.int64] | None:
        with self._lock:
            found = self._ranges.get(index)
            if found is not None:
                self._ranges.move_to_end(index)
            return found

    def put(self, index: int, ranges: npt.NDArray[np.int64]) -> None:
        with self._lock:
            self._ranges[index] = ranges
            self._ranges.move_to_end(index)
            while len(self._ranges) > 1 and sum(map(len, self._ranges.values())) > _CACHED_ROWS:
                self._ranges.popitem(last=False)


@dataclass(frozen=True)
class Manifest:
    """A data set as its commits say it is.

    `shards` are sorted by number; their positions here, not their numbers, are what `byte_ranges` and `reader`
    take: in an unfinished data set numbers may be missing. `finished` tells whether every shard of the job is here.
    Picklable; byte ranges are read when asked for.
    """

    store: Store
    job: Mapping[str, Any]
    shards: tuple[ShardEntry, ...]
    finished: bool
    _cache: _RangeCache = field(default_factory=_RangeCache, repr=False, compare=False)

    @classmethod
    def load(
        cls, url: str, storage_options: Mapping[str, Any] | None = None, *, allow_partial: bool = False
    ) -> Manifest:
        """Load the data set at `url`.

        An unfinished one raises ManifestError, unless `allow_partial`: then the shards committed so far are it.
        Raises ManifestError as well where nothing is there or a file is damaged.
        """
        return cls.of(Store.open(url, storage_options), allow_partial=allow_partial)

    @classmethod
    def of(cls, store: Store, *, allow_partial: bool = False) -> Manifest:
        """Load the data set in `store`; as `load`."""
        success = store.read_or_none(layout.SUCCESS_PATH)
        if success is not None:
            return _load_finished(store, success)
        job = read_job(store)
        if job is None:
            raise ManifestError(
                f"{store.url}: there is no data set here ({layout.JOB_PATH} is missing). Check the URL."
            )
        if not allow_partial:
            raise ManifestError(
                f"{store.url}: the data set is not finished ({layout.SUCCESS_PATH} is missing). Run the same compress "
                "command again to finish it, or allow a partial data set to read what is committed."
            )
        return cls(store, job, tuple(list_commits(store)), finished=False)

    @property
    def url(self) -> str:
        """Where the data set is."""
        return self.store.url

    @property
    def rows(self) -> int:
        """How many records it has."""
        return sum(shard.rows for shard in self.shards)

    def range_array(self, shard_index: int) -> npt.NDArray[np.int64]:
        """Return offset and length of each payload of the shard at this position: int64 `(rows, 2)`, read-only.

        Read from the shard's commit at first use, checked to lie inside the file and not to overlap, and kept.
        """
        found = self._cache.get(shard_index)
        if found is None:
            found = read_ranges(self.store, self._shard(shard_index))
            found.flags.writeable = False
            self._cache.put(shard_index, found)
        return found

    def byte_ranges(self, shard_index: int) -> list[tuple[int, int]]:
        """Return `range_array` as a list of `(offset, length)`."""
        return [(offset, length) for offset, length in self.range_array(shard_index).tolist()]

    def byte_range(self, shard_index: int, row: int) -> tuple[int, int]:
        """Return `(offset, length)` of one payload."""
        offset, length = self.range_array(shard_index)[row].tolist()
        return offset, length

    def reader(self, shard_index: int) -> ShardReader:
        """Return a reader of the shard at this position."""
        return ShardReader(self.store, self._shard(shard_index), partial(self.range_array, shard_index))

    def model_file(self, digest: str | bytes) -> bytes | None:
        """Return the model file whose SHA-256 begins with `digest` (hex text or bytes, 4 bytes or more).

        None where the data set has none. Raises ChecksumError where the file is not what its name says,
        ManifestError where two models begin so, UsageError where `digest` is none.
        """
        prefix = digest.hex() if isinstance(digest, bytes) else digest.lower()
        if not 2 * _SHORT_DIGEST_BYTES <= len(prefix) <= 64 or set(prefix) - set("0123456789abcdef"):
            raise UsageError(
                f"{digest!r} does not begin a SHA-256 digest. Give {_SHORT_DIGEST_BYTES} to 32 bytes, or hex digits."
            )
        if len(prefix) == 64:
            return read_model(self.store, prefix)
        stored = map(layout.model_digest, self.store.list(layout.MODELS_FOLDER))
        matches = [sha256 for sha256 in stored if sha256 is not None and sha256.startswith(prefix)]
        if len(matches) > 1:
            raise ManifestError(f"{self.url}: {len(matches)} models begin with {prefix}. Ask with more digits.")
        return read_model(self.store, matches[0]) if matches else None

    def _shard(self, shard_index: int) -> ShardEntry:
        if not 0 <= shard_index < len(self.shards):
            raise UsageError(f"{self.url}: there is no shard {shard_index}; the data set has {len(self.shards)}.")
        return self.shards[shard_index]


def finish(store: Store, *, shards: int | None = None) -> Manifest:
    """Declare the data set finished: write the manifest, then `_SUCCESS`; return the finished data set.

    `shards` is how many the job has; without it, the commits must at least have no gap. Raises ManifestError where
    a commit is missing, or a shard file is missing or has another size than its commit says. Can be repeated.
    """
    job = read_job(store)
    if job is None:
        raise ManifestError(f"{store.url}: there is no job to finish ({layout.JOB_PATH} is missing).")
    entries = list_commits(store)
    _check_complete(store, entries, len(entries) if shards is None else shards)
    data = dump(
        {
            "job": job,
            "rows": sum(entry.rows for entry in entries),
            "shards": [pack_entry(entry) for entry in entries],
        }
    )
    digest = hashlib.sha256(data).hexdigest()
    store.put(layout.MANIFEST_PATH, data)
    store.put(layout.SUCCESS_PATH, dump({"manifest_sha256": digest}))
    return Manifest(store, job, tuple(entries), finished=True)


def _check_complete(store: Store, entries: list[ShardEntry], shards: int) -> None:
    present = {entry.index for entry in entries}
    missing = sorted(set(range(shards)) - present)
    extra = sorted(present - set(range(shards)))
    if extra and not missing:
        raise ManifestError(f"{store.url}: shard {extra[0]} is committed, but the job has only {shards}.")
    if missing:
        raise ManifestError(
            f"{store.url}: cannot finish: {len(missing)} of {shards} shards are not committed, shard {missing[0]} "
            "first. Run the job again."
        )
    sizes = dict(store.list_sizes(layout.DATA_FOLDER)) if entries else {}
    for entry in entries:
        found = sizes.get(entry.path)
        if found != entry.shard_bytes:
            state = "is missing" if found is None else f"has {found} bytes, its commit says {entry.shard_bytes}"
            raise ManifestError(
                f"{store.url}/{entry.path}: the shard file {state}. Restore it, or delete "
                f"{layout.commit_path(entry.index)} and run the job again."
            )


def _load_finished(store: Store, success: bytes) -> Manifest:
    place = f"{store.url}/{layout.SUCCESS_PATH}"
    expected = parse(success, place).get("manifest_sha256")
    if not layout.is_digest(expected):
        raise damaged(place, "manifest_sha256", expected, "64 hexadecimal digits")
    place = f"{store.url}/{layout.MANIFEST_PATH}"
    data = store.read_or_none(layout.MANIFEST_PATH)
    if data is None or hashlib.sha256(data).hexdigest() != expected:
        state = "is missing" if data is None else f"is not the one that {layout.SUCCESS_PATH} names"
        raise ManifestError(f"{place}: the manifest {state}. Run the same compress command again to write it anew.")
    document = parse(data, place)
    shards = tuple(unpack_entry(entry, place) for entry in take_list(document, "shards", place))
    if [shard.index for shard in shards] != list(range(len(shards))):
        raise damaged(place, "shards", [shard.index for shard in shards], "shards 0, 1, 2 and so on")
    rows = take_count(document, "rows", place)
    if rows != sum(shard.rows for shard in shards):
        raise damaged(place, "rows", rows, "the sum of the shards' rows")
    return Manifest(store, take_object(document, "job", place), shards, finished=True)

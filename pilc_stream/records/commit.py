"""Writing a data set: the job, models, shards, and the create-only commit that makes a shard exist.

The order of writes is the protocol (DATASET.md): what a commit names is there before the commit, and a commit is
created, never replaced. So every step can be repeated, by the same driver or by a rival, at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pilc_stream.errors import AlreadyExistsError, ChecksumError, JobMismatchError, ManifestError, UsageError
from pilc_stream.records import layout
from pilc_stream.records.documents import (
    damaged,
    dump,
    pack_entry,
    pack_ranges,
    parse,
    take_object,
    unpack_entry,
    unpack_ranges,
)
from pilc_stream.records.record import RecordError, ShardEntry
from pilc_stream.storage import Store

JOB_INFO: Final = "info"
"""The field of a job that two runs of it may differ in: software version, host, time."""

_COMMITS_AT_ONCE: Final = 64
_DIFFERENCES_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Commit:
    """What a commit file says.

    `ranges`: int64 `(rows, 2)`, offset and length of each payload in the shard file. `errors`: path of the list of
    records that failed or fell back, None where there are none. `statistics`: how the shard was made, {} where the
    commit does not say.
    """

    entry: ShardEntry
    ranges: npt.NDArray[np.int64]
    errors: str | None
    statistics: Mapping[str, Any]


def create_job(store: Store, job: Mapping[str, Any]) -> dict[str, Any]:
    """Say in the data set what job it is of, or find that it is this one; return the stored job.

    `job` is what JSON can hold. Every field must be equal to the stored one, but for `job["info"]`, which only
    the first run writes. Raises JobMismatchError, naming each field that differs, ManifestError where the stored
    job is damaged.
    """
    data = dump({"job": dict(job)})
    try:
        store.create(layout.JOB_PATH, data)
    except AlreadyExistsError:
        stored = read_job(store)
        if stored is None:
            raise
        _compare_jobs(store, stored, parse(data, layout.JOB_PATH)["job"])
        return stored
    return dict(parse(data, layout.JOB_PATH)["job"])


def read_job(store: Store) -> dict[str, Any] | None:
    """Return the stored job, None where there is none. Raises ManifestError where it is damaged."""
    data = store.read_or_none(layout.JOB_PATH)
    if data is None:
        return None
    place = f"{store.url}/{layout.JOB_PATH}"
    return take_object(parse(data, place), "job", place)


def put_model(store: Store, data: bytes) -> str:
    """Store a model file under its digest and return that (64 hex digits); nothing is written where it is."""
    sha256 = hashlib.sha256(data).hexdigest()
    path = layout.model_path(sha256)
    if not (store.exists(path) and store.size(path) == len(data)):
        store.put(path, data)
    return sha256


def read_model(store: Store, sha256: str) -> bytes | None:
    """Return the model file with this digest, None where the data set has none.

    Raises ChecksumError where the file is not what its name says.
    """
    if not layout.is_digest(sha256):
        raise UsageError(f"{sha256!r} is not a SHA-256 digest. Give 64 hexadecimal digits in lower case.")
    path = layout.model_path(sha256)
    data = store.read_or_none(path)
    if data is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ChecksumError(f"{store.url}/{path}: the bytes are not those of the model with this digest. Restore it.")
    return data


def put_shard(store: Store, index: int, data: bytes, sha256: str | None = None) -> tuple[str, str]:
    """Store a shard file under its content's name; return path and sha256 (hex). It does not exist until committed.

    `sha256`: of `data`, where it is known.
    """
    sha256 = sha256 or hashlib.sha256(data).hexdigest()
    path = layout.part_path(index, sha256)
    store.put(path, data)
    return path, sha256


def commit_shard(
    store: Store,
    entry: ShardEntry,
    ranges: Sequence[tuple[int, int]],
    errors: Sequence[RecordError] = (),
    statistics: Mapping[str, Any] | None = None,
) -> ShardEntry:
    """Make a shard exist and return the entry that counts, from now on and for everybody.

    The shard file and its model must have been put. Where another driver has committed the same shard first, its
    entry is returned, whatever it holds: that is the shard now, and ours is an orphan that no reader looks at.
    `errors` are written before the commit. `statistics`: what JSON can hold, for people.
    Raises UsageError where entry and ranges contradict each other.
    """
    _check_entry(entry, ranges)
    committed = read_commit_or_none(store, entry.index)
    if committed is not None:
        return committed.entry
    document = {
        "shard": pack_entry(entry),
        "payloads": pack_ranges(ranges),
        "errors": _put_errors(store, entry.index, errors) if errors else None,
        "statistics": dict(statistics or {}),
    }
    try:
        store.create(layout.commit_path(entry.index), dump(document))
    except AlreadyExistsError:
        return read_commit(store, entry.index).entry
    return entry


def read_commit(store: Store, index: int) -> Commit:
    """Return the commit of shard `index`. Raises ManifestError where it is missing or damaged."""
    commit = read_commit_or_none(store, index)
    if commit is None:
        raise ManifestError(
            f"{store.url}/{layout.commit_path(index)}: the commit is missing, so the shard does not exist. "
            "Run the job again, or restore the file."
        )
    return commit


def read_commit_or_none(store: Store, index: int) -> Commit | None:
    """Return the commit of shard `index`, None where there is none. Raises ManifestError where it is damaged."""
    data = store.read_or_none(layout.commit_path(index))
    return None if data is None else _parse_commit(store, index, data, with_ranges=True)


def read_ranges(store: Store, entry: ShardEntry) -> npt.NDArray[np.int64]:
    """Return offset and length of each payload of a shard: int64 `(rows, 2)`, in row order.

    Raises ManifestError where the commit is missing, damaged, or not that of `entry`.
    """
    commit = read_commit(store, entry.index)
    if commit.entry.sha256 != entry.sha256:
        raise ManifestError(
            f"{store.url}/{layout.commit_path(entry.index)}: the commit is of {commit.entry.path}, expected "
            f"{entry.path}. The data set was written anew; open it again."
        )
    return commit.ranges


def committed_indices(store: Store) -> set[int]:
    """Return the numbers of all committed shards, from one listing."""
    found = map(layout.commit_index, store.list(layout.COMMITS_FOLDER))
    return {index for index in found if index is not None}


def list_commits(store: Store) -> list[ShardEntry]:
    """Return the entries of all committed shards, by number. Raises ManifestError where a commit is damaged."""
    return [commit.entry for commit in each_commit(store)]


def each_commit(store: Store) -> Iterator[Commit]:
    """Yield all commits by number, without their ranges. Raises ManifestError where one is damaged."""
    indices = sorted(committed_indices(store))
    for start in range(0, len(indices), _COMMITS_AT_ONCE):
        batch = indices[start : start + _COMMITS_AT_ONCE]
        for index, data in zip(batch, store.read_many([layout.commit_path(i) for i in batch]), strict=True):
            yield _parse_commit(store, index, data, with_ranges=False)


def read_errors(store: Store, index: int) -> list[RecordError]:
    """Return the records of a committed shard that failed or fell back, each with its reason."""
    commit = read_commit(store, index)
    if commit.errors is None:
        return []
    place = f"{store.url}/{commit.errors}"
    found = []
    # Not splitlines: keys may hold other line ends than the one that JSON escapes.
    for number, line in enumerate(store.read(commit.errors).split(b"\n")[:-1], start=1):
        try:
            fields = json.loads(line.decode("utf-8"))
            error = RecordError(key=fields["key"], stage=fields["stage"], reason=fields["reason"])
        except (ValueError, TypeError, KeyError) as cause:
            raise damaged(place, f"line {number}", line, "an object with key, stage and reason") from cause
        if not all(isinstance(text, str) for text in (error.key, error.stage, error.reason)):
            raise damaged(place, f"line {number}", line, "texts for key, stage and reason")
        found.append(error)
    return found


def clear(store: Store) -> None:
    """Delete the data set: everything that DATASET.md names and nothing else. An interrupted clear can be repeated.

    First what says that it is finished, then what says that shards exist, then the rest; the job last.
    """
    for path in (layout.SUCCESS_PATH, layout.MANIFEST_PATH):
        store.delete(path)
    for path in store.list(layout.COMMITS_FOLDER):
        store.delete(path)
    for path in filter(layout.is_part, store.list(layout.DATA_FOLDER)):
        store.delete(path)
    for folder in (layout.ERRORS_FOLDER, layout.QUARANTINE_FOLDER, layout.MODELS_FOLDER):
        for path in store.list(folder):
            store.delete(path)
    for path in (layout.REPORT_MARKDOWN_PATH, layout.REPORT_HTML_PATH, layout.JOB_PATH):
        store.delete(path)


def _put_errors(store: Store, index: int, errors: Sequence[RecordError]) -> str:
    """Store the errors, one JSON object a line, and return the path.

    What a commit names must not change under it: where another run has left a different list, ours takes another name.
    """
    data = "".join(json.dumps(asdict(error), ensure_ascii=False) + "\n" for error in errors).encode("utf-8", "replace")
    path = layout.errors_path(index)
    try:
        store.create(path, data)
    except AlreadyExistsError:
        if store.read(path) != data:
            path = layout.rival_errors_path(index, hashlib.sha256(data).hexdigest())
            store.put(path, data)
    return path


def _parse_commit(store: Store, index: int, data: bytes, *, with_ranges: bool) -> Commit:
    place = f"{store.url}/{layout.commit_path(index)}"
    document = parse(data, place)
    entry = unpack_entry(document.get("shard"), place)
    if entry.index != index:
        raise damaged(place, "index", entry.index, str(index))
    payloads = take_object(document, "payloads", place)
    errors = document.get("errors")
    if errors is not None and not layout.is_errors(errors, index):
        raise damaged(place, "errors", errors, f"the path of shard {index}'s errors, or null")
    ranges = unpack_ranges(payloads, entry, place) if with_ranges else np.empty((0, 2), np.int64)
    statistics = take_object(document, "statistics", place) if "statistics" in document else {}
    return Commit(entry, ranges, errors, statistics)


def _check_entry(entry: ShardEntry, ranges: Sequence[tuple[int, int]]) -> None:
    place = f"shard {entry.index}"
    try:
        unpack_entry(pack_entry(entry), place)
        found = unpack_ranges(pack_ranges(ranges), entry, place)
    except ManifestError as error:
        raise UsageError(f"This shard cannot be committed. {error}") from error
    if int(found[:, 1].sum()) != entry.payload_bytes:
        raise UsageError(
            f"This shard cannot be committed. Its payloads have {int(found[:, 1].sum())} bytes, its entry says "
            f"payload_bytes={entry.payload_bytes}."
        )


def _compare_jobs(store: Store, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    differences = [text for name, text in _differences("", stored, asked) if name != JOB_INFO]
    if differences:
        more = len(differences) - _DIFFERENCES_SHOWN
        listed = "; ".join(differences[:_DIFFERENCES_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        raise JobMismatchError(
            f"{store.url}: the destination holds another job: {listed}. Choose another destination, run with the "
            "settings that are stored there, or say that it is to be overwritten."
        )


def _differences(above: str, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the top field and a text for each difference, down to the fields of nested objects."""
    for name in sorted(stored.keys() | asked.keys()):
        there, here = stored.get(name), asked.get(name)
        if isinstance(there, dict) and isinstance(here, dict):
            yield from ((name, text) for _, text in _differences(f"{above}{name}.", there, here))
        elif name not in stored:
            yield name, f"{above}{name} is not set there and {_short(here)} here"
        elif name not in asked:
            yield name, f"{above}{name} is {_short(there)} there and not set here"
        elif there != here or type(there) is not type(here):
            yield name, f"{above}{name} is {_short(there)} there and {_short(here)} here"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."

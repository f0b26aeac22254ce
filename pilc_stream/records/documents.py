"""JSON documents of a data set: written in one way, read with every field checked before it is used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pilc_stream.errors import ManifestError, UnsupportedError
from pilc_stream.records.layout import is_digest, part_path
from pilc_stream.records.pages import LENGTH_BYTES
from pilc_stream.records.record import ShardEntry

DATASET_FORMAT_VERSION: Final = 1
_PARQUET_TRAILER_BYTES: Final = 8
_MAX_INT64: Final = 2**63 - 1


def dump(document: Mapping[str, Any]) -> bytes:
    """Return `document` as JSON bytes, compact, with the format's version first, a newline last."""
    versioned = {"format": DATASET_FORMAT_VERSION, **document}
    # ASCII: file names that are not UTF-8 have characters that UTF-8 cannot hold.
    return (json.dumps(versioned, separators=(",", ":"), allow_nan=False) + "\n").encode("ascii")


def parse(data: bytes, place: str) -> dict[str, Any]:
    """Return the JSON object in `data`. `place` is its URL.

    Raises ManifestError where it is not JSON, not an object or names no format, UnsupportedError for another version.
    """
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{place}: the file is damaged: it is not JSON ({error}). Restore or delete it.") from error
    if not isinstance(document, dict):
        raise ManifestError(f"{place}: the file is damaged: expected a JSON object. Restore or delete it.")
    version = take_count(document, "format", place)
    if version != DATASET_FORMAT_VERSION:
        raise UnsupportedError(
            f"{place}: the data set's format is version {version}, this release reads version "
            f"{DATASET_FORMAT_VERSION}. Install a newer pilc-stream."
        )
    return document


def damaged(place: str, field: str, found: object, expected: str) -> ManifestError:
    """Return the error for a field that is not what it must be."""
    shown = repr(found)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return ManifestError(
        f"{place}: {field} is {shown}, expected {expected}. The file is damaged; restore or delete it."
    )


def take_count(document: Mapping[str, Any], field: str, place: str) -> int:
    """Return an integer field in [0, 2**63). Raises ManifestError."""
    value = document.get(field)
    if type(value) is not int or not 0 <= value <= _MAX_INT64:
        raise damaged(place, field, value, "an integer of at least 0")
    return value


def take_object(document: Mapping[str, Any], field: str, place: str) -> dict[str, Any]:
    """Return an object field. Raises ManifestError."""
    value = document.get(field)
    if not isinstance(value, dict):
        raise damaged(place, field, value, "an object")
    return value


def take_list(document: Mapping[str, Any], field: str, place: str) -> list[Any]:
    """Return a list field. Raises ManifestError."""
    value = document.get(field)
    if not isinstance(value, list):
        raise damaged(place, field, value, "a list")
    return value


def pack_entry(entry: ShardEntry) -> dict[str, Any]:
    """Return a shard's entry as a JSON object."""
    return asdict(entry)


def unpack_entry(document: object, place: str) -> ShardEntry:
    """Return the entry that a JSON object holds. Raises ManifestError where a field is missing or impossible."""
    if not isinstance(document, dict):
        raise damaged(place, "a shard's entry", document, "an object")
    values: dict[str, Any] = {}
    for field in fields(ShardEntry):
        if field.name in ("path", "sha256", "seconds"):
            values[field.name] = document.get(field.name)
        else:
            values[field.name] = take_count(document, field.name, place)
    if not is_digest(values["sha256"]):
        raise damaged(place, "sha256", values["sha256"], "64 hexadecimal digits")
    expected = part_path(values["index"], values["sha256"])
    if values["path"] != expected:
        raise damaged(place, "path", values["path"], repr(expected))
    seconds = values["seconds"]
    if type(seconds) not in (int, float) or not 0 <= seconds < float("inf"):
        raise damaged(place, "seconds", seconds, "a number of at least 0")
    values["seconds"] = float(seconds)
    return ShardEntry(**values)


def pack_ranges(ranges: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Return payload ranges as `runs` and `lengths`.

    Payloads of one page follow each other 4 bytes apart (the next one's length); a run `[row, offset]` says where
    such a sequence starts. So a payload costs the digits of its length.
    """
    runs: list[list[int]] = []
    expected = -1
    for row, (offset, length) in enumerate(ranges):
        if offset != expected:
            runs.append([row, offset])
        expected = offset + length + LENGTH_BYTES
    return {"runs": runs, "lengths": [length for _, length in ranges]}


def unpack_ranges(document: Mapping[str, Any], entry: ShardEntry, place: str) -> npt.NDArray[np.int64]:
    """Return payload ranges: int64 `(rows, 2)`, offset and length.

    Raises ManifestError where they are not one per row, leave the file or overlap.
    """
    listed = take_list(document, "lengths", place)
    lengths = _counts(listed, "lengths", entry.shard_bytes, place)
    if len(lengths) != entry.rows:
        raise damaged(place, "lengths", f"{len(lengths)} numbers", f"{entry.rows}, one per row")
    runs = take_list(document, "runs", place)
    if not all(isinstance(run, list) and len(run) == 2 for run in runs):
        raise damaged(place, "runs", runs, "pairs of row and offset")
    rows = _counts([run[0] for run in runs], "runs", entry.shard_bytes, place)
    starts = _counts([run[1] for run in runs], "runs", entry.shard_bytes, place)
    if len(lengths) == 0 and len(rows) == 0:
        return np.empty((0, 2), np.int64)
    if len(rows) == 0 or rows[0] != 0 or rows[-1] >= len(lengths) or np.any(np.diff(rows) <= 0):
        raise damaged(place, "runs", runs, "ascending rows from 0")
    # A sum of Python integers: no overflow can hide what does not fit.
    if sum(listed) > entry.shard_bytes:
        raise damaged(place, "lengths", "a sum above the file's size", f"at most {entry.shard_bytes}")
    # Where each payload would start if all followed each other from 0; shifted so that each run starts at its offset.
    packed = np.concatenate(([0], np.cumsum(lengths[:-1] + LENGTH_BYTES)))
    run_of_row = np.searchsorted(rows, np.arange(len(lengths)), side="right") - 1
    offsets = packed - packed[rows][run_of_row] + starts[run_of_row]
    ends = offsets + lengths
    if np.any(offsets[1:] < ends[:-1]) or ends[-1] > entry.shard_bytes - _PARQUET_TRAILER_BYTES:
        raise damaged(place, "runs", runs, "payloads inside the file that do not overlap")
    return np.stack([offsets, lengths], axis=1)


def _counts(values: list[Any], field: str, limit: int, place: str) -> npt.NDArray[np.int64]:
    """Return integers in [0, limit] as int64. Raises ManifestError."""
    for value in values:
        if type(value) is not int or not 0 <= value <= limit:
            raise damaged(place, field, value, f"an integer from 0 to {limit}")
    return np.array(values, np.int64)

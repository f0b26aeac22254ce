from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilc_stream.errors import ManifestError, UnsupportedError
from pilc_stream.records import documents
from pilc_stream.records.layout import part_path
from pilc_stream.records.record import ShardEntry

SHA = "0123456789abcdef" * 4
ENTRY = ShardEntry(3, part_path(3, SHA), SHA, 1000, 3, 0, 1, 54, 40, 30, 54, 1.5)

RANGES = st.lists(
    # The gap before a payload (4 where it follows in its page), and its length.
    st.tuples(st.one_of(st.just(4), st.integers(0, 90)), st.one_of(st.just(0), st.integers(0, 5000))),
    max_size=60,
)


def entry_for(rows: int, shard_bytes: int) -> ShardEntry:
    return replace(ENTRY, rows=rows, shard_bytes=shard_bytes)


@given(RANGES)
def test_ranges_read_back(gaps_and_lengths: list[tuple[int, int]]) -> None:
    position, ranges = 4, []
    for gap, length in gaps_and_lengths:
        ranges.append((position + gap, length))
        position += gap + length
    packed = json.loads(json.dumps(documents.pack_ranges(ranges)))
    unpacked = documents.unpack_ranges(packed, entry_for(len(ranges), position + 8), "here")
    assert unpacked.dtype == np.int64
    assert unpacked.shape == (len(ranges), 2)
    assert [tuple(pair) for pair in unpacked.tolist()] == ranges
    if ranges:
        with pytest.raises(ManifestError, match="inside the file"):
            documents.unpack_ranges(packed, entry_for(len(ranges), position + 7), "here")


def test_ranges_of_large_offsets_read_back() -> None:
    ranges = [(2**40, 2**35), (2**40 + 2**35 + 4, 7), (2**50, 0)]
    packed = documents.pack_ranges(ranges)
    assert packed["runs"] == [[0, 2**40], [2, 2**50]]
    assert documents.unpack_ranges(packed, entry_for(3, 2**51), "here").tolist() == [list(pair) for pair in ranges]


def test_ranges_are_compact() -> None:
    """A shard of 65,536 small images: little more than the digits of the lengths."""
    ranges, position = [], 4
    for row in range(65_536):
        position += 60 if row % 256 == 0 else 4
        ranges.append((position, 1000 + row % 900))
        position += ranges[-1][1]
    packed = documents.dump(documents.pack_ranges(ranges))
    assert len(packed) < 65_536 * 5.2
    assert documents.unpack_ranges(json.loads(packed), entry_for(65_536, position + 8), "here").tolist()[-1] == list(
        ranges[-1]
    )


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("lengths", None, "lengths is None, expected a list"),
        ("lengths", [1, 2], "lengths is '2 numbers', expected 3, one per row"),
        ("lengths", [1, 2, -1], "lengths is -1"),
        ("lengths", [1, 2, True], "lengths is True"),
        ("lengths", [1, 2, 3.0], r"lengths is 3\.0"),
        ("lengths", [1, 2, "3"], "lengths is '3'"),
        ("lengths", [1, 2, 10**30], "lengths is 1000"),
        ("lengths", [500, 500, 1], "a sum above the file's size"),
        ("runs", {}, "runs is {}, expected a list"),
        ("runs", [], "ascending rows from 0"),
        ("runs", [[1, 10]], "ascending rows from 0"),
        ("runs", [[0, 10], [0, 100]], "ascending rows from 0"),
        ("runs", [[0, 10], [3, 100]], "ascending rows from 0"),
        ("runs", [[0, 10], [2, 100], [1, 200]], "ascending rows from 0"),
        ("runs", [[0]], "pairs of row and offset"),
        ("runs", [5], "pairs of row and offset"),
        ("runs", [[0, -1]], "runs is -1"),
        ("runs", [[0, 10**30]], "runs is 1000"),
        ("runs", [[0, 100], [1, 10]], "do not overlap"),
        ("runs", [[0, 100], [1, 109]], "do not overlap"),
        ("runs", [[0, 10], [2, 983]], "inside the file"),
    ],
)
def test_impossible_ranges_are_refused(field: str, value: Any, said: str) -> None:
    good = documents.pack_ranges([(100, 10), (114, 10), (128, 10)])
    assert documents.unpack_ranges(good, ENTRY, "here").tolist() == [[100, 10], [114, 10], [128, 10]]
    with pytest.raises(ManifestError, match=f"^here: .*{said}"):
        documents.unpack_ranges({**good, field: value}, ENTRY, "here")


def test_entries_read_back() -> None:
    assert documents.unpack_entry(json.loads(json.dumps(documents.pack_entry(ENTRY))), "here") == ENTRY


@pytest.mark.parametrize("value", [None, -1, 1.0, "1", True, [], 2**63])
@pytest.mark.parametrize("field", ["index", "rows", "shard_bytes", "failed", "payload_bytes", "sub_pixels"])
def test_entries_with_impossible_counts_are_refused(field: str, value: object) -> None:
    with pytest.raises(ManifestError, match=f"here: {field} is .*, expected an integer of at least 0"):
        documents.unpack_entry({**documents.pack_entry(ENTRY), field: value}, "here")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sha256", SHA[:-1]),
        ("sha256", None),
        ("path", "data/part-000004-0123456789ab.parquet"),
        ("path", "/etc/passwd"),
        ("path", None),
        ("seconds", -1.0),
        ("seconds", float("inf")),
        ("seconds", float("nan")),
        ("seconds", "1"),
    ],
)
def test_entries_with_impossible_fields_are_refused(field: str, value: object) -> None:
    with pytest.raises(ManifestError, match=f"here: {field} is .*The file is damaged; restore or delete it"):
        documents.unpack_entry({**documents.pack_entry(ENTRY), field: value}, "here")


@pytest.mark.parametrize("document", [None, [], "entry", 3])
def test_entries_are_objects(document: object) -> None:
    with pytest.raises(ManifestError, match="expected an object"):
        documents.unpack_entry(document, "here")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"format": 1',
        b"[" * 100_000,
        b'{"format": "1"}',
        b"{}",
        b'{"format": true}',
    ],
)
def test_damaged_documents_name_the_file(data: bytes) -> None:
    with pytest.raises(ManifestError, match=r"^s3://b/ds/x\.json: "):
        documents.parse(data, "s3://b/ds/x.json")


def test_documents_of_a_later_version_are_refused() -> None:
    with pytest.raises(
        UnsupportedError, match="here: the data set's format is version 2, this release reads version 1"
    ):
        documents.parse(b'{"format": 2}', "here")


@given(
    st.dictionaries(
        st.text(max_size=5).filter(lambda name: name != "format"), st.one_of(st.text(), st.integers()), max_size=5
    )
)
def test_documents_read_back(document: dict[str, Any]) -> None:
    written = documents.dump(document)
    assert written.endswith(b"}\n")
    assert documents.parse(written, "here") == {"format": 1, **document}

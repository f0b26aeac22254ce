"""From records to the bytes of a shard."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilc_stream.errors import FormatError, UsageError
from pilc_stream.records import build as build_module
from pilc_stream.records.build import ROW_GROUP_ROWS, ShardBuilder, build_shard
from pilc_stream.records.documents import pack_ranges
from pilc_stream.records.record import Record
from pilc_stream.records.schema import COLUMN_NAMES, COLUMNS
from pilc_stream.records.shard import read_table

Maker = Callable[..., Record]


def at(file: bytes, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    return [file[offset : offset + length] for offset, length in ranges]


def metadata(file: bytes) -> pq.FileMetaData:
    return pq.read_metadata(pa.BufferReader(file))


def group_rows(file: bytes) -> list[int]:
    meta = metadata(file)
    return [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]


def test_one_range_gives_each_of_thousands_of_payloads(record: Maker) -> None:
    rng = random.Random(5)
    records = [record(f"k{n}", rng.randbytes(rng.choice([0, 1, 3, 4, 5, 200, 2000]))) for n in range(5000)]
    file, ranges = build_shard(records)
    assert at(file, ranges) == [r.payload for r in records]
    assert group_rows(file) == [256] * 19 + [136]


def test_payloads_that_look_like_others_fool_nobody(record: Maker) -> None:
    """Every way to mislead a search: equal payloads, nested ones, with length prefixes, whole pages, zeros."""
    inner = b"inner payload"
    framed = len(inner).to_bytes(4, "little") + inner
    first, _ = build_shard([record("a", inner), record("b", framed)])
    payloads = [
        framed,
        inner,
        b"",
        b"",
        framed + framed,
        inner,
        first,
        inner * 3,
        bytes(4),
        bytes(64),
        b"PAR1",
        b"\x15\x00\x15",
    ]
    for order in ([*payloads], [*payloads[::-1]], [*payloads, *payloads], [b""] * 300, [inner] * 600):
        file, ranges = build_shard([record(f"k{n}", payload) for n, payload in enumerate(order)])
        assert at(file, ranges) == order
        ends = [offset + length for offset, length in ranges]
        assert all(offset >= end + 4 for (offset, _), end in zip(ranges[1:], ends, strict=False))


@settings(max_examples=60, deadline=None)
@given(
    payloads=st.lists(st.one_of(st.binary(max_size=20), st.sampled_from([b"", b"\0" * 9, b"PAR1" * 4])), max_size=40),
    group_size=st.integers(1, 7),
    group_bytes=st.integers(1, 60),
)
def test_any_payloads_in_any_row_groups(
    record: Maker, payloads: list[bytes], group_size: int, group_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_module, "ROW_GROUP_ROWS", group_size)
        patch.setattr(build_module, "ROW_GROUP_BYTES", group_bytes)
        records = [record(f"ключ {n}", payload) for n, payload in enumerate(payloads)]
        file, ranges = build_shard(records)
    assert at(file, ranges) == payloads
    table = read_table(file, "shard")
    assert table.column("image").to_pylist() == [{"bytes": payload, "path": None} for payload in payloads]
    assert table.column("key").to_pylist() == [r.key for r in records]
    start = 0
    for rows in group_rows(file):
        group = payloads[start : start + rows]
        assert 1 <= rows <= group_size
        assert sum(map(len, group)) <= group_bytes or rows == 1
        # As many as fit: the next one would have been too much.
        following = payloads[start + rows : start + rows + 1]
        assert not following or rows == group_size or sum(map(len, group + following)) > group_bytes
        start += rows
    assert start == len(payloads)


@pytest.mark.slow
def test_row_groups_at_real_size(record: Maker) -> None:
    sizes = [17_000_000, 1, 10_000_000, 6_000_000, 0, 15_999_999, 1, 20_000_000]
    payloads = [os.urandom(1000) * (size // 1000) + bytes(size % 1000) for size in sizes]
    file, ranges = build_shard([record(f"k{n}", payload) for n, payload in enumerate(payloads)])
    assert at(file, ranges) == payloads
    assert group_rows(file) == [1, 2, 2, 2, 1]


def test_large_payloads_get_pages_of_their_own(record: Maker) -> None:
    """So that neither writing nor reading gathers a whole row group in one page."""
    large, _ = build_shard([record(f"k{n}", bytes(200_000)) for n in range(64)])
    assert group_rows(large) == [64]
    _, ranges = build_shard([record(f"k{n}", bytes(200_000)) for n in range(64)])
    # A page ends where it has a megabyte.
    assert len(pack_ranges(ranges)["runs"]) == -(-64 // -(-(1 << 20) // 200_004))


def test_large_payloads_are_stored_as_small_ones_are(record: Maker) -> None:
    """Whether the column is gathered first is a matter of speed: what is read is the same."""
    payloads = [os.urandom(size) for size in (200_000, 0, 1, 70_000, 0)]
    file, ranges = build_shard([record(f"k{n}", payload) for n, payload in enumerate(payloads)])
    assert at(file, ranges) == payloads
    image = read_table(file, "shard").column("image")
    assert image.to_pylist() == [{"bytes": payload, "path": None} for payload in payloads]


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 30), max_size=6), typed=st.booleans())
def test_the_bytes_do_not_depend_on_how_records_come(record: Maker, cuts: list[int], typed: bool) -> None:
    records = [record(f"k{n}", bytes([n]) * (n % 7), columns={"label": n}) for n in range(30)]
    columns = pa.schema([pa.field("label", pa.int64())]) if typed else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_module, "ROW_GROUP_ROWS", 4)
        whole = build_shard(records, columns)
        builder = ShardBuilder(columns)
        for start, end in pairwise([0, *sorted(cuts), 30]):
            builder.add(records[start:end])
        built = builder.finish()
    assert (built.file, built.ranges) == whole
    assert built.sha256 == hashlib.sha256(built.file).hexdigest()


def test_what_was_written_is_not_held(record: Maker) -> None:
    """Else a shard would be in memory twice."""
    builder = ShardBuilder(pa.schema([]))
    payload = os.urandom(1 << 15)
    builder.add([record(f"k{n}", payload) for n in range(ROW_GROUP_ROWS)])
    held = sys.getrefcount(payload)
    builder.add([record("another")])
    assert sys.getrefcount(payload) == held - ROW_GROUP_ROWS


def test_limits_are_within_those_of_the_format() -> None:
    assert ROW_GROUP_ROWS <= 256
    assert build_module.ROW_GROUP_BYTES <= 64_000_000
    assert build_module.MAX_PAYLOAD_BYTES < 2**31


def test_payload_column_is_plain_bytes_and_the_others_are_small(record: Maker) -> None:
    file, _ = build_shard([record(f"folder/{n}.png", b"same" * 50) for n in range(300)])
    meta = metadata(file)
    for group in map(meta.row_group, range(meta.num_row_groups)):
        columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
        payload = columns["image.bytes"]
        assert payload.compression == "UNCOMPRESSED"
        assert not payload.has_dictionary_page
        assert set(payload.encodings) == {"PLAIN", "RLE"}
        assert not payload.is_stats_set
        assert columns["codec"].has_dictionary_page
        assert columns["model"].has_dictionary_page
        assert columns["key"].is_stats_set
        assert all(column.compression == "ZSTD" for name, column in columns.items() if name != "image.bytes")


def test_schema_in_the_file(record: Maker) -> None:
    file, _ = build_shard([record("k", codec="source", model="ab" * 32)])
    schema = pq.read_schema(pa.BufferReader(file))
    assert list(schema) == list(COLUMNS)
    row = read_table(file, "shard").to_pylist()[0]
    r = record("k", codec="source", model="ab" * 32)
    assert row == {
        "key": "k",
        "image": {"bytes": b"payload", "path": None},
        "codec": "source",
        "model": "ab" * 32,
        "width": 3,
        "height": 2,
        "channels": 3,
        "bit_depth": 8,
        "mode": "RGB",
        "raw_bytes": 18,
        "source_bytes": 14,
        "pixel_sha256": r.pixel_sha256,
        "source_sha256": r.source_sha256,
    }


BUILD = """
import hashlib, sys
from pilc_stream.records.record import Record
from pilc_stream.records.build import build_shard
zero = bytes(32)
records = [
    Record(f"k{n}", bytes([n % 251]) * n, ["raw", "wave", "source"][n % 3], "m" * (n % 2), 1, 2, 3, 8, "RGB", 6, 7,
           zero, zero, {"label": n, "tags": ["a"] * (n % 3), "z": None})
    for n in range(600)
]
print(hashlib.sha256(build_shard(records)[0]).hexdigest())
"""


def test_the_same_records_give_the_same_bytes_in_every_process() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", BUILD], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
    namespace: dict[str, Any] = {"print": lambda text: digests.add(f"{text}\n".encode())}
    exec(BUILD, namespace)
    assert len(digests) == 1


def test_columns_of_the_users_own(record: Maker) -> None:
    values = [
        {"label": 3, "boxes": [[0.5, 1.0]], "caption": "ein Wal", "when": None},
        {"label": 4, "boxes": [], "meta": {"a": 1, "b": "x"}},
    ]
    records = [record(f"k{n}", columns=columns) for n, columns in enumerate(values)]
    file, ranges = build_shard(records)
    assert at(file, ranges) == [b"payload"] * 2
    table = read_table(file, "shard")
    assert table.schema.names[len(COLUMN_NAMES) :] == ["label", "boxes", "caption", "when", "meta"]
    assert table.select(["label", "boxes", "caption", "meta"]).to_pylist() == [
        {"label": 3, "boxes": [[0.5, 1.0]], "caption": "ein Wal", "meta": None},
        {"label": 4, "boxes": [], "caption": None, "meta": {"a": 1, "b": "x"}},
    ]


def test_a_given_schema_rules_the_users_columns(record: Maker) -> None:
    wanted = pa.schema([pa.field("label", pa.int16()), pa.field("unused", pa.large_string())])
    file, _ = build_shard([record("a", columns={"label": 7}), record("b")], wanted)
    schema = pq.read_schema(pa.BufferReader(file))
    assert [schema.field("label").type, schema.field("unused").type] == [pa.int16(), pa.large_string()]
    assert read_table(file, "shard").column("label").to_pylist() == [7, None]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pixel_sha256": b"short"}, "pixel_sha256 has 5 bytes"),
        ({"width": 2**31}, "'bad': its width does not fit a column of type int32"),
        ({"channels": 256}, "its channels does not fit a column of type uint8"),
        ({"columns": {"key": 1}}, "cannot be called 'key'"),
        ({"columns": {"label": "text"}}, "its label does not fit"),
        ({"columns": {"other": 1}}, "has the column 'other', which the shard's schema lacks"),
    ],
)
def test_values_that_do_not_fit_name_their_record(record: Maker, fields: dict[str, Any], said: str) -> None:
    columns = pa.schema([pa.field("label", pa.int64())])
    with pytest.raises(UsageError, match=said) as caught:
        build_shard([record("good", columns={"label": 1}), record("bad", **fields)], columns)
    assert "'bad'" in str(caught.value)


def test_other_wrong_use(record: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="Two records of one shard have the key 'k'"):
        build_shard([record("k"), record("k")])
    with pytest.raises(UsageError, match="your column 'x' have no common type"):
        build_shard([record("a", columns={"x": 1}), record("b", columns={"x": "y"})])
    with pytest.raises(UsageError, match="cannot be called 'mode'"):
        build_shard([], pa.schema([pa.field("mode", pa.string())]))
    with pytest.raises(UsageError, match="Two columns of your own are called 'x'"):
        build_shard([], pa.schema([pa.field("x", pa.string()), pa.field("x", pa.int8())]))
    monkeypatch.setattr(build_module, "MAX_PAYLOAD_BYTES", 100)
    with pytest.raises(UsageError, match="payload of 101 bytes is above the limit of 100"):
        build_shard([record("k", bytes(101))])
    assert build_shard([record("k", bytes(100))])[1][0][1] == 100


def test_ranges_are_compared_with_the_payloads_before_anybody_sees_them(
    record: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should a later PyArrow lay out pages in another way, no shard with wrong ranges may come of it."""
    monkeypatch.setattr(build_module, "locate_payloads", lambda file, metadata: [(4, 7)])
    with pytest.raises(FormatError, match="Record 'k': its payload is not at byte 4"):
        build_shard([record("k", b"payload")])

from __future__ import annotations

import hashlib
import io
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilc_stream.errors import ChecksumError, FormatError, StorageError, TruncatedError, UnsupportedError, UsageError
from pilc_stream.records import shard as shard_module
from pilc_stream.records.documents import pack_ranges
from pilc_stream.records.record import Record, ShardEntry
from pilc_stream.records.schema import COLUMN_NAMES, COLUMNS
from pilc_stream.records.shard import ROW_GROUP_ROWS, ShardReader, build_shard, read_table
from pilc_stream.storage import Store

Maker = Callable[..., Record]
Committer = Callable[..., ShardEntry]


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
        patch.setattr(shard_module, "ROW_GROUP_ROWS", group_size)
        patch.setattr(shard_module, "ROW_GROUP_BYTES", group_bytes)
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


def test_no_rows(record: Maker, store: Store, commit: Committer) -> None:
    file, ranges = build_shard([])
    assert ranges == []
    assert read_table(file, "shard").num_rows == 0
    reader = ShardReader(store, commit(store, 0, []))
    assert reader.keys() == []
    assert reader.columns().schema.names == [name for name in COLUMN_NAMES if name != "image"]
    assert reader.payloads([]) == []


@pytest.mark.slow
def test_row_groups_of_64_megabytes_at_real_size(record: Maker) -> None:
    sizes = [70_000_000, 1, 40_000_000, 24_000_000, 0, 63_999_999, 1, 65_000_000]
    payloads = [os.urandom(1000) * (size // 1000) + bytes(size % 1000) for size in sizes]
    file, ranges = build_shard([record(f"k{n}", payload) for n, payload in enumerate(payloads)])
    assert at(file, ranges) == payloads
    assert group_rows(file) == [1, 2, 2, 2, 1]


def test_large_payloads_get_pages_of_their_own(record: Maker) -> None:
    """So that neither writing nor reading gathers a whole row group in one page; see `write_batch_size`."""
    file, ranges = build_shard([record(f"k{n}", bytes(200_000)) for n in range(64)])
    assert group_rows(file) == [64]
    assert len(pack_ranges(ranges)["runs"]) == 64 / 16


def test_limits_are_those_of_the_format() -> None:
    assert ROW_GROUP_ROWS == 256
    assert shard_module.ROW_GROUP_BYTES == 64_000_000
    assert shard_module.MAX_PAYLOAD_BYTES < 2**31


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
from pilc_stream.records.shard import build_shard
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
    monkeypatch.setattr(shard_module, "MAX_PAYLOAD_BYTES", 100)
    with pytest.raises(UsageError, match="payload of 101 bytes is above the limit of 100"):
        build_shard([record("k", bytes(101))])
    assert build_shard([record("k", bytes(100))])[1][0][1] == 100


def test_ranges_are_compared_with_the_payloads_before_anybody_sees_them(
    record: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should a later PyArrow lay out pages in another way, no shard with wrong ranges may come of it."""
    monkeypatch.setattr(shard_module, "locate_payloads", lambda file, metadata: [(4, 7)])
    with pytest.raises(FormatError, match="Record 'k': its payload is not at byte 4"):
        build_shard([record("k", b"payload")])


def test_flipped_bits_change_no_value_in_silence(record: Maker) -> None:
    """Checksums of pages and footer cover all values: damage is an error, or of no consequence."""
    records = [record(f"k{n}", b"payload" * n, columns={"label": n}) for n in range(5)]
    file, _ = build_shard(records)
    good = read_table(file, "shard")
    footer = len(file) - 8 - int.from_bytes(file[-8:-4], "little")
    noticed = 0
    for bit in range(0, 8 * len(file), 13):
        damaged = bytearray(file)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            table = read_table(bytes(damaged), "the shard")
        except FormatError:
            noticed += 1
        else:
            assert table.equals(good)
            assert bit // 8 < footer
    assert noticed > 0.8 * footer * 8 / 13


class TestShardReader:
    @pytest.fixture
    def records(self, record: Maker) -> list[Record]:
        rng = random.Random(3)
        return [
            record(
                f"k{n}", rng.randbytes(rng.randrange(3000)), codec=rng.choice(["raw", "source"]), columns={"label": n}
            )
            for n in range(700)
        ]

    @pytest.fixture
    def reader(self, store: Store, records: list[Record], commit: Committer) -> ShardReader:
        return ShardReader(store, commit(store, 4, records))

    def test_payloads(self, reader: ShardReader, records: list[Record]) -> None:
        assert reader.payload(699) == records[699].payload
        rows = [5, 5, 0, 300, 256, 255]
        assert reader.payloads(rows) == [records[row].payload for row in rows]
        for row in (-1, 700):
            with pytest.raises(UsageError, match=f"there is no row {row}; the shard has 700"):
                reader.payload(row)

    def test_columns(self, reader: ShardReader, records: list[Record]) -> None:
        assert reader.keys() == [r.key for r in records]
        table = reader.columns(["label", "codec"])
        assert table.schema.names == ["label", "codec"]
        assert table.column("label").to_pylist() == list(range(700))
        assert table.column("codec").to_pylist() == [r.codec for r in records]
        everything = reader.columns()
        assert everything.schema.names == [*(name for name in COLUMN_NAMES if name != "image"), "label"]
        assert everything.column("source_sha256").to_pylist() == [r.source_sha256 for r in records]
        assert [i["bytes"] for i in reader.columns(["image"]).column("image").to_pylist()] == [
            r.payload for r in records
        ]
        assert reader.columns([]).num_columns == 0
        with pytest.raises(UsageError, match=r"there is no column 'nope'\. It has key, image"):
            reader.columns(["nope"])

    def test_only_what_is_needed_is_fetched(self, reader: ShardReader, monkeypatch: pytest.MonkeyPatch) -> None:
        fetched: list[tuple[int, int]] = []
        real = Store.read_ranges

        def read_ranges(store: Store, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
            fetched.extend(ranges)
            return real(store, path, ranges)

        monkeypatch.setattr(Store, "read_ranges", read_ranges)
        monkeypatch.setattr(shard_module, "_MERGE_GAP_BYTES", 0)
        reader.keys()
        footer, *chunks = fetched
        assert footer[0] + footer[1] == reader.entry.shard_bytes
        assert len(chunks) == 3
        assert sum(length for _, length in chunks) < 700 * 20
        fetched.clear()
        reader.keys()
        assert fetched == chunks
        fetched.clear()
        reader.payload(17)
        assert len(fetched) == 1
        assert fetched[0][1] == len(reader.payload(17))

    def test_close_chunks_are_fetched_together(self, reader: ShardReader, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shard_module, "_MERGE_GAP_BYTES", 1 << 40)
        assert len(reader._spans(["key", "label"], [0, 1, 2])) == 1
        assert reader.keys()[-1] == "k699"
        monkeypatch.setattr(shard_module, "_MERGE_GAP_BYTES", 0)
        # A group's last column touches the next one's first: nothing lies between them.
        assert len(reader._spans(["key", "label"], [0, 1, 2])) == 4
        assert len(reader._spans(["key", "width"], [0, 1, 2])) == 6

    def test_a_long_footer_takes_a_second_read(self, reader: ShardReader, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shard_module, "_TAIL_BYTES", 64)
        assert reader.keys()[:2] == ["k0", "k1"]

    def test_it_travels_by_pickle(self, store: Store, reader: ShardReader, records: list[Record]) -> None:
        reader.keys()
        assert pickle.loads(pickle.dumps(ShardReader(store, reader.entry))).payload(3) == records[3].payload

    def test_a_shard_that_is_gone_or_replaced(
        self, store: Store, reader: ShardReader, record: Maker, records: list[Record]
    ) -> None:
        path = reader.entry.path
        whole = store.read(path)
        other, _ = build_shard([record(f"other {n}") for n in range(10)])
        store.put(path, whole[:-1])
        with pytest.raises(StorageError, match="shorter than"):
            reader.keys()
        store.put(path, whole[:-1] + b"X")
        with pytest.raises(TruncatedError, match="does not end as Parquet does"):
            reader.keys()
        store.put(path, bytes(len(whole) - len(other)) + other)
        with pytest.raises(FormatError, match="the file has 10 rows, its commit says 700"):
            reader.keys()
        store.put(path, whole[:-8] + (2**31).to_bytes(4, "little") + b"PAR1")
        with pytest.raises(TruncatedError):
            reader.keys()
        store.put(path, whole[:-100] + bytes(90) + whole[-10:])
        with pytest.raises(FormatError, match="the file is damaged"):
            reader.keys()
        store.delete(path)
        with pytest.raises(StorageError, match="nothing at this place"):
            reader.keys()

    def test_a_damaged_column_is_noticed(self, store: Store, reader: ShardReader) -> None:
        path = reader.entry.path
        column = reader.metadata.row_group(1).column(0)
        damaged = bytearray(store.read(path))
        damaged[column.data_page_offset + column.total_compressed_size - 20] ^= 1
        store.put(path, bytes(damaged))
        with pytest.raises(ChecksumError, match="the file is damaged"):
            reader.keys()
        assert reader.columns(["label"]).num_rows == 700


def test_foreign_and_future_files(record: Maker) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"key": ["a"]}), sink)
    with pytest.raises(FormatError, match="not a pilc-stream shard"):
        read_table(sink.getvalue(), "x.parquet")
    file, _ = build_shard([record("k")])
    table = pq.read_table(pa.BufferReader(file))
    for replacement, error, said in [
        ({b"pilc_stream.shard_format": b"2"}, UnsupportedError, "the shard format is version 2"),
        ({b"pilc_stream.shard_format": b"1"}, FormatError, "column 0 is nothing|column 0 is pyarrow"),
    ]:
        sink = io.BytesIO()
        changed = table.replace_schema_metadata(replacement)
        pq.write_table(changed if error is UnsupportedError else changed.drop_columns(["key"]), sink)
        with pytest.raises(error, match=said):
            read_table(shard_module._guarded(sink.getvalue()), "x.parquet")
    for data in (b"", b"PAR1", b"text" * 100, file[:-1], file[:100]):
        with pytest.raises(FormatError, match=r"^x\.parquet: the file is damaged"):
            read_table(data, "x.parquet")


def test_hugging_face_sees_an_image(record: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    records = [record(f"k{n}", f"payload {n}".encode(), columns={"label": n}) for n in range(300)]
    (tmp_path / "part.parquet").write_bytes(build_shard(records)[0])
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "part.parquet"), cache_dir=str(tmp_path / "cache"), split="train"
    )
    assert isinstance(loaded.features["image"], datasets.Image)
    rows = loaded.cast_column("image", datasets.Image(decode=False))
    assert rows[299]["image"] == {"bytes": b"payload 299", "path": None}
    assert (rows[7]["label"], rows[7]["codec"], rows[7]["key"]) == (7, "raw", "k7")


def test_what_hugging_face_reads_the_feature_from(record: Maker) -> None:
    """The metadata that `datasets` looks for, and the field type that it compares: kept right without the package."""
    schema = pq.read_schema(pa.BufferReader(build_shard([record("k")])[0]))
    assert schema.metadata[b"huggingface"] == b'{"info": {"features": {"image": {"_type": "Image"}}}}'
    assert schema.field("image") == pa.field("image", pa.struct({"bytes": pa.binary(), "path": pa.string()}))


def test_the_digest_is_of_the_file(store: Store, record: Maker, commit: Committer) -> None:
    entry = commit(store, 0, [record("k")])
    assert hashlib.sha256(store.read(entry.path)).hexdigest() == entry.sha256

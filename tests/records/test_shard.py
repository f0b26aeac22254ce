"""A committed shard, read."""

from __future__ import annotations

import hashlib
import io
import pickle
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pilc_stream.errors import ChecksumError, FormatError, StorageError, TruncatedError, UnsupportedError, UsageError
from pilc_stream.records import shard as shard_module
from pilc_stream.records.build import build_shard, guard
from pilc_stream.records.record import Record, ShardEntry
from pilc_stream.records.schema import COLUMN_NAMES
from pilc_stream.records.shard import ShardReader, read_table
from pilc_stream.storage import Store

Maker = Callable[..., Record]
Committer = Callable[..., ShardEntry]


def test_no_rows(record: Maker, store: Store, commit: Committer) -> None:
    file, ranges = build_shard([])
    assert ranges == []
    assert read_table(file, "shard").num_rows == 0
    reader = ShardReader(store, commit(store, 0, []))
    assert reader.keys() == []
    assert reader.columns().schema.names == [name for name in COLUMN_NAMES if name != "image"]
    assert reader.payloads([]) == []


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
        guard(sink)
        with pytest.raises(error, match=said):
            read_table(sink.getvalue(), "x.parquet")
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

from __future__ import annotations

import io
import json
import pickle
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pilc_stream.errors import UsageError
from pilc_stream.pipeline.sources import Request, open_source
from pilc_stream.records.record import Record
from pilc_stream.records.schema import HUGGING_FACE_KEY, shard_schema, to_table
from pilc_stream.storage import Sample, Store

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture
def here(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


def put(store: Store, path: str, table: pa.Table, **options: Any) -> None:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    store.put(path, sink.getvalue())


def photos(count: int, label: int = 0) -> pa.Table:
    images = [{"bytes": b"%d" % number, "path": f"{number}.jpg"} for number in range(count)]
    return pa.table({"image": pa.array(images, IMAGE), "label": pa.array(range(label, label + count), pa.int16())})


def read(store: Store, **request: Any) -> tuple[pa.Schema, list[Sample]]:
    source = open_source(Request((f"{store.url}/*.parquet",), store.storage_options, **request))
    assert source.kind == "parquet"
    return source.columns, [sample for part in source.parts() for sample in part.samples()]


def test_rows_of_all_files_come_with_their_columns(here: Store) -> None:
    put(here, "b.parquet", photos(3, 10), row_group_size=2)
    put(here, "a.parquet", photos(2))
    columns, samples = read(here)
    assert columns == pa.schema([("label", pa.int16()), ("image_path", pa.string())])
    assert [sample.key for sample in samples] == [
        "a.parquet/0000000000",
        "a.parquet/0000000001",
        "b.parquet/0000000000",
        "b.parquet/0000000001",
        "b.parquet/0000000002",
    ]
    assert [sample.data for sample in samples] == [b"0", b"1", b"0", b"1", b"2"]
    assert [dict(sample.columns) for sample in samples][-1] == {"label": 12, "image_path": "2.jpg"}


def test_a_part_is_a_row_group_and_can_be_cut(here: Store) -> None:
    put(here, "a.parquet", photos(70), row_group_size=40)
    parts = list(open_source(Request((f"{here.url}/a.parquet",))).parts())
    assert [(part.key, part.images) for part in parts] == [("a.parquet/0000000000", 40), ("a.parquet/0000000040", 30)]
    head = pickle.loads(pickle.dumps(parts[1])).head(3)
    assert head.images == 3
    assert [sample.data for sample in head.samples()] == [b"40", b"41", b"42"]


def test_bytes_alone_are_an_image_too(here: Store) -> None:
    put(here, "a.parquet", pa.table({"jpg": [b"one"], "caption": ["x"]}))
    columns, (sample,) = read(here)
    assert columns.names == ["caption"]
    assert (sample.data, sample.columns) == (b"one", {"caption": "x"})


def test_every_type_survives_into_a_shard(here: Store) -> None:
    values: dict[str, Any] = {
        "nanoseconds": pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns")),
        "decimal": pa.array([Decimal("1.20"), None], pa.decimal128(8, 2)),
        "list": pa.array([[1, None, 3], []], pa.list_(pa.int8())),
        "struct": pa.array([{"a": 1, "b": [1.5]}, None], pa.struct([("a", pa.int32()), ("b", pa.list_(pa.float32()))])),
        "when": pa.array([datetime(2024, 2, 3), None], pa.timestamp("us", "UTC")),
        "float": pa.array([0.1, None], pa.float32()),
        "flag": pa.array([True, None]),
        "width": pa.array([3, 4], pa.uint16()),
        "large": pa.array(["a", None], pa.large_string()),
    }
    put(here, "a.parquet", pa.table({"image": [b"1", b"2"], **values}))
    columns, samples = read(here)
    assert columns.names == [*(name for name in values if name != "width" and name != "large"), "source_width", "large"]
    blank = {"codec": "raw", "model": "", "mode": "L", "pixel_sha256": bytes(32), "source_sha256": bytes(32)}
    zeros = dict.fromkeys(("width", "height", "channels", "bit_depth", "raw_bytes", "source_bytes"), 1)
    records = [
        Record(key=sample.key, payload=sample.data, columns=sample.columns, **blank, **zeros) for sample in samples
    ]
    table = to_table(records, shard_schema(columns))
    for name, array in values.items():
        found = table.column("source_width" if name == "width" else name)
        assert found.combine_chunks().equals(array), name


def test_dictionaries_become_their_values(here: Store) -> None:
    put(here, "a.parquet", pa.table({"image": [b"1", b"2"], "kind": pa.array(["x", "y"]).dictionary_encode()}))
    columns, samples = read(here)
    assert columns.field("kind").type == pa.string()
    assert [sample.columns["kind"] for sample in samples] == ["x", "y"]


def test_class_names_of_hugging_face_go_with_their_column(here: Store) -> None:
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    metadata = {HUGGING_FACE_KEY: json.dumps({"info": {"features": features}})}
    put(here, "a.parquet", photos(2).replace_schema_metadata(metadata))
    written = json.loads(shard_schema(read(here)[0]).metadata[HUGGING_FACE_KEY])
    assert written["info"]["features"] == features


def test_rows_without_bytes_have_a_fault_of_their_own(here: Store) -> None:
    rows = [None, {"bytes": None, "path": "gone.jpg"}, {"bytes": b"x", "path": None}]
    put(here, "a.parquet", pa.table({"image": pa.array(rows, IMAGE)}))
    samples = read(here)[1]
    assert [sample.fault for sample in samples] == [
        "the row has no image",
        "the row has no image bytes, only the path 'gone.jpg'",
        "",
    ]


def test_which_column_is_the_image_can_be_said(here: Store) -> None:
    put(here, "a.parquet", pa.table({"left": [b"l"], "right": [b"r"]}))
    with pytest.raises(
        UsageError, match=r"several columns could be the image: left, right. Name it with --image-column"
    ):
        read(here)
    columns, (sample,) = read(here, image_column="right")
    assert (sample.data, columns.names, sample.columns) == (b"r", ["left"], {"left": b"l"})
    with pytest.raises(UsageError, match="'up' is no column of images"):
        open_source(Request((f"{here.url}/*.parquet",), image_column="up"), "parquet")


def test_files_of_other_columns_are_refused_by_name(here: Store) -> None:
    put(here, "a.parquet", photos(2))
    put(here, "b.parquet", photos(2).append_column("extra", pa.array([1, 2])))
    with pytest.raises(UsageError, match=r"b\.parquet: its column 'extra' is int64, in .*a\.parquet it is missing"):
        read(here)


def test_a_file_that_is_damaged_later_costs_its_rows(here: Store) -> None:
    put(here, "a.parquet", photos(6), row_group_size=3, compression="none", use_dictionary=False)
    parts = list(open_source(Request((f"{here.url}/a.parquet",))).parts())
    data = bytearray(here.read("a.parquet"))
    start = pq.read_metadata(io.BytesIO(bytes(data))).row_group(1).column(0).data_page_offset
    data[start : start + 60] = b"\xff" * 60
    here.put("a.parquet", bytes(data))
    assert [sample.fault for sample in parts[0].samples()] == [""] * 3
    lost = list(parts[1].samples())
    assert [sample.key for sample in lost] == [f"a.parquet/{row:010d}" for row in (3, 4, 5)]
    assert all("cannot be read as Parquet" in sample.fault for sample in lost)


def test_what_is_no_parquet_is_wrong_use(here: Store) -> None:
    here.put("a.parquet", b"PAR1 and nothing else")
    with pytest.raises(UsageError, match=r"a\.parquet: the file cannot be read as Parquet"):
        read(here)


def test_only_footers_are_read_to_plan(here: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pa.array([{"bytes": bytes(3_000_000), "path": ""}] * 4, IMAGE)
    put(here, "a.parquet", pa.table({"image": images}), row_group_size=1, compression="none", use_dictionary=False)
    read_bytes = 0
    read_ranges = Store.read_ranges

    def counted(self: Store, path: str, ranges: Any) -> list[bytes]:
        nonlocal read_bytes
        read_bytes += sum(length for _, length in ranges)
        return read_ranges(self, path, ranges)

    monkeypatch.setattr(Store, "read_ranges", counted)
    assert len(list(open_source(Request((f"{here.url}/a.parquet",))).parts())) == 4
    assert read_bytes < 6_000_000

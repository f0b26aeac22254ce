from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilc_stream.codecs import open_codec
from pilc_stream.errors import UsageError
from pilc_stream.images import pixel_sha256
from pilc_stream.pipeline.verify import VerifyReport, verify_dataset
from pilc_stream.records import layout
from pilc_stream.records.build import build_shard
from pilc_stream.records.commit import commit_shard, create_job, put_shard
from pilc_stream.records.manifest import Manifest, finish
from pilc_stream.records.payload import Header, pack_payload
from pilc_stream.records.record import SOURCE_CODEC, Record, ShardEntry
from pilc_stream.storage import Store


@pytest.fixture
def files(photo_like: Any, file_of: Any) -> dict[str, bytes]:
    """Six images that are coded and two that are kept, one of them broken."""
    coded = {f"{number}.bmp": file_of(photo_like(9, 11, seed=number), "BMP") for number in range(6)}
    return {**coded, "flat.png": file_of(np.zeros((40, 40, 3), np.uint8)), "broken.png": b"not a picture"}


@pytest.fixture
def manifest(dataset_of: Callable[..., Manifest], files: dict[str, bytes]) -> Manifest:
    """The files in three shards: three, three and two records."""
    return dataset_of(files, shard_bytes=1140)


def _findings(report: VerifyReport) -> list[tuple[str, str]]:
    return [(finding.key, finding.reason) for finding in report.failed]


def _change(manifest: Manifest, shard: int, offset: int) -> None:
    """Flip one bit of a shard file, as a disk would."""
    path = manifest.shards[shard].path
    data = bytearray(manifest.store.read(path))
    data[offset] ^= 4
    manifest.store.put(path, bytes(data))


def _records(count: int = 4, **changes: Any) -> list[Record]:
    arrays = [np.full((3, 5, 3), number, np.uint8) for number in range(count)]
    payloads = open_codec("raw").encode(arrays)
    record = Record("", b"", "raw", "", 5, 3, 3, 8, "RGB", 45, 100, b"", bytes(32))
    records = [
        replace(record, key=f"{number}.png", payload=payload, pixel_sha256=pixel_sha256(array))
        for number, (array, payload) in enumerate(zip(arrays, payloads, strict=True))
    ]
    return [replace(record, **changes) for record in records]


def _store(folder: Path, shards: Sequence[Sequence[Record]], **job: Any) -> Manifest:
    """Write records as they are into a finished data set, as a writer with a fault would."""
    store = Store.open(str(folder))
    create_job(store, job)
    for index, records in enumerate(shards):
        file, ranges = build_shard(records)
        path, sha256 = put_shard(store, index, file)
        entry = ShardEntry(
            index=index,
            path=path,
            sha256=sha256,
            shard_bytes=len(file),
            rows=len(records),
            failed=0,
            fallback=sum(record.codec == SOURCE_CODEC for record in records),
            raw_bytes=sum(record.raw_bytes for record in records),
            source_bytes=sum(record.source_bytes for record in records),
            payload_bytes=sum(len(record.payload) for record in records),
            sub_pixels=sum(record.raw_bytes for record in records),
            seconds=0.5,
        )
        commit_shard(store, entry, ranges)
    return finish(store)


def test_a_sound_data_set_has_no_findings(manifest: Manifest) -> None:
    done: list[tuple[int, int]] = []
    report = verify_dataset(manifest, device="cpu", progress=lambda images, raw: done.append((images, raw)))
    assert report.ok
    assert report.failed == ()
    assert (report.shards, report.images, report.decoded) == (3, 8, 6)
    assert report.raw_bytes == 6 * 9 * 11 * 3
    assert sum(images for images, _ in done) == 8
    assert sum(raw for _, raw in done) == sum(shard.raw_bytes for shard in manifest.shards)
    assert json.loads(json.dumps(report.to_json()))["failed"] == 0


def test_an_empty_data_set_is_sound(tmp_path: Path) -> None:
    report = verify_dataset(_store(tmp_path, [], images=0))
    assert (report.ok, report.images) == (True, 0)


def test_a_flipped_bit_of_a_coded_payload_names_file_and_image(manifest: Manifest) -> None:
    offset, length = manifest.byte_range(1, 2)
    _change(manifest, 1, offset + length // 2)
    report = verify_dataset(manifest)
    assert [key for key, _ in _findings(report)] == ["", "5.bmp"]
    assert "SHA-256" in report.failed[0].reason
    assert "CRC" in report.failed[1].reason
    assert {finding.shard for finding in report.failed} == {manifest.shards[1].path}
    assert report.decoded == 5


def test_a_flipped_bit_of_a_kept_source_names_it(manifest: Manifest) -> None:
    _change(manifest, 2, manifest.byte_range(2, 0)[0] + 3)
    findings = _findings(verify_dataset(manifest))
    assert [key for key, _ in findings] == ["", "broken.png"]
    assert "not the source" in findings[1][1]


def test_a_flipped_bit_of_a_payload_header_is_found_before_it_is_decoded(manifest: Manifest) -> None:
    offset, _ = manifest.byte_range(0, 1)
    _change(manifest, 0, offset + 5)
    findings = _findings(verify_dataset(manifest))
    assert [key for key, _ in findings] == ["", "1.bmp"]
    assert "the columns say" in findings[1][1]


def test_every_finding_is_reported_at_once(manifest: Manifest) -> None:
    for shard, row in ((0, 0), (0, 2), (1, 1)):
        offset, length = manifest.byte_range(shard, row)
        _change(manifest, shard, offset + length - 1)
    report = verify_dataset(manifest)
    assert [key for key, _ in _findings(report)] == ["", "0.bmp", "2.bmp", "", "4.bmp"]
    assert report.to_json()["failed"] == 5
    assert report.to_json()["findings"][1]["key"] == "0.bmp"


def test_a_missing_shard_is_a_finding_and_the_others_are_checked(manifest: Manifest) -> None:
    manifest.store.delete(manifest.shards[1].path)
    report = verify_dataset(manifest)
    assert len(report.failed) == 1
    assert report.failed[0].shard == manifest.shards[1].path
    assert report.images == 5


def test_a_cut_shard_is_a_finding(manifest: Manifest) -> None:
    path = manifest.shards[2].path
    manifest.store.put(path, manifest.store.read(path)[:-100])
    report = verify_dataset(manifest)
    assert f"its commit says {manifest.shards[2].shard_bytes}" in report.failed[0].reason
    assert report.images == 6


def test_damaged_columns_are_a_finding(manifest: Manifest) -> None:
    file = manifest.store.read(manifest.shards[0].path)
    _change(manifest, 0, file.index(b"1.bmp"))
    findings = _findings(verify_dataset(manifest))
    assert findings
    assert "SHA-256" in findings[0][1]


def test_pixels_that_are_not_those_of_the_source_are_found(tmp_path: Path) -> None:
    records = _records()
    records[2] = replace(records[2], pixel_sha256=hashlib.sha256(b"others").digest())
    assert _findings(verify_dataset(_store(tmp_path, [records]))) == [
        ("2.png", "the pixels are not those of the source: their SHA-256 is not that of the column pixel_sha256")
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"width": 6}, "the columns say"),
        ({"bit_depth": 16}, "the columns say"),
        ({"codec": "wave"}, "the columns say"),
        ({"mode": "L"}, "does not have 3 channels"),
        ({"raw_bytes": 46}, "raw_bytes says 46"),
        ({"codec": SOURCE_CODEC}, "source_bytes says 100"),
        ({"payload": b"\xb1"}, "payload"),
        ({"payload": b""}, "payload"),
        ({"payload": open_codec("raw").encode([np.zeros((3, 5, 3), np.uint8)], [b"\x07"])[0]}, "metadata"),
    ],
)
def test_columns_must_fit_their_payload(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    records = _records()
    records[0] = replace(records[0], **changes)
    ((key, reason),) = _findings(verify_dataset(_store(tmp_path, [records])))
    assert key == "0.png"
    assert sentence in reason


def test_doubled_keys_across_shards_are_found(tmp_path: Path) -> None:
    first, second = _records(3), _records(4)[2:]
    report = verify_dataset(_store(tmp_path, [first, second]))
    ((key, reason),) = _findings(report)
    assert key == "2.png"
    assert reason.startswith("the key is there 2 times: data/part-000000-")


def test_an_order_of_keys_that_does_not_rise_is_no_fault(tmp_path: Path) -> None:
    records = _records(4)
    assert verify_dataset(_store(tmp_path, [records[2:], records[:2]])).ok


def test_images_that_are_missing_are_found(tmp_path: Path) -> None:
    report = verify_dataset(_store(tmp_path, [_records(4)], images=5))
    assert _findings(report) == [("", "the data set has 4 images, its job had 5")]


def test_an_unfinished_data_set_is_not_blamed_for_what_is_to_come(manifest: Manifest) -> None:
    manifest.store.delete(layout.commit_path(2))
    manifest.store.delete(layout.SUCCESS_PATH)
    report = verify_dataset(Manifest.load(manifest.url, allow_partial=True))
    assert report.ok
    assert report.images == 6


def test_a_commit_whose_ranges_lie_is_found(manifest: Manifest) -> None:
    path = layout.commit_path(0)
    document = json.loads(manifest.store.read(path))
    document["payloads"]["runs"][0][1] += 1
    manifest.store.put(path, json.dumps(document).encode())
    findings = _findings(verify_dataset(Manifest.load(manifest.url)))
    assert ("", "the byte ranges of the commit are not where the file has its payloads") in findings
    assert {key for key, _ in findings} == {"", "0.bmp", "1.bmp", "2.bmp"}


def test_a_commit_whose_counts_lie_is_found(manifest: Manifest) -> None:
    lying = replace(manifest, shards=(replace(manifest.shards[0], raw_bytes=7, fallback=2), *manifest.shards[1:]))
    assert [reason for _, reason in _findings(verify_dataset(lying))] == [
        "raw_bytes is 891 in the file and 7 in its commit",
        "failed + fallback is 0 in the file and 2 in its commit",
    ]


def test_a_missing_model_is_a_finding_of_each_image(tmp_path: Path) -> None:
    header = Header("wave", 3, 5, 3, 8, False, model_digest=b"\x01\x02\x03\x04", tile_log2=6)
    payload = pack_payload(header, [b"x"])
    ((key, reason),) = _findings(
        verify_dataset(_store(tmp_path, [_records(1, payload=payload, codec="wave", model="01020304" + "0" * 56)]))
    )
    assert key == "0.png"
    assert "01020304" in reason


def test_a_sample_decodes_some_and_always_the_same(tmp_path: Path) -> None:
    records = _records(120)
    records = sorted(records, key=lambda record: record.key)
    bad = [replace(record, pixel_sha256=bytes(32)) for record in records]
    manifest = _store(tmp_path, [bad])
    sampled = [_findings(verify_dataset(manifest, sample=6)) for _ in range(2)]
    assert sampled[0] == sampled[1]
    assert 5 < len(sampled[0]) < 50
    assert len(verify_dataset(manifest).failed) == 120
    assert len(verify_dataset(manifest, sample=1).failed) == 120


@pytest.mark.parametrize("sample", [0, -3])
def test_an_impossible_sample_is_refused(manifest: Manifest, sample: int) -> None:
    with pytest.raises(UsageError, match="sample"):
        verify_dataset(manifest, sample=sample)

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest

from pilc_stream.errors import ChecksumError, ManifestError, UnsupportedError, UsageError
from pilc_stream.records import layout
from pilc_stream.records import manifest as manifest_module
from pilc_stream.records.commit import create_job, put_model
from pilc_stream.records.manifest import Manifest, finish
from pilc_stream.records.record import Record, ShardEntry
from pilc_stream.storage import Store

Maker = Callable[..., Record]
Committer = Callable[..., ShardEntry]

JOB = {"profile": "raw", "info": {"version": "1"}}


@pytest.fixture
def entries(store: Store, record: Maker, commit: Committer) -> list[ShardEntry]:
    """Three committed shards of 10, 11 and 0 records; nothing is finished."""
    create_job(store, JOB)
    return [
        commit(store, index, [record(f"{index}/{n}", bytes([n]) * (n + index)) for n in range(rows)])
        for index, rows in enumerate([10, 11, 0])
    ]


def test_a_finished_data_set(store: Store, entries: list[ShardEntry]) -> None:
    made = finish(store, shards=3)
    loaded = Manifest.load(store.url)
    assert loaded == made == Manifest.of(store)
    assert loaded.finished
    assert loaded.job == JOB
    assert loaded.shards == tuple(entries)
    assert loaded.rows == 21
    assert loaded.url == store.url
    assert store.size(layout.SUCCESS_PATH) > 0


def test_an_empty_data_set(store: Store) -> None:
    create_job(store, JOB)
    finish(store, shards=0)
    loaded = Manifest.load(store.url)
    assert (loaded.rows, loaded.shards, loaded.finished) == (0, (), True)


def test_finish_can_be_repeated(store: Store, entries: list[ShardEntry]) -> None:
    finish(store)
    before = {path: store.read(path) for path in store.list()}
    finish(store)
    assert {path: store.read(path) for path in store.list()} == before


def test_success_comes_after_the_manifest(
    store: Store, entries: list[ShardEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    real = Store.put
    monkeypatch.setattr(Store, "put", lambda s, path, data: (written.append(path), real(s, path, data))[1])
    finish(store)
    assert written == [layout.MANIFEST_PATH, layout.SUCCESS_PATH]


def test_an_unfinished_data_set_says_so(store: Store, entries: list[ShardEntry]) -> None:
    with pytest.raises(ManifestError) as caught:
        Manifest.load(store.url)
    assert str(caught.value) == (
        f"{store.url}: the data set is not finished (_SUCCESS is missing). Run the same compress command again to "
        "finish it, or allow a partial data set to read what is committed."
    )
    partial = Manifest.load(store.url, allow_partial=True)
    assert not partial.finished
    assert partial.shards == tuple(entries)
    store.delete(layout.commit_path(0))
    partial = Manifest.load(store.url, allow_partial=True)
    assert [shard.index for shard in partial.shards] == [1, 2]
    # Positions, not numbers.
    assert partial.reader(0).keys()[0] == "1/0"
    assert len(partial.byte_ranges(0)) == 11


def test_a_manifest_without_success_is_not_finished(store: Store, entries: list[ShardEntry]) -> None:
    finish(store)
    store.delete(layout.SUCCESS_PATH)
    with pytest.raises(ManifestError, match="is not finished"):
        Manifest.load(store.url)


@pytest.mark.parametrize("allow_partial", [False, True])
def test_nothing_there(store: Store, allow_partial: bool) -> None:
    store.put("photo.png", b"x")
    with pytest.raises(ManifestError, match=r"there is no data set here \(_pilc/job.json is missing\)"):
        Manifest.load(store.url, allow_partial=allow_partial)


def test_finish_refuses_what_is_not_complete(store: Store, entries: list[ShardEntry]) -> None:
    with pytest.raises(ManifestError, match="cannot finish: 2 of 5 shards are not committed, shard 3 first"):
        finish(store, shards=5)
    with pytest.raises(ManifestError, match="shard 2 is committed, but the job has only 2"):
        finish(store, shards=2)
    path = entries[1].path
    data = store.read(path)
    store.put(path, data[:-1])
    with pytest.raises(
        ManifestError, match=f"{path}: the shard file has {len(data) - 1} bytes, its commit says {len(data)}"
    ):
        finish(store)
    store.delete(path)
    with pytest.raises(
        ManifestError, match=f"{path}: the shard file is missing. Restore it, or delete _pilc/commits/000001"
    ):
        finish(store)
    store.put(path, data)
    store.delete(layout.commit_path(1))
    with pytest.raises(ManifestError, match="shard 1 first"):
        finish(store)
    assert not store.exists(layout.SUCCESS_PATH)
    assert not store.exists(layout.MANIFEST_PATH)


def test_finish_needs_a_job(store: Store) -> None:
    with pytest.raises(ManifestError, match="there is no job to finish"):
        finish(store)


def test_byte_ranges_give_the_payloads(store: Store, entries: list[ShardEntry]) -> None:
    loaded = finish(store)
    for index, rows in enumerate([10, 11, 0]):
        ranges = loaded.byte_ranges(index)
        expected = [bytes([n]) * (n + index) for n in range(rows)]
        assert [store.read_range(entries[index].path, *pair) for pair in ranges] == expected
        assert all(type(number) is int for pair in ranges for number in pair)
        assert loaded.range_array(index).shape == (rows, 2)
        assert [loaded.byte_range(index, row) for row in range(rows)] == ranges
    assert loaded.reader(1).payloads([10, 0]) == [bytes([10]) * 11, bytes([0]) * 1]
    for index in (-1, 3):
        for use in (loaded.byte_ranges, loaded.reader, lambda i: loaded.byte_range(i, 0)):
            with pytest.raises(UsageError, match=f"there is no shard {index}; the data set has 3"):
                use(index)
    with pytest.raises(ValueError, match="read-only"):
        loaded.range_array(0)[0, 0] = 1


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    read: list[str] = []
    for name in ("read", "read_or_none"):
        real = getattr(Store, name)
        monkeypatch.setattr(Store, name, lambda s, path, real=real: (read.append(path), real(s, path))[1])
    real_many = Store.read_many

    def read_many(store: Store, paths: Sequence[str]) -> list[bytes]:
        read.extend(paths)
        return real_many(store, paths)

    monkeypatch.setattr(Store, "read_many", read_many)
    return read


def test_byte_ranges_are_read_late_and_once(
    store: Store, entries: list[ShardEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(store)
    read = count_reads(monkeypatch)
    loaded = Manifest.load(store.url)
    assert read == [layout.SUCCESS_PATH, layout.MANIFEST_PATH]
    for _ in range(3):
        loaded.byte_ranges(1)
        loaded.byte_range(1, 5)
        loaded.reader(1).payload(3)
    assert read[2:] == [layout.commit_path(1)]


def test_kept_byte_ranges_are_bounded(store: Store, entries: list[ShardEntry], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = finish(store)
    monkeypatch.setattr(manifest_module, "_CACHED_ROWS", 15)
    read = count_reads(monkeypatch)
    for index in (0, 1, 1, 2, 0, 2):
        loaded.byte_ranges(index)
    assert read == [layout.commit_path(index) for index in (0, 1, 2, 0)]


def test_it_travels_by_pickle_without_its_cache(store: Store, entries: list[ShardEntry]) -> None:
    loaded = finish(store)
    small = len(pickle.dumps(loaded))
    loaded.byte_ranges(1)
    assert len(pickle.dumps(loaded)) == small
    copy = pickle.loads(pickle.dumps(loaded))
    assert copy == loaded
    assert copy.byte_ranges(1) == loaded.byte_ranges(1)
    assert pickle.loads(pickle.dumps(loaded.reader(1))).keys() == loaded.reader(1).keys()


def test_models_by_digest_or_its_beginning(store: Store, entries: list[ShardEntry]) -> None:
    loaded = finish(store)
    files = [f"model {n}".encode() for n in range(3)]
    digests = [put_model(store, file) for file in files]
    for file, digest in zip(files, digests, strict=True):
        raw = bytes.fromhex(digest)
        for asked in (digest, digest[:8], digest[:9], digest.upper()[:12], raw, raw[:4], raw[:8]):
            assert loaded.model_file(asked) == file
    assert loaded.model_file(b"\0" * 8) is None
    assert loaded.model_file("0" * 64) is None
    for wrong in ("", "abc", b"abc", "xyz" * 4, "0" * 65, bytes(33), "../../job.json"):
        with pytest.raises(UsageError, match="does not begin a SHA-256 digest"):
            loaded.model_file(wrong)
    twin = digests[0][:8] + "0" * 56
    store.put(layout.model_path(twin), b"x")
    with pytest.raises(ManifestError, match=f"2 models begin with {digests[0][:8]}"):
        loaded.model_file(digests[0][:8])
    with pytest.raises(ChecksumError):
        loaded.model_file(twin)


@pytest.mark.parametrize("path", [layout.SUCCESS_PATH, layout.MANIFEST_PATH])
@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"format": 1}'])
def test_damaged_files_are_named(store: Store, entries: list[ShardEntry], path: str, data: bytes) -> None:
    finish(store)
    store.put(path, data)
    with pytest.raises(ManifestError, match=f"^{store.url}/{path}: "):
        Manifest.load(store.url)


def test_a_manifest_that_success_does_not_name(store: Store, entries: list[ShardEntry]) -> None:
    finish(store)
    store.put(layout.MANIFEST_PATH, store.read(layout.MANIFEST_PATH).replace(b'"rows":21', b'"rows":20'))
    with pytest.raises(
        ManifestError, match=r"is not the one that _SUCCESS names\. Run the same compress command again"
    ):
        Manifest.load(store.url)
    store.delete(layout.MANIFEST_PATH)
    with pytest.raises(ManifestError, match="the manifest is missing"):
        Manifest.load(store.url)
    finish(store)
    assert Manifest.load(store.url).rows == 21


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": 20}, "rows is 20, expected the sum of the shards' rows"),
        ({"rows": -1}, "rows is -1"),
        ({"shards": None}, "shards is None, expected a list"),
        ({"shards": [None]}, "a shard's entry is None"),
        ({"shards": []}, "rows is 21"),
        ({"job": None}, "job is None"),
        ({"format": 2}, "version 2"),
    ],
)
def test_impossible_manifests_are_refused(
    store: Store, entries: list[ShardEntry], change: dict[str, Any], said: str
) -> None:
    finish(store)
    document = {**json.loads(store.read(layout.MANIFEST_PATH)), **change}
    data = json.dumps(document).encode()
    store.put(layout.MANIFEST_PATH, data)
    success = {"format": 1, "manifest_sha256": hashlib.sha256(data).hexdigest()}
    store.put(layout.SUCCESS_PATH, json.dumps(success).encode())
    with pytest.raises(UnsupportedError if "format" in change else ManifestError, match=said):
        Manifest.load(store.url)


def test_shards_are_numbered_without_gaps(store: Store, entries: list[ShardEntry]) -> None:
    finish(store)
    document = json.loads(store.read(layout.MANIFEST_PATH))
    document["shards"].reverse()
    data = json.dumps(document).encode()
    store.put(layout.MANIFEST_PATH, data)
    store.put(
        layout.SUCCESS_PATH, json.dumps({"format": 1, "manifest_sha256": hashlib.sha256(data).hexdigest()}).encode()
    )
    with pytest.raises(ManifestError, match="expected shards 0, 1, 2 and so on"):
        Manifest.load(store.url)


def test_ten_thousand_shards(store: Store, entries: list[ShardEntry], monkeypatch: pytest.MonkeyPatch) -> None:
    """A large data set is two reads and a few hundred bytes a shard."""
    create_job(store, JOB)
    shards = []
    for index in range(10_000):
        sha256 = hashlib.sha256(str(index).encode()).hexdigest()
        shards.append(
            replace(entries[0], index=index, sha256=sha256, path=layout.part_path(index, sha256), rows=65_536)
        )
    document = {"format": 1, "job": JOB, "rows": 655_360_000, "shards": [asdict(shard) for shard in shards]}
    data = json.dumps(document).encode()
    store.put(layout.MANIFEST_PATH, data)
    store.put(
        layout.SUCCESS_PATH, json.dumps({"format": 1, "manifest_sha256": hashlib.sha256(data).hexdigest()}).encode()
    )
    read = count_reads(monkeypatch)
    loaded = Manifest.load(store.url)
    assert loaded.rows == 655_360_000
    assert loaded.shards == tuple(shards)
    assert len(read) == 2
    assert len(data) / len(shards) < 400

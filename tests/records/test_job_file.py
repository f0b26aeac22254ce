"""What a data set holds besides its shards: the job, the models; and how all of it is deleted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any

import pytest

from pilc_stream.errors import (
    ChecksumError,
    JobMismatchError,
    ManifestError,
    StorageError,
    UsageError,
)
from pilc_stream.records import layout
from pilc_stream.records.commit import (
    clear,
    create_job,
    list_commits,
    put_model,
    read_errors,
    read_job,
    read_model,
)
from pilc_stream.records.manifest import Manifest, finish
from pilc_stream.records.record import Record, RecordError, ShardEntry
from pilc_stream.records.shard import ShardReader
from pilc_stream.storage import Store

Maker = Callable[..., Record]
Committer = Callable[..., ShardEntry]

JOB = {"profile": "fast", "sources": ["s3://b/photos"], "cut": {"shard_bytes": 100, "images": 5}, "info": {"host": "a"}}


class TestJob:
    def test_created_once_and_found_again(self, any_store: Store) -> None:
        assert read_job(any_store) is None
        assert create_job(any_store, JOB) == JOB
        assert create_job(any_store, JOB) == JOB
        assert read_job(any_store) == JOB

    def test_info_may_differ_and_the_first_stays(self, store: Store) -> None:
        create_job(store, JOB)
        assert create_job(store, {**JOB, "info": {"host": "b", "more": 1}}) == JOB
        assert create_job(store, {name: value for name, value in JOB.items() if name != "info"}) == JOB

    def test_tuples_are_lists(self, store: Store) -> None:
        create_job(store, {"sources": ("a", "b")})
        assert create_job(store, {"sources": ["a", "b"]}) == {"sources": ["a", "b"]}

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"profile": "high"}, 'profile is "fast" there and "high" here'),
            ({"sources": ["s3://b/other"]}, r'sources is \["s3://b/photos"\] there and \["s3://b/other"\] here'),
            ({"cut": {"shard_bytes": 7, "images": 5}}, "job: cut.shard_bytes is 100 there and 7 here. Choose"),
            ({"cut": {"images": 5}}, "cut.shard_bytes is 100 there and not set here"),
            ({"cut": None}, r'cut is {"shard_bytes": 100, "images": 5} there and null here'),
            ({"new": 1}, "new is not set there and 1 here"),
            ({"cut": {"shard_bytes": 100, "images": 5.0}}, "cut.images is 5 there and 5.0 here"),
            ({"cut": {"shard_bytes": True, "images": 5}}, "cut.shard_bytes is 100 there and true here"),
        ],
    )
    def test_another_job_is_refused_field_by_field(self, store: Store, change: dict[str, Any], said: str) -> None:
        create_job(store, JOB)
        with pytest.raises(JobMismatchError, match=said) as caught:
            create_job(store, {**JOB, **change})
        assert str(caught.value).startswith(f"{store.url}: the destination holds another job: ")
        assert read_job(store) == JOB

    def test_a_missing_field_is_a_difference(self, store: Store) -> None:
        create_job(store, JOB)
        with pytest.raises(JobMismatchError, match='profile is "fast" there and not set here'):
            create_job(store, {name: value for name, value in JOB.items() if name != "profile"})

    def test_many_and_long_differences_stay_readable(self, store: Store) -> None:
        create_job(store, {f"field{n:02d}": "x" * 500 for n in range(40)})
        with pytest.raises(JobMismatchError, match="and 30 more") as caught:
            create_job(store, {f"field{n:02d}": "y" * 500 for n in range(40)})
        assert "field09" in str(caught.value)
        assert len(str(caught.value)) < 3000

    def test_names_that_utf8_cannot_hold(self, store: Store) -> None:
        job = {"sources": [os.fsdecode(b"/caf\xe9")]}
        create_job(store, job)
        assert create_job(store, job) == job

    @pytest.mark.parametrize("data", [b"", b"{}", b'{"format":1}', b'{"format":1,"job":[]}'])
    def test_a_damaged_job_is_named(self, store: Store, data: bytes) -> None:
        store.put(layout.JOB_PATH, data)
        with pytest.raises(ManifestError, match=f"^{store.url}/_pilc/job.json: "):
            create_job(store, JOB)


class TestModels:
    def test_content_addressed_and_put_once(self, any_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        data = b"weights" * 100
        sha256 = put_model(any_store, data)
        assert sha256 == hashlib.sha256(data).hexdigest()
        assert any_store.list() == [f"_pilc/models/{sha256}.safetensors"]
        monkeypatch.setattr(Store, "put", lambda *_: pytest.fail("written twice"))
        assert put_model(any_store, data) == sha256
        assert read_model(any_store, sha256) == data
        assert read_model(any_store, "0" * 64) is None

    def test_a_damaged_model_is_not_returned(self, store: Store) -> None:
        sha256 = put_model(store, b"weights")
        store.put(layout.model_path(sha256), b"weightz")
        with pytest.raises(ChecksumError, match=f"{sha256}.safetensors: the bytes are not those of the model"):
            read_model(store, sha256)

    def test_a_model_that_another_tool_cut_is_put_again(self, store: Store) -> None:
        sha256 = put_model(store, b"weights")
        store.put(layout.model_path(sha256), b"wei")
        put_model(store, b"weights")
        assert read_model(store, sha256) == b"weights"

    @pytest.mark.parametrize("digest", ["", "../job", "AB" * 32, "ab" * 31])
    def test_names_that_are_no_digests(self, store: Store, digest: str) -> None:
        with pytest.raises(UsageError, match="not a SHA-256 digest"):
            read_model(store, digest)


def test_clear_deletes_the_data_set_and_nothing_else(any_store: Store, record: Maker, commit: Committer) -> None:
    create_job(any_store, JOB)
    put_model(any_store, b"model")
    for index in range(3):
        commit(any_store, index, [record("k", bytes(index))], [RecordError("a", "decode", "it is cut short")])
    finish(any_store)
    foreign = {"photo.png", "data/train.parquet", "data/part-1.parquet"}
    for path in foreign:
        any_store.put(path, b"not ours")
    clear(any_store)
    assert set(any_store.list()) == foreign
    clear(any_store)
    create_job(any_store, {"profile": "another"})


def test_an_interrupted_clear_leaves_no_data_set_that_lies(
    store: Store, record: Maker, commit: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever delete was the last: never finished with a shard missing, never committed without its file."""
    real = Store.delete
    for last in range(20):
        clear(store)
        create_job(store, JOB)
        for index in range(2):
            commit(store, index, [record("k", bytes(index))], [RecordError("a", "decode", "it is cut short")])
        finish(store)
        left = last

        def delete(store: Store, path: str) -> None:
            nonlocal left
            if left == 0:
                raise StorageError("interrupted")
            left -= 1
            real(store, path)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "delete", delete)
            try:
                clear(store)
            except StorageError:
                pass
            else:
                break
        for entry in list_commits(store):
            assert ShardReader(store, entry).keys() == ["k"]
            read_errors(store, entry.index)
        if last:
            with pytest.raises(ManifestError):
                Manifest.load(store.url)
    assert last > 8

"""Google Cloud Storage through its real client, against a server on loopback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import fsspec
import numpy.typing as npt
import pytest
from loopback_gcs import Handler, serve

from pilc_stream.errors import AlreadyExistsError, StorageError
from pilc_stream.pipeline.verify import verify_dataset
from pilc_stream.records.manifest import Manifest
from pilc_stream.storage import RetryPolicy, Store
from workers.job import run_job
from workers.settings import JobSettings

core = pytest.importorskip("gcsfs.core")

Bucket = tuple[dict[str, Any], type[Handler]]


@pytest.fixture(scope="module", autouse=True)
def _plain_client() -> None:
    # The client for all kinds of buckets first asks, over gRPC, of which kind one is; ours are of the plain kind.
    fsspec.register_implementation("gs", core.GCSFileSystem, clobber=True)


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    """The storage options of a bucket, and the server that has it."""
    with serve() as (endpoint, handler):
        yield {"endpoint_url": endpoint, "token": "anon", "project": "test"}, handler


@pytest.fixture
def store(bucket: Bucket) -> Store:
    return Store.open("gs://bucket/ds", bucket[0], RetryPolicy(attempts=1))


def test_objects_are_written_read_listed_and_deleted(store: Store) -> None:
    store.put("data/a", bytes(range(100)))
    store.put("data/b", b"b")
    store.put("data/a", bytes(range(50)))
    assert store.read("data/a") == bytes(range(50))
    assert store.read_ranges("data/a", [(10, 5), (0, 0), (45, 5)]) == [b"\n\x0b\x0c\r\x0e", b"", b"-./01"]
    assert store.read_many(["data/b", "data/a"]) == [b"b", bytes(range(50))]
    assert store.list_sizes() == [("data/a", 50), ("data/b", 1)]
    assert [(entry.name, entry.is_folder) for entry in store.entries("")] == [("data", True)]
    assert store.read_or_none("data/c") is None
    assert (store.exists("data/a"), store.exists("data"), store.size("data/b")) == (True, False, 1)
    store.delete("data/a")
    store.delete("data/a")
    assert store.list() == ["data/b"]


def test_only_one_of_many_creates(store: Store) -> None:
    created: list[bytes] = []

    def create(data: bytes) -> None:
        try:
            store.create("commit", data)
            created.append(data)
        except AlreadyExistsError:
            pass

    threads = [threading.Thread(target=create, args=(b"%d" % number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert created == [store.read("commit")]


def test_the_condition_alone_refuses_what_came_after_the_look(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from pilc_stream.storage.remote import Remote

    store.put("commit", b"first")
    monkeypatch.setattr(Remote, "kind", lambda *_: None)
    with pytest.raises(AlreadyExistsError):
        store.create("commit", b"second")
    assert store.read("commit") == b"first"


def test_missing_rights_are_said(store: Store, bucket: Bucket) -> None:
    bucket[1].denied.add("POST")
    with pytest.raises(StorageError, match="cannot write it: permission is denied"):
        store.put("a", b"x")


def test_a_job_runs_from_bucket_to_bucket(
    bucket: Bucket, photo_like: Callable[..., npt.NDArray[Any]], file_of: Callable[..., bytes]
) -> None:
    options, _ = bucket
    source = Store.open("gs://bucket/photos", options)
    for index in range(6):
        source.put(f"{index}.bmp", file_of(photo_like(17, 25, seed=index), "BMP"))
    settings = JobSettings(
        sources=(source.url,),
        destination="gs://bucket/dataset",
        profile="raw",
        workers=0,
        shard_size=3000,
        storage_options=options,
    )
    assert run_job(settings).totals.images == 6
    assert run_job(settings).skipped_shards == 3
    assert verify_dataset(Manifest.load("gs://bucket/dataset", options)).ok

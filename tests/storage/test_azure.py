"""Azure Blob Storage through its real client: against a server on loopback, and the emulator Azurite where it is."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest
from loopback_azure import connection_string, serve

from pilc_stream.errors import AlreadyExistsError, StorageError
from pilc_stream.pipeline.verify import verify_dataset
from pilc_stream.records.manifest import Manifest
from pilc_stream.storage import RetryPolicy, Store, is_missing
from workers.job import run_job
from workers.settings import JobSettings

pytest.importorskip("adlfs")
blob = pytest.importorskip("azure.storage.blob")

STARTS_WITHIN_S = 60


@contextmanager
def azurite(folder: Path) -> Iterator[str]:
    """The emulator for the length of a block: the connection string of an account that has an empty container."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("needs the emulator: npm install -g azurite")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Clients are newer than what an emulator knows.
    options = ["--silent", "--inMemoryPersistence", "--skipApiVersionCheck", "--blobPort", str(port)]
    process = subprocess.Popen([program, *options], cwd=folder, stdout=subprocess.DEVNULL)
    try:
        for _ in range(10 * STARTS_WITHIN_S):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        blob.BlobServiceClient.from_connection_string(connection_string(port)).create_container("bucket")
        yield connection_string(port)
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(params=["loopback", "azurite"])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The storage options of an account with an empty container."""
    with serve() if request.param == "loopback" else azurite(tmp_path) as account:
        yield {"connection_string": account}


@pytest.fixture
def store(options: dict[str, Any]) -> Store:
    return Store.open("abfs://bucket/ds", options, RetryPolicy(attempts=1))


def test_objects_are_written_read_listed_and_deleted(store: Store) -> None:
    store.put("data/a", bytes(range(100)))
    store.put("data/b & c", b"b")
    store.put("data/a", bytes(range(50)))
    assert store.read("data/a") == bytes(range(50))
    assert store.read_ranges("data/a", [(10, 5), (0, 0), (45, 5)]) == [b"\n\x0b\x0c\r\x0e", b"", b"-./01"]
    assert store.read_many(["data/b & c", "data/a"]) == [b"b", bytes(range(50))]
    assert store.list_sizes() == [("data/a", 50), ("data/b & c", 1)]
    assert [(entry.name, entry.is_folder) for entry in store.entries("")] == [("data", True)]
    assert store.read_or_none("data/c") is None
    assert (store.exists("data/a"), store.exists("data"), store.size("data/b & c")) == (True, False, 1)
    store.delete("data/a")
    store.delete("data/a")
    assert store.list() == ["data/b & c"]


def test_what_is_missing_is_said_to_be(store: Store) -> None:
    with pytest.raises(StorageError, match="there is nothing at this place") as found:
        store.read("a")
    assert is_missing(found.value)
    assert store.list("nothing") == []
    assert store.kind("nothing") is None


def test_a_missing_container_says_nothing_of_its_objects(options: dict[str, Any]) -> None:
    elsewhere = Store.open("abfs://other/ds", options, RetryPolicy(attempts=1))
    for use in (lambda: elsewhere.read("a"), lambda: elsewhere.put("a", b"x")):
        with pytest.raises(StorageError, match="the bucket does not exist") as found:
            use()
        assert not is_missing(found.value)


@pytest.mark.parametrize("first", [b"first", b""])
def test_the_condition_alone_refuses_what_came_after_the_look(
    store: Store, first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pilc_stream.storage.remote import Remote

    store.create("commit", first)
    with pytest.raises(AlreadyExistsError):
        store.create("commit", b"second")
    monkeypatch.setattr(Remote, "kind", lambda *_: None)
    with pytest.raises(AlreadyExistsError):
        store.create("commit", b"second")
    assert store.read("commit") == first


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


def test_a_job_runs_from_container_to_container(
    options: dict[str, Any], photo_like: Callable[..., npt.NDArray[Any]], file_of: Callable[..., bytes]
) -> None:
    source = Store.open("abfs://bucket/photos", options)
    for index in range(6):
        source.put(f"{index}.bmp", file_of(photo_like(17, 25, seed=index), "BMP"))
    settings = JobSettings(
        sources=(source.url,),
        destination="abfs://bucket/dataset",
        profile="raw",
        workers=0,
        shard_size=3000,
        storage_options=options,
    )
    assert run_job(settings).totals.images == 6
    assert run_job(settings).skipped_shards == 3
    assert verify_dataset(Manifest.load("abfs://bucket/dataset", options)).ok

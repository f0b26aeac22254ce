"""What only happens away from local disks: buckets, networks, packages, services of lesser quality."""

from __future__ import annotations

import errno
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from pilc_stream.errors import AlreadyExistsError, StorageError, UsageError
from pilc_stream.storage import RetryPolicy, Store, expand
from pilc_stream.storage.remote import Remote

ONCE = RetryPolicy(attempts=1)


def file_system(store: Store) -> Any:
    """The fsspec instance that a remote store works with."""
    backend = store._connect()
    assert isinstance(backend, Remote)
    return backend._fs


def test_a_missing_bucket(s3_server: Any) -> None:
    store = Store.open(f"s3://no-such-bucket-{uuid.uuid4().hex}/ds", s3_server.options, ONCE)
    for use in (
        lambda: store.put("x", b"1"),
        lambda: store.create("x", b"1"),
        lambda: store.read("x"),
        lambda: store.read_or_none("x"),
    ):
        with pytest.raises(StorageError, match=r"the bucket does not exist\. Create it or correct the URL\.") as caught:
            use()
        assert str(caught.value).startswith(store.url)


def test_putting_does_not_create_buckets(s3_server: Any) -> None:
    name = f"bucket-{uuid.uuid4().hex}"
    with pytest.raises(StorageError):
        Store.open(f"s3://{name}/ds", s3_server.options, ONCE).put("x", b"1")
    s3fs = pytest.importorskip("s3fs")
    assert not s3fs.S3FileSystem(**s3_server.options, skip_instance_cache=True).exists(name)


@pytest.mark.slow
def test_no_network() -> None:
    pytest.importorskip("s3fs")
    options = {"key": "a", "secret": "b", "endpoint_url": "http://127.0.0.1:9"}
    with pytest.raises(StorageError, match="s3://bucket/ds/x: cannot write it: the connection or the service failed"):
        Store.open("s3://bucket/ds", options, ONCE).put("x", b"1")


def test_an_unknown_protocol() -> None:
    with pytest.raises(UsageError, match="foo://bucket/x: cannot open it: Protocol not known: foo"):
        Store.open("foo://bucket/x")


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec, "url_to_fs", missing)
    with pytest.raises(StorageError, match=r"Run `pip install 'pilc-stream\[gcs\]'`\."):
        Store.open("gs://bucket/x")
    with pytest.raises(StorageError, match="Install the package that it names"):
        Store.open("sftp://host/x")


def test_a_wrong_storage_option_is_named_but_not_its_value(s3_server: Any) -> None:
    class Picky(LocalFileSystem):
        protocol = "picky"

        def __init__(self) -> None:
            super().__init__()

    fsspec.register_implementation("picky", Picky, clobber=True)
    with pytest.raises(UsageError, match=r"storage options \(token\)") as caught:
        Store.open("picky://x", {"token": "secret-value"})
    assert "secret-value" not in str(caught.value)


def test_big_objects_on_s3_are_created_once(s3_server: Any, s3_bucket: str) -> None:
    """Above 100 MB s3fs uploads in parts; the condition must hold at their completion too."""
    store = Store.open(s3_bucket, s3_server.options)
    data = bytes(105 << 20)
    store.create("big", data)
    assert store.size("big") == len(data)
    with pytest.raises(AlreadyExistsError):
        store.create("big", data)
    fs = fsspec.filesystem("s3", **s3_server.options)
    with pytest.raises(FileExistsError):
        # Without our look beforehand: the service itself refuses.
        fs.pipe_file(f"{s3_bucket}/big", data, mode="create")


@pytest.mark.parametrize("code", ["PreconditionFailed", "412"])
def test_a_service_that_refuses_in_other_words(
    s3_server: Any, s3_bucket: str, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    store = Store.open(s3_bucket, s3_server.options, ONCE)
    cause = Exception("refused")
    cause.response = {"Error": {"Code": code}}  # type: ignore[attr-defined]

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EINVAL, "At least one of the pre-conditions you specified did not hold") from cause

    monkeypatch.setattr(file_system(store), "pipe_file", refuse)
    with pytest.raises(AlreadyExistsError):
        store.create("x", b"1")


def test_a_service_that_ignores_conditions_does_not_overwrite(
    s3_server: Any, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(s3_bucket, s3_server.options)
    fs = file_system(store)
    real = fs.pipe_file
    monkeypatch.setattr(fs, "pipe_file", lambda path, data, mode="": real(path, data))
    store.create("x", b"first")
    with pytest.raises(AlreadyExistsError):
        store.create("x", b"second")
    assert store.read("x") == b"first"


class OtherMachine:
    """Writes into a bucket without this process' file systems knowing."""

    def __init__(self, server: Any, bucket_url: str) -> None:
        boto3 = pytest.importorskip("boto3")
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        self.client = boto3.client("s3", endpoint_url=server.endpoint, **keys)
        self.bucket = bucket_url.removeprefix("s3://")

    def put(self, key: str) -> None:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=b"")


def test_listings_are_fresh(s3_server: Any, s3_bucket: str) -> None:
    other = OtherMachine(s3_server, s3_bucket)
    store = Store.open(s3_bucket, s3_server.options)
    for number in range(3):
        assert not store.exists(f"commits/{number}")
        other.put(f"commits/{number}")
        assert len(store.list("commits")) == len(list(store.entries("commits"))) == number + 1
        assert store.exists(f"commits/{number}")
        with pytest.raises(AlreadyExistsError):
            store.create(f"commits/{number}", b"late")


def test_folder_marks_of_other_tools_are_no_objects(s3_server: Any, s3_bucket: str) -> None:
    other = OtherMachine(s3_server, s3_bucket)
    for key in ["photos/", "photos/cats/", "photos/cats/1.png", "photos//odd.png"]:
        other.put(key)
    store = Store.open(f"{s3_bucket}/photos", s3_server.options)
    assert "cats/1.png" in store.list()
    assert not any(path.endswith("/") for path in store.list())
    assert [file.key for file in expand([f"{s3_bucket}/photos"], s3_server.options)] == ["cats/1.png"]


def test_other_file_systems_of_fsspec(tmp_path: Path) -> None:
    class Plain(LocalFileSystem):
        protocol = "plain"

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return str(super()._strip_protocol(str(path).removeprefix("plain://")))

        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: object) -> None:
            with self.open(path, "xb" if mode == "create" else "wb") as file:
                file.write(value)

    fsspec.register_implementation("plain", Plain, clobber=True)
    store = Store.open(f"plain://{tmp_path}/ds")
    store.put("deep/x", b"1")
    store.create("deep/y", b"2")
    with pytest.raises(AlreadyExistsError):
        store.create("deep/y", b"3")
    assert (tmp_path / "ds" / "deep" / "y").read_bytes() == b"2"
    assert store.list() == ["deep/x", "deep/y"]
    store.delete("deep/x")
    assert store.list("deep") == ["deep/y"]


def test_archives_can_be_read_through_chained_urls(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("cats/1.png", b"one")
        archive.writestr("readme.txt", b"two")
    files = list(expand([f"zip://::{tmp_path}/a.zip"]))
    assert [(file.key, file.size, file.read()) for file in files] == [("cats/1.png", 3, b"one")]
    assert Store.open(f"zip://cats::{tmp_path}/a.zip").read("1.png") == b"one"

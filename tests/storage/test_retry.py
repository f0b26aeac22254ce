from __future__ import annotations

import errno
import http.client
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pilc_stream.errors import AlreadyExistsError, StorageError
from pilc_stream.storage import RetryPolicy, Store
from pilc_stream.storage.local import LocalDisk
from pilc_stream.storage.retry import is_transient, service_code


class ClientError(Exception):
    """Looks like botocore's."""

    def __init__(self, code: str) -> None:
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code}}


class EndpointConnectionError(Exception):
    """Looks like botocore's."""


class HttpError(Exception):
    """Looks like aiohttp's and gcsfs's."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        TimeoutError(),
        http.client.IncompleteRead(b""),
        OSError(errno.EBUSY, "SlowDown"),
        OSError(errno.EREMOTEIO, "InternalError"),
        OSError(errno.ESTALE, "stale NFS handle"),
        EndpointConnectionError(),
        HttpError(503),
        HttpError(429),
        ClientError("SlowDown"),
        caused(OSError(errno.EIO, "conflict"), ClientError("ConditionalRequestConflict")),
    ],
)
def test_passing_failures_are_transient(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "no"),
        PermissionError("no"),
        OSError(errno.ENOSPC, "full"),
        OSError(errno.EIO, "bad disk"),
        ValueError("wrong"),
        HttpError(404),
        ClientError("NoSuchBucket"),
        caused(PermissionError("denied"), ClientError("AccessDenied")),
    ],
)
def test_lasting_failures_are_not(error: Exception) -> None:
    assert not is_transient(error)


def test_the_service_code_comes_from_the_cause() -> None:
    assert service_code(caused(OSError("x"), ClientError("NoSuchKey"))) == "NoSuchKey"
    assert service_code(OSError("x")) == ""
    assert service_code(HttpError(412)) == "412"


class Flaky:
    """Fails the first `failures` times, then does the real thing; remembers how long was waited."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, failures: list[Exception], *, late: bool = False):
        self.calls = 0
        self.waited: list[float] = []
        real: Callable[..., Any] = getattr(LocalDisk, name)

        def call(disk: LocalDisk, *args: Any) -> Any:
            self.calls += 1
            if self.calls > len(failures):
                return real(disk, *args)
            if late:
                real(disk, *args)
            raise failures[self.calls - 1]

        monkeypatch.setattr(LocalDisk, name, call)

    def store(self, folder: Path, **options: Any) -> Store:
        return Store.open(str(folder), retries=RetryPolicy(sleep=self.waited.append, **options))


def test_transient_failures_are_tried_again_with_growing_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(b"1")
    flaky = Flaky(monkeypatch, "read", [ConnectionResetError(), TimeoutError(), OSError(errno.EBUSY, "SlowDown")])
    assert flaky.store(tmp_path).read("x") == b"1"
    assert flaky.calls == 4
    assert flaky.waited == [0.25, 1.0, 4.0]


def test_attempts_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flaky = Flaky(monkeypatch, "read", [ConnectionResetError("reset by peer")] * 9)
    with pytest.raises(StorageError) as caught:
        flaky.store(tmp_path, attempts=3, first_delay_s=2.0, factor=10.0).read("x")
    assert flaky.calls == 3
    assert flaky.waited == [2.0, 20.0]
    assert str(caught.value) == (
        f"{tmp_path}/x: cannot read it after 3 attempts: the connection or the service failed (reset by peer). "
        "Check the network, the endpoint and the service, then run the same command again."
    )


@pytest.mark.parametrize("error", [PermissionError("no"), OSError(errno.ENOSPC, "full"), ValueError("odd")])
def test_lasting_failures_are_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    flaky = Flaky(monkeypatch, "put", [error] * 9)
    with pytest.raises(StorageError):
        flaky.store(tmp_path).put("x", b"1")
    assert flaky.calls == 1
    assert flaky.waited == []


def test_a_create_whose_answer_was_lost_counts_as_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flaky = Flaky(monkeypatch, "create", [TimeoutError()], late=True)
    flaky.store(tmp_path).create("x", b"ours")
    assert flaky.calls == 2
    assert (tmp_path / "x").read_bytes() == b"ours"


def test_a_create_that_a_rival_overtook_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flaky = Flaky(monkeypatch, "create", [TimeoutError()])
    (tmp_path / "x").write_bytes(b"rival")
    with pytest.raises(AlreadyExistsError):
        flaky.store(tmp_path).create("x", b"ours")
    assert flaky.calls == 2
    assert (tmp_path / "x").read_bytes() == b"rival"


def test_interrupts_pass_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalDisk, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Store.open(str(tmp_path)).read("x")


def test_the_policy_travels_with_the_store(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path), retries=RetryPolicy(attempts=9))
    assert pickle.loads(pickle.dumps(store)).retries == RetryPolicy(attempts=9)


def test_many_objects_are_read_where_some_fail_at_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(str(tmp_path), retries=RetryPolicy(sleep=lambda seconds: None))
    paths = [f"{number}" for number in range(100)]
    for path in paths:
        store.put(path, path.encode())
    calls = 0
    read = LocalDisk.read

    def failing(disk: LocalDisk, path: str) -> bytes:
        nonlocal calls
        calls += 1
        if calls % 10 == 0:
            raise ConnectionResetError
        return read(disk, path)

    monkeypatch.setattr(LocalDisk, "read", failing)
    assert store.read_many(paths) == [path.encode() for path in paths]
    with pytest.raises(StorageError, match="/missing: "):
        store.read_many([*paths, "missing"])

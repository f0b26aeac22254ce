"""Storage that cannot refuse to replace: what a create does there, and what that means for a data set."""

from __future__ import annotations

import threading
import uuid
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pilc_stream.errors import AlreadyExistsError
from pilc_stream.storage import Store


class Lesser(MemoryFileSystem):
    """Puts whatever the mode, and can hold writers up until both have looked."""

    protocol = "lesser"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    meeting: threading.Barrier | None = None

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(str(path).replace("lesser://", "memory://", 1)))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        if mode == "create" and Lesser.meeting is not None:
            Lesser.meeting.wait(10)
        super().pipe_file(path, value, mode="overwrite")


@pytest.fixture
def lesser(monkeypatch: pytest.MonkeyPatch) -> Store:
    from pilc_stream.storage import remote

    fsspec.register_implementation("lesser", Lesser, clobber=True)
    # Only fsspec's own memory is locked; this stands for a server.
    monkeypatch.setattr(remote, "MemoryFileSystem", type("Nothing", (), {}))
    return Store.open(f"lesser://{uuid.uuid4().hex}/ds")


def test_what_is_there_is_seen_and_left_alone(lesser: Store) -> None:
    lesser.create("commit", b"first")
    with pytest.raises(AlreadyExistsError):
        lesser.create("commit", b"second")
    assert lesser.read("commit") == b"first"


def test_a_writer_that_finds_anothers_bytes_has_come_second(lesser: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Lesser.pipe_file

    def overtaken(self: Lesser, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        real(self, path, value)
        real(self, path, b"a rival's, written at the same instant")

    monkeypatch.setattr(Lesser, "pipe_file", overtaken)
    with pytest.raises(AlreadyExistsError):
        lesser.create("commit", b"mine")


def test_of_two_that_look_at_the_same_instant_one_stands_for_both(
    lesser: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lesser, "meeting", threading.Barrier(2))
    created: list[bytes] = []

    def rival(data: bytes) -> None:
        try:
            lesser.create("commit", data)
            created.append(data)
        except AlreadyExistsError:
            pass

    threads = [threading.Thread(target=rival, args=(data,)) for data in (b"one", b"other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lesser.read("commit") in created

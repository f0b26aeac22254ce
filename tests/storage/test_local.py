from __future__ import annotations

import errno
import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pilc_stream.errors import AlreadyExistsError, StorageError
from pilc_stream.storage import Store, is_temporary
from pilc_stream.storage import local as local_module

STEPS = ["open", "write", "fsync", "close", "link", "replace", "unlink", "mkdir"]


def _die_at(step_to_die_at: int, after: bool) -> None:
    """Make this process kill itself, as by kill -9, just before or after its n-th call that touches the disk."""
    count = 0

    def deadly(call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **kwargs: object) -> object:
            nonlocal count
            count += 1
            if count == step_to_die_at and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            if call is real_write:
                # A short write, so that there is an instant in the middle of an object.
                args = (args[0], memoryview(args[1])[:1000])  # type: ignore[arg-type]
            result = call(*args, **kwargs)
            if count == step_to_die_at and after:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    real_write = os.write
    for name in STEPS:
        setattr(os, name, deadly(getattr(os, name)))


@pytest.mark.parametrize("verb", ["create", "put"])
@pytest.mark.parametrize("after", [False, True])
def test_killed_between_any_two_steps_leaves_nothing_or_everything(tmp_path: Path, verb: str, after: bool) -> None:
    content = random.Random(1).randbytes(2500)
    outcomes = set()
    for step in range(1, 100):
        folder = tmp_path / f"{step}"
        store = Store.open(str(folder))
        if verb == "put":
            store.put("new/object", b"old")
        child = os.fork()
        if child == 0:
            _die_at(step, after)
            getattr(store, verb)("new/object", content)
            os._exit(0)
        exit_code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if exit_code == 0:
            break
        assert exit_code == -signal.SIGKILL
        listed = store.list()
        assert listed in ([], ["new/object"])
        outcomes.add(store.read("new/object") if listed else None)
        # What was left behind is harmless: the same step again succeeds or finds the whole object.
        try:
            getattr(store, verb)("new/object", content)
        except AlreadyExistsError:
            assert verb == "create"
        assert store.read("new/object") == content
        strays = [name for name in os.listdir(folder / "new") if name != "object"]
        assert len(strays) <= 1
        assert all(is_temporary(name) for name in strays)
        assert [os.path.basename(path) for path in store.temporaries()] == strays
    else:
        pytest.fail("the child never came to its end")
    assert outcomes == {content, b"old" if verb == "put" else None}


WRITER = """
import hashlib, itertools, os, sys
from pilc_stream.storage import Store
store = Store.open(sys.argv[1])
for n in itertools.count():
    body = os.urandom(200_000)
    data = hashlib.sha256(body).digest() + body
    store.create(f"made/{os.getpid()}-{n}", data)
    store.put("replaced", data)
    if n == 0:
        print("ready", flush=True)
"""


def test_kill_9_at_random_instants(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    instants = random.Random(7)
    for _ in range(6):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(instants.uniform(0, 0.08))
        writer.kill()
        writer.wait()
        writer.stdout.close()
        for path in store.list():
            data = store.read(path)
            assert hashlib.sha256(data[32:]).digest() == data[:32], path
    assert len(store.list("made")) >= 6


def test_temporary_files_are_seen_by_no_listing(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.put("data/whole", b"1")
    stray = tmp_path / "data" / (local_module.TEMPORARY_PREFIX + "0123")
    stray.write_bytes(b"half")
    assert store.list() == ["data/whole"]
    assert [entry.name for entry in store.entries("data")] == ["whole"]
    assert list(store.temporaries()) == [f"data/{stray.name}"]
    assert is_temporary(f"data/{stray.name}")
    assert not is_temporary("data/whole")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("verb", ["create", "put"])
def test_a_refused_write_leaves_nothing_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, number: int
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    store = Store.open(str(tmp_path))
    store.put("kept", b"old")
    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(StorageError) as caught:
        getattr(store, verb)("new", b"12345")
    monkeypatch.undo()
    assert caught.value.errno == number
    assert str(caught.value).startswith(f"{tmp_path}/new: cannot {'create' if verb == 'create' else 'write'} it: ")
    expected = {
        errno.ENOSPC: "the disk is full. Free some space",
        errno.EDQUOT: "the disk quota is used up",
        errno.EROFS: "read-only. Choose a destination",
        errno.EACCES: "permission is denied",
        errno.EIO: "input/output error",
    }
    assert expected[number] in str(caught.value)
    assert os.listdir(tmp_path) == ["kept"]
    assert store.read("kept") == b"old"


def test_a_real_limit_in_the_middle_of_a_write(tmp_path: Path) -> None:
    """The kernel itself breaks the write off: nothing with the object's name, no temporary file, the old one whole."""
    store = Store.open(str(tmp_path))
    store.put("object", b"old")
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            store.put("object", bytes(300_000))
        except StorageError as error:
            os._exit(0 if error.errno == errno.EFBIG and "larger than" in str(error) else 3)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert os.listdir(tmp_path) == ["object"]
    assert store.read("object") == b"old"


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="a part of its path is a file, not a folder"):
        Store.open(str(tmp_path / "file")).put("x", b"1")
    with pytest.raises(StorageError, match="not a folder"):
        Store.open(str(tmp_path)).create("file/x/y", b"1")


def test_names_that_are_too_long(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="the name is too long"):
        Store.open(str(tmp_path)).put("x" * 300, b"1")
    assert os.listdir(tmp_path) == []


def test_the_longest_name_works(tmp_path: Path) -> None:
    Store.open(str(tmp_path)).create("x" * 255, b"1")
    assert os.listdir(tmp_path) == ["x" * 255]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="permission is denied"):
        Store.open(str(tmp_path)).put("x", b"1")
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_disks_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    store = Store.open(str(tmp_path))
    store.create("object", b"first")
    with pytest.raises(AlreadyExistsError):
        store.create("object", b"second")
    assert store.read("object") == b"first"
    assert os.listdir(tmp_path) == ["object"]


def test_a_link_whose_answer_was_lost_is_a_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_link = os.link

    def forgetful(source: str, target: str) -> None:
        real_link(source, target)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)

    monkeypatch.setattr(os, "link", forgetful)
    store = Store.open(str(tmp_path))
    store.create("object", b"ours")
    assert store.read("object") == b"ours"
    assert os.listdir(tmp_path) == ["object"]


def test_a_dangling_link_holds_its_name(tmp_path: Path) -> None:
    (tmp_path / "object").symlink_to(tmp_path / "nowhere")
    with pytest.raises(AlreadyExistsError):
        Store.open(str(tmp_path)).create("object", b"1")
    assert not (tmp_path / "nowhere").exists()


def test_listing_follows_links_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").write_bytes(b"1")
    (tmp_path / "store" / "sub").mkdir(parents=True)
    (tmp_path / "store" / "data").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "store" / "sub" / "up").symlink_to(tmp_path / "store")
    assert Store.open(str(tmp_path / "store")).list() == ["data/x"]


def test_reading_across_the_limit_of_one_system_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_pread = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, length, offset: real_pread(descriptor, min(length, 7), offset))
    store = Store.open(str(tmp_path))
    store.put("object", bytes(range(100)))
    assert store.read_range("object", 10, 50) == bytes(range(10, 60))

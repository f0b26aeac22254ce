"""Machine code on disk: kept whole, found again, never trusted when it was changed or the folder is open to others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pilc_stream.backends import objects


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(objects.FOLDER_VARIABLE, str(tmp_path / "kept"))
    return tmp_path / "kept"


def test_code_is_found_again(folder: Path) -> None:
    assert objects.load("a.o") is None
    objects.keep("a.o", b"code")
    assert objects.load("a.o") == b"code"
    assert objects.load("b.o") is None
    assert [path.name for path in folder.iterdir()] == ["a.o"]


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + b"?", lambda data: b""])
def test_damaged_code_is_not_used(folder: Path, damage: object) -> None:
    objects.keep("a.o", b"machine code")
    path = folder / "a.o"
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert objects.load("a.o") is None


def test_a_folder_that_others_may_write_to_is_not_used(folder: Path) -> None:
    objects.keep("a.o", b"code")
    folder.chmod(0o777)
    assert objects.load("a.o") is None
    objects.keep("b.o", b"code")
    assert not (folder / "b.o").exists()


def test_an_empty_variable_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(objects.FOLDER_VARIABLE, "")
    assert list(objects.folders()) == []
    objects.keep("a.o", b"code")
    assert objects.load("a.o") is None


def test_where_home_takes_nothing_another_folder_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    monkeypatch.delenv(objects.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr(objects.tempfile, "gettempdir", lambda: str(tmp_path))
    objects.keep("a.o", b"code")
    assert objects.load("a.o") == b"code"
    assert len(list(tmp_path.glob("pilc-stream-kernels-*/a.o"))) == 1


def test_many_writers_and_readers_see_whole_code(folder: Path) -> None:
    code = bytes(range(256)) * 400

    def both(_: int) -> bytes | None:
        objects.keep("a.o", code)
        return objects.load("a.o")

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(both, range(64))) == {code}
    assert len(list(folder.iterdir())) == 1

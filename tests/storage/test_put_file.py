"""Objects written from a local file, piece by piece."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilc_stream.errors import StorageError
from pilc_stream.storage import Store, local


@pytest.mark.parametrize("url", ["{}/folder", "memory://put-file/folder"])
def test_the_object_is_the_file(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_COPY_BYTES", 1000)
    store = Store.open(url.format(tmp_path))
    file = tmp_path / "file"
    for data in (bytes(range(256)) * 20, b"", b"other"):
        file.write_bytes(data)
        store.put_file("a/b.png", str(file))
        assert store.read("a/b.png") == data
    assert store.list() == ["a/b.png"]


def test_a_missing_file_is_an_error_and_leaves_what_is_there(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "folder"))
    store.put("a", b"old")
    with pytest.raises(StorageError):
        store.put_file("a", str(tmp_path / "nothing"))
    assert store.read("a") == b"old"
    assert list(store.temporaries()) == []

from __future__ import annotations

from pathlib import Path

import pytest

from pilc_stream.errors import UsageError
from pilc_stream.pipeline.sources import KINDS, Request, open_source


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("photos", "files"),
        ("photos/*.png", "files"),
        ("a/*.TAR", "tar"),
        ("a.tgz", "tar"),
        ("data/*.csv", "list"),
        ("x.npz", "arrays"),
    ],
)
def test_names_say_what_a_source_is(tmp_path: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    for known in KINDS:
        monkeypatch.setitem(KINDS, known, lambda request, known=known: opened.append(known))
    open_source(Request((str(tmp_path / name),)))
    assert opened == [kind]


def test_kinds_are_not_mixed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"of different kinds \(files, tar\)"):
        open_source(Request((str(tmp_path), str(tmp_path / "*.tar"))))


def test_a_kind_can_be_said(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(bytes(10240))
    source = open_source(Request((str(tmp_path),)), "tar")
    assert [part.key for part in source.parts()] == ["a.tar"]
    with pytest.raises(UsageError, match="'zip' is unknown"):
        open_source(Request((str(tmp_path),)), "zip")


def test_a_data_set_is_no_source_of_itself(tmp_path: Path) -> None:
    for name in ("1.png", "out/2.png", "outside/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    request = Request((f"{tmp_path}/**",), avoid=str(tmp_path / "out"))
    assert [part.key for part in open_source(request).parts()] == ["1.png", "outside/3.png"]

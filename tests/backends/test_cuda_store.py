"""Compiled kernels on disk: what comes back is what was kept, and whatever is wrong with a file costs a compilation."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("numba_cuda", reason="Numba-CUDA is not installed")

from numba.cuda import codegen, dispatcher

from pilc_stream.backends.cuda import coder, store
from pilc_stream.backends.cuda.program import SIGNATURES
from pilc_stream.backends.cuda.shim import cuda
from pilc_stream.backends.cuda.store import FOLDER_VARIABLE, KernelStore, kernel_folder, with_store

CLEAR = SIGNATURES["clear"]


@pytest.fixture
def volta(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A card to compile for, as far as compiling asks for one; the folder of kernels."""
    device = SimpleNamespace(compute_capability=(7, 0))
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: device)
    monkeypatch.setattr(store.cuda, "get_current_device", lambda: device)
    monkeypatch.setattr(codegen.CUDACodeLibrary, "_ensure_cc", lambda self, cc: cc or (7, 0))
    monkeypatch.setattr(dispatcher._Kernel, "bind", lambda self: None)
    folder = tmp_path / "kernels"
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    return folder


def compiled(about: str = "coder") -> tuple[Any, int]:
    """The kernel, and how often it came from disk."""
    made = with_store(cuda.jit()(coder.clear), CLEAR, name="clear", about=about)
    return next(iter(made.overloads.values())), sum(made._cache_hits.values())


def assembly(kernel: Any) -> str:
    return str(kernel.inspect_asm((7, 0)))


def test_a_kernel_comes_back_as_it_was(volta: Path) -> None:
    first, hits = compiled()
    assert hits == 0
    assert [path.name.split("-")[:2] for path in volta.iterdir()] == [["clear", "sm70"]]
    again, hits = compiled()
    assert hits == 1
    assert assembly(again) == assembly(first)
    assert ".entry" in assembly(again)
    assert (again.entry_name, again.argument_types) == (first.entry_name, first.argument_types)
    assert volta.stat().st_mode & 0o077 == 0
    assert compiled("another architecture")[1] == 0
    assert len(list(volta.iterdir())) == 2


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"\x80\x04}."])
def test_a_file_that_is_no_kernel_is_compiled_again(volta: Path, content: bytes) -> None:
    compiled()
    (path,) = volta.iterdir()
    path.write_bytes(content)
    again, hits = compiled()
    assert hits == 0
    # The good kernel takes the bad one's place.
    assert list(volta.iterdir()) == [path]
    third, hits = compiled()
    assert hits == 1
    assert assembly(third) == assembly(again)


def test_without_a_folder_kernels_are_compiled(volta: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, "")
    assert kernel_folder() is None
    assert compiled()[1] == compiled()[1] == 0
    # A folder that cannot be made is as good as none.
    volta.write_text("a file")
    monkeypatch.setenv(FOLDER_VARIABLE, str(volta))
    assert compiled()[1] == compiled()[1] == 0


def test_the_folder_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kernel_folder() == tmp_path / "pilc-stream" / "kernels"
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert kernel_folder() is None


def test_a_name_follows_from_the_card(volta: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = KernelStore("clear", "coder").path(CLEAR)
    monkeypatch.setattr(store.cuda, "get_current_device", lambda: SimpleNamespace(compute_capability=(9, 0)))
    assert KernelStore("clear", "coder").path(CLEAR) != before

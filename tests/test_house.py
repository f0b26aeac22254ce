"""The house rules that no other test sees: layers, quick imports, types, style, extras, file sizes."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
LARGEST_FILE_BYTES = 1 << 20
HEAVY = ("torch", "ray", "numba", "llvmlite", "pyarrow")


def run(*arguments: str) -> str:
    """Run Python in the project's folder; its output, which the test shows where it fails."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_each_test_file_has_a_name_of_its_own() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) > 100
    assert sorted(names) == sorted(set(names))  # pytest imports them as top-level modules


def test_the_layers_hold() -> None:
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    contracts = project()["tool"]["importlinter"]["contracts"]
    assert f"Contracts: {len(contracts)} kept, 0 broken." in run("-c", code)


@pytest.mark.parametrize(
    "module", ["pilc_stream", "pilc_stream.codecs", "pilc_stream.errors", "pilc_stream.models.model"]
)
def test_importing_pulls_in_nothing_heavy(module: str) -> None:
    loaded = run("-c", f"import sys, {module}; print(*sys.modules)").split()
    assert module in loaded
    assert not {name.split(".")[0] for name in loaded} & set(HEAVY)


def test_the_front_door_alone_imports_no_room_and_no_library() -> None:
    code = "import sys; before = set(sys.modules); import pilc_stream; print(*(set(sys.modules) - before))"
    loaded = run("-c", code).split()
    assert {name for name in loaded if name.startswith("pilc_stream")} == {"pilc_stream", "pilc_stream._version"}
    assert not {name.split(".")[0] for name in loaded} - {"pilc_stream"} - sys.stdlib_module_names


def test_storing_an_image_needs_no_compiler() -> None:
    code = (
        "import sys, numpy as np, pilc_stream as pilc;"
        "payload = pilc.compress(np.zeros((2, 2), np.uint8), profile='raw');"
        "assert not pilc.decompress(payload).any(); print(*sys.modules)"
    )
    assert not {name.split(".")[0] for name in run("-c", code).split()} & set(HEAVY)


@pytest.mark.slow
def test_types() -> None:
    assert "Success" in run("-m", "mypy")


def test_types_are_checked_strictly_and_everywhere() -> None:
    mypy = project()["tool"]["mypy"]
    assert mypy["strict"] is True
    assert mypy["packages"] == ["pilc_stream", "workers"]
    for marker in ("pilc_stream/py.typed", "workers/py.typed"):
        assert (ROOT / marker).is_file()


def test_style() -> None:
    folders = ("pilc_stream", "workers", "tests", "examples")
    run("-m", "ruff", "check", "--no-cache", *folders)
    run("-m", "ruff", "format", "--check", "--no-cache", *folders)


def test_the_two_cuda_extras_exclude_each_other() -> None:
    extras = project()["project"]["optional-dependencies"]
    pins = [
        next(r.specifier for r in map(Requirement, extras[name]) if r.name == "cuda-bindings")
        for name in ("cuda12", "cuda13")
    ]
    versions = [
        Version(f"{major}.{minor}.{patch}") for major in range(11, 16) for minor in range(10) for patch in range(3)
    ]
    allowed = [set(pin.filter(versions)) for pin in pins]
    assert {version.major for version in allowed[0]} == {12}
    assert {version.major for version in allowed[1]} == {13}
    assert [{"extra": "cuda12"}, {"extra": "cuda13"}] in project()["tool"]["uv"]["conflicts"]


def test_data_files_that_the_code_reads_are_packaged() -> None:
    patterns = project()["tool"]["setuptools"]["package-data"]["pilc_stream"]
    packaged = {path for pattern in patterns for path in (ROOT / "pilc_stream").glob(pattern)}
    for name in ("py.typed", "records/FORMAT.md", "models/presets/fast.safetensors"):
        assert ROOT / "pilc_stream" / name in packaged


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("needs a git checkout to know which files belong to the project")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_is_large() -> None:
    files = tracked_files()
    assert ROOT / "pyproject.toml" in files
    large = {
        str(path.relative_to(ROOT)): path.stat().st_size for path in files if path.stat().st_size > LARGEST_FILE_BYTES
    }
    assert not large


def test_rooms_stay_small() -> None:
    """Files of one purpose: nobody has to read more than some 400 lines to know a room."""
    long = {}
    for path in tracked_files():
        if path.suffix == ".py" and path.parts[len(ROOT.parts)] in ("pilc_stream", "workers"):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > 420:
                long[path.name] = lines
    assert not long

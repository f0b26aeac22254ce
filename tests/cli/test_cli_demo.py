from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from pilc_stream.cli.demo import pictures_folder

Pilc = Callable[..., Result]

ROOT = Path(__file__).resolve().parents[2]


def test_the_bundled_pictures_are_those_of_the_examples() -> None:
    names = sorted(path.name for path in pictures_folder().glob("*.png"))

    assert len(names) == 8
    for name in names:
        assert (pictures_folder() / name).read_bytes() == (ROOT / "examples" / "pictures" / name).read_bytes()


def test_the_demo_goes_the_whole_way_and_leaves_nothing_behind(
    pilc: Pilc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    result = pilc("demo", "--workers", 0, "--json")

    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["images"], report["verified"], report["batches"], report["workers"]) == (8, 8, 2, 0)
    assert report["png_bytes"] == sum(path.stat().st_size for path in pictures_folder().glob("*.png"))
    assert report["payload_bytes"] < 0.9 * report["png_bytes"]
    kept = [picture for picture in report["pictures"] if picture["codec"] == "source"]
    assert all(picture["payload_bytes"] == picture["png_bytes"] for picture in kept)
    assert len(kept) < 3
    assert sum(picture["payload_bytes"] for picture in report["pictures"]) == report["payload_bytes"]
    assert list(tmp_path.iterdir()) == []


def test_the_table_compares_each_picture_with_png(pilc: Pilc) -> None:
    result = pilc("demo", "--workers", 0)

    assert result.exit_code == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    names = {path.name for path in pictures_folder().glob("*.png")}
    assert {row[0] for row in rows if row} >= names | {"all"}
    assert "through a torch DataLoader" in result.stdout
    assert "Verified: 8 images" in result.stdout


def test_the_data_set_can_be_kept(pilc: Pilc, tmp_path: Path) -> None:
    assert pilc("demo", "--workers", 0, "--keep", tmp_path / "kept").exit_code == 0

    assert pilc("verify", tmp_path / "kept").exit_code == 0


@pytest.mark.slow
def test_the_command_as_a_new_user_types_it(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    command = [sys.executable, "-c", "from pilc_stream.cli import main; main()", "demo"]

    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)

    assert result.returncode == 0, result.stderr
    assert "by 2 Ray actors" in result.stdout
    assert "Traceback" not in result.stderr
    # Nothing of Ray's own; that it starts is said where it takes long.
    assert "ray" not in result.stderr.lower().replace("starting ray", "")


@pytest.mark.slow
def test_an_installed_package_has_all_that_it_needs(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    copied = tmp_path / "project"
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "tests")
    shutil.copytree(ROOT, copied, symlinks=True, ignore=unwanted)
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-q", "-w", "wheels"]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run(command, cwd=copied, env=environment, check=True, capture_output=True, text=True)
    (wheel,) = (copied / "wheels").glob("*.whl")

    names = set(zipfile.ZipFile(wheel).namelist())

    for path in (ROOT / "examples" / "pictures").iterdir():
        assert f"pilc_stream/demo_pictures/{path.name}" in names
    for name in ("pilc_stream/py.typed", "workers/py.typed", "pilc_stream/cli/app.py"):
        assert name in names
    for path in (ROOT / "pilc_stream" / "models" / "presets").glob("*.safetensors"):
        assert f"pilc_stream/models/presets/{path.name}" in names

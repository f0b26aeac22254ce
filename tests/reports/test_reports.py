"""Benchmarks run, say on what machine, and the README shows what was recorded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from pilc_stream.cli import cli
from pilc_stream.errors import UsageError
from pilc_stream.reports.bench import bench_profiles, load_images
from pilc_stream.reports.machine import machine_facts
from pilc_stream.reports.tables import recorded, with_tables

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "pictures"
    images.mkdir()
    for i in range(3):
        ramp = np.add.outer(np.arange(40), np.arange(30) * i)[:, :, None].repeat(3, axis=2) % 256
        Image.fromarray(ramp.astype(np.uint8)).save(images / f"{i}.png")
    (images / "broken.png").write_bytes(b"no picture")
    return images


def test_profiles_are_timed_on_the_same_images(folder: Path) -> None:
    images, left_out = load_images(folder)
    assert (len(images), left_out) == (3, 1)
    fast, raw = bench_profiles(images, ["fast", "raw"], rounds=2)
    assert (fast.profile, raw.profile, fast.rounds) == ("fast", "raw", 2)
    assert fast.raw_bytes == 3 * 40 * 30 * 3
    assert fast.payload_bytes < raw.payload_bytes
    assert raw.bpsp > 8 > fast.bpsp > 0
    assert min(fast.encode_mb_per_s, fast.decode_mb_per_s) > 0
    assert sum(fast.macs_per_pixel.values()) <= 2200
    assert raw.macs_per_pixel == {}


def test_images_of_a_parquet_file(folder: Path, tmp_path: Path) -> None:
    files = sorted(folder.glob("?.png"))
    pq.write_table(pa.table({"image": [file.read_bytes() for file in files]}), tmp_path / "set.parquet")
    images, _ = load_images(tmp_path / "set.parquet", limit=2)
    assert len(images) == 2
    assert np.array_equal(images[1], np.asarray(Image.open(files[1])))


def test_nothing_to_time_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="no image"):
        bench_profiles([], ["raw"])


def test_the_command_records_what_it_prints(folder: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    result = CliRunner().invoke(
        cli, ["bench", str(folder), "--profile", "raw", "--rounds", "1", "--json", "--record", str(record)]
    )
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed == json.loads(record.read_text())
    assert printed["left_out"] == 1
    assert printed["machine"]["cores"] >= 1


def test_the_machine_says_what_it_is() -> None:
    facts = machine_facts()
    assert facts["cpu"] != "unknown"
    assert facts["versions"]["numpy"] == np.__version__


def test_recorded_runs_name_their_machine_and_command() -> None:
    runs = recorded("bench-")
    assert runs
    for run in runs:
        assert {"cpu", "cores", "date", "command", "versions"} <= run["machine"].keys()
        assert run["machine"]["command"].startswith("pilc bench ")


def test_the_readme_shows_the_recorded_runs() -> None:
    text = (ROOT / "README.md").read_text()
    assert with_tables(text) == text, "run: python -m pilc_stream.reports.tables README.md"

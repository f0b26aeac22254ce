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
from pilc_stream.reports.bench import bench_profiles
from pilc_stream.reports.machine import device_name, machine_facts, machine_name
from pilc_stream.reports.sets import load_images, load_set


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
    image_set = load_set(folder)
    assert (len(image_set.images), image_set.left_out) == (3, 1)
    fast, raw = bench_profiles(image_set, ["fast", "raw"], rounds=2)
    assert (fast.profile, raw.profile, fast.rounds) == ("fast", "raw", 2)
    assert (fast.pixels, fast.raw_bytes) == (3 * 40 * 30, 3 * 40 * 30 * 3)
    assert fast.payload_bytes < raw.payload_bytes
    assert raw.bpsp > 8 > fast.bpsp > 0
    assert min(fast.encode_mb_per_s, fast.decode_mb_per_s) > 0
    assert sum(fast.macs_per_pixel.values()) <= 2200
    assert raw.macs_per_pixel == {}
    assert (len(fast.model_sha256), raw.model_sha256) == (64, "")


def test_images_of_a_parquet_file(folder: Path, tmp_path: Path) -> None:
    files = sorted(folder.glob("?.png"))
    pq.write_table(pa.table({"image": [file.read_bytes() for file in files]}), tmp_path / "set.parquet")
    images, _ = load_images(tmp_path / "set.parquet", limit=2)
    assert len(images) == 2
    assert np.array_equal(images[1], np.asarray(Image.open(files[1])))


def test_nothing_to_time_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no image"):
        load_set(tmp_path)


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


def test_a_device_is_named_by_what_worked() -> None:
    facts = {"cpu": "Abacus 1", "cores": 4, "gpus": ["Graphics 9"]}
    assert machine_name(facts) == "Graphics 9, Abacus 1"
    assert machine_name({"cpu": "Abacus 1"}) == "Abacus 1"
    assert device_name(facts, "cuda", 1) == "Graphics 9"
    assert device_name(facts, "cpu", 2) == "2 of 4 cores, Abacus 1"
    assert device_name(facts, "reference", 1) == "the reference on 1 of 4 cores, Abacus 1"


def test_cards_are_listed_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho Graphics 9\necho Graphics 9\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert machine_facts()["gpus"] == ["Graphics 9", "Graphics 9"]
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert machine_facts()["gpus"] == []

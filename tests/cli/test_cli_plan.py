"""pilc plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

Pilc = Callable[..., Result]


def test_a_plan_says_how_long_and_what_holds_it_up(pilc: Pilc, photos: Path) -> None:
    arguments = ("plan", photos, "--profile", "raw", "--cores", 96, "--gpus", 8, "--network-gbps", 25)
    result = pilc(*arguments, "--gpu-mb-per-second", 500, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["images"], document["sample_images"]) == (6, 6)
    assert document["busy_s"].keys() == {"network", "cores", "GPUs"}
    assert document["seconds"] == max(document["busy_s"].values())
    assert document["saved_bytes"] == document["source_bytes"] - document["stored_bytes"]

    text = pilc(*arguments, "--gpu-mb-per-second", 500).stdout
    assert "96 cores, 8 GPUs, 25 Gbit/s" in text
    assert "-bound" in text


def test_a_gpu_that_is_not_here_is_asked_for(pilc: Pilc, photos: Path) -> None:
    result = pilc("plan", photos, "--profile", "raw", "--cores", 4, "--gpus", 1, "--device", "cpu")
    assert result.exit_code == 2
    assert "--gpu-mb-per-second" in result.stderr


def test_nothing_to_plan(pilc: Pilc, tmp_path: Path) -> None:
    result = pilc("plan", tmp_path, "--profile", "raw", "--cores", 4)
    assert result.exit_code == 2
    assert "Check the source" in result.stderr

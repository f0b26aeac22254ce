"""`pilc frontier`: reports from records, measures sets, and says what it cannot do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from pilc_stream.models.shipped import wave_preset_names

Pilc = Callable[..., Result]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "ramps"
    folder.mkdir(parents=True)
    for i in range(3):
        ramp = np.add.outer(np.arange(20), np.arange(30) * i)[:, :, None].repeat(3, axis=2) % 256
        Image.fromarray(ramp.astype(np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "data"


def test_without_data_the_recorded_runs_are_reported(pilc: Pilc) -> None:
    result = pilc("frontier", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert {cost["profile"] for cost in document["costs"]} == set(wave_preset_names())
    assert "# The rate-computation frontier" in pilc("frontier").stdout


def test_a_set_is_measured_reported_and_recorded(pilc: Pilc, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    options = ("--limit", 2, "--efforts", "1,2", "--rounds", 1, "--profiles", "fast", "--skip", "ramps:2")
    options += ("--device", "reference")
    places = ("--out", tmp_path / "out", "--record", tmp_path / "records")
    result = pilc("frontier", data, *options, *places, "--json")
    assert result.exit_code == 0, result.stderr
    (ramps,) = json.loads(result.stdout)["sets"]
    assert (ramps["name"], ramps["images"]) == ("ramps", 2)
    assert list(ramps["bpsp"]) == ["PNG", "WebP", "JPEG XL e1", "fast"]
    assert json.loads((tmp_path / "out" / "frontier.json").read_text()) == json.loads(result.stdout)
    assert "| ramps (2) |" in (tmp_path / "out" / "frontier.md").read_text()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"frontier.{s}" for s in ("md", "json", "png", "svg")
    }
    assert len(list((tmp_path / "records").iterdir())) == 1
    again = pilc("frontier", data, *options, *places, "--json")
    assert json.loads(again.stdout)["sets"] == [ramps]


def test_peers_can_be_left_out(pilc: Pilc, data: Path) -> None:
    options = ("--no-peers", "--profiles", "fast", "--device", "reference", "--limit", 1, "--rounds", 1)
    result = pilc("frontier", data, *options, "--json")
    assert result.exit_code == 0, result.stderr
    assert list(json.loads(result.stdout)["sets"][0]["bpsp"]) == ["fast"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--record", "records"), "nothing is measured without DATA"),
        (("DATA", "--sets", "photos"), "no set 'photos'; found: ramps"),
        (("DATA", "--profiles", "swift"), "profile 'swift' is unknown"),
        (("DATA", "--efforts", "3,x"), "'3,x' is no list of numbers"),
        (("DATA", "--efforts", "12"), "JPEG XL has no effort 12"),
        (("DATA", "--skip", "ramps"), "'ramps' is not SET:EFFORT"),
        (("DATA", "--skip", "ramps:8"), "skip ramps:8"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(pilc: Pilc, data: Path, arguments: tuple[str, ...], sentence: str) -> None:
    result = pilc("frontier", *(data if argument == "DATA" else argument for argument in arguments))
    assert result.exit_code == 2
    assert sentence in result.stderr

"""`pilc frontier --lossy`: reports from records, measures a set, and says what it cannot do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

Pilc = Callable[..., Result]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "kodak"
    folder.mkdir(parents=True)
    for i in range(3):
        ramp = np.add.outer(np.arange(40) * 3, np.arange(48) * (i + 1))[:, :, None].repeat(3, axis=2) % 256
        Image.fromarray(ramp.astype(np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "data"


def test_without_data_the_recorded_runs_are_reported(pilc: Pilc) -> None:
    result = pilc("frontier", "--lossy")
    assert result.exit_code == 0, result.stderr
    assert "Lossy: pixels change." in result.stdout
    assert {"sets", "devices"} <= json.loads(pilc("frontier", "--lossy", "--json").stdout).keys()


def test_a_set_is_measured_reported_and_recorded(
    pilc: Pilc, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("imagecodecs")
    row = {
        "name": "lossy-a",
        "parts": ["ELIC", "CHARM", "SwinT"],
        "parameters": 1_000_000,
        "kflop": {"synthesis": 9.0, "hyper_synthesis": 1.0, "entropy_model": 2.0},
        "seconds_per_mp": {"synthesis": 0.5, "hyper_synthesis": 0.1, "entropy_model": 0.4},
        "latents_per_pixel": 1.0,
        "published": None,
    }
    monkeypatch.setattr("pilc_stream.training.lossy.timing.family_times", lambda *_: [row])
    monkeypatch.setattr("pilc_stream.reports.lossy_profiles.lossy_profile_names", list)
    places = ("--out", tmp_path / "out", "--record", tmp_path / "records")
    result = pilc("frontier", data, "--lossy", "--limit", 2, "--rounds", 1, "--device", "cpu", *places, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["sets"][0]["name"], document["sets"][0]["images"]) == ("kodak", 2)
    assert {"JPEG", "WebP", "AVIF", "JPEG XL"} <= document["sets"][0]["curves"].keys()
    assert document["devices"][0]["models"][0]["mp_per_s"] == pytest.approx(1)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"lossy.{s}" for s in ("md", "json", "png", "svg")}
    assert len(list((tmp_path / "records").iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("DATA", "--sets", "photos"), "no set 'photos'; found: kodak"),
        (("DATA", "--profiles", "fast"), "'fast' is no lossy profile"),
        (("--record", "records"), "nothing is measured without DATA"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(pilc: Pilc, data: Path, arguments: tuple[str, ...], sentence: str) -> None:
    given = (data if argument == "DATA" else argument for argument in arguments)
    result = pilc("frontier", *given, "--lossy", "--no-peers")
    assert result.exit_code == 2
    assert sentence in result.stderr

"""`pilc bench`: what it refuses, and the kernels of a card where there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Pilc = Callable[..., Result]


@pytest.mark.parametrize(
    "flags", [("--roofline", "."), ("--card", "."), ("--roofline", "--card"), ("--card", "--loaders")]
)
def test_figures_of_cards_take_no_source(pilc: Pilc, flags: tuple[str, ...]) -> None:
    result = pilc("bench", *flags)
    assert result.exit_code == 2
    assert "--roofline and --card take neither SOURCE nor each other" in result.stderr


@pytest.mark.parametrize("flags", [["--card"], ["--device", "cuda"]])
def test_a_card_is_asked_for_in_a_sentence(pilc: Pilc, flags: list[str]) -> None:
    shim = pytest.importorskip("pilc_stream.backends.cuda.shim", reason="Numba-CUDA is not installed")
    if shim.cuda.is_available():
        pytest.skip("there is a card")
    result = pilc("bench", *flags, "--profile", "fast")
    assert result.exit_code != 0
    assert "no CUDA driver with a card was found" in result.stderr


@pytest.mark.slow
def test_the_roofline_is_shown_and_recorded(pilc: Pilc, tmp_path: Path) -> None:
    pytest.importorskip("numba_cuda", reason="Numba-CUDA is not installed")
    result = pilc("bench", "--roofline", "--profile", "fast", "--record", tmp_path / "roofline.json")
    assert result.exit_code == 0, result.stderr
    assert "| V100 | fast |" in result.stdout
    recorded = json.loads((tmp_path / "roofline.json").read_text())
    assert {(line["card"], line["profile"]) for line in recorded["rooflines"]} == {("V100", "fast"), ("H200", "fast")}
    assert all(set(line["kernels"]) == {"decode", "walk", "model"} for line in recorded["rooflines"])
    assert recorded["machine"]["cpu"]

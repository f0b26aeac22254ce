"""`pilc train`: which recipe is taken, and what it cannot do; the training itself has tests of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

Pilc = Callable[..., Result]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    ramp = np.add.outer(np.arange(40), np.arange(48))[:, :, None].repeat(3, axis=2)
    for i in range(2):
        Image.fromarray((ramp * (i + 1)).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def test_a_member_of_the_lossy_family_is_trained_and_written(
    pilc: Pilc, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pilc_stream.training.lossy import family_recipe
    from pilc_stream.training.lossy.configurations import Configuration

    tiny = Configuration("Conv", "hyperprior", "Conv", (8, 8, 8), 8, 8, 16, hyper_widths=(8, 8))
    monkeypatch.setattr(family_recipe, "FAMILY", MappingProxyType({"g": tiny}))
    recipe, model = tmp_path / "own.json", tmp_path / "g.safetensors"
    recipe.write_text(
        '{"kind": "lossy-family", "member": "g", "tradeoff": 0.01, "crop": 32, "batch": 1, "seed": 1, "steps": 2,'
        ' "falling_steps": 1, "rate": 0.001}'
    )
    result = pilc("train", "--profile", recipe, "--tradeoff", 0.05, "--data", data, "-o", model)
    assert result.exit_code == 0, result.stderr
    assert "profile lossy-g" in result.stdout
    assert "step 2 of 2: loss " in result.stderr
    assert b'"tradeoff\\": 0.05' in model.read_bytes()
    again = pilc("train", "--profile", recipe, "--data", data, "-o", model)
    assert (again.exit_code, "a model is never edited" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--profile", "fast", "--tradeoff", "0.01"), "only members of the lossy family"),
        (("--profile", "lossy-g", "--start", "DATA/0.png"), "takes over no other run"),
        (("--profile", "lossy-g", "--tradeoff", "0"), "0.0 is not in the range x>0"),
        (("--profile", "lossy-h"), "neither a shipped one"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(pilc: Pilc, data: Path, arguments: tuple[str, ...], sentence: str) -> None:
    given = (argument.replace("DATA", str(data)) for argument in arguments)
    result = pilc("train", *given, "--data", data, "-o", data / "model")
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())

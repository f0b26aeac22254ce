"""Training of the family: recipes, a run that goes on as if never stopped, the model's file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from PIL import Image

from pilc_stream.errors import UsageError
from pilc_stream.models.family import load_family_model
from pilc_stream.training.lossy import family_recipe
from pilc_stream.training.lossy.configurations import FAMILY, Configuration
from pilc_stream.training.lossy.family_export import export_checkpoint
from pilc_stream.training.lossy.family_recipe import FamilyRecipe, find_family_recipe
from pilc_stream.training.lossy.family_train import FamilyProgress, collect_pictures, rate_at, train_family

TINY = Configuration("Conv", "hyperprior", "Conv", (8, 8, 8), 8, 8, 16, hyper_widths=(8, 8))
SMALL = FamilyRecipe("g", tradeoff=0.01, crop=32, batch=2, seed=3, steps=6, falling_steps=3, rate=0.002)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "pictures"
    out.mkdir()
    y, x = np.mgrid[:40, :48]
    for i in range(4):
        light = 128 + 60 * np.sin(x / (3 + i)) * np.cos(y / 9)
        Image.fromarray(np.stack([light, 0.9 * light, 250 - light], 2).astype(np.uint8)).save(out / f"{i}.png")
    Image.fromarray(np.zeros((8, 90, 3), np.uint8)).save(out / "narrow.png")
    return out


@pytest.fixture
def _tiny_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family_recipe, "FAMILY", MappingProxyType({**FAMILY, "g": TINY}))


@pytest.mark.usefixtures("_tiny_family")
def test_a_stopped_run_goes_on_as_if_it_had_not_been(folder: Path, tmp_path: Path) -> None:
    whole = train_family(SMALL, folder)
    checkpoint = tmp_path / "run"

    def stop(progress: FamilyProgress) -> None:
        if progress.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_family(SMALL, folder, checkpoint=checkpoint, report_every=-1, progress=stop)
    seen: list[FamilyProgress] = []
    resumed = train_family(SMALL, folder, checkpoint=checkpoint, report_every=-1, progress=seen.append)
    assert [each.step for each in seen] == [4, 5, 6]
    assert [each["step"] for each in resumed.recipe["course"]] == [1, 2, 3, 4, 5, 6]
    for one, other in ((whole.tensors, resumed.tensors), (whole.floats, resumed.floats)):
        assert one.keys() == other.keys()
        assert all(np.array_equal(values, other[name]) for name, values in one.items())
    with pytest.raises(UsageError, match="belongs to another recipe"):
        train_family(dataclasses.replace(SMALL, tradeoff=0.02), folder, checkpoint=checkpoint)


@pytest.mark.usefixtures("_tiny_family")
def test_the_file_holds_the_model_and_the_record_of_the_run(folder: Path) -> None:
    model = load_family_model(train_family(SMALL, folder).file_bytes)
    assert (model.profile, model.configuration, model.tradeoff) == ("lossy-g", TINY, SMALL.tradeoff)
    assert FamilyRecipe.from_json(model.recipe["recipe"]) == SMALL
    assert model.recipe["training_pictures"] == 3
    assert model.recipe["validation_bpp"] > 0
    assert model.recipe["course"][-1]["step"] == SMALL.steps


@pytest.mark.usefixtures("_tiny_family")
def test_the_model_of_an_unfinished_run(folder: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run"
    whole = train_family(SMALL, folder, checkpoint=checkpoint)
    found = export_checkpoint(checkpoint)
    assert found.recipe["steps_done"] == SMALL.steps
    assert all(np.array_equal(values, found.tensors[name]) for name, values in whole.tensors.items())


def test_pictures_that_are_too_small_are_left_out(folder: Path) -> None:
    training, held_out = collect_pictures(folder, 32)
    assert (len(training), len(held_out)) == (3, 1)
    with pytest.raises(UsageError, match="no image of at least 64 x 64 pixels"):
        collect_pictures(folder, 64)


def test_the_learning_rate_rises_stays_and_falls() -> None:
    recipe = dataclasses.replace(SMALL, steps=1000, falling_steps=100, rate=1e-3)
    rates = [rate_at(recipe, step) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-5)
    assert rates[500] == pytest.approx(1e-3)
    assert rates[950] == pytest.approx(1e-3 * (0.5 * 0.99 + 0.01))
    assert rates[-1] < 2.1e-5


@pytest.mark.parametrize("member", FAMILY)
def test_every_member_has_a_recipe(member: str) -> None:
    recipe = find_family_recipe(f"lossy-{member}", 0.02)
    assert recipe is not None
    assert (recipe.profile, recipe.tradeoff) == (f"lossy-{member}", 0.02)
    assert recipe.configuration is FAMILY[member]


def test_recipes_of_other_kinds_are_not_taken(tmp_path: Path) -> None:
    assert find_family_recipe("fast") is None
    assert find_family_recipe("lossy-light") is None
    own = tmp_path / "own.json"
    own.write_text(json.dumps(SMALL.to_json()))
    assert find_family_recipe(str(own)) == SMALL
    own.write_text(json.dumps({"kind": "pilc"}))
    assert find_family_recipe(str(own)) is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"member": "h"}, "no member 'h' of the lossy family; take a, b"),
        ({"tradeoff": 0.0}, "the trade-off is 0.0; give a positive one"),
        ({"falling_steps": 7}, "must be positive"),
        ({"speed": 1}, "cannot be read"),
    ],
)
def test_a_broken_recipe_is_refused(tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    own = tmp_path / "own.json"
    own.write_text(json.dumps({**SMALL.to_json(), **change}))
    with pytest.raises(UsageError, match=sentence):
        find_family_recipe(str(own))

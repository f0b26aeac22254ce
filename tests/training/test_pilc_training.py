"""Training of the codec `pilc`: gains, resumes, and exports what it trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_pilc import SMALL_PILC_SPEC

from pilc_stream.backends.pilc.cpu import PilcCpuEngine, Program, distributions
from pilc_stream.errors import UsageError
from pilc_stream.models.pilc import load_pilc_model
from pilc_stream.models.shipped import preset_bytes
from pilc_stream.training.vq.codebook import fit_codebook, gather_blocks, integer_tensors
from pilc_stream.training.vq.data import collect_tiles
from pilc_stream.training.vq.export import export_pilc_model
from pilc_stream.training.vq.network import PilcNet
from pilc_stream.training.vq.recipe import PilcRecipe, find_pilc_recipe
from pilc_stream.training.vq.train import train_pilc

SMALL = PilcRecipe(
    profile="small",
    spec=json.loads(json.dumps({**SMALL_PILC_SPEC.to_json(), "scale_count": 80})),
    tile_edge=32,
    halved_colour_share=0.1,
    jpeg_share=0.1,
    seed=1,
    cluster_blocks=400,
    cluster_rounds=3,
    network_tiles=60,
    batch_pixels=4096,
    steps=12,
    rounded_steps=4,
    rate=0.01,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for i in range(55):
        y, x = np.mgrid[:40, :48]
        light = 128 + 60 * np.sin(x / (3 + i % 7) + i) * np.cos(y / 9) + random.normal(0, 1 + i % 4, (40, 48))
        pixels = np.stack([light, 0.9 * light + 9, 250 - light], 2) + random.normal(0, 1, (40, 48, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out / f"{i:02d}.png")
    return out


@pytest.mark.slow
def test_training_gains_and_goes_on_from_a_checkpoint_as_if_never_stopped(folder: Path, tmp_path: Path) -> None:
    whole = train_pilc(SMALL, folder)
    checkpoint = tmp_path / "run"

    def stop(progress) -> None:
        if progress.step >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_pilc(SMALL, folder, checkpoint=checkpoint, report_every=0, progress=stop)
    resumed = train_pilc(SMALL, folder, checkpoint=checkpoint)
    assert all(np.array_equal(resumed.tensors[name], values) for name, values in whole.tensors.items())
    assert PilcRecipe.from_json(whole.recipe["recipe"]) == SMALL
    assert whole.recipe["residual_validation_bits"] < whole.recipe["validation_bits"] < 8
    with pytest.raises(UsageError, match="another recipe"):
        train_pilc(replace(SMALL, seed=2), folder, checkpoint=checkpoint)


def test_the_rounded_network_is_the_integer_model(folder: Path) -> None:
    tiles, _ = collect_tiles(folder, SMALL)
    spec = SMALL.architecture()
    codebook = fit_codebook(gather_blocks(tiles, spec, 200), spec, 2, 0, lambda *_: None)
    torch.manual_seed(3)
    net = PilcNet(spec, codebook.sizes)
    model = export_pilc_model(net, integer_tensors(codebook), [], "test", {})
    coding = PilcCpuEngine().codings(model, tiles[:1])[0]
    height, width = tiles[0].shape[:2]
    rows, centres = distributions(Program(model), [coding.choices], height, width)[0]
    net.eval()
    net.quantise()
    with torch.no_grad():
        found = net(*(torch.from_numpy(values)[None] for values in coding.choices))
    mean = found.mean[0].numpy().astype(np.int64)
    assert np.array_equal(centres, (mean + 8) >> 4)
    assert np.array_equal(rows, model.row_of[found.scale[0].numpy().astype(np.int64), (mean + 8) % 16])
    assert len(np.unique(rows)) > 3


def test_predictors_explain_what_depends_on_neighbours(folder: Path) -> None:
    tiles, _ = collect_tiles(folder, SMALL)
    spec = SMALL.architecture()
    bits: list[float] = []
    fit_codebook(gather_blocks(tiles, spec, 400), spec, 4, 0, lambda _, found: bits.append(found))
    assert bits[-1] < bits[0]


def test_too_little_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fewer than 50 images"):
        collect_tiles(tmp_path, SMALL)


def test_the_shipped_model_was_made_by_the_shipped_recipe() -> None:
    recipe, model = find_pilc_recipe("pilc"), load_pilc_model(preset_bytes("pilc"))
    assert recipe is not None
    assert model.profile == recipe.profile
    assert model.spec == recipe.architecture()
    assert PilcRecipe.from_json(model.recipe["recipe"]) == recipe
    assert model.recipe["versions"]["torch"]


def test_recipes_are_found_by_their_kind(tmp_path: Path) -> None:
    assert find_pilc_recipe("fast") is None
    own = tmp_path / "own.json"
    own.write_text(json.dumps(SMALL.to_json()))
    assert find_pilc_recipe(str(own)) == SMALL
    own.write_text(json.dumps({**SMALL.to_json(), "steps": 0}))
    with pytest.raises(UsageError, match="must be positive"):
        find_pilc_recipe(str(own))
    own.write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        find_pilc_recipe(str(own))

"""Training of the light lossy model: a run that resumes exactly, and a model that codes as the net estimates."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from pilc_stream.backends.base import TileJob  # noqa: E402
from pilc_stream.backends.lossy.cpu import LossyCpuEngine  # noqa: E402
from pilc_stream.backends.lossy.reference import LossyReferenceEngine  # noqa: E402
from pilc_stream.errors import ModelError, UsageError  # noqa: E402
from pilc_stream.models.lossy import LossyModel, load_lossy_model  # noqa: E402
from pilc_stream.models.lossy_spec import SCALE_COUNT  # noqa: E402
from pilc_stream.training.lossy.export import export_lossy_model, table_sizes  # noqa: E402
from pilc_stream.training.lossy.light import LightNet, gaussian_bits  # noqa: E402
from pilc_stream.training.lossy.light_recipe import Cycle, LightRecipe, find_light_recipe  # noqa: E402
from pilc_stream.training.lossy.light_train import LightProgress, in_units, train_light  # noqa: E402

SPEC = {
    "widths": [12, 10, 16],
    "inner_widths": [6, 6, 4],
    "analysis_blocks": [1, 0, 0],
    "synthesis_blocks": [1, 1, 0],
    "slices": [4, 12],
    "checkered": 1,
    "hyper_channels": 4,
    "hyper_width": 6,
    "context_width": 6,
    "hidden_width": 8,
    "quality_features": 2,
}
RECIPE = LightRecipe("tiny", SPEC, 0.002, 0.1, 64, 2, 0.3, 1, 2, (Cycle(4, 2, 1, 0.01), Cycle(2, 2, 1, 0.01)))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    y, x, c = np.indices((80, 70, 3))
    for number in range(50):
        random = np.random.default_rng(number)
        waves = 40 * np.sin(x / random.uniform(2, 9) + c) + 40 * np.sin(y / random.uniform(2, 9))
        pixels = 120 + waves + random.normal(0, 6, waves.shape)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:02}.png")
    return folder


def same(one: LossyModel, other: LossyModel) -> bool:
    layers = all(np.array_equal(one.layers[name].weight, other.layers[name].weight) for name in one.layers)
    return layers and all(np.array_equal(one.floats[name], other.floats[name]) for name in one.floats)


def test_a_run_that_was_stopped_goes_on_exactly(data: Path, tmp_path: Path) -> None:
    whole = train_light(RECIPE, data)
    checkpoint = tmp_path / "run.ckpt"

    class Stopped(Exception):
        pass

    def stop(progress: LightProgress) -> None:
        if progress.step == 4:
            raise Stopped

    with pytest.raises(Stopped):
        train_light(RECIPE, data, checkpoint=checkpoint, report_every=0.0, progress=stop)
    steps: list[int] = []
    resumed = train_light(
        RECIPE, data, checkpoint=checkpoint, report_every=0.0, progress=lambda progress: steps.append(progress.step)
    )
    # The step whose report was stopped had not been saved.
    assert steps == [4, 5, 6]
    assert same(whole, resumed)
    assert load_lossy_model(resumed.file_bytes).recipe["recipe"] == json.loads(json.dumps(RECIPE.to_json()))
    with pytest.raises(UsageError, match="another recipe"):
        train_light(replace(RECIPE, seed=2), data, checkpoint=checkpoint)


def test_streams_are_as_long_as_the_net_estimates(data: Path) -> None:
    """The exact path against the rounded net: bits within a hundredth, the same latents on two backends."""
    torch.manual_seed(0)
    net = LightNet(RECIPE.architecture())
    pictures = np.stack([np.asarray(Image.open(data / f"{number:02}.png"))[:64, :64] for number in range(8)])
    net.begin(in_units(pictures), torch.linspace(0.3, 3, 8))
    net.quantise()
    net.eval()
    model = load_lossy_model(export_lossy_model(net, "tiny", {}).file_bytes)
    tile = np.tile(pictures[0], (3, 3, 1))
    stream, latents = LossyCpuEngine().encode_tiles(model, [tile], [100], [0])[0]
    with torch.no_grad():
        coded = net(in_units(tile[None]), torch.tensor([1.0]))
    estimated = float(coded.latent_bits + coded.hyper_bits)
    assert 8 * (len(stream) - 6) == pytest.approx(estimated, rel=0.01)
    job = TileJob(memoryview(stream), *tile.shape, 0)
    assert np.array_equal(LossyReferenceEngine().decode_latents(model, [job])[0][1], latents)
    found = LossyCpuEngine().decode_tiles(model, [job])[0].astype(float)
    expected = np.clip(coded.pixels[0].permute(1, 2, 0).numpy() * 40 + 128, 0, 255)
    assert np.abs(found - expected).mean() < 0.6


def test_tables_cost_what_a_gaussian_does() -> None:
    sizes = table_sizes().astype(float)
    for index in (1, 10, 30, 45, SCALE_COUNT - 1):
        row = sizes[index - 1]
        shares = np.concatenate([row[:0:-1], row]) / 65536
        values = torch.arange(-127, 128).float()
        bits = gaussian_bits(values, torch.full_like(values, float(index))).numpy()
        likely = shares > 1e-3
        assert np.abs(-np.log2(shares[likely]) - bits[likely]).max() < 0.03


def test_the_shipped_recipe() -> None:
    recipe = find_light_recipe("lossy-light")
    assert recipe is not None
    spec = recipe.architecture()
    # 20 kFLOP a pixel to decode, all parts: a multiply-accumulate is two.
    assert 2 * sum(spec.macs_per_pixel().values()) <= 20_000
    assert LightRecipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert find_light_recipe("fast") is None


def test_impossible_recipes_are_refused() -> None:
    for change in ({"crop": 100}, {"batch": 0}, {"least_tradeoff": 0.2}, {"cycles": ()}):
        with pytest.raises(UsageError):
            replace(RECIPE, **change)
    with pytest.raises(UsageError, match="cycle"):
        Cycle(4, 5, 0, 0.01)
    with pytest.raises(ModelError, match="slices"):
        replace(RECIPE, spec={**SPEC, "slices": [4, 11]})

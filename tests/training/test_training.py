"""Training: the float network in its rounded form is the integer model, and a run resumes as if it had not stopped."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pilc_stream.errors import UsageError
from pilc_stream.models.model import load_model
from pilc_stream.models.shipped import preset_bytes
from pilc_stream.models.spec import SIX_NEIGHBOURS, WaveSpec
from pilc_stream.records.tiling import Tiling
from pilc_stream.training.data import HELD_OUT_EVERY, RowSource, cut_tiles, images_below, training_rows
from pilc_stream.training.export import build_tables, check_parity, cumulative, export_model, integer_frequencies
from pilc_stream.training.network import WaveNet
from pilc_stream.training.recipe import Recipe, Stage, load_recipe, shipped_recipes, stage_at
from pilc_stream.training.shapes import ResidualShape
from pilc_stream.training.train import TrainProgress, train

SMALL = Recipe(
    profile="small",
    neighbours=SIX_NEIGHBOURS,
    taps=6,
    trunk=(6,),
    head=4,
    tile_edge=16,
    pixels_per_tile=100,
    grey_share=0.1,
    halved_colour_share=0.3,
    jpeg_share=0.1,
    synthetic_pictures=2,
    seed=3,
    batch=256,
    stages=(Stage(12, 0.01, 0.001), Stage(12, 0.001, 0.0)),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(5)
    images = tmp_path / "images"
    images.mkdir()
    for i in range(6):
        ramp = np.add.outer(np.arange(24) * (i + 1), np.arange(20) * 3)[:, :, None] + np.array([0, 20, 40])
        noisy = ramp + generator.integers(0, 9, (24, 20, 3))
        Image.fromarray((noisy % 256).astype(np.uint8)).save(images / f"{i}.png")
    return images


def random_net(seed: int, spec: WaveSpec) -> WaveNet:
    torch.manual_seed(seed)
    net = WaveNet(spec)
    with torch.no_grad():
        for name in spec.layers():
            layer = net.layer(name)
            layer.weight.mul_(torch.rand(()) * 4)
            layer.bias.add_(torch.randn_like(layer.bias) * 20)
    return net


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([(6,), (5, 7)]), st.integers(0, 2**32 - 1))
def test_the_rounded_network_is_the_integer_model(seed: int, trunk: tuple[int, ...], pixels: int) -> None:
    spec = WaveSpec(SIX_NEIGHBOURS, 5, trunk, 5)
    net = random_net(seed, spec)
    generator = np.random.default_rng(pixels)
    tile = generator.integers(0, 256, (9, 11, 3)).astype(np.uint8)
    check_parity(net, export_model(net, "random", {}), RowSource(spec).rows([tile])[0])


def test_a_model_that_differs_in_one_weight_is_noticed() -> None:
    spec = WaveSpec(SIX_NEIGHBOURS, 6, (6,), 4)
    net = random_net(1, spec)
    model = export_model(net, "random", {})
    layer = model.layers["head.0.mean"]
    wrong = dataclasses.replace(layer, bias=layer.bias + 4096)
    model = dataclasses.replace(model, layers={**model.layers, "head.0.mean": wrong})
    tile = np.random.default_rng(2).integers(0, 256, (9, 11, 3)).astype(np.uint8)
    with pytest.raises(AssertionError, match="means"):
        check_parity(net, model, RowSource(spec).rows([tile])[0])


@given(st.lists(st.floats(0, 1e6), min_size=256, max_size=256).filter(lambda mass: sum(mass) > 1e-3))
def test_frequencies_fill_the_table_row_and_none_is_zero(mass: list[float]) -> None:
    frequencies = integer_frequencies(np.array(mass))
    assert frequencies.sum() == 65536
    assert frequencies.min() >= 1
    ideal = 1 + np.array(mass) / sum(mass) * (65536 - 256)
    assert np.abs(frequencies - ideal).max() <= 1
    starts = cumulative(frequencies).astype(np.int64)
    assert (np.diff(starts) == frequencies[:-1]).all()


def test_tables_put_the_mass_at_the_mean_and_widen_with_the_scale() -> None:
    cdf, row_of = build_tables(ResidualShape(80))
    assert row_of.shape == (80, 16)
    assert row_of.max() + 1 == len(cdf)
    frequencies = np.diff(np.append(cdf.astype(np.int64), np.full((len(cdf), 1), 65536), axis=1), axis=1)
    centre = frequencies[row_of[:, 8], 128]
    assert (np.diff(centre) <= 0).all()
    # Half a level above the centre, the next level is as likely; below, the one before.
    assert abs(int(frequencies[row_of[20, 0], 127]) - int(frequencies[row_of[20, 0], 128])) <= 2


def test_training_gains_and_goes_on_from_a_checkpoint_as_if_never_stopped(folder: Path, tmp_path: Path) -> None:
    seen: list[TrainProgress] = []
    whole = train(SMALL, folder, report_every=0, progress=seen.append)
    assert [p.step for p in seen] == list(range(1, SMALL.steps + 1))
    assert seen[-1].validation_bits < seen[0].validation_bits

    class StopError(Exception):
        pass

    def stop(progress: TrainProgress) -> None:
        if progress.step == 10:
            raise StopError

    checkpoint = tmp_path / "run.checkpoint"
    with pytest.raises(StopError):
        train(SMALL, folder, checkpoint=checkpoint, report_every=0, progress=stop)
    resumed = train(SMALL, folder, checkpoint=checkpoint, report_every=0)
    for name, layer in whole.layers.items():
        assert np.array_equal(layer.weight, resumed.layers[name].weight), name
        assert np.array_equal(layer.bias, resumed.layers[name].bias), name
    assert np.array_equal(whole.cdf, resumed.cdf)
    assert resumed.recipe["recipe"]["seed"] == SMALL.seed

    with pytest.raises(UsageError, match="another recipe"):
        train(dataclasses.replace(SMALL, seed=4), folder, checkpoint=checkpoint)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no image"):
        train(SMALL, tmp_path)


def test_the_learning_rate_follows_the_stages() -> None:
    stages = (Stage(600, 0.01, 0.001), Stage(400, 0.002, 0.0))
    rates = [stage.rate(share) for stage, share in (stage_at(stages, step) for step in range(1000))]
    assert rates[0] == pytest.approx(0.01)
    assert rates[300] == pytest.approx(0.0055)
    assert rates[599] == pytest.approx(0.001, rel=0.01)
    assert rates[600] == pytest.approx(0.002)
    assert rates[-1] < 1e-7
    assert stage_at(stages, 1000) == (stages[1], 1.0)


def test_a_run_takes_over_the_state_of_another_recipe(folder: Path, tmp_path: Path) -> None:
    first = dataclasses.replace(SMALL, stages=(Stage(6, 0.01, 0.001),))
    checkpoint = tmp_path / "first.checkpoint"
    train(first, folder, checkpoint=checkpoint, report_every=0)
    seen: list[TrainProgress] = []
    longer = dataclasses.replace(SMALL, stages=(Stage(6, 0.01, 0.001), Stage(4, 0.001, 0.0)))
    model = train(longer, folder, start=checkpoint, report_every=0, progress=seen.append)
    assert [p.step for p in seen] == [7, 8, 9, 10]
    assert model.recipe["taken_over"]["steps"] == 6
    assert Recipe.from_json(model.recipe["taken_over"]["recipe"]) == first
    with pytest.raises(UsageError, match="another architecture"):
        train(dataclasses.replace(longer, head=5), folder, start=checkpoint)


@pytest.mark.parametrize(
    "wrong", [{"stages": ()}, {"batch": 0}, {"grey_share": 2.0}, {"halved_colour_share": 0.8, "jpeg_share": 0.5}]
)
def test_a_recipe_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="recipe 'small'"):
        dataclasses.replace(SMALL, **wrong)


@pytest.mark.parametrize("wrong", [(0, 0.1, 0.0), (5, 0.0, 0.0), (5, 0.1, -0.1)])
def test_a_stage_that_makes_no_sense_is_refused(wrong: tuple[int, float, float]) -> None:
    with pytest.raises(UsageError, match="a stage needs steps"):
        Stage(*wrong)


@pytest.mark.parametrize(("height", "width", "edge"), [(1, 1, 16), (33, 70, 32), (64, 64, 64), (65, 129, 64)])
def test_training_tiles_are_those_of_the_codec(height: int, width: int, edge: int) -> None:
    image = np.arange(height * width * 3, dtype=np.uint32).reshape(height, width, 3).astype(np.uint8)
    tiling = Tiling(height, width, edge.bit_length() - 1)
    tiles = list(cut_tiles(image, edge))
    assert len(tiles) == tiling.count
    for tile, (y, x, h, w) in zip(tiles, tiling.tiles(), strict=True):
        assert np.array_equal(tile, image[y : y + h, x : x + w])


def test_images_come_in_the_order_of_their_names(folder: Path) -> None:
    assert [name for name, _ in images_below(folder)] == [f"{i}.png" for i in range(6)]
    assert HELD_OUT_EVERY > 1


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_shipped_model_was_made_by_the_shipped_recipe(name: str) -> None:
    recipe, model = load_recipe(name), load_model(preset_bytes(name))
    assert model.profile == name
    assert model.spec == recipe.spec
    recorded = model.recipe["recipe"]
    assert Recipe.from_json(recorded) == recipe
    assert model.recipe["versions"]["torch"]


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="fast"):
        load_recipe("slow")


def test_all_draws_are_of_one_size(tmp_path: Path) -> None:
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (170, 150, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    recipe = dataclasses.replace(
        load_recipe("fast"), pixels_per_tile=20_000, synthetic_pictures=2, reduced_share=0.7, recoloured_share=0.5
    )
    draws = [training_rows(tmp_path, recipe, draw) for draw in range(4)]
    assert {len(draw) for draw in draws} == {20_000 * 3}
    assert len({draw.pixels.tobytes() for draw in draws}) == 4

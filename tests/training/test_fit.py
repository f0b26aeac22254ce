"""Fitting: it begins with the very model that it is given, gains on its own kind, and stays a model of the codec."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pilc_stream.backends import open_engine
from pilc_stream.codecs import Decoder
from pilc_stream.codecs.wave import WaveCodec
from pilc_stream.errors import ModelError, UsageError
from pilc_stream.models.model import WaveModel, load_model
from pilc_stream.models.shipped import preset_bytes, wave_preset_names
from pilc_stream.models.spec import SIX_NEIGHBOURS, WaveSpec
from pilc_stream.training import fit as fit_module
from pilc_stream.training.data import RowSource, sampled_images
from pilc_stream.training.export import SHAPE_KEY, check_parity, export_model, import_model
from pilc_stream.training.fit import FitProgress, fit
from pilc_stream.training.network import WaveNet


@pytest.fixture
def start() -> WaveModel:
    torch.manual_seed(1)
    return export_model(WaveNet(WaveSpec(SIX_NEIGHBOURS, 4, (8,), 5)), "begin", {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of one kind: two colours in stripes."""
    images = tmp_path / "images"
    images.mkdir()
    generator = np.random.default_rng(5)
    for i in range(12):
        stripes = generator.integers(0, 2, (1, 40)) * np.ones((30, 1), np.int64)
        pixels = np.where(stripes[:, :, None], [250, 20, 90], [10, 10, 200]).astype(np.uint8)
        Image.fromarray(pixels).save(images / f"{i}.png")
    (images / "broken.png").write_bytes(b"no picture")
    return images


@pytest.mark.parametrize("name", wave_preset_names())
def test_a_shipped_model_goes_through_the_network_unchanged(name: str) -> None:
    model = load_model(preset_bytes(name))
    again = export_model(import_model(model), name, {})
    tile = np.random.default_rng(2).integers(0, 256, (9, 11, 3)).astype(np.uint8)
    rows = RowSource(model.spec).rows([tile])[0]
    check_parity(import_model(model), model, rows)
    check_parity(import_model(model), again, rows)
    assert np.array_equal(again.row_of, model.row_of)


def test_fitting_gains_on_images_that_it_has_not_seen(start: WaveModel, folder: Path) -> None:
    seen: list[FitProgress] = []
    fitted = fit(folder, start, steps=60, report_every=0, progress=seen.append)
    assert fitted.images == 12
    assert fitted.held_out_images == 1
    assert fitted.gain > 0.03
    assert fitted.model.profile == "begin-fitted"
    assert fitted.model.recipe["fitted_from"]["sha256"] == start.sha256
    assert [p.steps for p in seen] == list(range(1, 61))
    assert [p.share for p in seen] == sorted(p.share for p in seen)

    pixels = np.asarray(Image.open(folder / "3.png"))
    payloads = [WaveCodec(model, open_engine("cpu")).encode([pixels])[0] for model in (start, fitted.model)]
    assert len(payloads[1]) < len(payloads[0])
    decoder = Decoder("cpu", models=lambda digest: fitted.model.file_bytes)
    assert np.array_equal(decoder.decode([payloads[1]])[0], pixels)
    assert load_model(fitted.model.file_bytes).sha256 == fitted.model.sha256


def test_fitting_by_the_clock_ends_when_the_time_is_up(start: WaveModel, folder: Path) -> None:
    begun = time.monotonic()
    fitted = fit(folder, start, minutes=0.02)
    assert fitted.model.recipe["steps"] >= 1
    # Reading, rounding and measuring come on top; a machine at its limits may take long over them.
    assert time.monotonic() - begun >= 1.2


def test_one_image_is_too_few(start: WaveModel, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "one.png")
    with pytest.raises(UsageError, match="holds 1 readable images"):
        fit(tmp_path, start, minutes=0.01)
    with pytest.raises(UsageError, match="minutes must be positive"):
        fit(tmp_path, start, minutes=0)


def test_a_model_without_its_shape_cannot_be_fitted(start: WaveModel) -> None:
    bare = dataclasses.replace(start, recipe={})
    with pytest.raises(ModelError, match="does not say which shape"):
        import_model(bare)
    short = dataclasses.replace(start, recipe={SHAPE_KEY: {**start.recipe[SHAPE_KEY], "log_wide": [1.0]}})
    with pytest.raises(ModelError, match="1 knots"):
        import_model(short)


def test_a_sample_is_drawn_at_random_and_passes_over_what_is_broken(folder: Path) -> None:
    every = [image.tobytes() for image in sampled_images(folder, 100, seed=0)]
    assert len(every) == 12
    other = [image.tobytes() for image in sampled_images(folder, 100, seed=1)]
    assert sorted(other) == sorted(every)
    assert other != every
    assert len(list(sampled_images(folder, 3, seed=0))) <= 3


def test_a_sample_of_large_images_is_bounded(start: WaveModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(generator.integers(0, 256, (300, 40, 3)).astype(np.uint8)).save(tmp_path / f"{i}.png")
    monkeypatch.setattr(fit_module, "SAMPLE_PIXELS", 5000)
    monkeypatch.setattr(fit_module, "PIXELS_PER_TILE", 1000)
    fitted = fit(tmp_path, start, steps=1)
    # Tiles of 150 x 40; the last one taken may pass the limit.
    assert 5000 <= fitted.model.recipe["training_pixels"] < 6000

"""Golden payloads of the codec `lossy`: the same latents on every backend, for ever."""

from __future__ import annotations

import io

import numpy as np
import pytest
from families import FAMILIES, TILE_LOG2, lossy_jobs, pixels
from regenerate import LOSSY, LOSSY_CASES, WAVE_CASES
from test_golden import golden
from torch_lossy import torch_engine

from pilc_stream.backends.lossy import LossyEngine
from pilc_stream.backends.lossy.cpu import LossyCpuEngine
from pilc_stream.backends.lossy.family import open_family_engine
from pilc_stream.backends.lossy.reference import LossyReferenceEngine
from pilc_stream.codecs import Decoder
from pilc_stream.codecs.lossy import payload_psnr
from pilc_stream.models.family import load_family_model
from pilc_stream.models.lossy import load_lossy_model
from pilc_stream.records.payload import parse_header


def engine_of(name: str) -> LossyEngine:
    if name == "torch":
        return torch_engine()
    return LossyReferenceEngine() if name == "reference" else LossyCpuEngine()


@pytest.mark.parametrize("engine_name", ["reference", "cpu", "torch"])
@pytest.mark.parametrize("case", LOSSY_CASES)
def test_latents_are_the_same_for_ever(engine_name: str, case: str) -> None:
    model = load_lossy_model(golden(f"{LOSSY}.safetensors"))
    jobs = lossy_jobs(golden(f"{LOSSY}-{case}.pilc"))
    found = engine_of(engine_name).decode_latents(model, jobs)
    latents = np.concatenate([each.reshape(-1) for _, each in found])
    assert np.array_equal(latents, np.load(io.BytesIO(golden(f"{LOSSY}-{case}-latents.npy"))))


@pytest.mark.parametrize("case", LOSSY_CASES)
def test_pixels_are_as_near_as_was_written_down(case: str) -> None:
    model = load_lossy_model(golden(f"{LOSSY}.safetensors"))
    payload = golden(f"{LOSSY}-{case}.pilc")
    source = next(each for each in WAVE_CASES if each.name == case).pixels()
    image = Decoder("cpu", models=lambda _: model.file_bytes).decode([payload])[0]
    assert image.shape == source.shape
    error = float(np.square(source.astype(float) - image).mean())
    # One grey level between machines at most, so a little either way.
    assert 10 * np.log10(255**2 / error) == pytest.approx(payload_psnr(payload), abs=0.3)


@pytest.mark.parametrize("engine_name", ["reference", "cpu"])
@pytest.mark.parametrize("name", FAMILIES)
def test_latents_of_the_family_are_the_same_for_ever(engine_name: str, name: str) -> None:
    model, payload = load_family_model(golden(f"{name}.safetensors")), golden(f"{name}.pilc")
    found = open_family_engine(engine_name).decode_latents(model, lossy_jobs(payload))
    latents = np.concatenate([each.reshape(-1) for _, each in found])
    assert np.count_nonzero(latents) > len(found)
    assert np.array_equal(latents, np.load(io.BytesIO(golden(f"{name}-latents.npy"))))


@pytest.mark.parametrize("name", FAMILIES)
def test_pictures_of_the_family_are_as_near_as_was_written_down(name: str) -> None:
    model, payload = load_family_model(golden(f"{name}.safetensors")), golden(f"{name}.pilc")
    assert parse_header(payload).tile_log2 == TILE_LOG2
    image = Decoder("cpu", models=lambda _: model.file_bytes).decode([payload])[0]
    error = float(np.square(pixels().astype(float) - image).mean())
    assert 10 * np.log10(255**2 / error) == pytest.approx(payload_psnr(payload), abs=0.3)

"""Payloads of every released version decode to the same pixels for ever, and are written again byte for byte.

A missing file fails: it was lost, or `regenerate.py` was not run for a new case.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import schoolbook
from engines import engine, every_engine
from numpy.typing import NDArray
from regenerate import FOLDER, MODELS, RAW_CASES, WAVE_CASES, Case, files_of, wave_cases_of
from small_model import small_model

from pilc_stream.codecs import Decoder, inspect_payload
from pilc_stream.codecs.wave import WaveDecoder
from pilc_stream.models.model import load_model
from pilc_stream.records.payload import parse_payload

wave_cases = pytest.mark.parametrize("case", WAVE_CASES, ids=lambda case: case.name)
raw_cases = pytest.mark.parametrize("case", RAW_CASES, ids=lambda case: case.name)
every_model_and_case = pytest.mark.parametrize(
    ("model_name", "case"),
    [pytest.param(name, case, id=f"{name}-{case.name}") for name in MODELS for case in wave_cases_of(name)],
)


def golden(name: str) -> bytes:
    path = FOLDER / name
    assert path.is_file(), f"{path} is missing: restore it, or run tests/golden/regenerate.py for a new case"
    return path.read_bytes()


def pixels_of(case: Case) -> NDArray[np.uint8]:
    golden(f"{case.name}.npy")
    return np.load(FOLDER / f"{case.name}.npy", allow_pickle=False)  # type: ignore[no-any-return]


def small_file(digest: bytes) -> bytes | None:
    file = golden("small.safetensors")
    return file if load_model(file).short_digest == digest else None


@every_engine
@every_model_and_case
def test_payloads_decode_on_every_backend(engine_name: str, model_name: str, case: Case) -> None:
    payload = parse_payload(golden(f"{model_name}-{case.name}.pilc"))
    expected = pixels_of(case)
    if payload.header.codec == "raw":  # what was too small to be worth coding
        image = Decoder().decode([golden(f"{model_name}-{case.name}.pilc")])[0]
    else:
        image = WaveDecoder(MODELS[model_name](), engine(engine_name)).decode([payload], [None])[0]
    assert image.dtype == expected.dtype
    assert image.shape == expected.shape
    assert np.array_equal(image, expected)


@every_engine
@every_model_and_case
def test_encoding_gives_the_same_bytes_on_every_backend(engine_name: str, model_name: str, case: Case) -> None:
    assert case.encode(MODELS[model_name](), engine(engine_name)) == golden(f"{model_name}-{case.name}.pilc")


@raw_cases
def test_raw_payloads(case: Case) -> None:
    payload = golden(f"{case.name}.pilc")
    image = Decoder().decode([payload])[0]
    expected = pixels_of(case)
    assert image.dtype == expected.dtype
    assert np.array_equal(image, expected)
    assert Decoder().extras(payload) == case.extras
    assert case.encode(small_model(), engine("reference")) == payload


@wave_cases
def test_the_schoolbook_decodes_them_too(case: Case) -> None:
    picture = schoolbook.decode(golden(f"small-{case.name}.pilc"), golden("small.safetensors"))
    assert np.array_equal(np.array(picture.samples).reshape(picture.shape), pixels_of(case))
    assert picture.extras == case.extras


def test_the_front_door_decodes_them_together() -> None:
    named = [(name, case) for name in MODELS for case in wave_cases_of(name)]
    payloads = [golden(f"{name}-{case.name}.pilc") for name, case in named]
    for (_, case), image in zip(named, Decoder("cpu", models=small_file).decode(payloads), strict=True):
        assert np.array_equal(image, pixels_of(case))


def test_the_cases_are_of_the_kinds_that_they_claim() -> None:
    infos = {case.name: inspect_payload(golden(f"small-{case.name}.pilc")) for case in WAVE_CASES}
    assert infos["colour"].codec == infos["grey"].codec == infos["tiles"].codec == "wave"
    assert infos["tiles"].tiles == 12
    assert infos["tiles-grey"].tiles == 4
    assert infos["lanes"].lanes == 4
    assert infos["many-lanes"].lanes == 32
    assert infos["extras"].extras_bytes > 0
    assert [len(infos[name].shape) for name in ("grey", "grey-three-axes")] == [2, 3]


def test_the_small_model_is_still_what_the_formula_gives() -> None:
    assert small_model().file_bytes == golden("small.safetensors")


def test_no_golden_file_is_without_a_case() -> None:
    named = {name for name, _ in files_of(None)}
    assert {path.name for path in Path(FOLDER).iterdir()} == named

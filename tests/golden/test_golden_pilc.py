"""Golden payloads of the codec `pilc`: the same pixels and the same bytes on every backend, for ever."""

from __future__ import annotations

import numpy as np
import pytest
from engines import every_pilc_engine, pilc_engine
from regenerate import PILC_MODELS, Case, encode_by_pilc, pilc_cases_of
from test_golden import golden, pixels_of

from pilc_stream.codecs import Decoder, inspect_payload
from pilc_stream.models.pilc import load_pilc_model

every_model_and_case = pytest.mark.parametrize(
    ("model_name", "case"),
    [pytest.param(name, case, id=f"{name}-{case.name}") for name in PILC_MODELS for case in pilc_cases_of(name)],
)


def small_file(digest: bytes) -> bytes | None:
    file = golden("small-pilc.safetensors")
    return file if load_pilc_model(file).short_digest == digest else None


@pytest.mark.parametrize("device", ["cpu", "reference"])
@every_model_and_case
def test_payloads_decode_on_every_backend(device: str, model_name: str, case: Case) -> None:
    image = Decoder(device, models=small_file).decode([golden(f"{model_name}-{case.name}.pilc")])[0]
    assert image.dtype == np.uint8
    assert np.array_equal(image, pixels_of(case))


@every_pilc_engine
@every_model_and_case
def test_encoding_gives_the_same_bytes_on_every_backend(engine_name: str, model_name: str, case: Case) -> None:
    made = encode_by_pilc(PILC_MODELS[model_name](), pilc_engine(engine_name), case)
    assert made == golden(f"{model_name}-{case.name}.pilc")


def test_the_cases_are_of_the_kinds_that_they_claim() -> None:
    infos = {case.name: inspect_payload(golden(f"small-pilc-{case.name}.pilc")) for case in pilc_cases_of("small-pilc")}
    assert infos["colour"].codec == infos["grey"].codec == infos["tiles"].codec == "pilc"
    assert infos["tiles"].tiles == 12
    assert infos["lanes"].lanes == 4
    assert infos["extras"].extras_bytes > 0

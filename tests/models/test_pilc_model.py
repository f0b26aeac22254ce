"""Models of the codec `pilc`: what is refused, and that a file is its model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_pilc import SMALL_PILC_SPEC, random_pilc_model, small_pilc_model

from pilc_stream.errors import ModelError
from pilc_stream.models.model import Layer, load_model
from pilc_stream.models.pilc import PilcSpec, is_pilc_model, load_pilc_model
from pilc_stream.models.shipped import preset_bytes


def test_a_file_is_its_model() -> None:
    model = small_pilc_model()
    again = load_pilc_model(model.file_bytes)
    assert again.sha256 == model.sha256
    assert again.spec == model.spec
    assert all(np.array_equal(again.tensors[name], values) for name, values in model.tensors.items())
    assert is_pilc_model(model.file_bytes)
    assert not is_pilc_model(preset_bytes("fast"))
    assert not is_pilc_model(b"no model")


def test_files_of_the_other_kind_are_refused() -> None:
    with pytest.raises(ModelError, match="not 'pilc-vq-model'"):
        load_pilc_model(preset_bytes("fast"))
    with pytest.raises(ModelError, match="not 'pilc-wave-model'"):
        load_model(small_pilc_model().file_bytes)
    with pytest.raises(ModelError):
        load_pilc_model(small_pilc_model().file_bytes[:-1])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("predictor.1.weight", lambda v: v[:, :-1]),
        ("predictor.0.bias", lambda v: np.full_like(v, 1 << 24)),
        ("code.cdf", np.zeros_like),
        ("predictor.cdf", lambda v: v[:-1]),
        ("code.class", lambda v: np.full_like(v, 16)),
        ("encoder.slope", lambda v: np.full_like(v, 1 << 14)),
        ("row_of", lambda v: np.full_like(v, 60000)),
        ("code.features", lambda v: v.astype(np.int16)),
    ],
)
def test_wrong_numbers_are_refused(name: str, change) -> None:
    model = small_pilc_model()
    with pytest.raises(ModelError, match=r"model"):
        replace(model, tensors={**model.tensors, name: change(model.tensors[name])})


def test_a_sum_beyond_the_bound_is_refused() -> None:
    model = random_pilc_model(SMALL_PILC_SPEC, 1, at_the_bound=True)
    fine = model.layers["fine"]
    one_more = Layer(fine.weight, fine.bias + np.sign(fine.bias), fine.shift)
    with pytest.raises(ModelError, match="sums must stay"):
        replace(model, layers={**model.layers, "fine": one_more})
    bias = model.tensors["predictor.2.bias"]
    with pytest.raises(ModelError, match="with the rounding"):
        replace(model, tensors={**model.tensors, "predictor.2.bias": bias + np.sign(bias)})
    with pytest.raises(ModelError, match="is missing"):
        replace(model, layers={})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("blocks_version", 2), ("predictors", 1), ("codes", 257), ("widths", [1, 2, 3]), ("scale_count", 0),
        ("taps", [[[0, 0, 1]], [[0, 0, 0]], [[0, 0, 0]]]), ("taps", [[[0, 0, -1]]]), ("codes", 8.5),
        ("taps", [[1]] * 3),
    ],
)  # fmt: skip
def test_wrong_specifications_are_refused(name: str, value) -> None:
    with pytest.raises(ModelError, match="pilc model"):
        PilcSpec.from_json({**SMALL_PILC_SPEC.to_json(), name: value})


def test_what_the_shipped_model_costs() -> None:
    spec = load_pilc_model(preset_bytes("pilc")).spec
    macs = spec.macs_per_pixel()
    assert 5000 <= sum(macs.values()) <= 10_000
    assert macs["network"] == 5400
    assert spec.parameters() > 50_000

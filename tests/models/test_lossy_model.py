"""Files of lossy models: what comes back, what is refused, and what the shipped one costs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from small_lossy import SMALL_LOSSY_SPEC, small_lossy_model

from pilc_stream.errors import ModelError
from pilc_stream.models.lossy import QUALITIES, LossyModel, is_lossy_model, load_lossy_model
from pilc_stream.models.lossy_spec import LossySpec
from pilc_stream.models.model import Layer, metadata_of


def test_the_file_is_the_model() -> None:
    model = small_lossy_model()
    data = model.file_bytes
    again = load_lossy_model(data)
    assert is_lossy_model(data)
    assert not is_lossy_model(b"something else")
    assert again.file_bytes == data
    assert again.spec == SMALL_LOSSY_SPEC
    assert all(np.array_equal(again.tensors[name], model.tensors[name]) for name in model.tensors)
    # Floats are stored short: weights within half a step of the largest of their row.
    for name, values in model.floats.items():
        assert np.abs(again.floats[name] - values).max() <= np.abs(values).max() / 250
    assert LossyModel(again.spec, again.layers, again.tensors, again.floats, again.profile).file_bytes == data


def test_tables_of_every_quality_lie_between_their_knots() -> None:
    model = small_lossy_model()
    gains = np.array([model.quality(quality).gain[0] for quality in range(1, QUALITIES + 1)])
    assert gains[0] == 1500
    assert gains[-1] == 9000
    assert (np.diff(gains) > 0).all()


def test_intervals_follow_each_other() -> None:
    starts = small_lossy_model().starts
    assert (np.diff(starts, axis=1) >= 0).all()
    assert (starts[:, 0] == 0).all()
    assert (starts[:, -1] == 65536).all()
    assert (starts[1:, -1] > starts[1:, -2]).all()
    assert starts[0, 127] == 0
    assert starts[0, 128] == 65536


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"quality.gain": lambda values: values * 0}, "at least 64"),
        ({"context.unit": lambda values: values - 10**6}, "context.unit"),
        ({"table.sizes": lambda values: values * 0 + 1000}, "no room"),
        ({"quality.scale": lambda values: values[:5]}, "the specification asks for"),
    ],
)
def test_broken_tensors_are_refused(change: dict, reason: str) -> None:
    model = small_lossy_model()
    tensors = {
        name: change[name](values).astype(values.dtype) if name in change else values
        for name, values in model.tensors.items()
    }
    with pytest.raises(ModelError, match=reason):
        replace(model, tensors=tensors)


def test_broken_floats_are_refused() -> None:
    model = small_lossy_model()
    for name, value in (("synthesis.0.matrix", np.nan), ("latent.spread", -1.0)):
        floats = {**model.floats, name: np.full_like(model.floats[name], value)}
        with pytest.raises(ModelError, match=name):
            replace(model, floats=floats)


def test_sums_that_are_not_the_same_everywhere_are_refused() -> None:
    model = small_lossy_model()
    layer = model.layers["hyper.2"]
    loud = Layer(np.full_like(layer.weight, 127), np.full_like(layer.bias, (1 << 24) - 1), layer.shift)
    with pytest.raises(ModelError, match="2\\*\\*24"):
        replace(model, layers={**model.layers, "hyper.2": loud})


def test_files_that_lack_something_are_refused() -> None:
    data = small_lossy_model().file_bytes
    tensors, metadata = safetensors.numpy.load(data), metadata_of(data)
    for name in ("hyper.0.weight", "quality.gain", "synthesis.0.matrix", "synthesis.0.0.first.scale"):
        fewer = {key: values for key, values in tensors.items() if key != name}
        with pytest.raises(ModelError):
            load_lossy_model(safetensors.numpy.save(fewer, metadata))
    with pytest.raises(ModelError, match="not a readable"):
        load_lossy_model(data[:100])


def test_impossible_specifications_are_refused() -> None:
    values = SMALL_LOSSY_SPEC.to_json()
    for change in ({"slices": [1]}, {"checkered": 9}, {"widths": [4, 4]}, {"hidden_width": 0}, {"hidden_width": 4.5}):
        with pytest.raises(ModelError):
            LossySpec.from_json({**values, **change})
    with pytest.raises(ModelError, match="this release"):
        LossySpec.from_json({**values, "more": 1})

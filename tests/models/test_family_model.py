"""Files of models of the lossy family: what comes back, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

pytest.importorskip("torch")

from small_family import SMALL, small_family_model

from pilc_stream.errors import ModelError
from pilc_stream.models.family import ACTIVATION_LIMIT, FamilyModel, is_family_model, load_family_model
from pilc_stream.models.family_spec import Configuration, Tensors, float_layers, integer_layers
from pilc_stream.models.lossy import is_lossy_model
from pilc_stream.models.model import metadata_of
from pilc_stream.training.lossy.configurations import FAMILY
from pilc_stream.training.lossy.network import meta_net


def names_of(layer: Tensors) -> dict[str, tuple[int, ...]]:
    """What torch calls the numbers of a layer, and their shapes."""
    if layer.kind == "position":
        return {layer.name: layer.shape}
    if layer.kind == "gdn":
        return {f"{layer.name}.root_beta": layer.shape[:1], f"{layer.name}.root_gamma": layer.shape}
    return {f"{layer.name}.weight": layer.shape, f"{layer.name}.bias": (layer.outputs,)}


@pytest.mark.parametrize("configuration", [*FAMILY.values(), *SMALL.values()])
def test_the_parts_are_those_of_the_nets_that_train(configuration: Configuration) -> None:
    layers = [*float_layers(configuration), *integer_layers(configuration)]
    found = {name: shape for layer in layers for name, shape in names_of(layer).items()}
    state = meta_net(configuration).state_dict()
    assert found == {name: tuple(part.shape) for name, part in state.items() if not name.startswith("side_density.")}
    assert Configuration.from_json(json.loads(json.dumps(configuration.to_json()))) == configuration


@pytest.mark.parametrize("kind", SMALL)
def test_the_file_is_the_model(kind: str) -> None:
    model = small_family_model(kind)
    again = load_family_model(model.file_bytes)
    assert is_family_model(model.file_bytes)
    assert not is_family_model(b"something else")
    assert not is_lossy_model(model.file_bytes)
    assert replace(again, profile=model.profile).file_bytes == model.file_bytes


def test_intervals_follow_each_other() -> None:
    starts = small_family_model().starts
    assert starts.shape == (64 + SMALL["Conv"].hyper_width, 257)
    assert (np.diff(starts, axis=1) >= 0).all()
    assert (starts[:, 0] == 0).all()
    assert (starts[:, -1] == 65536).all()
    assert (starts[1:, -1] > starts[1:, -2]).all()


def changed(model: FamilyModel, name: str, value: int) -> FamilyModel:
    return replace(model, tensors={**model.tensors, name: np.full_like(model.tensors[name], value)})


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("table.sizes", 1000, "no room"),
        ("side.sizes", 1000, "no room"),
        ("side.median", ACTIVATION_LIMIT + 1, "side.median must lie within"),
        ("table.gelu", 2049, "table.gelu must lie within"),
        ("table.exp", 0, "must begin with a positive number"),
        ("hyper_synthesis.0.0.blocks.0.attention.position_bias", -ACTIVATION_LIMIT - 1, "must lie within"),
        ("hyper_synthesis.0.0.split.bias", 1 << 53, "sums must stay below"),
        ("hyper_synthesis.0.0.normalise.bias", -(1 << 53), "sums must stay below"),
        ("hyper_synthesis.0.0.split.shift", 25, "above 24"),
    ],
)
def test_broken_integers_are_refused(name: str, value: int, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        changed(small_family_model("CHARM"), name, value)


def test_missing_and_falling_tables_are_refused() -> None:
    model = small_family_model()
    with pytest.raises(ModelError, match="falls"):
        replace(model, tensors={**model.tensors, "table.scale": model.tensors["table.scale"][::-1].copy()})
    with pytest.raises(ModelError, match=r"the tensor side\.median is missing"):
        replace(model, tensors={name: part for name, part in model.tensors.items() if name != "side.median"})


def test_broken_floats_are_refused() -> None:
    model = small_family_model()
    for value in (np.nan, 1e9):
        floats = {**model.floats, "synthesis.0.bias": np.full_like(model.floats["synthesis.0.bias"], value)}
        with pytest.raises(ModelError, match=r"synthesis\.0\.bias"):
            replace(model, floats=floats)
    with pytest.raises(ModelError, match="not positive"):
        replace(model, tradeoff=float("nan"))


@pytest.mark.parametrize(
    "change",
    [
        {"transforms": "Other"},
        {"widths": [8, 8]},
        {"latents": 1.5},
        {"latents": 0},
        {"features": 7},
        {"hyper_widths": [4]},
        {"attention": [1, 0]},
        {"more": 1},
        {"transforms": "SwinT"},
        {"transforms": "ELIC", "widths": [1, 8, 8]},
        {"steps": 3},
        {"entropy_model": "CHARM", "steps": 5},
    ],
)
def test_configurations_without_a_network_are_refused(change: dict) -> None:
    with pytest.raises(ModelError, match="its configuration is none"):
        Configuration.from_json({**SMALL["Conv"].to_json(), **change})


def test_broken_files_are_refused() -> None:
    data = small_family_model().file_bytes
    tensors = safetensors.numpy.load(data)
    metadata = metadata_of(data)

    def saved(tensors: dict, **more: str) -> bytes:
        return safetensors.numpy.save(tensors, {**metadata, **more})

    for broken, reason in (
        (data[:-1], "not a readable"),
        (saved(tensors, format="other"), "its format is 'other'"),
        (saved(tensors, tradeoff='"a"'), "its trade-off is 'a'"),
        (saved(tensors, configuration="["), "missing or malformed"),
        (saved({name: part for name, part in tensors.items() if name != "table.exp"}), "table.exp"),
        (saved({**tensors, "synthesis.0.bias": tensors["synthesis.0.bias"].astype(np.float32)}), "synthesis.0.bias"),
    ):
        with pytest.raises(ModelError, match=reason):
            load_family_model(broken)

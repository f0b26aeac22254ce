from __future__ import annotations

import json

import pytest
from small_model import SPECS, random_model

from pilc_stream.arith.context import CHANNELS
from pilc_stream.models.spec import SIX_NEIGHBOURS, WaveSpec


@pytest.mark.parametrize("name", SPECS)
def test_a_specification_survives_json(name: str) -> None:
    spec = SPECS[name]
    assert WaveSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize("name", SPECS)
def test_the_counts_are_those_of_the_layers(name: str) -> None:
    spec = SPECS[name]
    model = random_model(spec, seed=0)
    weights = sum(layer.weight.size for layer in model.layers.values())
    biases = sum(layer.bias.size for layer in model.layers.values())
    assert spec.parameters() == weights + biases
    assert spec.macs_per_pixel()["network"] == weights
    assert spec.macs_per_pixel()["coder"] == CHANNELS
    assert all(count > 0 for count in spec.macs_per_pixel().values())


def test_the_architecture_of_the_fast_profile_costs_what_is_said_of_it() -> None:
    spec = WaveSpec(SIX_NEIGHBOURS, taps=6, trunk=(22,), head=11)
    assert spec.inputs == 47
    assert spec.direct == 18
    assert 1900 < sum(spec.macs_per_pixel().values()) <= 2200

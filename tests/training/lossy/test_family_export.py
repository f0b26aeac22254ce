"""From float nets to what ships: every part computes what the trained one does, in float and in integers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from small_family import SMALL, small_family_model, small_net
from torch import nn

from pilc_stream.backends.lossy.family.card import TorchMachine
from pilc_stream.backends.lossy.family.floats import FloatNetwork
from pilc_stream.backends.lossy.family.integers import IntegerNetwork
from pilc_stream.backends.lossy.family.machine import HostMachine, Machine
from pilc_stream.models.family_spec import (
    Part,
    analysis_parts,
    hyper_analysis_parts,
    hyper_synthesis_parts,
    split_part,
    step_parts,
    synthesis_parts,
)

ONE = 256
MACHINES = {"float64": HostMachine("float64"), "int64": HostMachine("int64"), "torch": TorchMachine("cpu")}


@pytest.fixture(params=SMALL)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def inputs(rows: int, columns: int, channels: int) -> np.ndarray:
    """Multiples of 256ths."""
    return (np.random.default_rng(rows).normal(0, 2, (rows, columns, channels)) * ONE).round() / ONE


def wanted(module: nn.Module, values: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        out = module(torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1)[None])
    found: np.ndarray = out[0].permute(1, 2, 0).numpy()
    return found


def apart(found: np.ndarray, module: nn.Module, values: np.ndarray) -> float:
    """The root of the mean squared error, as a share of what was wanted."""
    right = wanted(module, values)
    return float(np.sqrt(np.square(found - right).mean() / np.square(right).mean()))


@pytest.mark.parametrize("machine", ["float64", "torch"])
def test_transforms_are_the_trained_ones_but_for_their_half_floats(kind: str, machine: str) -> None:
    net, model, on = small_net(kind), small_family_model(kind), MACHINES[machine]
    network = FloatNetwork(model, on)
    given = net.configuration
    cases: list[tuple[list[Part], nn.Module, tuple[int, int, int]]] = [
        (analysis_parts(given), net.analysis, (128, 192, 3)),
        (hyper_analysis_parts(given), net.hyper_analysis, (24, 28, given.latents)),
        (synthesis_parts(given), net.synthesis, (12, 20, given.latents)),
    ]
    for parts, module, shape in cases:
        values = inputs(*shape)
        found = on.host(network.run(parts, on.floats(values)))
        assert apart(found, module, values) < 0.01, parts[0].name


def test_integer_networks_are_the_trained_ones_and_equal_everywhere(kind: str) -> None:
    net, model = small_net(kind), small_family_model(kind)
    given = net.configuration

    def check(parts: Sequence[Part], module: nn.Module, shape: tuple[int, int, int], most: float) -> None:
        values = inputs(*shape)
        outs = [_integers(IntegerNetwork(model, on), on, parts, values) for on in MACHINES.values()]
        assert all(np.array_equal(out, outs[0]) for out in outs)
        assert apart(outs[0] / ONE, module, values) < most, parts[0].name

    check(hyper_synthesis_parts(given), net.hyper_synthesis[0], (6, 7, given.hyper_width), 0.02)
    split = split_part(given)
    if split is not None:
        check([split], net.hyper_synthesis[1].parts, (6, 7, given.features), 0.01)
    for number, step in enumerate(step_parts(given)):
        model_parts = net.entropy_model
        check(step.distribution, model_parts.distributions[number], (6, 7, step.distribution[0].inputs), 0.02)
        check(step.residual, model_parts.residuals[number], (6, 7, step.residual[0].inputs), 0.02)
        if step.merge:
            check(step.merge, model_parts.merges[number], (6, 7, step.merge[0].inputs), 0.01)


def _integers(network: IntegerNetwork, on: Machine, parts: Sequence[Part], values: np.ndarray) -> np.ndarray:
    found = on.host(network.run(parts, on.integers(np.rint(values * ONE))))
    assert found.dtype == np.int64
    return found


def test_curves() -> None:
    on = MACHINES["int64"]
    network = IntegerNetwork(small_family_model("CHARM"), on)
    values = np.arange(-3000, 3001)
    real = torch.from_numpy(values / ONE)
    assert np.abs(network.gelu(values) / ONE - nn.functional.gelu(real).numpy()).max() <= 0.5 / ONE + 1e-9
    assert np.abs(network.half_tangent(values) / ONE - 0.5 * real.tanh().numpy()).max() <= 0.5 / ONE + 1e-9


@pytest.mark.parametrize("machine", MACHINES)
def test_roots_are_rounded_down(machine: str) -> None:
    on = MACHINES[machine]
    roots = np.array([0, 1, 2, 3, 12, 1000, (1 << 25) + 1, (1 << 26) - 1])
    for offset in (-1, 0, 1):
        squares = np.maximum(0, roots * roots + offset)
        found = on.host(on.root(on.integers(squares)))
        assert ((found * found <= squares) & (squares < (found + 1) ** 2)).all()


@pytest.mark.parametrize("machine", MACHINES)
def test_large_sums_are_exact(machine: str) -> None:
    """Sums near the limit, whose neighbours float32 could not tell apart."""
    on = MACHINES[machine]
    values = np.full((3, 4), (1 << 20) - 1)
    factors = np.full((4, 2), (1 << 15) - 1) * 2**15
    factors[0, 0] -= 1
    found = on.host(on.product(on.integers(values), on.factors(factors)))
    assert np.array_equal(found, values @ factors)

"""Rounding that compensates: integers within their limits, closer to the float outputs than the nearest ones."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pilc_stream.models.spec import SIX_NEIGHBOURS, WaveSpec
from pilc_stream.training.data import RowSource
from pilc_stream.training.export import check_parity, export_model
from pilc_stream.training.network import WEIGHT_LIMIT, WaveNet
from pilc_stream.training.rounding import OutputMoments, compensated, refitted, round_weights
from pilc_stream.training.train import batch_bits


def correlated(rows: int, columns: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(rows, 1, generator=generator)
    return 20 * (common + 0.1 * torch.randn(rows, columns, generator=generator))


def covariance(inputs: torch.Tensor) -> torch.Tensor:
    return inputs.double().T.cov(correction=0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(8, 40))
def test_outputs_of_correlated_inputs_are_closer_than_with_the_nearest_integers(seed: int, columns: int) -> None:
    inputs = correlated(500, columns, seed).double()
    errors = [0.0, 0.0]
    for weight in 30 * torch.randn(6, columns, generator=torch.Generator().manual_seed(seed + 1)).double():
        rounded = compensated(weight, covariance(inputs))
        assert torch.equal(rounded, torch.round(rounded))
        assert rounded.abs().max() <= WEIGHT_LIMIT
        nearest = torch.round(weight).clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT)
        for i, candidate in enumerate((rounded, nearest)):
            errors[i] += (inputs @ (candidate - weight)).var().item()
    assert errors[0] < 0.85 * errors[1]


def test_integers_stay_and_inputs_that_never_vary_are_no_obstacle() -> None:
    inputs = correlated(200, 9, 4)
    for weight in torch.randint(-127, 128, (4, 9), generator=torch.Generator().manual_seed(3)).double():
        assert torch.equal(compensated(weight, covariance(inputs)), weight)
        constant = inputs.clone()
        constant[:, 2:5] = 0
        assert torch.equal(compensated(weight, covariance(constant)), weight)
        assert torch.equal(compensated(weight, torch.zeros(9, 9).double()), weight)


def test_weights_are_refitted_to_what_the_inputs_have_become() -> None:
    before = correlated(400, 6, 1).double()
    after = before + 8 * torch.randn(400, 6, generator=torch.Generator().manual_seed(2)).double()
    weight = torch.randn(6, generator=torch.Generator().manual_seed(3)).double()
    wanted = before @ weight
    cross = (after - after.mean(0)).T @ (wanted - wanted.mean()) / len(after)
    fitted = refitted(weight, OutputMoments(covariance(after), after.mean(0), wanted.mean(), cross))
    assert (after @ fitted - wanted).var() < 0.8 * (after @ weight - wanted).var()


def test_a_rounded_network_is_an_integer_model_and_predicts_nearly_as_before() -> None:
    spec = WaveSpec(SIX_NEIGHBOURS, 6, (12, 10), 8)
    torch.manual_seed(7)
    net = WaveNet(spec)
    y, x = np.mgrid[:40, :50]
    tile = np.stack([2 * x + y, 90 + x, 200 - 3 * y], axis=2) + np.random.default_rng(1).integers(0, 9, (40, 50, 3))
    rows = RowSource(spec).rows([tile.astype(np.uint8)])[0]
    batch = rows.batch(0, len(rows))
    with torch.no_grad():
        before = net.eval()(batch)
        round_weights(net, rows, batch_bits)
        after = net.eval()(batch)
    assert net.quantised
    for name in spec.layers():
        weight, _, shift = net.layer(name).integers()
        assert torch.equal(weight / torch.exp2(shift.float())[:, None], net.layer(name).weight)
    check_parity(net, export_model(net, "rounded", {}), rows)
    # Sixteenths of a level and eighths of an octave.
    assert (after.mean - before.mean).abs().mean() < 4
    assert (after.scale - before.scale).abs().mean() < 1


def test_noise_on_the_weights_stays_within_its_share_of_a_step() -> None:
    layer = WaveNet(WaveSpec(SIX_NEIGHBOURS, 6, (8,), 8, 16)).layer("trunk.0")
    unit = torch.eye(layer.weight.shape[1])
    plain = layer(unit).T
    layer.weight_noise = 0.5
    noisy = layer(unit).T
    steps = (noisy - plain) * torch.exp2(layer.shifts().float())[:, None]
    assert 0.2 < steps.abs().max() <= 0.2501
    layer.eval()
    assert torch.equal(layer(unit).T, plain)

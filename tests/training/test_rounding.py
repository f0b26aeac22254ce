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
from pilc_stream.training.rounding import compensated, round_weights


def correlated(rows: int, columns: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(rows, 1, generator=generator)
    return 20 * (common + 0.3 * torch.randn(rows, columns, generator=generator))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(8, 40))
def test_outputs_of_correlated_inputs_are_closer_than_with_the_nearest_integers(seed: int, columns: int) -> None:
    inputs = correlated(500, columns, seed).double()
    weight = 30 * torch.randn(6, columns, generator=torch.Generator().manual_seed(seed + 1)).double()
    rounded, nearest = compensated(weight, inputs), torch.round(weight).clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT)
    assert torch.equal(rounded, torch.round(rounded))
    assert rounded.abs().max() <= WEIGHT_LIMIT
    errors = [(inputs @ (candidate - weight).T).square().mean().item() for candidate in (rounded, nearest)]
    assert errors[0] < 0.85 * errors[1]


def test_integers_stay_and_inputs_that_never_vary_are_no_obstacle() -> None:
    weight = torch.randint(-127, 128, (4, 9), generator=torch.Generator().manual_seed(3)).double()
    inputs = correlated(200, 9, 4)
    assert torch.equal(compensated(weight, inputs), weight)
    inputs[:, 2:5] = 0
    assert torch.equal(compensated(weight, inputs), weight)
    assert torch.equal(compensated(weight, torch.zeros(10, 9)), weight)


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
        round_weights(net, rows)
        after = net.eval()(batch)
    assert net.quantised
    for name in spec.layers():
        weight, _, shift = net.layer(name).integers()
        assert torch.equal(weight / torch.exp2(shift.float())[:, None], net.layer(name).weight)
    check_parity(net, export_model(net, "rounded", {}), rows)
    # Sixteenths of a level and eighths of an octave.
    assert (after.mean - before.mean).abs().mean() < 4
    assert (after.scale - before.scale).abs().mean() < 1

"""The family's networks, tiny: shapes of any size, finite rates, gradients everywhere, exact densities; they learn."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from pilc_stream.training.lossy.configurations import Configuration
from pilc_stream.training.lossy.density import LEAST_SCALE, FactorisedDensity, at_least, gaussian_bits, rounded
from pilc_stream.training.lossy.entropy import Charm
from pilc_stream.training.lossy.network import LossyNet
from pilc_stream.training.lossy.swin import WindowAttention

CONV = Configuration("Conv", "hyperprior", "Conv", (8, 8, 12), 8, 8, 16, hyper_widths=(8, 8))
SWIN = replace(CONV, transforms="SwinT", widths=(8, 16, 16), depths=(1, 1, 2, 1))
ELIC = replace(CONV, transforms="ELIC", residual_blocks=1, attention=(True, True))
CHARM = replace(
    ELIC,
    entropy_model="CHARM",
    hyper_transforms="SwinT",
    hyper_depths=(2, 1),
    steps=4,
    step_widths=(8, 8),
    residual_widths=(8,),
)
TINY = {
    "Conv": CONV,
    "SwinT": SWIN,
    "ELIC": ELIC,
    "CHARM": CHARM,
    "CHARM merged and split": replace(CHARM, merged=True, split_width=4),
}


@pytest.fixture(params=TINY)
def net(request: pytest.FixtureRequest) -> LossyNet:
    torch.manual_seed(2)
    return LossyNet(TINY[request.param])


@pytest.fixture
def pictures() -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    waves = [torch.sin(x / (5 + i)) * torch.cos(y / (9 - i)) for i in range(6)]
    return (0.5 + 0.4 * torch.stack(waves)).reshape(2, 3, 64, 64)


@pytest.mark.parametrize("size", [(1, 1), (37, 90), (64, 128)])
def test_pictures_of_any_size_come_back_with_a_finite_rate(net: LossyNet, size: tuple[int, int]) -> None:
    net.eval()
    with torch.no_grad():
        coded = net(torch.rand(1, 3, *size))
        again = net(torch.zeros(1, 3, *size))
    assert coded.pictures.shape == (1, 3, *size)
    assert torch.isfinite(coded.pictures).all()
    assert torch.isfinite(coded.bits)
    assert coded.bits > 0
    assert torch.isfinite(again.bits)


def test_steps_lower_the_loss_and_gradients_reach_all_parameters(net: LossyNet, pictures: torch.Tensor) -> None:
    net.train()
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    losses, moved = [], set()
    for step in range(8):
        torch.manual_seed(step % 2)
        coded = net(pictures)
        error = (coded.pictures - pictures).square().mean() * 255**2
        loss = coded.bits / (2 * 64 * 64) + 0.01 * error + net.side_density.median_loss()
        optimiser.zero_grad()
        loss.backward()
        # Side information that rounds to nothing but zeros gives what it goes into no gradient: not in every step.
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
        moved |= {name for name, p in net.named_parameters() if p.grad.any()}
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert moved == {name for name, _ in net.named_parameters()}


def test_the_rate_of_rounded_latents_is_near_that_of_noisy_ones(net: LossyNet, pictures: torch.Tensor) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        noisy = float(net.train()(pictures).bits)
        exact = float(net.eval()(pictures).bits)
    assert exact == pytest.approx(noisy, rel=0.3)


@pytest.mark.parametrize("scale", [0.2, 1.0, 7.0])
def test_probabilities_under_a_gaussian_sum_to_one(scale: float) -> None:
    values = torch.arange(-60.0, 61.0, dtype=torch.float64)
    mean = torch.full_like(values, 0.3)
    bits = gaussian_bits(values, mean, torch.full_like(values, scale))
    assert float(torch.exp2(-bits).sum()) == pytest.approx(1, abs=1e-5)
    at_three = 0.5 * (math.erf((3.5 - 0.3) / scale / 2**0.5) - math.erf((2.5 - 0.3) / scale / 2**0.5))
    assert float(bits[63]) == pytest.approx(-math.log2(max(at_three, 1e-9)), rel=1e-4)


def test_learned_probabilities_sum_to_one() -> None:
    torch.manual_seed(4)
    density = FactorisedDensity(3)
    with torch.no_grad():
        for factor in density.factors:
            factor.normal_()
        values = torch.arange(-400.0, 401.0)[None, None, None].expand(1, 3, 1, -1)
        total = torch.exp2(-density.bits(values)).sum(-1)
    torch.testing.assert_close(total, torch.ones(1, 3, 1), atol=1e-3, rtol=0)


def test_the_median_is_where_half_of_the_mass_is() -> None:
    torch.manual_seed(5)
    density = FactorisedDensity(2)
    optimiser = torch.optim.Adam([density.median], 0.05)
    for _ in range(500):
        optimiser.zero_grad()
        density.median_loss().backward()
        assert all(p.grad is None for p in density.matrices)
        optimiser.step()
    below = torch.arange(-400.0, 0.0)[None, None, None] + density.offsets() + 0.5
    with torch.no_grad():
        mass = torch.exp2(-density.bits(below)).sum(-1).flatten()
    torch.testing.assert_close(mass, torch.full((2,), 0.5), atol=0.02, rtol=0)


def test_rounding_keeps_offsets_and_gradients() -> None:
    values = torch.tensor([0.2, 1.7], requires_grad=True)
    out = rounded(values, torch.tensor([0.4, 0.4]))
    torch.testing.assert_close(out, torch.tensor([0.4, 1.4]))
    out.sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [1, 1]


def test_a_floor_lets_values_come_back_up_but_not_sink() -> None:
    values = torch.tensor([0.01, 0.01, 2.0], requires_grad=True)
    (at_least(values, LEAST_SCALE) * torch.tensor([1.0, -1.0, 1.0])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0, -1, 1]


def test_a_step_sees_only_earlier_slices() -> None:
    torch.manual_seed(6)
    model = Charm(8, 4, 4, (8,), (8,), merged=True).eval()
    features = [torch.randn(1, 4, 5, 5)] * 4
    latents = 4 * torch.randn(1, 8, 5, 5)
    changed = latents.clone()
    changed[:, 4:6] += 3
    with torch.no_grad():
        first, second = model(latents, features), model(changed, features)
    assert torch.equal(first.bits[:, :4], second.bits[:, :4])
    assert torch.equal(first.latents[:, :4], second.latents[:, :4])
    assert not torch.equal(first.bits[:, 6:], second.bits[:, 6:])


@pytest.mark.parametrize("shifted", [False, True])
def test_tokens_attend_within_their_window_only(shifted: bool) -> None:
    torch.manual_seed(7)
    attention = WindowAttention(8, 4, shifted).eval()
    tokens = torch.randn(1, 8, 8, 8)
    changed = tokens.clone()
    changed[0, 0, 0] += 1
    with torch.no_grad():
        moved = (attention(tokens) != attention(changed)).any(-1)[0]
    edge = 2 if shifted else 4
    assert moved[:edge, :edge].all()
    assert int(moved.sum()) == edge * edge

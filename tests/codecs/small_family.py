"""Small models of the lossy family for tests, of every kind of part."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pilc_stream.models.family import FamilyModel, load_family_model  # noqa: E402
from pilc_stream.models.family_spec import Configuration  # noqa: E402
from pilc_stream.training.lossy.family_export import export_net  # noqa: E402
from pilc_stream.training.lossy.family_train import batch_loss, in_unit  # noqa: E402
from pilc_stream.training.lossy.network import LossyNet  # noqa: E402

CONV = Configuration("Conv", "hyperprior", "Conv", (12, 12, 12), 12, 8, 24, hyper_widths=(10, 12))
ELIC = replace(CONV, transforms="ELIC", residual_blocks=1, attention=(True, True))
CHARM = replace(
    CONV,
    entropy_model="CHARM",
    features=12,
    hyper_transforms="SwinT",
    hyper_widths=(),
    hyper_depths=(2, 1),
    steps=3,
    step_widths=(8, 8),
    residual_widths=(8,),
)
SMALL = {
    "Conv": CONV,
    "ELIC": ELIC,
    "SwinT": replace(CONV, transforms="SwinT", depths=(1, 1, 2, 1)),
    "CHARM": CHARM,
    "CHARM merged and split": replace(CHARM, merged=True, split_width=6),
    "CHARM on convolutions": replace(CHARM, hyper_transforms="Conv", hyper_depths=(), hyper_widths=(10, 12)),
}
TRADEOFF = 0.1


def picture(height: int, width: int, channels: int | None = 3, seed: int = 0) -> np.ndarray:
    """Waves, edges and noise."""
    y, x, c = np.indices((height, width, channels or 1))
    noise = np.random.default_rng(seed).normal(0, 4, y.shape)
    waves = 45 * np.sin((x + 9 * c) / (7 + seed)) * np.cos(y / (11 + seed))
    pixels = 120 + waves + 50 * ((x // 23 + y // 17) % 2) + noise
    whole = pixels.clip(0, 255).astype(np.uint8)
    return whole if channels else whole[:, :, 0]


@cache
def small_net(name: str, steps: int = 0) -> LossyNet:
    """A net that has learned a little, or one at its start whose latents and distributions are made to differ."""
    torch.manual_seed(5)
    net = LossyNet(SMALL[name]).train()
    if not steps:
        with torch.no_grad():
            for part, weights in net.named_parameters():
                if part.endswith("position_bias"):
                    weights.normal_()
                elif weights.ndim > 1 and part.startswith(("hyper", "entropy")):
                    weights.mul_(1.6)
                elif part.startswith("analysis") and weights.shape[0::2] == (net.configuration.latents, 5):
                    weights.mul_(20)
    optimiser = torch.optim.Adam(net.parameters(), lr=4e-3)
    whole, random = picture(256, 256), np.random.default_rng(5)
    for _ in range(steps):
        corners = random.integers(0, 193, (2, 2))
        pictures = in_unit(np.stack([whole[y : y + 64, x : x + 64] for y, x in corners]))
        optimiser.zero_grad()
        (batch_loss(net, pictures, TRADEOFF) + net.side_density.median_loss()).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
    return net.eval()


@cache
def small_family_model(name: str = "Conv", steps: int = 0) -> FamilyModel:
    """The model of such a net, as it is read from its file."""
    return load_family_model(export_net(small_net(name, steps), "lossy-small", TRADEOFF, {}).file_bytes)

"""What the convolutional transforms are built of: strided convolutions, GDN, ELIC's residual and attention blocks.

All work on float `(n, channels, h, w)`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

KERNEL = 5
"""Of the convolutions that change the resolution."""

BETA_FLOOR = 1e-6
GAMMA_START = 0.1


def down(inputs: int, outputs: int, kernel: int = KERNEL) -> nn.Conv2d:
    """A convolution to half the resolution."""
    return nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2)


def up(inputs: int, outputs: int, kernel: int = KERNEL) -> nn.ConvTranspose2d:
    """A transposed convolution to twice the resolution."""
    return nn.ConvTranspose2d(inputs, outputs, kernel, stride=2, padding=kernel // 2, output_padding=1)


def same(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    """A convolution that keeps the resolution."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


class Gdn(nn.Module):
    """Generalised divisive normalisation (Ballé 2016): values over the root of `beta + gamma values²`, or times it.

    `beta` and `gamma` are kept positive as squares of the parameters.
    """

    def __init__(self, channels: int, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        self.root_beta = nn.Parameter(torch.ones(channels))
        self.root_gamma = nn.Parameter((GAMMA_START * torch.eye(channels) + 1e-4).sqrt())

    def forward(self, values: Tensor) -> Tensor:
        """Normalised values, of the same shape."""
        gamma = self.root_gamma.square()[:, :, None, None]
        energy = functional.conv2d(values.square(), gamma, self.root_beta.square() + BETA_FLOOR)
        return values * (energy.sqrt() if self.inverse else energy.rsqrt())


class ResidualBottleneck(nn.Module):
    """ELIC's residual block (He 2022): 1x1 to half the channels, 3x3, 1x1 back, added to what came in."""

    def __init__(self, channels: int) -> None:
        half = channels // 2
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, half, 1), nn.ReLU(), same(half, half), nn.ReLU(), nn.Conv2d(half, channels, 1)
        )

    def forward(self, values: Tensor) -> Tensor:
        """The block's output, of the same shape."""
        changed: Tensor = self.layers(values)
        return values + changed


class Attention(nn.Module):
    """ELIC's attention (Cheng 2020, without the non-local part): a gate of three blocks on a trunk of three blocks."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*(ResidualBottleneck(channels) for _ in range(3)))
        self.gate = nn.Sequential(
            *(ResidualBottleneck(channels) for _ in range(3)), nn.Conv2d(channels, channels, 1), nn.Sigmoid()
        )

    def forward(self, values: Tensor) -> Tensor:
        """The gated trunk added to the values."""
        changed: Tensor = self.trunk(values) * self.gate(values)
        return values + changed

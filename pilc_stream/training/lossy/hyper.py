"""Hyper transforms: latents to side information at a quarter of their edges, and that to features of distributions.

Latents are float `(n, latents, h, w)`, h and w multiples of 4.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pilc_stream.training.lossy.blocks import down, same, up
from pilc_stream.training.lossy.swin import SwinDown, SwinUp

WINDOW = 4


def conv_hyper_analysis(latents: int, width: int) -> nn.Sequential:
    """3x3, then twice 5x5 and stride 2 (Minnen 2018), to `width` channels."""
    return nn.Sequential(same(latents, width), nn.ReLU(), down(width, width), nn.ReLU(), down(width, width))


def conv_hyper_synthesis(width: int, widths: Sequence[int], features: int) -> nn.Sequential:
    """Twice 5x5 to double the resolution, of `widths` channels, then 3x3 to `features`."""
    first, second = widths
    return nn.Sequential(up(width, first), nn.ReLU(), up(first, second), nn.ReLU(), same(second, features))


def swin_hyper_analysis(latents: int, width: int, depths: Sequence[int]) -> nn.Sequential:
    """Two stages of merged patches and blocks (Zhu 2022), both `width` wide; `depths` from the latents on."""
    return nn.Sequential(SwinDown(latents, width, depths[0], WINDOW), SwinDown(width, width, depths[1], WINDOW))


def swin_hyper_synthesis(width: int, depths: Sequence[int], features: int) -> nn.Sequential:
    """The mirror of `swin_hyper_analysis`, to `features` channels."""
    return nn.Sequential(SwinUp(width, width, depths[1], WINDOW), SwinUp(width, features, depths[0], WINDOW))


class Shared(nn.Module):
    """Every channel-wise step sees all features."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, features: Tensor) -> list[Tensor]:
        """The features once for each step."""
        return [features] * self.steps


class Split(nn.Module):
    """A 1x1 convolution for each channel-wise step makes a smaller tensor of the features; all at once, none waits."""

    def __init__(self, steps: int, features: int, width: int) -> None:
        super().__init__()
        self.steps = steps
        self.parts = nn.Conv2d(features, steps * width, 1)

    def forward(self, features: Tensor) -> list[Tensor]:
        """Features `(n, width, h, w)` for each step."""
        return list(self.parts(features).chunk(self.steps, dim=1))

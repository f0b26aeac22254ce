"""Entropy models: from hyper features to the distribution of the latents, all at once or channel by channel.

A model takes latents `(n, latents, h, w)` and the features for each of its steps; in training it sees the latents
themselves, so that all steps are done in one pass and gradients flow, and gives what a decoder would have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from pilc_stream.training.lossy.blocks import same
from pilc_stream.training.lossy.density import gaussian_bits, noisy, rounded

RESIDUAL_LIMIT = 0.5
"""Rounding moves a latent by no more; neither does its prediction of what rounding took."""


@dataclass(frozen=True)
class Coded:
    """`latents`: as the decoder has them; `bits`: of each of them."""

    latents: Tensor
    bits: Tensor


class MeanScale(nn.Module):
    """The mean-scale hyperprior (Minnen 2018): the features are the means and scales of all latents.

    Without `with_bits` bits are given as 0, as a decoder, which is timed so, needs none.
    """

    def __init__(self, latents: int) -> None:
        super().__init__()
        self.with_bits = True
        self.features = 2 * latents

    def forward(self, latents: Tensor, features: Sequence[Tensor]) -> Coded:
        """What the decoder has, and the bits of each latent."""
        mean, scale = features[0].chunk(2, dim=1)
        return _coded(latents, mean, functional.softplus(scale), self)


class Charm(nn.Module):
    """Channel-wise conditional model (Minnen and Singh 2020): the latents in slices, each given those before it.

    A step's network of 3x3 convolutions, `widths` wide, gives mean and scale of a slice from the features and all
    decoded slices; another, `residual_widths` wide, predicts what rounding took from it, from the same and the slice.
    The prediction is added, or (`merged`) goes with the slice through a 3x3 convolution. `with_bits`: as in
    `MeanScale`.
    """

    def __init__(
        self,
        latents: int,
        features: int,
        steps: int,
        widths: Sequence[int],
        residual_widths: Sequence[int],
        merged: bool,
    ) -> None:
        super().__init__()
        self.with_bits = True
        self.slice = latents // steps
        known = [features + step * self.slice for step in range(steps)]
        self.distributions = nn.ModuleList(_network((size, *widths, 2 * self.slice)) for size in known)
        self.residuals = nn.ModuleList(
            _network((size + self.slice, *residual_widths, self.slice)) for size in known if residual_widths
        )
        merges = steps if merged and residual_widths else 0
        self.merges = nn.ModuleList(same(2 * self.slice, self.slice) for _ in range(merges))

    def forward(self, latents: Tensor, features: Sequence[Tensor]) -> Coded:
        """What the decoder has, and the bits of each latent."""
        decoded: list[Tensor] = []
        bits: list[Tensor] = []
        for step, values in enumerate(torch.split(latents, self.slice, dim=1)):
            known = torch.cat([features[step], *decoded], dim=1)
            mean, scale = self.distributions[step](known).chunk(2, dim=1)
            coded = _coded(values, mean, functional.softplus(scale), self)
            decoded.append(self._improved(step, coded.latents, known))
            bits.append(coded.bits)
        return Coded(torch.cat(decoded, dim=1), torch.cat(bits, dim=1))

    def _improved(self, step: int, values: Tensor, known: Tensor) -> Tensor:
        if not len(self.residuals):
            return values
        residual = RESIDUAL_LIMIT * torch.tanh(self.residuals[step](torch.cat([known, values], dim=1)))
        if not len(self.merges):
            improved: Tensor = values + residual
            return improved
        # As an addition to the slice it starts out as one that changes little, and can become any other map.
        merged: Tensor = values + self.merges[step](torch.cat([values, residual], dim=1))
        return merged


def _network(sizes: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [same(inputs, outputs), nn.GELU()]
    return nn.Sequential(*layers[:-1])


def _coded(latents: Tensor, mean: Tensor, scale: Tensor, model: MeanScale | Charm) -> Coded:
    # Distributions are float32 also where networks compute in less.
    latents, mean, scale = latents.float(), mean.float(), scale.float()
    values = rounded(latents, mean)
    if not model.with_bits:
        return Coded(values, torch.zeros_like(values))
    return Coded(values, gaussian_bits(noisy(latents) if model.training else values, mean, scale))

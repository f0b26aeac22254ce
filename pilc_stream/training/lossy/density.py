"""Bits that latents take: under Gaussians of given means and scales, and under a density learned for each channel.

Latents are whole numbers apart from an offset; their probability is the density's mass within half a unit. In training
noise stands in for rounding, where the rate is asked for, and rounding with a straight-through gradient elsewhere.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAST_SCALE = 0.11
LEAST_PROBABILITY = 1e-9
FILTERS = (3, 3, 3)
SPREAD = 10.0
"""Of the learned densities at the start."""


class _Floor(torch.autograd.Function):
    """max(values, floor), whose gradient passes where the values are above, or would move up."""

    @staticmethod
    def forward(context, values: Tensor, floor: float) -> Tensor:  # type: ignore[no-untyped-def]
        context.save_for_backward(values)
        context.floor = floor
        return values.clamp(min=floor)

    @staticmethod
    def backward(context, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        (values,) = context.saved_tensors
        passes = (values >= context.floor) | (gradient < 0)
        return gradient * passes, None


def at_least(values: Tensor, floor: float) -> Tensor:
    """max(values, floor), with a gradient that lets values below the floor come back up."""
    floored: Tensor = _Floor.apply(values, floor)  # type: ignore[no-untyped-call]
    return floored


def rounded(values: Tensor, offset: Tensor) -> Tensor:
    """`offset` plus whole numbers, nearest to the values; the gradient is that of the values."""
    exact = torch.round(values - offset) + offset
    return values + (exact - values).detach()


def noisy(values: Tensor) -> Tensor:
    """The values with uniform noise of one unit's width, as rounding leaves them."""
    return values + torch.rand_like(values) - 0.5


def gaussian_bits(values: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Bits of each value, with the mass of `(mean, scale)` within half a unit of it; `scale` is floored."""
    scale = at_least(scale, LEAST_SCALE)
    # From the upper tail, where the difference of two small numbers is exact.
    apart = (values - mean).abs()
    upper, lower = (0.5 - apart) / scale, (-0.5 - apart) / scale
    return _bits(0.5 * torch.erfc(-upper * 0.5**0.5) - 0.5 * torch.erfc(-lower * 0.5**0.5))


def _bits(probability: Tensor) -> Tensor:
    return -torch.log2(at_least(probability, LEAST_PROBABILITY))


class FactorisedDensity(nn.Module):
    """A learned density for each channel, by its cumulative function (Ballé 2018, appendix 6.1); and its median."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        sizes = (1, *FILTERS, 1)
        share = SPREAD ** (1 / (len(sizes) - 1))
        self.matrices, self.biases, self.factors = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in pairwise(sizes):
            start = torch.log(torch.expm1(torch.tensor(1 / share / outputs)))
            self.matrices.append(nn.Parameter(start.expand(channels, outputs, inputs).clone()))
            self.biases.append(nn.Parameter(torch.rand(channels, outputs, 1) - 0.5))
            if outputs > 1 or inputs == 1:
                self.factors.append(nn.Parameter(torch.zeros(channels, outputs, 1)))
        self.median = nn.Parameter(torch.zeros(channels))

    def offsets(self) -> Tensor:
        """The medians, `(1, channels, 1, 1)`: what values are rounded around."""
        return self.median[None, :, None, None]

    def bits(self, values: Tensor) -> Tensor:
        """Bits of each value of `(n, channels, h, w)`."""
        count, channels, height, width = values.shape
        flat = values.transpose(0, 1).reshape(channels, 1, -1)
        lower, upper = self._logits(flat - 0.5), self._logits(flat + 0.5)
        # Both on the side of the smaller tail.
        sign = -torch.sign(lower + upper).detach()
        mass = (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()
        return _bits(mass).reshape(channels, count, height, width).transpose(0, 1)

    def median_loss(self) -> Tensor:
        """How far the medians are from where the cumulative functions pass a half; moves nothing but the medians."""
        return self._logits(self.median[:, None, None], frozen=True).abs().sum()

    def _logits(self, values: Tensor, frozen: bool = False) -> Tensor:
        def taken(parameter: Tensor) -> Tensor:
            return parameter.detach() if frozen else parameter

        for place, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            # No matrix product: under autocast that would round.
            values = (functional.softplus(taken(matrix))[..., None] * values[:, None]).sum(2) + taken(bias)
            if place < len(self.factors):
                values = values + torch.tanh(taken(self.factors[place])) * torch.tanh(values)
        return values

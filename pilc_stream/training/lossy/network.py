"""A member of the lossy family as one torch module: transforms, hyper transforms and entropy model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pilc_stream.training.lossy import hyper, transforms
from pilc_stream.training.lossy.configurations import Configuration
from pilc_stream.training.lossy.density import FactorisedDensity, noisy, rounded
from pilc_stream.training.lossy.entropy import Charm, MeanScale

STRIDE = 64
"""Of the side information: pictures are filled up to multiples of it."""

PARTS = ("analysis", "hyper_analysis", "hyper_synthesis", "entropy_model", "synthesis")
DECODER_PARTS = ("synthesis", "hyper_synthesis", "entropy_model")


@dataclass(frozen=True)
class Reconstruction:
    """`pictures`: float as given, not clipped; `bits`: a scalar, of all pictures together, side information and all."""

    pictures: Tensor
    bits: Tensor


class LossyNet(nn.Module):
    """Pictures through latents and back, with the bits that these would take."""

    def __init__(self, configuration: Configuration) -> None:
        super().__init__()
        self.configuration = configuration
        self.analysis, self.synthesis = _transforms(configuration)
        self.hyper_analysis, self.hyper_synthesis = _hyper_transforms(configuration)
        self.entropy_model = _entropy_model(configuration)
        self.side_density = FactorisedDensity(configuration.hyper_width)

    def forward(self, pictures: Tensor) -> Reconstruction:
        """Pictures `(n, 3, h, w)` in [0, 1], of any size, as they would come back, and the bits.

        In training the bits are those of noisy latents, otherwise of rounded ones.
        """
        height, width = pictures.shape[2:]
        filled = functional.pad(pictures, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        latents = self.analysis(filled - 0.5)
        side = self.hyper_analysis(latents).float()
        offsets = self.side_density.offsets()
        side_bits = self.side_density.bits(noisy(side) if self.training else rounded(side, offsets))
        coded = self.entropy_model(latents, self.hyper_synthesis(rounded(side, offsets)))
        out = self.synthesis(coded.latents).float() + 0.5
        return Reconstruction(out[:, :, :height, :width], side_bits.sum() + coded.bits.sum())


def parameters_of(net: nn.Module) -> int:
    """How many trained numbers a module has."""
    return sum(parameter.numel() for parameter in net.parameters())


def _transforms(configuration: Configuration) -> tuple[nn.Module, nn.Module]:
    kind, widths, latents = configuration.transforms, configuration.widths, configuration.latents
    if kind == "Conv":
        return transforms.conv_analysis(widths, latents), transforms.conv_synthesis(widths, latents)
    more: tuple[Any, ...] = (
        (configuration.depths,) if kind == "SwinT" else (configuration.residual_blocks, configuration.attention)
    )
    if kind == "SwinT":
        return transforms.swin_analysis(widths, latents, *more), transforms.swin_synthesis(widths, latents, *more)
    return transforms.elic_analysis(widths, latents, *more), transforms.elic_synthesis(widths, latents, *more)


def _hyper_transforms(configuration: Configuration) -> tuple[nn.Module, nn.Module]:
    latents, width, features = configuration.latents, configuration.hyper_width, configuration.features
    if configuration.hyper_transforms == "Conv":
        analysis: nn.Module = hyper.conv_hyper_analysis(latents, width)
        synthesis: nn.Module = hyper.conv_hyper_synthesis(width, configuration.hyper_widths, features)
    else:
        analysis = hyper.swin_hyper_analysis(latents, width, configuration.hyper_depths)
        synthesis = hyper.swin_hyper_synthesis(width, configuration.hyper_depths, features)
    steps = configuration.steps
    split = configuration.split_width
    parts = hyper.Split(steps, features, split) if split else hyper.Shared(steps)
    return analysis, nn.Sequential(synthesis, parts)


def _entropy_model(configuration: Configuration) -> MeanScale | Charm:
    if configuration.entropy_model == "hyperprior":
        return MeanScale(configuration.latents)
    return Charm(
        configuration.latents,
        configuration.split_width or configuration.features,
        configuration.steps,
        configuration.step_widths,
        configuration.residual_widths,
        configuration.merged,
    )


def meta_net(configuration: Configuration) -> LossyNet:
    """The network without numbers in it: for counting."""
    with torch.device("meta"):
        return LossyNet(configuration)

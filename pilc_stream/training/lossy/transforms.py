"""Analysis and synthesis: pictures to latents of a sixteenth of their edges, and back. Convolutions, ELIC, SwinT.

Pictures are float `(n, 3, h, w)`, h and w multiples of 16; latents `(n, latents, h/16, w/16)`. `widths` go from the
picture to the latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from pilc_stream.training.lossy.blocks import Attention, Gdn, ResidualBottleneck, down, up
from pilc_stream.training.lossy.swin import SwinDown, SwinUp

COLOURS = 3
WINDOW = 8


def conv_analysis(widths: Sequence[int], latents: int) -> nn.Sequential:
    """Four convolutions of 5x5 and stride 2, GDN after each but the last (Ballé 2018)."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((COLOURS, *widths)):
        layers += [down(inputs, outputs), Gdn(outputs)]
    return nn.Sequential(*layers, down(widths[-1], latents))


def conv_synthesis(widths: Sequence[int], latents: int) -> nn.Sequential:
    """The mirror of `conv_analysis`, with inverse GDN."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((latents, *reversed(widths))):
        layers += [up(inputs, outputs), Gdn(outputs, inverse=True)]
    return nn.Sequential(*layers, up(widths[0], COLOURS))


def elic_analysis(widths: Sequence[int], latents: int, blocks: int, attention: Sequence[bool]) -> nn.Sequential:
    """Strided convolutions, each but the last followed by `blocks` residual blocks (He 2022).

    `attention`: whether there is an attention block at a quarter of the picture's edges, and one on the latents.
    """
    layers: list[nn.Module] = []
    for place, (inputs, outputs) in enumerate(pairwise((COLOURS, *widths))):
        layers += [down(inputs, outputs), *(ResidualBottleneck(outputs) for _ in range(blocks))]
        if place == 1 and attention[0]:
            layers.append(Attention(outputs))
    layers.append(down(widths[-1], latents))
    return nn.Sequential(*layers, *([Attention(latents)] if attention[1] else []))


def elic_synthesis(widths: Sequence[int], latents: int, blocks: int, attention: Sequence[bool]) -> nn.Sequential:
    """The mirror of `elic_analysis`."""
    layers: list[nn.Module] = [Attention(latents)] if attention[1] else []
    for place, (inputs, outputs) in enumerate(pairwise((latents, *reversed(widths)))):
        layers.append(up(inputs, outputs))
        if place == 1 and attention[0]:
            layers.append(Attention(outputs))
        layers += [ResidualBottleneck(outputs) for _ in range(blocks)]
    return nn.Sequential(*layers, up(widths[0], COLOURS))


def swin_analysis(widths: Sequence[int], latents: int, depths: Sequence[int]) -> nn.Sequential:
    """Four stages of merged patches and blocks (Zhu 2022); `depths` of the four, the last of them on the latents."""
    stages = zip(pairwise((COLOURS, *widths, latents)), depths, strict=True)
    return nn.Sequential(*(SwinDown(inputs, outputs, depth, WINDOW) for (inputs, outputs), depth in stages))


def swin_synthesis(widths: Sequence[int], latents: int, depths: Sequence[int]) -> nn.Sequential:
    """The mirror of `swin_analysis`."""
    channels = (latents, *reversed(widths), COLOURS)
    stages = zip(pairwise(channels), reversed(depths), strict=True)
    return nn.Sequential(*(SwinUp(inputs, outputs, depth, WINDOW) for (inputs, outputs), depth in stages))

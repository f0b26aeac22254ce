"""What a member of the family computes: parameters, and operations per pixel by part.

Counted are the products of convolutions, transposed convolutions, linear maps, GDN and attention (scores and mixtures):
one multiply-accumulate is two operations (FLOP). Biases, activations, normalisations, softmax, quantisation and entropy
coding are not. A transposed convolution counts the products of its inputs with its kernel. The picture is Kodak's,
768 x 512, which fills whole blocks of side information and whole windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from pilc_stream.training.lossy.configurations import Configuration
from pilc_stream.training.lossy.network import DECODER_PARTS, PARTS, meta_net, parameters_of

HEIGHT, WIDTH = 512, 768


@dataclass(frozen=True)
class Count:
    """`parameters` of the whole and `kflop_per_pixel`, both by part; the side information's density is a part too."""

    parameters: dict[str, int]
    kflop_per_pixel: dict[str, float]

    @property
    def all_parameters(self) -> int:
        """Trained numbers, encoder and decoder."""
        return sum(self.parameters.values())

    @property
    def decoder_kflop(self) -> float:
        """Thousands of operations per pixel to decode."""
        return sum(self.kflop_per_pixel[part] for part in DECODER_PARTS)


def count(configuration: Configuration) -> Count:
    """Count on a network without numbers in it: nothing is computed."""
    net = meta_net(configuration).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.empty(1, 3, HEIGHT, WIDTH, device="meta"))
    by_module = counter.get_flop_counts()
    kflop = {part: sum(by_module.get(f"LossyNet.{part}", {}).values()) / (1000 * HEIGHT * WIDTH) for part in PARTS}
    return Count({name: parameters_of(part) for name, part in net.named_children()}, kflop)

"""The residual's distribution: what a scale means, as a trainable density and as a shipped integer table.

At scale index `i` the residual is a mixture of two logistics around the mean: a narrow one of scale ``2**((i-32)/8)``
grey levels times a learned factor, and a wide one. Factors and weights are learned, linear between knots an octave
apart. A small uniform floor stands for the least frequency that a table must give every symbol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pilc_stream.arith.perceptron import SCALE_STEPS_PER_OCTAVE

ZERO_INDEX = 32
"""The scale index whose scale is one grey level: index 0 is a sixteenth."""

FLOOR = 256 / 65536
"""The mass of the least frequencies: 1 of 65536 for each of 256 symbols."""


class ResidualShape(nn.Module):
    """Learned mixture weights and widths over the scale index."""

    def __init__(self, scale_count: int) -> None:
        super().__init__()
        self.scale_count = scale_count
        knots = (scale_count - 1) // SCALE_STEPS_PER_OCTAVE + 2
        self.log_narrow = nn.Parameter(torch.full((knots,), -0.1))
        self.log_wide = nn.Parameter(torch.full((knots,), 0.7))
        self.wide_logit = nn.Parameter(torch.full((knots,), -1.5))

    def to_json(self) -> dict[str, list[float]]:
        """The parameters, as JSON values; `load_json` is the inverse."""
        return {name: [round(value, 6) for value in knots.tolist()] for name, knots in self.named_parameters()}

    def load_json(self, values: Mapping[str, Sequence[float]]) -> None:
        """Take these parameters; ValueError or KeyError where they are not those of a shape of this size."""
        with torch.no_grad():
            for name, knots in self.named_parameters():
                loaded = torch.tensor(values[name])
                if loaded.shape != knots.shape:
                    raise ValueError(f"{name} has {loaded.numel()} knots, not {knots.numel()}")
                knots.copy_(loaded)

    def _at(self, knots: Tensor, position: Tensor) -> Tensor:
        left = torch.floor(position).clamp(0, knots.numel() - 2)
        weight = position - left
        index = left.to(torch.int64)
        return knots[index] * (1 - weight) + knots[index + 1] * weight

    def parameters_at(self, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Narrow and wide scale in grey levels, weight of the wide part, at scale indices (floats allowed)."""
        octave = scale / SCALE_STEPS_PER_OCTAVE
        unit = torch.exp2((scale - ZERO_INDEX) / SCALE_STEPS_PER_OCTAVE)
        narrow = unit * torch.exp(self._at(self.log_narrow, octave))
        wide = narrow * (1 + torch.exp(self._at(self.log_wide, octave)))
        return narrow, wide, torch.sigmoid(self._at(self.wide_logit, octave))

    def bits(self, residual: Tensor, scale: Tensor) -> Tensor:
        """Bits to code each residual (pixel minus mean, grey levels) at each scale index."""
        narrow, wide, share = self.parameters_at(scale)
        magnitude = residual.abs()
        mass = (1 - share) * _logistic_mass(magnitude, narrow) + share * _logistic_mass(magnitude, wide)
        return -torch.log2(mass * (1 - FLOOR) + FLOOR / 256)

    def masses(self, scale_index: int, offsets: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mass of the unit interval around each offset from the mean (grey levels), float64, without the floor."""
        with torch.no_grad():
            narrow, wide, share = (value.double() for value in self.parameters_at(torch.tensor([float(scale_index)])))
            magnitude = torch.from_numpy(np.abs(offsets))
            mass = (1 - share) * _logistic_mass(magnitude, narrow) + share * _logistic_mass(magnitude, wide)
        return np.asarray(mass.numpy(), np.float64)


def _logistic_mass(magnitude: Tensor, scale: Tensor) -> Tensor:
    """Mass of ``[magnitude - 1/2, magnitude + 1/2]`` under a logistic at 0; stable far out."""
    near = torch.sigmoid((0.5 - magnitude) / scale)
    far = torch.sigmoid((-0.5 - magnitude) / scale)
    return near - far

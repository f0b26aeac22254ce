"""The wave model as a torch module: the integer perceptron of `arith`, in floats that can be trained.

All values are in the units of the integer model: activations in ``[0, 255]``, offsets in 64ths of the local scale,
scales in eighths of an octave. What is no product of the network (inputs of later heads, means) is always rounded as
the integer model rounds it. With `quantised` on, so are weights, biases and activations (straight-through gradients),
and the forward pass gives the integer model's means and scales exactly.

While training, hidden layers compute in bfloat16 where the machine multiplies that fast (three times as fast as
float32 on a core with AVX-512 BF16): inputs and activations are integers of 8 bits or near them, which it holds.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pilc_stream.arith.context import CHANNELS
from pilc_stream.arith.perceptron import (
    ACTIVATION_LIMIT,
    COUPLING_LIMIT,
    MEAN_HIGH,
    MEAN_LOW,
    OFFSET_LIMIT,
    SCALE_STEPS_PER_OCTAVE,
)
from pilc_stream.models.spec import WaveSpec
from pilc_stream.training.shapes import ResidualShape

WEIGHT_LIMIT = 127
MAX_SHIFT = 14

NOISE_SAMPLES = 1 << 22


def training_dtype() -> torch.dtype:
    """The type in which hidden layers are trained on this machine."""
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


class PixelBatch(NamedTuple):
    """Pixels with their context, as floats: `inputs` `(n, inputs)`; `bases`, (adaptive) `predictions`, `pixels`
    `(n, 3)`; `exponent` `(n, 1)`; `coded` `(n, 3)`, 1 for channels that are coded and 0 for the others."""

    inputs: Tensor
    bases: Tensor
    predictions: Tensor
    pixels: Tensor
    exponent: Tensor
    coded: Tensor


class Prediction(NamedTuple):
    """`mean` in sixteenths of a level and `scale` in eighths of an octave, both float `(n, 3)`."""

    mean: Tensor
    scale: Tensor


def straight_through(rounded: Tensor, value: Tensor) -> Tensor:
    """`rounded` forward, to the last bit; the gradient of `value` backward."""
    return rounded.detach() + (value - value.detach())


def floor_straight_through(value: Tensor) -> Tensor:
    """``floor(value)`` forward, the identity backward."""
    return straight_through(torch.floor(value), value)


class IntegerLinear(nn.Module):
    """A dense layer whose rows become int8 weights with one power-of-two scale each."""

    def __init__(self, inputs: int, outputs: int, hidden: bool) -> None:
        super().__init__()
        gain = 1.4 if hidden else 0.1
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * gain / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.hidden = hidden
        self.quantised = False
        self.weight_noise = 0.0

    def shifts(self) -> Tensor:
        """Per row, the largest power of two that keeps the scaled weights within an int8; int64 `(outputs,)`."""
        largest = self.weight.detach().abs().amax(dim=1).clamp(min=1e-6)
        return torch.floor(torch.log2(WEIGHT_LIMIT / largest)).clamp(0, MAX_SHIFT).to(torch.int64)

    def integers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights, biases (with the half that rounds the later shift) and shifts as int64."""
        shifts = self.shifts()
        factor = torch.exp2(shifts.to(torch.float32))
        weight = torch.round(self.weight.detach() * factor[:, None]).clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT)
        bias = torch.round(self.bias.detach() * factor) + torch.floor(factor / 2)
        return weight.to(torch.int64), bias.to(torch.int64), shifts

    def forward(self, values: Tensor) -> Tensor:
        """The sum scaled down, in the type of `values`; where quantised, an integer."""
        factor = torch.exp2(self.shifts().to(torch.float32))
        if not self.quantised:
            weight: Tensor = self.weight
            if self.training and self.weight_noise:
                # The noise of the rounding to come: it keeps rows from growing a few weights that dwarf the rest.
                weight = weight + (torch.rand_like(weight) - 0.5) * (self.weight_noise / factor[:, None])
            return nn.functional.linear(values, weight.to(values.dtype), self.bias.to(values.dtype))
        weight_scaled = self.weight * factor[:, None]
        rounded = torch.round(weight_scaled).clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT)
        weight = straight_through(rounded, weight_scaled)
        bias_scaled = self.bias * factor
        half = torch.floor(factor / 2)
        bias = straight_through(torch.round(bias_scaled) + half, bias_scaled)
        total = nn.functional.linear(values, weight, bias)
        return floor_straight_through(total / factor)


class WaveNet(nn.Module):
    """Trunk, heads and the residual's learned shape."""

    def __init__(self, spec: WaveSpec) -> None:
        super().__init__()
        self.spec = spec
        self.layers = nn.ModuleDict()
        for name, (outputs, inputs) in spec.layers().items():
            hidden = name.endswith("hidden") or name.startswith("trunk")
            self.layers[name.replace(".", "_")] = IntegerLinear(inputs, outputs, hidden)
        with torch.no_grad():
            for c in range(CHANNELS):
                self.layer(f"head.{c}.scale").bias.fill_(16.0)
        self.shape = ResidualShape(spec.scale_count)
        self._noise = torch.rand(NOISE_SAMPLES, generator=torch.Generator().manual_seed(0)) - 0.5

    def layer(self, name: str) -> IntegerLinear:
        """The layer of that name in `WaveSpec.layers`."""
        module = self.layers[name.replace(".", "_")]
        assert isinstance(module, IntegerLinear)
        return module

    def quantise(self, on: bool = True) -> None:
        """Round as the integer model does from now on, or stop doing so."""
        for module in self.layers.values():
            assert isinstance(module, IntegerLinear)
            module.quantised = on

    def set_weight_noise(self, share: float) -> None:
        """While training, let weights vary by this share of what nearest rounding would change."""
        for module in self.layers.values():
            assert isinstance(module, IntegerLinear)
            module.weight_noise = share

    @property
    def quantised(self) -> bool:
        """Whether the forward pass rounds."""
        return self.layer("trunk.0").quantised

    def forward(self, batch: PixelBatch) -> Prediction:
        """Means and scales of the three channels of every pixel in the batch."""
        unit = torch.exp2(batch.exponent)
        dtype = training_dtype() if self.training and not self.quantised else torch.float32
        inputs = batch.inputs.to(dtype)
        trunk = inputs
        for i in range(len(self.spec.trunk)):
            trunk = self._activation(self.layer(f"trunk.{i}")(trunk))
        direct = inputs[:, : self.spec.direct]
        earlier: list[Tensor] = []
        errors: list[Tensor] = []
        means, scales = [], []
        for c in range(CHANNELS):
            base, predicted, pixel = (values[:, c : c + 1] for values in batch[1:4])
            adapted = self._scaled(predicted - base, unit).to(dtype)
            hidden_inputs = torch.cat([trunk, *earlier, *[adapted] * (c > 0)], 1)
            hidden = self._activation(self.layer(f"head.{c}.hidden")(hidden_inputs))
            mean_inputs = torch.cat([hidden, direct, adapted], 1).float()
            hidden = hidden.float()
            offset = self.layer(f"head.{c}.mean")(mean_inputs).clamp(-OFFSET_LIMIT, OFFSET_LIMIT)
            mean = predicted + self._rounded(offset * unit / 4)
            if c:
                couplings = self.layer(f"head.{c}.coupling")(hidden).clamp(-COUPLING_LIMIT, COUPLING_LIMIT)
                for i, error in enumerate(errors):
                    mean = mean + self._rounded(couplings[:, i : i + 1] * error / 64)
            mean = mean.clamp(MEAN_LOW, MEAN_HIGH)
            # The gradient into an earlier channel's mean is cut: each channel minimises its own bits.
            errors.append((16 * pixel - mean).detach())
            scale = self.layer(f"head.{c}.scale")(hidden) + SCALE_STEPS_PER_OCTAVE * batch.exponent
            means.append(mean)
            scales.append(scale.clamp(0, self.spec.scale_count - 1))
            earlier += [value.to(dtype) for value in self._earlier(errors[-1], 16 * pixel - base, unit)]
        return Prediction(torch.cat(means, 1), torch.cat(scales, 1))

    def _activation(self, value: Tensor) -> Tensor:
        if self.training and not self.quantised:
            # The noise of the rounding to come: the network learns to use the range that a byte has. A random stretch
            # of samples drawn once: drawing them anew would take a tenth of the training time.
            start = int(torch.randint(max(1, NOISE_SAMPLES - value.numel() + 1), ()))
            noise = self._noise[start : start + value.numel()]
            value = value + noise.view(value.shape).to(value.dtype)
        # Not clamp, whose gradient takes ten times as long.
        return nn.functional.hardtanh(value, 0.0, float(ACTIVATION_LIMIT))

    def _rounded(self, value: Tensor) -> Tensor:
        return floor_straight_through(value + 0.5)

    def _earlier(self, error: Tensor, value: Tensor, unit: Tensor) -> list[Tensor]:
        return [self._scaled(error, unit), self._log(error.abs()), self._scaled(value, unit)]

    def _scaled(self, value: Tensor, unit: Tensor) -> Tensor:
        return torch.floor(value / unit + 0.5).clamp(-127, 127)

    def _log(self, magnitude: Tensor) -> Tensor:
        mantissa, exponent = torch.frexp(magnitude + 8)
        # log2_eighths: linear between powers of two; frexp's mantissa lies in [0.5, 1).
        return torch.floor(8.0 * (exponent - 1) + 16.0 * mantissa - 8.0 - 24.0)

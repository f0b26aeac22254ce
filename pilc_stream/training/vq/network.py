"""The decoder network of the codec `pilc` as a torch module, in the units of the integer model.

Activations lie in ``[0, 255]``, means count sixteenths of a level, scales eighths of an octave. With `quantised` on,
features, weights, biases and activations are rounded as the integer model rounds them, with straight-through gradients.
Hidden layers compute in bfloat16 where the machine multiplies that fast.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pilc_stream.arith.blocks import BLOCK
from pilc_stream.arith.context import CHANNELS
from pilc_stream.arith.perceptron import ACTIVATION_LIMIT, SCALE_STEPS_PER_OCTAVE
from pilc_stream.backends.pilc.base import MEAN_LIMIT
from pilc_stream.models.pilc import KERNEL, OUTPUTS, PilcSpec
from pilc_stream.training.network import (
    WEIGHT_LIMIT,
    IntegerLinear,
    Prediction,
    floor_straight_through,
    straight_through,
    training_dtype,
)
from pilc_stream.training.shapes import ZERO_INDEX, ResidualShape

FEATURE_UNIT = 64.0
"""Features are trained in units of this many activation steps, so that one learning rate fits them and the weights."""

BIAS_UNIT = 32.0
SCALE_UNIT = 16.0
TYPICAL_SHARE = 0.5
"""The scale of the narrow logistic where residuals have a mean absolute value of 1."""


class IntegerConvolution(IntegerLinear):
    """A convolution of 1 x 1 or 3 x 3 places on `(n, channels, h, w)`, 0 outside; the bias counts `BIAS_UNIT`."""

    def __init__(self, inputs: int, outputs: int, hidden: bool, kernel: int) -> None:
        super().__init__(inputs, outputs, hidden)
        self.kernel = kernel

    def integers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights, biases (with the half that rounds the later shift) and shifts as int64."""
        shifts = self.shifts()
        factor = torch.exp2(shifts.to(torch.float32))
        weight = torch.round(self.weight.detach() * factor[:, None]).clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT)
        bias = torch.round(self.bias.detach() * BIAS_UNIT * factor) + torch.floor(factor / 2)
        return weight.to(torch.int64), bias.to(torch.int64), shifts

    def forward(self, values: Tensor) -> Tensor:
        """The sum scaled down; where quantised, an integer as far as the type of `values` can tell."""
        if not self.quantised:
            return self._convolved(values, self.weight, self.bias * BIAS_UNIT)
        factor = torch.exp2(self.shifts().to(torch.float32))
        scaled = self.weight * factor[:, None]
        weight = straight_through(torch.round(scaled).clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT), scaled) / factor[:, None]
        bias = self.bias * BIAS_UNIT
        half = torch.floor(factor / 2) / factor
        bias = straight_through(torch.round(bias * factor) / factor + half, bias)
        return floor_straight_through(self._convolved(values, weight, bias))

    def _convolved(self, values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        places = weight.reshape(len(weight), self.kernel, self.kernel, -1).permute(0, 3, 1, 2).to(values.dtype)
        return nn.functional.conv2d(values, places, bias.to(values.dtype), padding=self.kernel // 2)


class PilcNet(nn.Module):
    """What codes and predictors stand for, the convolutions, and the residual's learned shape."""

    def __init__(self, spec: PilcSpec, sizes: Tensor, *, means: bool = True) -> None:
        """`sizes` float `(codes, 12)`: mean absolute residuals by channel and quarter, to begin from. Without `means`
        those of the residuals are and stay 0: the network gives scales alone."""
        super().__init__()
        self.spec = spec
        self.layers = nn.ModuleDict()
        for name, (outputs, inputs) in spec.layers().items():
            kernel = 1 if name.endswith("split") or name == "head" else int(KERNEL**0.5)
            self.layers[name.replace(".", "_")] = IntegerConvolution(inputs, outputs, name != "head", kernel)
        octaves = torch.log2(sizes)
        self.code_features = nn.Parameter(torch.rand(spec.codes, spec.code_features))
        known = min(spec.code_features, sizes.shape[1])
        with torch.no_grad():
            self.code_features[:, :known] = (octaves[:, :known] + 3) / 2.5
        self.predictor_features = nn.Parameter(torch.rand(spec.predictors, spec.predictor_features))
        typical = octaves.reshape(len(sizes), CHANNELS, -1).mean(2) + torch.log2(torch.tensor(TYPICAL_SHARE))
        self.code_scale = nn.Parameter((SCALE_STEPS_PER_OCTAVE * typical + ZERO_INDEX) / SCALE_UNIT)
        self.predictor_scale = nn.Parameter(torch.zeros(spec.predictors, CHANNELS))
        self.shape = ResidualShape(spec.scale_count)
        self.quantised = False
        if not means:
            self._leave_means_out()

    def _leave_means_out(self) -> None:
        head = self.layer("head")
        kept = (torch.arange(len(head.bias)) % OUTPUTS >= CHANNELS).float()
        with torch.no_grad():
            head.weight.mul_(kept[:, None])
            head.bias.mul_(kept)
        # Without a gradient, Adam leaves them at 0.
        head.weight.register_hook(lambda gradient: gradient * kept[:, None])  # type: ignore[no-untyped-call]
        head.bias.register_hook(lambda gradient: gradient * kept)  # type: ignore[no-untyped-call]

    def layer(self, name: str) -> IntegerConvolution:
        """The layer of that name in `PilcSpec.layers`."""
        module = self.layers[name.replace(".", "_")]
        assert isinstance(module, IntegerConvolution)
        return module

    def quantise(self, on: bool = True) -> None:
        """Round as the integer model does from now on, or stop doing so."""
        self.quantised = on
        for name in self.spec.layers():
            self.layer(name).quantised = on

    def features(self) -> tuple[Tensor, Tensor]:
        """What codes and predictors put into the network, in `[0, 255]`."""
        code, predictor = (
            self._activation(values * FEATURE_UNIT) for values in (self.code_features, self.predictor_features)
        )
        return code, predictor

    def scales(self) -> tuple[Tensor, Tensor]:
        """What codes and predictors add to the scale."""
        code, predictor = (self._rounded(values * SCALE_UNIT) for values in (self.code_scale, self.predictor_scale))
        return code, predictor

    def forward(self, codes: Tensor, predictors: Tensor) -> Prediction:
        """Means and scales float `(n, 3, h, w)` from int64 `(n, rows, columns)`."""
        dtype = training_dtype() if self.training else torch.float32
        code, predictor = self.features()
        values = torch.cat([code[codes], predictor[predictors]], 3).permute(0, 3, 1, 2)
        values = values.to(dtype).contiguous(memory_format=torch.channels_last)
        for level in ("coarse", "middle"):
            values = self._activation(self.layer(level)(values))
            values = _shuffled(self._activation(self.layer(f"{level}.split")(values)))
        values = self._activation(self.layer("fine")(values))
        outputs = _shuffled(self.layer("head")(values.float()))
        code, predictor = self.scales()
        added = (code[codes] + predictor[predictors]).permute(0, 3, 1, 2)
        added = added.repeat_interleave(BLOCK, 2).repeat_interleave(BLOCK, 3)
        mean = outputs[:, :CHANNELS].clamp(-MEAN_LIMIT, MEAN_LIMIT)
        return Prediction(mean, (outputs[:, CHANNELS:] + added).clamp(0, self.spec.scale_count - 1))

    def _activation(self, values: Tensor) -> Tensor:
        limited = values.clamp(0, ACTIVATION_LIMIT)
        return self._rounded(limited)

    def _rounded(self, values: Tensor) -> Tensor:
        return straight_through(torch.round(values), values) if self.quantised else values


def _shuffled(values: Tensor) -> Tensor:
    """`(n, 4 c, h, w)` -> `(n, c, 2 h, 2 w)`: the four groups are top left, top right, and the bottom ones."""
    count, channels, height, width = values.shape
    groups = values.reshape(count, 2, 2, channels // 4, height, width).permute(0, 3, 4, 1, 5, 2)
    return groups.reshape(count, channels // 4, 2 * height, 2 * width).contiguous(memory_format=torch.channels_last)

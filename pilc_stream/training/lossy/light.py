"""The light lossy model as a torch module: a transform that begins as a hierarchical KLT, and integer entropy nets.

Analysis and synthesis pass through 1/4, 1/8 and 1/16 of the resolution by pixel (un)shuffling and matrices that begin
as the principal components of their inputs, so the model starts as a block transform codec; residual blocks on every
level, which begin as the identity, learn the rest. What decides on code tables (from the hyper latents to means and
scales) is made of integer layers, trained as the integer model computes them (`IntegerConvolution`).

One model serves all qualities: gains per channel scale the latents before they are rounded, and are interpolated
between `KNOTS` trade-offs. Pixels and transform count in `UNIT` grey levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pilc_stream.arith.perceptron import ACTIVATION_LIMIT
from pilc_stream.models.lossy_spec import (
    CONTEXT_LIMIT,
    HYPER_INPUT,
    LEVEL_STRIDES,
    MEAN_STEPS,
    SCALE_COUNT,
    SCALE_LEAST,
    SCALE_STEPS,
    CodingPass,
    LossySpec,
)
from pilc_stream.training.network import straight_through
from pilc_stream.training.vq.network import IntegerConvolution

KNOTS = 8
CONTEXT_SPREAD = 32.0
"""Latents enter the context nets in units in which their standard deviation is this."""

LEAST_LIKELIHOOD = 1e-9
HYPER_SPREAD = 1.5
"""Standard deviation of the hyper latents to begin with: enough not to be rounded away."""

HYPER_START = 25.0
WHITE_LIMIT = 8.0
ROOT_HALF = 0.5**0.5


class _Bounded(torch.autograd.Function):
    """Limit to an interval; gradients pass where they do not lead further out."""

    @staticmethod
    def forward(ctx, values: Tensor, low: float, high: float) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(values)
        ctx.limits = low, high
        return values.clamp(low, high)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        (values,) = ctx.saved_tensors
        low, high = ctx.limits
        lost = ((values < low) & (gradient > 0)) | ((values > high) & (gradient < 0))
        return gradient.masked_fill(lost, 0.0), None, None


def bounded(values: Tensor, low: float, high: float) -> Tensor:
    """`values` limited to `[low, high]`; gradients lead back in."""
    result: Tensor = _Bounded.apply(values, low, high)  # type: ignore[no-untyped-call]
    return result


def gaussian_bits(values: Tensor, scale_index: Tensor) -> Tensor:
    """Bits of each rounded value under a Gaussian about 0; `scale_index` counts steps of the scale table."""
    sigma = SCALE_LEAST * torch.exp2(scale_index / SCALE_STEPS)
    magnitude = values.abs()
    upper = torch.erfc((magnitude - 0.5) * (ROOT_HALF / sigma))
    lower = torch.erfc((magnitude + 0.5) * (ROOT_HALF / sigma))
    return -torch.log2(bounded(0.5 * (upper - lower), LEAST_LIKELIHOOD, 2.0))


class Quality(NamedTuple):
    """`blend`: float `(n, KNOTS)`, how each picture's trade-off lies between the knots."""

    blend: Tensor

    def of(self, knots: Tensor) -> Tensor:
        """`(KNOTS, c)` -> `(n, c, 1, 1)`."""
        return (self.blend @ knots)[:, :, None, None]


def quality(position: Tensor) -> Quality:
    """The blend for positions float `(n,)` in `[0, 1]` between the first and the last knot."""
    places = position[:, None] * (KNOTS - 1) - torch.arange(KNOTS)
    return Quality((1 - places.abs()).clamp(min=0))


class Residual(nn.Module):
    """``f + out * W2 relu(W1 * (f / spread) + b)``: a 3 x 3 and a 1 x 1 convolution, the identity to begin with."""

    spread: Tensor
    reach: Tensor

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(width, 9 * channels) * (2 / (9 * channels)) ** 0.5)
        self.second = nn.Parameter(torch.zeros(channels, width))
        self.first_bias = nn.Parameter(torch.zeros(KNOTS, width))
        self.second_bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("spread", torch.ones(channels))
        self.register_buffer("reach", torch.ones(channels))

    def begin(self, spread: Tensor) -> None:
        """Standard deviations of the channels, by which the inputs are made alike."""
        self.spread.copy_(spread)
        self.reach.copy_(spread.clamp(max=1.0))

    def forward(self, values: Tensor, level: Quality) -> Tensor:
        """Values of the same shape `(n, c, h, w)`."""
        dtype = torch.bfloat16 if self.training else torch.float32
        white = (values / self.spread[:, None, None]).to(dtype, memory_format=torch.channels_last)
        channels = values.shape[1]
        first = self.first.view(-1, 3, 3, channels).permute(0, 3, 1, 2).to(dtype)
        hidden = nn.functional.conv2d(white, first, padding=1) + level.of(self.first_bias).to(dtype)
        second = (self.second * self.reach[:, None])[:, :, None, None].to(dtype)
        added = nn.functional.conv2d(nn.functional.relu(hidden), second).to(torch.float32)
        return values + added + (self.second_bias * self.reach)[:, None, None]


def _mixed(matrix: Tensor, values: Tensor) -> Tensor:
    return nn.functional.conv2d(values, matrix[:, :, None, None])


class Analysis(nn.Module):
    """Pixels `(n, 3, h, w)` -> latents `(n, c, h / 16, w / 16)`."""

    def __init__(self, spec: LossySpec) -> None:
        super().__init__()
        inputs = (3, *spec.widths[:-1])
        self.matrices = nn.ParameterList(
            [
                torch.zeros(width, below * stride**2)
                for below, width, stride in zip(inputs, spec.widths, LEVEL_STRIDES, strict=True)
            ]
        )
        self.blocks = nn.ModuleList(
            nn.ModuleList(Residual(width, inner) for _ in range(count))
            for width, inner, count in zip(spec.widths, spec.inner_widths, spec.analysis_blocks, strict=True)
        )

    def forward(self, pixels: Tensor, level: Quality) -> Tensor:
        """Not yet scaled, not rounded."""
        values = pixels
        for matrix, blocks, stride in zip(self.matrices, self.blocks, LEVEL_STRIDES, strict=True):
            values = _mixed(matrix, nn.functional.pixel_unshuffle(values, stride))
            for block in blocks:  # type: ignore[attr-defined]
                values = block(values, level)
        return values


class Synthesis(nn.Module):
    """Latents -> pixels."""

    def __init__(self, spec: LossySpec) -> None:
        super().__init__()
        inputs = (3, *spec.widths[:-1])
        self.matrices = nn.ParameterList(
            [
                torch.zeros(below * stride**2, width)
                for below, width, stride in zip(inputs, spec.widths, LEVEL_STRIDES, strict=True)
            ]
        )
        self.blocks = nn.ModuleList(
            nn.ModuleList(Residual(width, inner) for _ in range(count))
            for width, inner, count in zip(spec.widths, spec.inner_widths, spec.synthesis_blocks, strict=True)
        )

    def forward(self, latents: Tensor, level: Quality) -> Tensor:
        """Pixels about mid grey, in `UNIT`."""
        values = latents
        for index in reversed(range(len(LEVEL_STRIDES))):
            for block in self.blocks[index]:  # type: ignore[attr-defined]
                values = block(values, level)
            values = nn.functional.pixel_shuffle(_mixed(self.matrices[index], values), LEVEL_STRIDES[index])
        return values


class HyperAnalysis(nn.Module):
    """White latents -> hyper latents at a quarter of their resolution."""

    def __init__(self, spec: LossySpec) -> None:
        super().__init__()
        width, hyper = spec.hyper_width, spec.hyper_channels
        shapes = [(width, spec.latents), (width, 4 * width), (width, 9 * width), (hyper, 4 * width)]
        self.weights = nn.ParameterList([torch.randn(rows, n) * (2 / n) ** 0.5 for rows, n in shapes])
        self.biases = nn.ParameterList([torch.zeros(KNOTS, rows) for rows, _ in shapes])

    def forward(self, white: Tensor, level: Quality) -> Tensor:
        """Not yet scaled, not rounded."""
        dtype = torch.bfloat16 if self.training else torch.float32
        values = white.to(dtype, memory_format=torch.channels_last)
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if index % 2:
                values = nn.functional.pixel_unshuffle(values, 2)
            edge = 3 if index == 2 else 1
            places = weight.view(len(weight), edge, edge, -1).permute(0, 3, 1, 2).to(dtype)
            values = nn.functional.conv2d(values, places, padding=edge // 2) + level.of(bias).to(dtype)
            if index < 3:
                values = nn.functional.relu(values)
        return values.float()


class Coded(NamedTuple):
    """What a pass through the model gives: `pixels` `(n, 3, h, w)` in `UNIT`; bits of each picture `(n,)`."""

    pixels: Tensor
    latent_bits: Tensor
    hyper_bits: Tensor


class LightNet(nn.Module):
    """Transforms, gains and entropy nets."""

    latent_spread: Tensor

    def __init__(self, spec: LossySpec) -> None:
        super().__init__()
        self.spec = spec
        self.analysis, self.synthesis = Analysis(spec), Synthesis(spec)
        self.hyper_analysis = HyperAnalysis(spec)
        self.log_gain = nn.Parameter(torch.zeros(KNOTS, spec.latents))
        self.log_hyper_gain = nn.Parameter(torch.zeros(KNOTS, spec.hyper_channels))
        self.hyper_scale = nn.Parameter(torch.full((KNOTS, spec.hyper_channels), HYPER_START))
        self.quality_features = nn.Parameter(torch.rand(KNOTS, spec.quality_features))
        self.layers = nn.ModuleDict()
        for name, (outputs, inputs, kernel) in spec.layers().items():
            hidden = not name.endswith("out")
            self.layers[name.replace(".", "_")] = IntegerConvolution(inputs, outputs, hidden, kernel)
        self.register_buffer("latent_spread", torch.ones(spec.latents))
        self.quantised = False

    def layer(self, name: str) -> IntegerConvolution:
        """The integer layer of that name in `LossySpec.layers`."""
        module = self.layers[name.replace(".", "_")]
        assert isinstance(module, IntegerConvolution)
        return module

    def quantise(self, on: bool = True) -> None:
        """Round as the integer model does from now on, or stop doing so."""
        self.quantised = on
        for name in self.spec.layers():
            self.layer(name).quantised = on

    def begin(self, pictures: Tensor, gains: Tensor) -> None:
        """Principal components of `pictures` (float `(n, 3, h, w)` in `UNIT`) as transform; `gains` `(KNOTS,)`."""
        with torch.no_grad():
            values = pictures
            for index, stride in enumerate(LEVEL_STRIDES):
                values = nn.functional.pixel_unshuffle(values, stride)
                flat = values.permute(0, 2, 3, 1).reshape(-1, values.shape[1])
                spectrum, basis = torch.linalg.eigh(flat.T @ flat / len(flat))
                kept = self.spec.widths[index]
                matrix = basis.flip(1)[:, :kept].T.contiguous()
                spread = spectrum.flip(0)[:kept].clamp(min=1e-4).sqrt()
                self.analysis.matrices[index].copy_(matrix)
                self.synthesis.matrices[index].copy_(matrix.T)
                for side in (self.analysis, self.synthesis):
                    for block in side.blocks[index]:  # type: ignore[attr-defined]
                        block.begin(spread)
                values = _mixed(matrix, values)
            self.latent_spread.copy_(spread)
            level = quality(torch.full((len(values),), 0.5))
            white = (values / spread[:, None, None]).clamp(-WHITE_LIMIT, WHITE_LIMIT)
            hyper = self.hyper_analysis(white, level)
            self.log_hyper_gain.copy_((HYPER_SPREAD / hyper.std((0, 2, 3))).log().expand_as(self.log_hyper_gain))
            self.log_gain.copy_(gains.log()[:, None].expand_as(self.log_gain))
            start = SCALE_STEPS * torch.log2(spread / SCALE_LEAST) - SCALE_STEPS
            for number, each in enumerate(self.spec.passes()):
                bias = self.layer(f"pass.{number}.out").bias
                count = each.stop - each.start
                bias[count:] = start[each.start : each.stop] / 32.0

    def features(self) -> Tensor:
        """What a trade-off puts into the entropy nets, by knot: float `(KNOTS, features)` in `[0, 255]`."""
        return (self.quality_features * 64.0).clamp(0, ACTIVATION_LIMIT)

    def forward(self, pixels: Tensor, position: Tensor) -> Coded:
        """Code `pixels` (`(n, 3, h, w)` in `UNIT`, edges multiples of 64) with trade-offs `position` `(n,)`."""
        level = quality(position)
        gain = level.of(self.log_gain).exp()
        latents = self.analysis(pixels, level)
        hyper, hyper_bits = self._hyper(latents, level)
        decoded, bits = self._coded(latents * gain, hyper, gain, level)
        return Coded(self.synthesis(decoded / gain, level), bits, hyper_bits)

    def entropy_bits(self, pixels: Tensor, position: Tensor) -> Tensor:
        """Bits of each picture `(n,)`; gradients for the entropy nets alone."""
        level = quality(position)
        with torch.no_grad():
            latents, gain = self.analysis(pixels, level), level.of(self.log_gain).exp()
        hyper, hyper_bits = self._hyper(latents, level)
        return self._coded(latents * gain, hyper, gain, level)[1] + hyper_bits

    def _hyper(self, latents: Tensor, level: Quality) -> tuple[Tensor, Tensor]:
        """Rounded hyper latents, and their bits by picture."""
        white = (latents / self.latent_spread[:, None, None]).clamp(-WHITE_LIMIT, WHITE_LIMIT)
        hyper = self.hyper_analysis(white, level) * level.of(self.log_hyper_gain).exp()
        index = bounded(level.of(self.hyper_scale), 0, SCALE_COUNT - 1).expand_as(hyper)
        bits = gaussian_bits(self._uncertain(hyper), index).sum((1, 2, 3))
        return straight_through(torch.round(hyper), hyper), bits

    def _coded(self, scaled: Tensor, hyper: Tensor, gain: Tensor, level: Quality) -> tuple[Tensor, Tensor]:
        """Decoded latents, and bits of each picture."""
        count, _, rows, columns = scaled.shape
        features = level.of(self.features())
        if self.quantised:
            features = straight_through(torch.round(features), features)
        context_features = self._hyper_features(hyper, features)
        wide = features.to(context_features.dtype).expand(-1, -1, rows, columns)
        known = torch.zeros_like(scaled)
        bits = scaled.new_zeros(count)
        parity = (torch.arange(rows)[:, None] + torch.arange(columns)) % 2
        for number, each in enumerate(self.spec.passes()):
            mean, index = self._predicted(number, each, known, context_features, wide, gain)
            part = scaled[:, each.start : each.stop]
            index = bounded(index + SCALE_STEPS * torch.log2(gain[:, each.start : each.stop]), 0, SCALE_COUNT - 1)
            mean = mean * gain[:, each.start : each.stop]
            if self.quantised:
                index = straight_through(torch.round(index), index)
            residual = part - mean
            found = gaussian_bits(self._uncertain(residual), index)
            value = straight_through(torch.round(residual), residual) + mean
            if each.parity is not None:
                mask = (parity == each.parity).to(found.dtype)
                found, value = found * mask, value * mask
            bits = bits + found.sum((1, 2, 3))
            known = torch.cat(
                [known[:, : each.start], known[:, each.start : each.stop] + value, known[:, each.stop :]], 1
            )
        return known, bits

    def _hyper_features(self, hyper: Tensor, features: Tensor) -> Tensor:
        dtype = torch.bfloat16 if self.training else torch.float32
        inputs = (hyper * HYPER_INPUT).clamp(-CONTEXT_LIMIT, CONTEXT_LIMIT)
        wide = features.expand(-1, -1, *hyper.shape[2:])
        values = torch.cat([inputs, wide], 1).to(dtype, memory_format=torch.channels_last)
        for index in range(5):
            values = self._activation(self.layer(f"hyper.{index}")(values))
            if index in (1, 3):
                values = nn.functional.pixel_shuffle(values, 2)
        return values

    def _predicted(
        self, number: int, each: CodingPass, known: Tensor, features: Tensor, wide: Tensor, gain: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Means and scale indices before the gain: the mean in units of the latents."""
        parts = [features, wide]
        if each.known:
            spread = CONTEXT_SPREAD / self.latent_spread[: each.known, None, None]
            context = (known[:, : each.known] / gain[:, : each.known] * spread).clamp(-CONTEXT_LIMIT, CONTEXT_LIMIT)
            if self.quantised:
                context = straight_through(torch.round(context), context)
            context = context.to(features.dtype, memory_format=torch.channels_last)
            parts.insert(0, self._activation(self.layer(f"pass.{number}.context")(context)))
        hidden = self._activation(self.layer(f"pass.{number}.hidden")(torch.cat(parts, 1)))
        out = self.layer(f"pass.{number}.out")(hidden.float())
        count = each.stop - each.start
        return out[:, :count] / MEAN_STEPS, out[:, count:]

    def _activation(self, values: Tensor) -> Tensor:
        limited = nn.functional.hardtanh(values, 0.0, float(ACTIVATION_LIMIT))
        return straight_through(torch.round(limited), limited) if self.quantised else limited

    def _uncertain(self, values: Tensor) -> Tensor:
        """Uniform noise while training; rounded values otherwise."""
        return values + torch.rand_like(values) - 0.5 if self.training else torch.round(values)

    def entropy_matrices(self) -> Iterator[nn.Parameter]:
        """The weights of the entropy nets' hidden layers, and of what makes hyper latents."""
        yield from self.hyper_analysis.weights
        for name in self.spec.layers():
            if not name.endswith("out"):
                yield self.layer(name).weight

    def output_matrices(self) -> Iterator[nn.Parameter]:
        """The weights of their outputs, whose inputs are large: small steps go far."""
        for name in self.spec.layers():
            if name.endswith("out"):
                yield self.layer(name).weight

    def matrices(self) -> Iterator[nn.Parameter]:
        """The weights of the transforms' hidden layers."""
        for side in (self.analysis, self.synthesis):
            for blocks in side.blocks:
                for block in blocks:  # type: ignore[attr-defined]
                    yield block.first
                    yield block.second

    def linear_matrices(self) -> Sequence[nn.Parameter]:
        """The matrices between the levels, which begin as principal components."""
        return [*self.analysis.matrices, *self.synthesis.matrices]

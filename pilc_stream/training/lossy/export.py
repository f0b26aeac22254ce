"""From the trained light net to the model that ships: integers for what picks tables, small floats for the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pilc_stream.arith.perceptron import ACTIVATION_LIMIT, SUM_LIMIT
from pilc_stream.arith.rans import PRECISION_BITS
from pilc_stream.models.lossy import (
    GAIN_BITS,
    MAGNITUDES,
    MAX_GAIN,
    MIN_GAIN,
    QUALITIES,
    QUALITY_KNOTS,
    QUALITY_STEP,
    SCALE_BITS,
    LossyModel,
    stored,
)
from pilc_stream.models.lossy_spec import MEAN_STEPS, SCALE_COUNT, SCALE_LEAST, SCALE_STEPS
from pilc_stream.models.model import Layer
from pilc_stream.training.lossy.light import CONTEXT_SPREAD, LightNet, Residual, quality
from pilc_stream.training.vq.network import IntegerConvolution


def export_lossy_model(net: LightNet, profile: str, recipe: Mapping[str, Any]) -> LossyModel:
    """The model that ships; ModelError if its sums break the integer law."""
    with torch.no_grad():
        layers = {name: integer_layer(net.layer(name)) for name in net.spec.layers()}
        floats = {}
        for name, values in _floats(net).items():
            parts = stored(name, values.numpy().astype(np.float32))
            # What the file gives back: an encoder at hand must not differ from one that loads it.
            found, scale = parts[name].astype(np.float32), parts.get(f"{name}.scale")
            floats[name] = np.asarray(found if scale is None else found * scale[:, None], np.float32)
        return LossyModel(net.spec, layers, _tensors(net), floats, profile, recipe)


def integer_layer(module: IntegerConvolution) -> Layer:
    """The layer in integers, with smaller weights in rows whose sums could reach the limit."""
    weight, bias, shift = module.integers()
    numbers = weight.numpy().astype(np.int64), bias.numpy().astype(np.int64), shift.numpy().astype(np.int64)
    weights, biases, shifts = numbers
    for row in range(len(weights)):
        while np.abs(weights[row]).sum() * ACTIVATION_LIMIT + abs(biases[row]) >= SUM_LIMIT and shifts[row]:
            weights[row] = np.rint(weights[row] / 2)
            biases[row] >>= 1
            shifts[row] -= 1
    return Layer(weights.astype(np.int8), biases.astype(np.int32), shifts.astype(np.uint8))


def _tensors(net: LightNet) -> dict[str, NDArray[Any]]:
    """The integer tensors but the layers'."""
    positions = torch.arange(QUALITY_KNOTS) * QUALITY_STEP / (QUALITIES - 1)
    share = quality(positions.clamp(max=1.0)).blend
    log_gain = share @ net.log_gain
    gain = torch.round(log_gain.exp() * (1 << GAIN_BITS)).clamp(MIN_GAIN, MAX_GAIN)
    octaves = torch.log2(gain / (1 << GAIN_BITS))
    unit = torch.round(CONTEXT_SPREAD * (1 << GAIN_BITS) / (MEAN_STEPS * net.latent_spread))
    features = torch.round((share @ net.features()).clamp(0, ACTIVATION_LIMIT))
    steps = 1 << SCALE_BITS
    return {
        "quality.gain": gain.numpy().astype(np.uint16),
        "quality.scale": torch.round(octaves * SCALE_STEPS * steps).clamp(-127, 127).numpy().astype(np.int8),
        "quality.hyper": torch.round((share @ net.hyper_scale).clamp(0, SCALE_COUNT - 1) * steps)
        .numpy()
        .astype(np.int16),
        "quality.features": features.numpy().astype(np.uint8),
        "context.unit": unit.numpy().astype(np.int32),
        "table.sizes": table_sizes(),
    }


def table_sizes() -> NDArray[np.uint16]:
    """Intervals of a Gaussian's values by magnitude, uint16 `(63, 128)`, by scale from 1 on; the rest is the escape's.

    A value that is less likely than half a slot gets no interval.
    """
    total = 1 << PRECISION_BITS
    sizes = np.zeros((SCALE_COUNT - 1, MAGNITUDES), np.int64)
    for index in range(1, SCALE_COUNT):
        sigma = SCALE_LEAST * 2 ** (index / SCALE_STEPS)
        edges = np.array([math.erf((k + 0.5) / (sigma * math.sqrt(2))) for k in range(MAGNITUDES)])
        shares = np.diff(edges, prepend=0.0)
        shares[1:] /= 2
        row = np.floor(shares * (total - 2) + 0.5).astype(np.int64)
        # At least one slot stays for the escape.
        row[0] -= max(0, row[0] + 2 * row[1:].sum() - (total - 1))
        sizes[index - 1] = row
    return sizes.astype(np.uint16)


def _floats(net: LightNet) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {"latent.spread": net.latent_spread, "hyper_analysis.gain": net.log_hyper_gain}
    for side, module in (("analysis", net.analysis), ("synthesis", net.synthesis)):
        for level, (matrix, blocks) in enumerate(zip(module.matrices, module.blocks, strict=True)):
            found[f"{side}.{level}.matrix"] = matrix.detach()
            block: Any
            for number, block in enumerate(blocks):  # type: ignore[arg-type]
                found |= _block(f"{side}.{level}.{number}", block)
    for index, (weight, bias) in enumerate(zip(net.hyper_analysis.weights, net.hyper_analysis.biases, strict=True)):
        found |= {f"hyper_analysis.{index}.first": weight.detach(), f"hyper_analysis.{index}.bias": bias.detach()}
    return {name: values.detach() for name, values in found.items()}


def _block(name: str, block: Residual) -> dict[str, Tensor]:
    return {
        f"{name}.spread": block.spread,
        f"{name}.first": block.first,
        f"{name}.first_bias": block.first_bias,
        f"{name}.second": block.second * block.reach[:, None],
        f"{name}.second_bias": block.second_bias * block.reach,
    }

"""From a trained member of the family to the model that payloads name: integers for what picks tables, floats else.

``python -m pilc_stream.training.lossy.family_export CHECKPOINT MODEL`` does so with a run that is not at its end.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pilc_stream.arith.rans import PRECISION_BITS
from pilc_stream.models.family import (
    CURVE_LIMIT,
    CURVE_STEPS,
    EXP_BITS,
    FRACTION_BITS,
    MAX_SHIFT,
    NORM_BITS,
    FamilyModel,
    float_shapes,
)
from pilc_stream.models.family_spec import Tensors, integer_layers
from pilc_stream.models.lossy import MAGNITUDES
from pilc_stream.models.lossy_spec import SCALE_COUNT, SCALE_LEAST, SCALE_STEPS
from pilc_stream.training.lossy.entropy import RESIDUAL_LIMIT
from pilc_stream.training.lossy.export import table_sizes
from pilc_stream.training.lossy.family_recipe import FamilyRecipe
from pilc_stream.training.lossy.network import LossyNet

ONE = 1 << FRACTION_BITS
WEIGHT_LIMIT = (1 << 15) - 1
LARGEST_HALF = np.finfo(np.float16).max

Floats = NDArray[np.float64]


def export_net(net: LossyNet, profile: str, tradeoff: float, run: Mapping[str, Any]) -> FamilyModel:
    """The model of a trained net. `run`: the record of its training. ModelError if its sums break the integer law."""
    configuration = net.configuration
    state = {name: values.detach().cpu().double().numpy() for name, values in net.state_dict().items()}
    tensors: dict[str, NDArray[Any]] = {**_tables(), **_side(net)}
    for layer in integer_layers(configuration):
        tensors |= _integers(layer, state)
    floats = {
        # What the file gives back: an encoder at hand must not differ from one that loads it.
        name: state[name].clip(-LARGEST_HALF, LARGEST_HALF).astype(np.float16).astype(np.float32)
        for name in float_shapes(configuration)
    }
    return FamilyModel(configuration, tensors, floats, profile, tradeoff, run)


def _integers(layer: Tensors, state: Mapping[str, Floats]) -> dict[str, NDArray[Any]]:
    """A layer with weights as large as 16 bits hold, by output."""
    name = layer.name
    if layer.kind == "position":
        return {name: np.rint(state[name] * ONE).astype(np.int32)}
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    axis = int(layer.kind == "transposed")
    by_output = np.abs(np.moveaxis(weight, axis, 0)).reshape(layer.outputs, -1).max(axis=1)
    shift = np.floor(np.log2(WEIGHT_LIMIT / np.maximum(by_output, 1e-12))).clip(0, MAX_SHIFT).astype(np.int64)
    # Inputs of a normalisation count finer parts than its outputs.
    finer = NORM_BITS - FRACTION_BITS if layer.kind == "norm" else 0
    shift = shift.clip(0, MAX_SHIFT - finer)
    factor = np.exp2(shift).reshape([-1 if place == axis else 1 for place in range(weight.ndim)])
    whole = np.rint(weight * factor).clip(-WEIGHT_LIMIT, WEIGHT_LIMIT)
    half = np.floor(np.exp2(shift + finer) / 2)
    return {
        f"{name}.weight": whole.astype(np.int16),
        f"{name}.bias": (np.rint(bias * ONE * np.exp2(shift + finer)) + half).astype(np.int64),
        f"{name}.shift": (shift + finer).astype(np.uint8),
    }


def _tables() -> dict[str, NDArray[Any]]:
    inputs = (np.arange(CURVE_STEPS) - CURVE_LIMIT) / ONE
    share = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in inputs])
    # From the middle between two scales, as a logarithm goes, the larger one is taken; but what has the least is not
    # coded and always 0, which is for scales far below it alone.
    between = SCALE_LEAST * np.exp2((np.arange(1, SCALE_COUNT) - 0.5) / SCALE_STEPS)
    between[0] = SCALE_LEAST / 2
    raw = between + np.log(-np.expm1(-between))
    return {
        "table.sizes": table_sizes(),
        "table.scale": np.ceil(raw * ONE).astype(np.int32),
        "table.gelu": np.rint(inputs * share * ONE).astype(np.int16),
        "table.tanh": np.rint(RESIDUAL_LIMIT * np.tanh(inputs) * ONE).astype(np.int16),
        "table.exp": np.rint(np.exp(-np.arange(CURVE_STEPS) / ONE) * (1 << EXP_BITS)).astype(np.int32),
    }


def _side(net: LossyNet) -> dict[str, NDArray[Any]]:
    """Medians, and the densities around them."""
    density = net.side_density
    with torch.no_grad():
        median = torch.round(density.offsets().cpu() * ONE) / ONE
        values = torch.arange(1 - MAGNITUDES, MAGNITUDES, dtype=torch.float32)
        bits = density.bits((median + values[None, None, None]).to(density.median.device))
    shares = np.exp2(-bits.cpu().double().numpy()[0, :, 0])
    total = 1 << PRECISION_BITS
    # At least one slot stays for the escape.
    sizes = np.floor(shares * (total - 2) + 0.5).astype(np.int64)
    rows = np.arange(len(sizes))
    sizes[rows, sizes.argmax(axis=1)] -= np.maximum(0, sizes.sum(axis=1) - (total - 1))
    return {
        "side.median": np.rint(median.numpy().reshape(-1) * ONE).astype(np.int32),
        "side.sizes": sizes.astype(np.uint16),
    }


def export_checkpoint(path: Path) -> FamilyModel:
    """The model of a run as far as its checkpoint has come."""
    content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    recipe = FamilyRecipe.from_json(content["recipe"])
    net = LossyNet(recipe.configuration)
    net.load_state_dict(content["net"])
    run = {"recipe": recipe.to_json(), "steps_done": content["step"], "course": content["course"]}
    return export_net(net, recipe.profile, recipe.tradeoff, {**run, "seconds": round(content["seconds"])})


def main() -> None:
    """Write the model of a checkpoint."""
    checkpoint, model = sys.argv[1:]
    Path(model).write_bytes(export_checkpoint(Path(checkpoint)).file_bytes)


if __name__ == "__main__":
    main()

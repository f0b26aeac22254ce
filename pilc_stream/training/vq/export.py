"""From code book and network to the integer model that ships."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pilc_stream.arith.blocks import CODE_CLASSES, CODE_CONTEXTS
from pilc_stream.arith.rans import PRECISION_BITS
from pilc_stream.backends.pilc.base import Choices, code_row, predictor_row
from pilc_stream.models.model import Layer
from pilc_stream.models.pilc import PilcModel
from pilc_stream.training.export import build_tables, cumulative, integer_frequencies
from pilc_stream.training.vq.network import PilcNet

PRIOR_BLOCKS = 30.0
"""A context's own counts are weighed against the counts of all contexts as if these were so many blocks."""


def export_pilc_model(
    net: PilcNet,
    fixed: Mapping[str, NDArray[Any]],
    choices: Sequence[Choices],
    profile: str,
    recipe: Mapping[str, Any],
) -> PilcModel:
    """The integer model; ModelError if its sums break the integer law.

    `fixed`: predictors and the encoder's numbers (`codebook.integer_tensors`); `choices`: of training tiles, whose
    counts become the tables of codes and predictors. With none, those tables are flat.
    """
    layers = {}
    for name in net.spec.layers():
        weight, bias, shift = net.layer(name).integers()
        layers[name] = Layer(
            weight.numpy().astype(np.int8), bias.numpy().astype(np.int32), shift.numpy().astype(np.uint8)
        )
    cdf, row_of = build_tables(net.shape)
    with torch.no_grad():
        net.quantise()
        features = [values.numpy().astype(np.uint8) for values in net.features()]
        scales = [values.numpy().astype(np.int16) for values in net.scales()]
    tensors: dict[str, NDArray[Any]] = {
        **fixed,
        "cdf": cdf,
        "row_of": row_of,
        "code.features": features[0],
        "predictor.features": features[1],
        "code.scale": scales[0],
        "predictor.scale": scales[1],
        "code.class": _classes(fixed, choices, net.spec.codes),
        "code.cdf": _flat(CODE_CONTEXTS, net.spec.codes),
        "predictor.cdf": _flat(net.spec.predictors + 1, net.spec.predictors),
    }
    model = PilcModel(net.spec, layers, tensors, profile, recipe)
    if not choices:
        return model
    counted = _counted(model, choices)
    return PilcModel(net.spec, layers, {**tensors, **counted}, profile, recipe)


def _classes(fixed: Mapping[str, NDArray[Any]], choices: Sequence[Choices], codes: int) -> NDArray[np.uint8]:
    """Codes from small to large residuals, in classes of about equally many blocks."""
    used = np.concatenate([each.codes.reshape(-1) for each in choices]) if choices else np.arange(codes)
    order = np.argsort(fixed["encoder.level"].sum(axis=1), kind="stable")
    share = np.cumsum(np.bincount(used, minlength=codes)[order]) / len(used)
    classes = np.empty(codes, np.uint8)
    classes[order] = np.minimum(share * CODE_CLASSES, CODE_CLASSES - 1).astype(np.uint8)
    return classes


def _counted(model: PilcModel, choices: Sequence[Choices]) -> dict[str, NDArray[np.uint16]]:
    codes = np.zeros((CODE_CONTEXTS, model.spec.codes))
    predictors = np.zeros((model.spec.predictors + 1, model.spec.predictors))
    for each in choices:
        for y, x in np.ndindex(each.codes.shape):
            codes[code_row(model, each.codes, y, x), each.codes[y, x]] += 1
            predictors[predictor_row(model, each.predictors, y, x), each.predictors[y, x]] += 1
    return {"code.cdf": _tables(codes), "predictor.cdf": _tables(predictors)}


def _tables(counts: NDArray[np.float64]) -> NDArray[np.uint16]:
    common = (counts.sum(axis=0) + 0.5) / (counts.sum() + 0.5 * counts.shape[1])
    return np.stack([cumulative(integer_frequencies(row + PRIOR_BLOCKS * common)) for row in counts])


def _flat(rows: int, symbols: int) -> NDArray[np.uint16]:
    starts = (np.arange(symbols) << PRECISION_BITS) // symbols
    return np.repeat(starts.astype(np.uint16)[None], rows, 0)

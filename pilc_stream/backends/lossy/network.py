"""The entropy nets in NumPy: exact in float32 BLAS, because every sum is below ``2**24``, and in int64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pilc_stream.arith.perceptron import hidden_activation
from pilc_stream.backends.lossy.base import Ints
from pilc_stream.models.lossy import LossyModel
from pilc_stream.models.model import Layer

SHUFFLED = (1, 3)
"""Layers of the hyper net behind which four channels become four places."""

HYPER_LAYERS = 5


class HostArithmetic:
    """Computes in a NumPy type that holds every sum exactly."""

    def __init__(self, dtype: DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._weights: dict[int, tuple[Layer, NDArray[Any], Ints, Ints]] = {}

    def hyper_features(self, model: LossyModel, inputs: Ints) -> NDArray[Any]:
        """Features int64 `(4 h, 4 w, hyper_width)`."""
        values = inputs
        for index in range(HYPER_LAYERS):
            values = self._hidden(model, f"hyper.{index}", values)
            if index in SHUFFLED:
                values = shuffled(values, 2)
        return values

    def outputs(
        self, model: LossyModel, number: int, context: Ints | None, features: NDArray[Any], quality: Ints
    ) -> tuple[Ints, Ints]:
        """Means and scales of a pass before the gain."""
        parts = [features, np.broadcast_to(quality, (*features.shape[:2], len(quality)))]
        if context is not None:
            parts.insert(0, self._hidden(model, f"pass.{number}.context", context))
        hidden = self._hidden(model, f"pass.{number}.hidden", np.concatenate(parts, axis=2))
        out = self._total(model, f"pass.{number}.out", hidden)
        return out[..., : out.shape[2] // 2], out[..., out.shape[2] // 2 :]

    def _hidden(self, model: LossyModel, name: str, values: Ints) -> Ints:
        return np.asarray(hidden_activation(self._total(model, name, values), 0))

    def _total(self, model: LossyModel, name: str, values: Ints) -> Ints:
        layer = model.layers[name]
        if id(layer) not in self._weights:
            weight = np.ascontiguousarray(layer.weight.T, self._dtype)
            self._weights[id(layer)] = layer, weight, layer.bias.astype(np.int64), layer.shift.astype(np.int64)
        _, weight, bias, shift = self._weights[id(layer)]
        inputs = surroundings(values.astype(self._dtype)) if model.spec.layers()[name][2] == 3 else values
        flat = inputs.reshape(-1, inputs.shape[2]).astype(self._dtype, copy=False)
        total = (flat @ weight).astype(np.int64) + bias
        return np.asarray((total >> shift).reshape(*values.shape[:2], len(bias)))


def surroundings(values: NDArray[Any]) -> NDArray[Any]:
    """`(h, w, c)` -> `(h, w, 9 c)`: each place with its eight neighbours, 0 outside."""
    height, width, _ = values.shape
    wide = np.pad(values, ((1, 1), (1, 1), (0, 0)))
    return np.concatenate([wide[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=2)


def shuffled(values: NDArray[Any], stride: int) -> NDArray[Any]:
    """`(h, w, c stride**2)` -> `(stride h, stride w, c)`: channel ``c stride**2 + y stride + x`` is the place y, x."""
    height, width, count = values.shape
    channels = count // stride**2
    groups = values.reshape(height, width, channels, stride, stride).transpose(0, 3, 1, 4, 2)
    return np.ascontiguousarray(groups).reshape(stride * height, stride * width, channels)


def unshuffled(values: NDArray[Any], stride: int) -> NDArray[Any]:
    """The inverse of `shuffled`."""
    height, width, channels = values.shape
    groups = values.reshape(height // stride, stride, width // stride, stride, channels).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(groups).reshape(height // stride, width // stride, channels * stride**2)

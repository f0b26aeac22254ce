"""The engine of the CPU with the networks of the CUDA backend, computed by torch on the host, a tile at a time."""

from __future__ import annotations

import numpy as np
import pytest

from pilc_stream.backends.lossy.base import Ints, Shape
from pilc_stream.backends.lossy.cpu import LossyCpuEngine
from pilc_stream.models.lossy import LossyModel


def torch_engine() -> LossyCpuEngine:
    """Skips the test where torch is not installed."""
    torch = pytest.importorskip("torch")
    from pilc_stream.backends.lossy.card import CardNets

    nets = CardNets(torch.device("cpu"), 16)

    def there(values: Ints) -> object:
        return torch.from_numpy(np.ascontiguousarray(values))[None]

    class OneTile:
        def hyper_features(self, model: LossyModel, inputs: Ints) -> object:
            return nets.hyper_features(model, there(inputs))[0]

        def outputs(self, model: LossyModel, number: int, context: Ints | None, features: object, quality: Ints):
            known = None if context is None else there(context)
            found = nets.outputs(model, number, known, features[None], there(quality))
            return tuple(each[0].numpy().astype(np.int64) for each in found)

    def synthesise(model: LossyModel, latents: np.ndarray, quality: int, height: int, width: int) -> np.ndarray:
        tables = nets.tables(model, [quality])
        return nets.synthesise(model, there(latents), tables, Shape(height, width))[0].numpy()

    return LossyCpuEngine(1, "cuda", (OneTile(), synthesise))

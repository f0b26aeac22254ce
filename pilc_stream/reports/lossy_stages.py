"""How long the stages of a lossy profile's decoder take: synthesis, hyper net, channel-wise nets, and the coder."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pilc_stream.backends.base import TileJob
from pilc_stream.backends.lossy.base import LossyEngine, Shape
from pilc_stream.backends.lossy.cpu import LossyCpuEngine
from pilc_stream.backends.lossy.network import HostArithmetic
from pilc_stream.backends.lossy.transforms import synthesise
from pilc_stream.models.lossy import LossyModel
from pilc_stream.models.lossy_spec import HYPER_STRIDE, LATENT_STRIDE
from pilc_stream.reports.lossy_report import CODER

LANES_LOG2 = 4
NAMES = {"synthesis": "synthesis", "hyper": "hyper_synthesis", "passes": "entropy_model"}
"""Of the parts that a model counts, as the members of the family call them."""


class _Timed:
    """Networks whose entropy nets are timed."""

    def __init__(self, arithmetic: Any, clock: Callable[[], float]) -> None:
        self._arithmetic, self._clock = arithmetic, clock
        self.spent = {"hyper_synthesis": 0.0, "entropy_model": 0.0}

    def hyper_features(self, *given: Any) -> Any:
        """Timed as `hyper_synthesis`."""
        return self._timed("hyper_synthesis", self._arithmetic.hyper_features, *given)

    def outputs(self, *given: Any) -> Any:
        """Timed as `entropy_model`."""
        return self._timed("entropy_model", self._arithmetic.outputs, *given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._arithmetic, name)

    def _timed(self, part: str, run: Callable[..., Any], *given: Any) -> Any:
        start = self._clock()
        out = run(*given)
        self.spent[part] += self._clock() - start
        return out


def stage_seconds(
    model: LossyModel, image: NDArray[np.uint8], quality: int, device: str, rounds: int
) -> dict[str, float]:
    """Seconds of each stage for an image `(h, w, 3)` as one tile: medians of the rounds, after one to warm up.

    What of the latents is neither hyper net nor channel-wise nets is the coder's. On "cpu" they are CPU seconds, on
    "cuda" by the clock.
    """
    engine: LossyEngine[LossyModel]
    clock: Callable[[], float] = time.process_time
    if device == "cuda":
        from pilc_stream.backends.lossy.cuda import LossyCudaEngine

        card = LossyCudaEngine()
        clock = card.clock
        timed = _Timed(card.nets, clock)
        card.nets, engine = cast(Any, timed), card
    else:
        timed = _Timed(HostArithmetic(np.float32), clock)
        engine = LossyCpuEngine(1, device, (timed, synthesise))
    height, width, channels = image.shape
    stream = engine.encode_tiles(model, [image], [quality], [LANES_LOG2])[0].stream
    job = TileJob(memoryview(stream), height, width, channels, LANES_LOG2)
    found: list[dict[str, float]] = []
    for _ in range(rounds + 1):
        timed.spent = dict.fromkeys(timed.spent, 0.0)
        start = clock()
        ((level, latents),) = engine.decode_latents(model, [job])
        middle = clock()
        engine.synthesise(model, [level], [latents], [Shape(height, width)])
        end = clock()
        coder = middle - start - sum(timed.spent.values())
        found.append({"synthesis": end - middle, **timed.spent, CODER: coder})
    return {part: median(each[part] for each in found[1:]) for part in found[0]}


def profile_times(
    model: LossyModel, image: NDArray[np.uint8], quality: int, device: str, rounds: int
) -> dict[str, Any]:
    """The profile as a row of the report: parameters, kFLOP per pixel and seconds per megapixel by part."""
    megapixels = image.shape[0] * image.shape[1] / 1e6
    seconds = stage_seconds(model, image, quality, device, rounds)
    layers = [part for layer in model.layers.values() for part in (layer.weight, layer.bias)]
    return {
        "name": model.profile,
        "parts": ["patches and residual blocks", "slices on a chess board", "Conv"],
        "parameters": int(sum(part.size for part in (*layers, *model.floats.values()))),
        "kflop": {NAMES[part]: round(2 * macs / 1000, 2) for part, macs in model.spec.macs_per_pixel().items()},
        "seconds_per_mp": {part: round(each / megapixels, 5) for part, each in seconds.items()},
        "latents_per_pixel": model.spec.latents / LATENT_STRIDE**2 + model.spec.hyper_channels / HYPER_STRIDE**2,
        "published": None,
    }

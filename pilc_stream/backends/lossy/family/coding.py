"""A tile through the networks: analysis, the walk through its side information and latents, synthesis."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.backends.base import Tile
from pilc_stream.backends.lossy.base import Floats, Ints, Shape, ValueCoder, hyper_grid, latent_grid
from pilc_stream.backends.lossy.family.floats import FloatNetwork
from pilc_stream.backends.lossy.family.integers import IntegerNetwork
from pilc_stream.backends.lossy.family.machine import Machine
from pilc_stream.backends.lossy.transforms import Encoded
from pilc_stream.models.family import ACTIVATION_LIMIT, FRACTION_BITS, FamilyModel
from pilc_stream.models.family_spec import (
    Step,
    analysis_parts,
    hyper_analysis_parts,
    hyper_synthesis_parts,
    split_part,
    step_parts,
    synthesis_parts,
)
from pilc_stream.models.lossy_spec import HYPER_STRIDE, SCALE_COUNT

PEAK = np.float32(255)
MIDDLE = np.float32(0.5)


class Networks:
    """The networks of one model on one machine."""

    def __init__(self, model: FamilyModel, machine: Machine) -> None:
        self._model, self._machine = model, machine
        self._floats, self._integers = FloatNetwork(model, machine), IntegerNetwork(model, machine)

    def analyse(self, tile: Tile) -> Encoded:
        """Side information `(h / 64, w / 64, c)` and latents `(h / 16, w / 16, c)` of a tile uint8 `(h, w, 3)`, which
        is continued by its last row and column to whole strides; not rounded."""
        height, width = tile.shape[:2]
        rows, columns = (HYPER_STRIDE * count for count in hyper_grid(height, width))
        whole = np.pad(tile, ((0, rows - height), (0, columns - width), (0, 0)), mode="edge")
        given, machine = self._model.configuration, self._machine
        values = machine.floats(whole.astype(np.float32) / PEAK - MIDDLE)
        latents = self._floats.run(analysis_parts(given), values)
        side = machine.host(self._floats.run(hyper_analysis_parts(given), latents))
        rows, columns = latent_grid(height, width)
        return Encoded(side, machine.host(latents)[:rows, :columns])

    def walk(self, coder: ValueCoder, shape: Shape, found: Encoded | None = None) -> NDArray[np.int32]:
        """Code what was `found` in a tile, or decode: its decoded latents in 256ths."""
        given, machine = self._model.configuration, self._machine
        grid = hyper_grid(*shape)
        median = self._model.tensors["side.median"].astype(np.int64)
        rows = np.broadcast_to(SCALE_COUNT + np.arange(given.hyper_width), (*grid, given.hyper_width))
        side = _coded(coder, rows, median, None if found is None else found.hyper)
        inputs = machine.integers(side.clip(-ACTIVATION_LIMIT, ACTIVATION_LIMIT))
        tall, wide = latent_grid(*shape)
        features = self._integers.run(hyper_synthesis_parts(given), inputs)[:tall, :wide]
        steps = step_parts(given)
        wanted = None if found is None else found.latents
        if not steps:
            return self._slice(coder, features, wanted).astype(np.int32)
        split, size = split_part(given), given.latents // given.steps
        if split is not None:
            features = self._integers.run([split], features)
        decoded: list[Any] = []
        out: list[Ints] = []
        for number, step in enumerate(steps):
            first = number * given.split_width
            own = features[..., first : first + given.split_width] if split is not None else features
            known = machine.joined([own, *decoded], 2)
            of_slice = None if wanted is None else wanted[..., number * size : (number + 1) * size]
            values = self._slice(coder, self._integers.run(step.distribution, known), of_slice)
            improved = self._improved(step, machine.integers(_limited(values)), known)
            decoded.append(improved)
            out.append(machine.host(improved))
        return np.concatenate(out, axis=2).astype(np.int32)

    def _slice(self, coder: ValueCoder, outputs: Any, wanted: Floats | None) -> Ints:
        """Latents whose means and scales are the `outputs`, by row, column and channel."""
        found = self._machine.host(outputs)
        half = found.shape[2] // 2
        index = np.searchsorted(self._model.tensors["table.scale"], found[..., half:], side="right")
        return _coded(coder, index, found[..., :half], wanted)

    def _improved(self, step: Step, values: Any, known: Any) -> Any:
        """A slice with what rounding may have taken."""
        nets, machine = self._integers, self._machine
        if not step.residual:
            return values
        residual = nets.half_tangent(nets.run(step.residual, machine.joined([known, values], 2)))
        if step.merge:
            residual = nets.run(step.merge, machine.joined([values, residual], 2))
        return nets.added(values, residual)

    def synthesise(self, latents: NDArray[np.int32], height: int, width: int) -> Tile:
        """The pixels uint8 `(height, width, 3)` of decoded latents."""
        values = self._machine.floats(latents.astype(np.float32) / np.float32(1 << FRACTION_BITS))
        found = self._machine.host(self._floats.run(synthesis_parts(self._model.configuration), values))
        levels = np.rint((found[:height, :width] + MIDDLE) * PEAK)
        return np.asarray(levels.clip(0, PEAK), np.uint8)


def _coded(coder: ValueCoder, index: Ints, mean: Ints, wanted: Floats | None) -> Ints:
    """Values in 256ths, of these rows of tables and around these means."""
    apart = None if wanted is None else (wanted.astype(np.float64) - mean / (1 << FRACTION_BITS)).reshape(-1)
    values = coder.values(index.reshape(-1).astype(np.int64), apart).reshape(index.shape)
    return np.asarray((values << FRACTION_BITS) + mean)


def _limited(values: Ints) -> Ints:
    return np.clip(values, -ACTIVATION_LIMIT, ACTIVATION_LIMIT)

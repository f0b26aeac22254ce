"""Where things lie for the vector kernels: rows of scratch, planes of state, packed weights.

Inputs of dense layers lie in *quads*: four unsigned bytes in a 32-bit lane. Hidden units are bytes; context inputs are
signed and stored plus 128, which the packed biases make up for. A machine with VNNI multiplies and adds a quad with one
instruction; elsewhere its even and odd bytes are two pairs of 16-bit integers, for which weights are packed likewise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith import adaptive
from pilc_stream.arith.adaptive import AVERAGE_SHIFTS, feature_count
from pilc_stream.arith.context import CHANNELS
from pilc_stream.models.model import Layer, WaveModel
from pilc_stream.models.spec import EARLIER_INPUTS, WaveSpec

QUAD = 4
SIGNED_OFFSET = 128
"""Added to signed inputs, so that all bytes of a quad are unsigned."""

OUTPUT_BLOCK = 12
"""Units of a layer whose sums are held in registers at once; a multiple of `QUAD`."""

EARLIER_QUADS = (EARLIER_INPUTS + QUAD - 1) // QUAD


def quad_count(values: int) -> int:
    """Quads that hold so many values, the last one filled up with zeros."""
    return (values + QUAD - 1) // QUAD


@dataclass(frozen=True)
class ScratchRows:
    """Where each quantity of a block lies: row numbers."""

    spec: WaveSpec
    bases: int = 0
    exponent: int = CHANNELS
    means: int = CHANNELS + 1
    table_indices: int = 2 * CHANNELS + 1
    errors: int = 3 * CHANNELS + 1
    predictions: int = 4 * CHANNELS
    direct: int = 5 * CHANNELS

    @property
    def inputs(self) -> int:
        """Quads of the trunk's inputs: the direct ones, padded to whole quads, then the others."""
        return quad_count(self.spec.direct) + quad_count(self.spec.inputs - self.spec.direct)

    @property
    def trunk(self) -> list[int]:
        """First row of each trunk layer's output; the last layer's lies before `earlier`."""
        rows, row = [], self.direct + self.inputs
        for width in self.spec.trunk:
            rows.append(row)
            row += quad_count(width)
        return rows

    @property
    def earlier(self) -> int:
        """First row of the earlier channels' inputs, right behind the trunk's output."""
        return self.trunk[-1] + quad_count(self.spec.trunk[-1])

    def adapted(self, channel: int) -> int:
        """Row of a channel's scaled adaptive prediction (alone in a quad), right behind its earlier inputs."""
        return self.earlier + EARLIER_QUADS * channel

    @property
    def hidden(self) -> int:
        """First row of the current head's hidden units."""
        return self.adapted(CHANNELS - 1) + 1

    @property
    def count(self) -> int:
        """Rows of a block."""
        return self.hidden + quad_count(self.spec.head)


def state_offset(spec: WaveSpec, channel: int) -> int:
    """First plane of a channel's state: the weights of its adaptive unit, then its running means."""
    return sum(feature_count(c, spec.taps) + len(AVERAGE_SHIFTS) for c in range(channel))


def initial_state(spec: WaveSpec) -> NDArray[np.int16]:
    """What all planes of the state hold outside the tile."""
    return np.array([value for c in range(CHANNELS) for value in adaptive.initial_state(c, spec.taps)], np.int16)


@dataclass(frozen=True)
class Segment:
    """Some inputs of a layer that are padded to whole quads together."""

    size: int
    signed: bool


@dataclass(frozen=True)
class PackedParameters:
    """All layers as one int32 array, and where each begins.

    A layer is stored in blocks of `OUTPUT_BLOCK` units: their biases, their shifts, then for each quad of inputs the
    weights of each unit: four bytes, or two words of 16-bit pairs (even bytes, odd bytes). Inputs are padded to whole
    quads with zeros, and so are the units of layers whose output is stored in quads (trunk and hidden, not the heads'
    outputs).
    """

    values: NDArray[np.int32]
    offsets: dict[str, int]


def input_segments(spec: WaveSpec, name: str) -> list[Segment]:
    """How a layer's inputs fall into segments, each of them bytes of one kind."""
    if name == "trunk.0":
        return [Segment(spec.direct, True), Segment(spec.inputs - spec.direct, True)]
    kind, index, *part = name.split(".")
    if kind == "trunk":
        return [Segment(spec.trunk[int(index) - 1], False)]
    adapted = Segment(1, True)
    if part == ["hidden"]:
        earlier = [Segment(EARLIER_INPUTS, True)] * int(index)
        return [Segment(spec.trunk[-1], False), *earlier, *[adapted] * (index != "0")]
    head = Segment(spec.head, False)
    return [head, Segment(spec.direct, True), adapted] if part == ["mean"] else [head]


def pack_parameters(model: WaveModel, words_per_quad: int) -> PackedParameters:
    """The model's layers in the layout that the kernels walk; `words_per_quad`: 1 for bytes, 2 for pairs."""
    parts: list[NDArray[np.int32]] = []
    offsets, position = {}, 0
    for name in model.spec.layers():
        offsets[name] = position
        in_quads = not name.endswith((".mean", ".scale", ".coupling"))
        layer, segments = model.layers[name], input_segments(model.spec, name)
        for part in _packed_layer(layer, segments, in_quads, words_per_quad):
            parts.append(part)
            position += len(part)
    return PackedParameters(np.concatenate(parts), offsets)


def _packed_layer(
    layer: Layer, segments: Sequence[Segment], in_quads: bool, words_per_quad: int
) -> list[NDArray[np.int32]]:
    columns, start = [], 0
    bias = layer.bias.astype(np.int32)
    for segment in segments:
        weights = layer.weight[:, start : start + segment.size].astype(np.int32)
        if segment.signed:
            bias = bias - SIGNED_OFFSET * weights.sum(axis=1, dtype=np.int32)
        columns.append(np.pad(weights, ((0, 0), (0, -segment.size % QUAD))))
        start += segment.size
    missing = -len(bias) % QUAD if in_quads else 0
    weight = np.pad(np.concatenate(columns, axis=1), ((0, missing), (0, 0)))
    bias, shift = np.pad(bias, (0, missing)), np.pad(layer.shift.astype(np.int32), (0, missing))
    if words_per_quad == 1:
        words = (weight.astype(np.int8).view("<i4"))[:, :, None]
    else:
        pairs = [(weight[:, i::QUAD] & 0xFFFF) | (weight[:, i + 2 :: QUAD] << 16) for i in (0, 1)]
        words = np.stack(pairs, axis=2)
    parts = []
    for first in range(0, len(bias), OUTPUT_BLOCK):
        units = slice(first, first + OUTPUT_BLOCK)
        # Quad by quad: the words of all units of the block, in turn.
        parts += [bias[units], shift[units], np.ascontiguousarray(words[units].transpose(1, 0, 2)).reshape(-1)]
    return parts

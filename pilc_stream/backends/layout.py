"""Where things lie for the vector kernels: rows of scratch, planes of state, packed weights.

Inputs of dense layers lie in *quads*: four unsigned bytes in a 32-bit lane. Hidden units are bytes; context inputs are
signed and stored plus 128, which the packed biases make up for. A machine with VNNI multiplies and adds a quad with one
instruction; elsewhere its even and odd bytes are two pairs of 16-bit integers, for which weights are packed likewise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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


def quad_count(values: int) -> int:
    """Quads that hold so many values, the last one filled up."""
    return (values + QUAD - 1) // QUAD


@dataclass(frozen=True)
class ScratchRows:
    """Where each quantity of a block of pixels lies: rows of 16 bits per pixel; quads take two."""

    spec: WaveSpec
    exponent: int = 0
    bases: int = 1
    means: int = 1 + CHANNELS
    errors: int = 1 + 2 * CHANNELS
    predictions: int = 1 + 3 * CHANNELS
    table_index: int = 1 + 4 * CHANNELS
    taps: int = 1 + 5 * CHANNELS

    @property
    def first_quad(self) -> int:
        """The first row of quads, a multiple of 2; before it, `taps` scaled neighbours per channel."""
        return (self.taps + CHANNELS * self.spec.taps + 1) // 2 * 2

    @property
    def inputs(self) -> int:
        """First row of the trunk's inputs."""
        return self.first_quad

    @property
    def trunk(self) -> list[int]:
        """First row of each trunk layer's output; the last layer's lies before `earlier`."""
        rows, row = [], self.inputs + 2 * quad_count(self.spec.inputs)
        for width in self.spec.trunk:
            rows.append(row)
            row += 2 * quad_count(width)
        return rows

    @property
    def earlier(self) -> int:
        """First row of what a later head sees beside the trunk, right behind the trunk's output: a quad for each
        earlier channel, the first of them with the head's own adaptive prediction."""
        return self.trunk[-1] + 2 * quad_count(self.spec.trunk[-1])

    @property
    def hidden(self) -> int:
        """First row of the current head's hidden units, with its scaled adaptive prediction behind them."""
        return self.earlier + 2 * (CHANNELS - 1)

    @property
    def count(self) -> int:
        """Rows of a block."""
        return self.hidden + 2 * quad_count(self.spec.head + 1)


def state_offset(spec: WaveSpec, channel: int) -> int:
    """First plane of a channel's state: the weights of its adaptive unit, then its running means."""
    return sum(feature_count(c, spec.taps) + len(AVERAGE_SHIFTS) for c in range(channel))


def initial_state(spec: WaveSpec) -> NDArray[np.int16]:
    """What all planes of the state hold outside the tile."""
    return np.array([value for c in range(CHANNELS) for value in adaptive.initial_state(c, spec.taps)], np.int16)


class Column(NamedTuple):
    """A byte of a quad: which input of the layer it is, and whether that is stored plus `SIGNED_OFFSET`."""

    input: int
    signed: bool


Columns = list[Column | None]
"""The bytes of a layer's quads in order; None where a byte is not an input."""


def input_columns(spec: WaveSpec, name: str) -> Columns:
    """What the quads that a layer reads hold for it."""
    if name == "trunk.0":
        return _whole_quads([Column(i, True) for i in range(spec.inputs)])
    kind, index, *part = name.split(".")
    if kind == "trunk":
        return _whole_quads([Column(i, False) for i in range(spec.trunk[int(index) - 1])])
    if part == ["hidden"]:
        c, width = int(index), spec.trunk[-1]
        columns = _whole_quads([Column(i, False) for i in range(width)])
        for earlier in range(c):
            values = range(width + EARLIER_INPUTS * earlier, width + EARLIER_INPUTS * (earlier + 1))
            adapted = Column(width + EARLIER_INPUTS * c, True) if earlier == 0 else None
            columns += [*(Column(i, True) for i in values), adapted]
        return columns
    hidden: Columns = [Column(i, False) for i in range(spec.head)]
    if part != ["mean"]:
        return _whole_quads(hidden)
    adapted = Column(spec.head + spec.direct, True)
    return _whole_quads([*hidden, adapted]) + _whole_quads([Column(spec.head + i, True) for i in range(spec.direct)])


def _whole_quads(columns: Sequence[Column | None]) -> Columns:
    return [*columns, *[None] * (-len(columns) % QUAD)]


@dataclass(frozen=True)
class PackedParameters:
    """All layers as one int32 array, and where each begins.

    A layer is stored in blocks of units: their biases, their shifts, then for each quad of inputs the weights of each
    unit: four bytes, or two words of 16-bit pairs (even bytes, odd bytes). Bytes that are no input have weight 0.
    """

    values: NDArray[np.int32]
    offsets: dict[str, int]


def pack_parameters(model: WaveModel, words_per_quad: int, block_units: int) -> PackedParameters:
    """The model's layers in the layout that the kernels walk.

    `words_per_quad`: 1 for bytes, 2 for pairs; `block_units`: units whose sums are held in registers at once.
    """
    parts: list[NDArray[np.int32]] = []
    offsets, position = {}, 0
    for name in model.spec.layers():
        offsets[name] = position
        for part in _packed_layer(model.layers[name], input_columns(model.spec, name), words_per_quad, block_units):
            parts.append(part)
            position += len(part)
    return PackedParameters(np.concatenate(parts), offsets)


def _packed_layer(layer: Layer, columns: Columns, words_per_quad: int, block_units: int) -> list[NDArray[np.int32]]:
    weight = np.zeros((len(layer.bias), len(columns)), np.int32)
    bias, shift = layer.bias.astype(np.int32), layer.shift.astype(np.int32)
    for position, column in enumerate(columns):
        if column is not None:
            weight[:, position] = layer.weight[:, column.input]
            if column.signed:
                bias = bias - SIGNED_OFFSET * weight[:, position]
    if words_per_quad == 1:
        words = (weight.astype(np.int8).view("<i4"))[:, :, None]
    else:
        pairs = [(weight[:, i::QUAD] & 0xFFFF) | (weight[:, i + 2 :: QUAD] << 16) for i in (0, 1)]
        words = np.stack(pairs, axis=2)
    parts = []
    for first in range(0, len(bias), block_units):
        units = slice(first, first + block_units)
        # Quad by quad: the words of all units of the block, in turn.
        parts += [bias[units], shift[units], np.ascontiguousarray(words[units].transpose(1, 0, 2)).reshape(-1)]
    return parts

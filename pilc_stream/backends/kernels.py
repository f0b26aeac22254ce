"""The vector kernels of the CPU backend: context and trunk, one head per channel, and what a step leaves behind.

They work on a *gang*: tiles of equal shape decoded in lockstep. The gang's pixels are kept in skewed coordinates, in a
ring over the wavefront's steps: the pixel `(y, x)` of tile `g` lies in slot ``(x + 2 y) % SLOTS`` at element
``(y + ROWS_ABOVE) * gang + g``. So the pixels of a step are consecutive, each neighbour of all of them is one vector
load at a fixed distance, and the lanes of a vector are pixels.

What a step computes lies in *scratch*: blocks of `width` pixels, each a column of rows of `width` 32-bit integers
(`ScratchRows`). Inputs of dense layers are stored as pairs of 16-bit integers, for multiply-add-pairs instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from pilc_stream.arith.context import (
    CHANNELS,
    STEPS_BACK,
    base_predictions,
    context_inputs,
    earlier_channel_inputs,
)
from pilc_stream.arith.perceptron import (
    coupled,
    hidden_activation,
    limited_mean,
    mean_fraction,
    mean_offset,
    scale_index,
)
from pilc_stream.arith.predictor import SUB_PREDICTORS, sub_prediction_error, sub_predictions
from pilc_stream.backends.vector import I8, I16, I32, I64, POINTER, Lanes, VectorBuilder
from pilc_stream.models.model import Layer, WaveModel
from pilc_stream.models.spec import EARLIER_INPUTS, WaveSpec

SLOTS = STEPS_BACK + 1
"""Steps kept in the ring; a power of two, because slots are found by masking."""

OUTPUT_BLOCK = 12
"""Units of a layer whose sums are held in registers at once."""

EARLIER_PAIRS = (EARLIER_INPUTS + 1) // 2

ARGUMENTS = (POINTER, POINTER, POINTER, I64, I64, I64, I64, I64, POINTER, POINTER)
"""pixels, sub-errors, base errors, plane stride, gang, step, first element, count, scratch, parameters."""


def pair_count(values: int) -> int:
    """Pairs that hold so many values, the last one perhaps with a zero."""
    return (values + 1) // 2


@dataclass(frozen=True)
class ScratchRows:
    """Where each quantity of a block lies: row numbers."""

    spec: WaveSpec
    bases: int = 0
    exponent: int = CHANNELS
    means: int = CHANNELS + 1
    table_indices: int = 2 * CHANNELS + 1
    errors: int = 3 * CHANNELS + 1
    direct: int = 4 * CHANNELS

    @property
    def inputs(self) -> int:
        """Pairs of the trunk's inputs: the direct ones, padded to whole pairs, then the others."""
        return pair_count(self.spec.direct) + pair_count(self.spec.inputs - self.spec.direct)

    @property
    def trunk(self) -> list[int]:
        """First row of each trunk layer's output; the last layer's lies before `earlier`."""
        rows, row = [], self.direct + self.inputs
        for width in self.spec.trunk:
            rows.append(row)
            row += pair_count(width)
        return rows

    @property
    def earlier(self) -> int:
        """First row of the earlier channels' inputs, right behind the trunk's output."""
        return self.trunk[-1] + pair_count(self.spec.trunk[-1])

    @property
    def hidden(self) -> int:
        """First row of the current head's hidden units."""
        return self.earlier + EARLIER_PAIRS * (CHANNELS - 1)

    @property
    def count(self) -> int:
        """Rows of a block."""
        return self.hidden + pair_count(self.spec.head)


@dataclass(frozen=True)
class PackedParameters:
    """All layers as one int32 array, and where each begins.

    A layer is stored in blocks of `OUTPUT_BLOCK` units: their biases, their shifts, then for each pair of inputs one
    pair of weights per unit. Inputs are padded to whole pairs with zeros, and so are the units of layers whose output
    is stored in pairs (trunk and hidden, not the heads' outputs).
    """

    values: NDArray[np.int32]
    offsets: dict[str, int]


def input_segments(spec: WaveSpec, name: str) -> list[int]:
    """How a layer's inputs fall into segments that are padded to whole pairs each."""
    if name == "trunk.0":
        return [spec.direct, spec.inputs - spec.direct]
    kind, index, *part = name.split(".")
    if kind == "trunk":
        return [spec.trunk[int(index) - 1]]
    earlier = [EARLIER_INPUTS] * int(index)
    if part == ["hidden"]:
        return [spec.trunk[-1], *earlier]
    return [spec.head, spec.direct] if part == ["mean"] else [spec.head]


def pack_parameters(model: WaveModel) -> PackedParameters:
    """The model's layers in the layout that the kernels walk."""
    parts: list[NDArray[np.int32]] = []
    offsets, position = {}, 0
    for name in model.spec.layers():
        offsets[name] = position
        in_pairs = not name.endswith((".mean", ".scale", ".coupling"))
        for part in _packed_layer(model.layers[name], input_segments(model.spec, name), in_pairs):
            parts.append(part)
            position += len(part)
    return PackedParameters(np.concatenate(parts), offsets)


def _packed_layer(layer: Layer, segments: Sequence[int], in_pairs: bool) -> list[NDArray[np.int32]]:
    columns, start = [], 0
    for size in segments:
        segment = layer.weight[:, start : start + size].astype(np.int32)
        columns.append(np.pad(segment, ((0, 0), (0, size % 2))))
        start += size
    odd = len(layer.bias) % 2 if in_pairs else 0
    weight = np.pad(np.concatenate(columns, axis=1), ((0, odd), (0, 0)))
    bias, shift = np.pad(layer.bias, (0, odd)), np.pad(layer.shift.astype(np.int32), (0, odd))
    pairs = (weight[:, 0::2] & 0xFFFF) | (weight[:, 1::2] << 16)
    parts = []
    for first in range(0, len(bias), OUTPUT_BLOCK):
        units = slice(first, first + OUTPUT_BLOCK)
        parts += [bias[units], shift[units], np.ascontiguousarray(pairs[units].T).reshape(-1)]
    return parts


class KernelEmitter:
    """Emits the kernels of one architecture; weights are data, so models of one architecture share the code."""

    def __init__(self, spec: WaveSpec, offsets: dict[str, int], width: int) -> None:
        self.spec, self.offsets, self.width = spec, offsets, width
        self.rows = ScratchRows(spec)
        self.module = ir.Module("wave")
        self._emit("context", self._context)
        for c in range(CHANNELS):
            self._emit(f"head{c}", partial(self._head, c))
        self._emit("update", self._update)

    def _emit(self, name: str, body: Callable[[Block], None]) -> None:
        builder = VectorBuilder(self.module, name, ARGUMENTS, self.width)
        count = builder.arguments[7]
        blocks = builder.ir.udiv(builder.ir.add(count, I64(self.width - 1)), I64(self.width))
        with builder.loop(blocks) as (index, _, _):
            body(Block(builder, index, self.rows.count))
        builder.ir.ret_void()

    def _context(self, block: Block) -> None:
        rows, spec = self.rows, self.spec
        bases = base_predictions(block.pixel, block.sub_error)
        exponent, inputs = context_inputs(spec.neighbours, bases, block.pixel, block.base_error)
        for c in range(CHANNELS):
            block.put(rows.bases + c, bases[c])
        block.put(rows.exponent, exponent)
        block.put_pairs(rows.direct, inputs[: spec.direct])
        block.put_pairs(rows.direct + pair_count(spec.direct), inputs[spec.direct :])
        source, pairs = rows.direct, rows.inputs
        for i, width in enumerate(spec.trunk):
            self._dense(block, f"trunk.{i}", source, pairs, width, rows.trunk[i])
            source, pairs = rows.trunk[i], pair_count(width)

    def _head(self, c: int, block: Block) -> None:
        rows, spec = self.rows, self.spec
        exponent, base = block.get(rows.exponent), block.get(rows.bases + c)
        if c:
            pixel = 16 * block.pixel(c - 1, 0, 0)
            error, distance = pixel - block.get(rows.means + c - 1), pixel - block.get(rows.bases + c - 1)
            block.put(rows.errors + c - 1, error)
            values = earlier_channel_inputs(error, distance, exponent)
            block.put_pairs(rows.earlier + EARLIER_PAIRS * (c - 1), values)
        trunk_pairs = pair_count(spec.trunk[-1]) + EARLIER_PAIRS * c
        self._dense(block, f"head.{c}.hidden", rows.trunk[-1], trunk_pairs, spec.head, rows.hidden)

        hidden = [block.get(rows.hidden + i) for i in range(pair_count(spec.head))]
        direct = [block.get(rows.direct + i) for i in range(pair_count(spec.direct))]
        mean = base + mean_offset(*self._unit(block, f"head.{c}.mean", 0, hidden + direct), exponent)
        for i in range(c):
            coupling = self._unit(block, f"head.{c}.coupling", i, hidden)
            mean = mean + coupled(*coupling, block.get(rows.errors + i))
        mean = limited_mean(mean)
        scale_total, scale_shift = self._unit(block, f"head.{c}.scale", 0, hidden)
        scale = scale_index(scale_total, scale_shift, exponent, spec.scale_count)
        block.put(rows.means + c, mean)
        block.put(rows.table_indices + c, (scale << 4) + mean_fraction(mean))

    def _update(self, block: Block) -> None:
        inside = block.inside()
        for c in range(CHANNELS):
            pixel = block.pixel(c, 0, 0)
            predictions = sub_predictions(
                block.pixel(c, 0, -1), block.pixel(c, -1, 0), block.pixel(c, -1, -1), block.pixel(c, -1, 1)
            )
            # The elements behind the step's last pixel are pixels to come, whose recorded errors must stay 0.
            for i in range(SUB_PREDICTORS):
                block.put_sub_error(c, i, sub_prediction_error(predictions[i], pixel) * inside)
            block.put_base_error(c, (block.get(self.rows.bases + c) - 16 * pixel) * inside)

    def _dense(self, block: Block, name: str, source: int, pairs: int, outputs: int, destination: int) -> None:
        builder, position = block.builder, self.offsets[name]
        padded = outputs + outputs % 2
        for first in range(0, padded, OUTPUT_BLOCK):
            units = min(OUTPUT_BLOCK, padded - first)
            totals = [block.parameter(position + i) for i in range(units)]
            shifts = [block.parameter(position + units + i) for i in range(units)]
            weights = position + 2 * units
            with builder.loop(I64(pairs), totals) as (pair, sums, end):
                values = block.get(source, pair)
                step = builder.ir.mul(pair, I64(units))
                end.values = [
                    builder.dot_pairs(total, values, block.parameter(weights + i, step)) for i, total in enumerate(sums)
                ]
            activations = [hidden_activation(t, s) for t, s in zip(end.results, shifts, strict=True)]
            block.put_pairs(destination + first // 2, activations)
            position = weights + pairs * units

    def _unit(self, block: Block, name: str, unit: int, pairs: Sequence[Lanes]) -> tuple[Lanes, Lanes]:
        """Sum and shift of one unit of a small output layer."""
        position, units = self.offsets[name], self.spec.layers()[name][0]
        total, other = block.parameter(position + unit), block.builder.lanes(0)
        for i, values in enumerate(pairs):
            # Two running sums, so that one multiply-add need not wait for the one before.
            weight = block.parameter(position + 2 * units + i * units + unit)
            total, other = other, block.builder.dot_pairs(total, values, weight)
        return total + other, block.parameter(position + units + unit)


class Block:
    """The pixels of one vector: their neighbours in the ring, their rows in scratch."""

    def __init__(self, builder: VectorBuilder, index: ir.Value, rows: int) -> None:
        self.builder = builder
        (self._pixels, self._sub_errors, self._base_errors, self._stride, self._gang, self._step, self._first) = (
            builder.arguments[:7]
        )
        self._count, self._scratch, self._parameters = builder.arguments[7:]
        self._offset = builder.ir.mul(index, I64(builder.width))
        self._row0 = builder.ir.mul(index, I64(rows * builder.width))
        self._loaded: dict[tuple[int, ...], Lanes] = {}

    def pixel(self, c: int, dy: int, dx: int) -> Lanes:
        """Grey levels of a neighbour, or of the pixel itself at (0, 0)."""
        return self._from_ring((0, c, dy, dx), self._pixels, CHANNELS, c, dy, dx, I8, signed=False)

    def sub_error(self, c: int, i: int, dy: int, dx: int) -> Lanes:
        """A neighbour's recorded error of one sub-predictor."""
        plane = c * SUB_PREDICTORS + i
        return self._from_ring(
            (1, plane, dy, dx), self._sub_errors, CHANNELS * SUB_PREDICTORS, plane, dy, dx, I8, signed=False
        )

    def base_error(self, c: int, dy: int, dx: int) -> Lanes:
        """A neighbour's base error, sixteenths of a level."""
        return self._from_ring((2, c, dy, dx), self._base_errors, CHANNELS, c, dy, dx, I16, signed=True)

    def put_sub_error(self, c: int, i: int, value: Lanes) -> None:
        """Record a sub-predictor's error at the pixels themselves."""
        plane = c * SUB_PREDICTORS + i
        index = self._ring_index(CHANNELS * SUB_PREDICTORS, plane, 0, 0)
        self.builder.store(value, self._sub_errors, index, I8)

    def put_base_error(self, c: int, value: Lanes) -> None:
        """Record the base error at the pixels themselves."""
        self.builder.store(value, self._base_errors, self._ring_index(CHANNELS, c, 0, 0), I16)

    def inside(self) -> Lanes:
        """1 for lanes that are pixels of this step, 0 for those behind the last."""
        lane = Lanes(self.builder, ir.Constant(self.builder.vector, list(range(self.builder.width))))
        left = self.builder.ir.trunc(self.builder.ir.sub(self._count, self._offset), I32)
        return lane < self.builder.splat(left)

    def get(self, row: int, further: ir.Value | None = None) -> Lanes:
        """A row of scratch, `further` rows behind `row`."""
        return self.builder.load(self._scratch, self._scratch_index(row, further), I32)

    def put(self, row: int, value: Lanes) -> None:
        """Write a row of scratch."""
        self.builder.store(value, self._scratch, self._scratch_index(row, None), I32)

    def put_pairs(self, row: int, values: Sequence[Lanes]) -> None:
        """Write values as pairs of 16-bit integers, the last with a zero if their number is odd."""
        for i in range(0, len(values), 2):
            high = values[i + 1] << 16 if i + 1 < len(values) else 0
            self.put(row + i // 2, (values[i] & 0xFFFF) | high)

    def parameter(self, position: int, further: ir.Value | None = None) -> Lanes:
        """One parameter in every lane."""
        index: ir.Value = I64(position)
        if further is not None:
            index = self.builder.ir.add(index, further)
        return self.builder.load_scalar(self._parameters, index)

    def _scratch_index(self, row: int, further: ir.Value | None) -> ir.Value:
        index = self.builder.ir.add(self._row0, I64(row * self.builder.width))
        if further is None:
            return index
        return self.builder.ir.add(index, self.builder.ir.mul(further, I64(self.builder.width)))

    def _ring_index(self, planes: int, plane: int, dy: int, dx: int) -> ir.Value:
        b = self.builder.ir
        slot = b.and_(b.add(self._step, I64(2 * dy + dx)), I64(SLOTS - 1))
        plane_start = b.mul(b.add(b.mul(slot, I64(planes)), I64(plane)), self._stride)
        return b.add(b.add(plane_start, b.mul(self._gang, I64(dy))), b.add(self._first, self._offset))

    def _from_ring(
        self,
        key: tuple[int, ...],
        ring: ir.Value,
        planes: int,
        plane: int,
        dy: int,
        dx: int,
        element: ir.IntType,
        *,
        signed: bool,
    ) -> Lanes:
        if key not in self._loaded:
            index = self._ring_index(planes, plane, dy, dx)
            self._loaded[key] = self.builder.load(ring, index, element, signed)
        return self._loaded[key]

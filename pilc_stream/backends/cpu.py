"""The CPU backend: vector kernels compiled for this machine, driven by Numba, over threads if asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.context import CHANNELS, ROWS_ABOVE
from pilc_stream.backends.base import Tile, TileJob, check_end, pack_stream, split_stream
from pilc_stream.backends.kernels import SLOTS, STATE_SLOTS, KernelEmitter
from pilc_stream.backends.layout import QUAD, SIGNED_OFFSET, ScratchRows, initial_state, pack_parameters
from pilc_stream.backends.vector import VECTOR_WIDTHS, CompiledModule, host_has_byte_dots, host_width
from pilc_stream.backends.wavefront import SUB_PLANES, context_gang, decode_gang, encode_lanes, model_gang
from pilc_stream.errors import DeviceError, FormatError
from pilc_stream.models.model import WaveModel
from pilc_stream.models.spec import WaveSpec

GANG_ELEMENTS = 512
"""Rows times tiles of a gang: enough to fill vectors at every step, little enough for its ring to stay in cache."""

KERNEL_NAMES = ("context", *(f"head{c}" for c in range(CHANNELS)), "update", "update_grey")
CODING_ORDER = np.array([1, 0, 2], np.int64)
"""Which channel of an RGB pixel is coded first, second, third."""


class TileContext(NamedTuple):
    """The context of a tile's pixels: `inputs` int8 `(h, w, inputs)`; `bases` and (adaptive) `predictions` int16
    `(h, w, 3)` in sixteenths of a level; `exponent` int16 `(h, w)`."""

    inputs: NDArray[np.int8]
    bases: NDArray[np.int16]
    exponent: NDArray[np.int16]
    predictions: NDArray[np.int16]


class GangShape(NamedTuple):
    """What tiles of one gang have in common."""

    height: int
    width: int
    channels: int
    lanes_log2: int


@dataclass(frozen=True)
class Program:
    """A model, compiled and laid out for this machine."""

    module: CompiledModule
    kernels: NDArray[np.int64]
    parameters: NDArray[np.int32]
    row_of: NDArray[np.uint16]
    cdf: NDArray[np.uint16]
    coarse: NDArray[np.uint16]
    rows: ScratchRows
    initial_state: NDArray[np.int16]
    width: int

    @property
    def width_log2(self) -> int:
        """Of the vector's lanes."""
        return self.width.bit_length() - 1


class CpuEngine:
    """Codes gangs of tiles; results do not depend on the number of threads or on the machine."""

    name = "cpu"

    def __init__(self, threads: int = 1, width: int | None = None, byte_dots: bool | None = None) -> None:
        """`width`: lanes per vector (16, 8 or 4); `byte_dots`: whether to use VNNI; by default what this machine has.

        Raises DeviceError where it has less.
        """
        self.threads = threads
        self.width = width or host_width()
        if self.width not in VECTOR_WIDTHS or self.width > host_width():
            raise DeviceError(
                f"cpu: vectors of {self.width} lanes; this machine runs 4 to {host_width()}, in powers of 2"
            )
        self.byte_dots = host_has_byte_dots(self.width) if byte_dots is None else byte_dots
        if self.byte_dots and not host_has_byte_dots(self.width):
            raise DeviceError(
                f"cpu: no dot products of bytes (VNNI) on this machine with vectors of {self.width} lanes"
            )
        self._programs: dict[str, Program] = {}

    def encode_tiles(self, model: WaveModel, tiles: Sequence[Tile], lanes_log2: Sequence[int]) -> list[bytes]:
        """One stream per tile."""
        program = self._program(model)
        out: list[bytes] = [b""] * len(tiles)
        shapes = [
            GangShape(tile.shape[0], tile.shape[1], tile.shape[2], log2)
            for tile, log2 in zip(tiles, lanes_log2, strict=True)
        ]

        def code(shape: GangShape, members: Sequence[int]) -> None:
            for index, stream in zip(members, _encode_gang(program, shape, [tiles[i] for i in members]), strict=True):
                out[index] = stream

        self._for_each_gang(shapes, code)
        return out

    def decode_tiles(self, model: WaveModel, jobs: Sequence[TileJob]) -> list[Tile]:
        """The tiles again."""
        program = self._program(model)
        out: list[Tile] = [np.empty(0, np.uint8)] * len(jobs)
        shapes = [GangShape(job.height, job.width, job.channels, job.lanes_log2) for job in jobs]

        def code(shape: GangShape, members: Sequence[int]) -> None:
            for index, tile in zip(members, _decode_gang(program, shape, [jobs[i] for i in members]), strict=True):
                out[index] = tile

        self._for_each_gang(shapes, code)
        return out

    def contexts(self, model: WaveModel, tiles: Sequence[Tile]) -> list[TileContext]:
        """What the perceptron of `model` would see at every pixel: the source of training data."""
        program = self._program(model)
        out: dict[int, TileContext] = {}
        shapes = [GangShape(tile.shape[0], tile.shape[1], tile.shape[2], 0) for tile in tiles]

        def look(shape: GangShape, members: Sequence[int]) -> None:
            out.update(zip(members, _gang_contexts(program, shape, [tiles[i] for i in members]), strict=True))

        self._for_each_gang(shapes, look)
        return [out[i] for i in range(len(tiles))]

    def _for_each_gang(self, shapes: Sequence[GangShape], code: Callable[[GangShape, Sequence[int]], None]) -> None:
        """Group equal shapes into gangs and code each; several at once where there are threads."""
        by_shape: dict[GangShape, list[int]] = {}
        for index, shape in enumerate(shapes):
            by_shape.setdefault(shape, []).append(index)
        gangs = []
        for shape, members in by_shape.items():
            size = max(1, GANG_ELEMENTS // shape.height)
            gangs += [(shape, members[first : first + size]) for first in range(0, len(members), size)]
        if self.threads == 1 or len(gangs) < 2:
            for gang in gangs:
                code(*gang)
            return
        # Large gangs first, so that no thread begins a long one when the others are done.
        gangs.sort(key=lambda gang: -gang[0].height * gang[0].width * len(gang[1]))
        with ThreadPoolExecutor(min(self.threads, len(gangs))) as pool:
            for done in [pool.submit(code, *gang) for gang in gangs]:
                done.result()

    def _program(self, model: WaveModel) -> Program:
        if model.sha256 not in self._programs:
            packed = pack_parameters(model, 1 if self.byte_dots else 2)
            module = _compiled(model.spec, tuple(packed.offsets.items()), self.width, self.byte_dots)
            self._programs[model.sha256] = Program(
                module=module,
                kernels=np.array([module.address(name) for name in KERNEL_NAMES], np.int64),
                parameters=packed.values,
                row_of=np.ascontiguousarray(model.row_of).reshape(-1),
                cdf=np.ascontiguousarray(model.cdf),
                coarse=np.ascontiguousarray(model.cdf[:, ::16]),
                rows=ScratchRows(model.spec),
                initial_state=initial_state(model.spec),
                width=self.width,
            )
        return self._programs[model.sha256]


@lru_cache(maxsize=32)
def _compiled(spec: WaveSpec, offsets: tuple[tuple[str, int], ...], width: int, byte_dots: bool) -> CompiledModule:
    """The kernels of a network's shape. They take a second to make and hold no weights, so a process makes them once:
    a worker's codec and the decoder that verifies have engines of their own."""
    return CompiledModule(KernelEmitter(spec, dict(offsets), width, byte_dots).module)


def _workspace(program: Program, shape: GangShape, gang: int) -> tuple[tuple[NDArray[Any], ...], NDArray[np.int32]]:
    """The ring (pixels, sub-errors, errors, states, a state before the first step) and scratch for a gang."""
    # A vector may reach behind the last element, at most by its width.
    stride = (shape.height + ROWS_ABOVE) * gang + program.width
    ring = (
        np.empty((SLOTS, CHANNELS, stride), np.uint8),
        np.empty((SLOTS, SUB_PLANES, stride), np.uint8),
        np.empty((SLOTS, CHANNELS, stride), np.int16),
        np.empty((STATE_SLOTS, len(program.initial_state), stride), np.int16),
        program.initial_state,
    )
    widest = min(shape.height, (shape.width + 1) // 2) * gang
    blocks = -(-widest // program.width)
    return ring, np.zeros(blocks * program.rows.count * program.width, np.int32)


def _encode_gang(program: Program, shape: GangShape, tiles: Sequence[Tile]) -> list[bytes]:
    symbols = shape.height * shape.width * shape.channels
    starts = np.empty((len(tiles), symbols), np.uint16)
    frequencies = np.empty_like(starts)
    ring, scratch = _workspace(program, shape, len(tiles))
    rows = program.rows
    model_gang(
        program.kernels, program.parameters, program.row_of, program.cdf, ring, scratch, rows.count, rows.means,
        rows.table_indices, program.width_log2, CODING_ORDER, np.stack(tiles), starts, frequencies
    )  # fmt: skip
    states = np.empty(1 << shape.lanes_log2, np.uint32)
    words = np.empty(symbols, np.uint16)
    out = []
    for g in range(len(tiles)):
        begin = encode_lanes(starts[g], frequencies[g], *shape[:3], states, words)
        out.append(pack_stream(states, words[begin:]))
    return out


def _gang_contexts(program: Program, shape: GangShape, tiles: Sequence[Tile]) -> list[TileContext]:
    ring, scratch = _workspace(program, shape, len(tiles))
    rows, spec = program.rows, program.rows.spec
    # The direct inputs are padded to whole quads; the others begin with the next quad.
    position = np.arange(spec.inputs) + (np.arange(spec.inputs) >= spec.direct) * (-spec.direct % QUAD)
    value_rows = np.array([*range(rows.bases, rows.bases + CHANNELS), rows.exponent,
                           *range(rows.predictions, rows.predictions + CHANNELS)])  # fmt: skip
    inputs = np.empty((len(tiles), shape.height, shape.width, spec.inputs), np.int8)
    values = np.empty((len(tiles), shape.height, shape.width, len(value_rows)), np.int16)
    context_gang(
        program.kernels, program.parameters, ring, scratch, rows.count, program.width_log2, CODING_ORDER,
        np.stack(tiles), rows.direct + position // QUAD, 8 * (position % QUAD), SIGNED_OFFSET, value_rows, inputs,
        values
    )  # fmt: skip
    if shape.channels == 1:
        # Units that rest predict nothing.
        values[..., -CHANNELS + 1 :] = values[..., 1:CHANNELS]
    return [
        TileContext(inputs[g], values[g, ..., :CHANNELS], values[g, ..., CHANNELS], values[g, ..., -CHANNELS:])
        for g in range(len(tiles))
    ]


def _decode_gang(program: Program, shape: GangShape, jobs: Sequence[TileJob]) -> list[Tile]:
    streams = [split_stream(job) for job in jobs]
    states = np.stack([states for states, _ in streams])
    lengths = np.array([len(words) for _, words in streams], np.int64)
    word_end = np.cumsum(lengths)
    word_at = word_end - lengths
    # One word more, for looking ahead at the end.
    words = np.concatenate([*(words for _, words in streams), np.zeros(1, np.uint16)])
    out = np.empty((len(jobs), *shape[:3]), np.uint8)
    ring, scratch = _workspace(program, shape, len(jobs))
    rows = program.rows
    order = CODING_ORDER if shape.channels == CHANNELS else np.zeros(1, np.int64)
    complete = decode_gang(
        program.kernels, program.parameters, program.row_of, program.cdf, program.coarse, ring, scratch, rows.count,
        rows.means, rows.table_indices, program.width_log2, states, words, word_at, word_end, order, out
    )  # fmt: skip
    if not complete:
        raise FormatError("tile: the words end before the pixels do; the stream is damaged")
    for g in range(len(jobs)):
        used = int(lengths[g] - (word_end[g] - word_at[g]))
        check_end(states[g], used, int(lengths[g]))
    return list(out)

"""The CPU backend: vector kernels compiled for this machine, over threads if asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.context import CHANNELS, ROWS_ABOVE
from pilc_stream.arith.rans import STATE_LOW
from pilc_stream.backends.base import Place, Tile, TileJob, check_ends, pack_stream, split_streams
from pilc_stream.backends.block import ARGUMENTS, SLOTS, STATE_SLOTS, STRIDE, SUB_PLANES
from pilc_stream.backends.emitter import VECTOR_WIDTHS
from pilc_stream.backends.kernels import block_units
from pilc_stream.backends.layout import ScratchRows, initial_state, pack_parameters
from pilc_stream.backends.machine import CompiledModule, host_has_byte_dots, host_width, kept_code
from pilc_stream.backends.memory import Memory, aligned
from pilc_stream.backends.narrow import MIRROR
from pilc_stream.backends.tables import Tables
from pilc_stream.backends.walk import VALUES, WalkEmitter
from pilc_stream.errors import DeviceError, FormatError
from pilc_stream.models.model import WaveModel
from pilc_stream.models.spec import WaveSpec

GANG_ELEMENTS = STRIDE - max(VECTOR_WIDTHS)
"""Rows times tiles of a gang, so that no vector reaches behind a plane of the ring by more than its width."""


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

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of a tile in memory: a byte more than its pixels, for writing four bytes at once."""
        return self.width * self.channels + 1

    @property
    def tile_bytes(self) -> int:
        """Bytes of a tile in memory."""
        return self.height * self.row_bytes


class Gang(NamedTuple):
    """Tiles coded in lockstep: their common shape and their indices."""

    shape: GangShape
    members: Sequence[int]


DECODED_BEHIND = 3 * max(VECTOR_WIDTHS)
"""Pixels behind the last of a step that decoding several vectors at once may read and write."""

ROOM_BEHIND = 4
"""Bytes behind a gang's tiles, for reading and writing four bytes at once."""

Arguments = Mapping[str, NDArray[Any] | int]
"""Of a walk, by the names of `block.ARGUMENTS`."""


@dataclass(frozen=True)
class Program:
    """A model, compiled and laid out for this machine."""

    walks: Callable[[str, int], CompiledModule]
    parameters: NDArray[np.int32]
    tables: Tables
    rows: ScratchRows
    initial_state: NDArray[np.int16]
    width: int
    idle: list[Memory]

    @contextmanager
    def memory(self) -> Iterator[Memory]:
        """Memory that no other thread uses meanwhile."""
        try:
            taken = self.idle.pop()
        except IndexError:
            taken = Memory()
        yield taken
        self.idle.append(taken)

    def run(self, walk: str, shape: GangShape, arguments: Arguments) -> None:
        """Run one of the module's functions, without the GIL."""
        values = [arguments.get(name, 0) for name in ARGUMENTS]
        addresses = [value if isinstance(value, int) else value.ctypes.data for value in values]
        self.walks(walk, shape.channels).run("walk", np.array(addresses, np.int64))


class CpuEngine:
    """Codes gangs of tiles; results do not depend on the number of threads or on the machine."""

    name = "cpu"

    def __init__(self, threads: int = 1, width: int | None = None, byte_dots: bool | None = None) -> None:
        """`width`: lanes per vector (16, 8, 4, or 1 for scalar code); `byte_dots`: whether to use VNNI; by default what
        this machine has.

        Raises DeviceError where it has less.
        """
        self.threads = threads
        self.width = host_width() if width is None else width
        if self.width not in VECTOR_WIDTHS or self.width > host_width():
            raise DeviceError(
                f"cpu: vectors of {self.width} lanes; this machine runs 1, and 4 to {host_width()} in powers of 2"
            )
        self.byte_dots = host_has_byte_dots(self.width) if byte_dots is None else byte_dots
        if self.byte_dots and not host_has_byte_dots(self.width):
            raise DeviceError(
                f"cpu: no dot products of bytes (VNNI) on this machine with vectors of {self.width} lanes"
            )
        self._programs: dict[str, Program] = {}
        self._idle: list[Memory] = []

    def encode_tiles(self, model: WaveModel, tiles: Sequence[Tile], lanes_log2: Sequence[int]) -> list[bytes]:
        """One stream per tile."""
        program = self._program(model)
        out: list[bytes] = [b""] * len(tiles)
        shapes = [
            GangShape(tile.shape[0], tile.shape[1], tile.shape[2], log2)
            for tile, log2 in zip(tiles, lanes_log2, strict=True)
        ]

        def code(gang: Gang) -> None:
            streams = _encode_gang(program, gang.shape, [tiles[i] for i in gang.members])
            for index, stream in zip(gang.members, streams, strict=True):
                out[index] = stream

        self._for_each_gang(shapes, code)
        return out

    def decode_tiles(self, model: WaveModel, jobs: Sequence[TileJob]) -> list[Tile]:
        """The tiles again."""
        out: list[Tile] = [np.empty((job.height, job.width, job.channels), np.uint8) for job in jobs]
        self.decode_to_places(model, jobs, out)
        return out

    def decode_to_places(self, model: WaveModel, jobs: Sequence[TileJob], places: Sequence[Place]) -> None:
        """The tiles again, each at its place."""
        program = self._program(model)
        shapes = [GangShape(job.height, job.width, job.channels, job.lanes_log2) for job in jobs]

        def code(gang: Gang) -> None:
            members = gang.members
            _decode_gang(program, gang.shape, [jobs[i] for i in members], [places[i] for i in members])

        self._for_each_gang(shapes, code)

    def contexts(self, model: WaveModel, tiles: Sequence[Tile]) -> list[TileContext]:
        """What the perceptron of `model` would see at every pixel: the source of training data."""
        program = self._program(model)
        out: dict[int, TileContext] = {}
        shapes = [GangShape(tile.shape[0], tile.shape[1], tile.shape[2], 0) for tile in tiles]

        def look(gang: Gang) -> None:
            contexts = _gang_contexts(program, gang.shape, [tiles[i] for i in gang.members])
            out.update(zip(gang.members, contexts, strict=True))

        self._for_each_gang(shapes, look)
        return [out[i] for i in range(len(tiles))]

    def _for_each_gang(self, shapes: Sequence[GangShape], code: Callable[[Gang], None]) -> None:
        """Group equal shapes into gangs and code each; several at once where there are threads."""
        by_shape: dict[GangShape, list[int]] = {}
        for index, shape in enumerate(shapes):
            by_shape.setdefault(shape, []).append(index)
        gangs: list[Gang] = []
        for shape, members in by_shape.items():
            # No more than leaves work for every thread.
            share = -(-len(members) // self.threads)
            largest = max(1, min(share, GANG_ELEMENTS // (shape.height + ROWS_ABOVE)))
            first = 0
            while first < len(members):
                # Powers of two, so that lanes of tiles and of vectors fall together.
                size = 1 << (min(largest, len(members) - first).bit_length() - 1)
                gangs.append(Gang(shape, members[first : first + size]))
                first += size
        if self.threads == 1 or len(gangs) < 2:
            for gang in gangs:
                code(gang)
            return
        # Large gangs first, so that no thread begins a long one when the others are done.
        gangs.sort(key=lambda gang: -gang.shape.height * gang.shape.width * len(gang.members))
        with ThreadPoolExecutor(min(self.threads, len(gangs))) as pool:
            for done in [pool.submit(code, gang) for gang in gangs]:
                done.result()

    def _program(self, model: WaveModel) -> Program:
        if model.sha256 not in self._programs:
            packed = pack_parameters(model, 1 if self.byte_dots else 2, block_units(self.width, self.byte_dots))
            self._programs[model.sha256] = Program(
                walks=partial(_compiled, model.spec, tuple(packed.offsets.items()), self.width, self.byte_dots),
                parameters=packed.values,
                tables=Tables(model.cdf, model.row_of),
                rows=ScratchRows(model.spec),
                initial_state=initial_state(model.spec) ^ MIRROR,
                width=self.width,
                idle=self._idle,
            )
        return self._programs[model.sha256]


@lru_cache(maxsize=64)
def _compiled(
    spec: WaveSpec,
    offsets: tuple[tuple[str, int], ...],
    width: int,
    byte_dots: bool,
    walk: str,
    channels: int,
) -> CompiledModule:
    """The code of a walk for a network's shape. It takes a second to make, the first time on a machine, and holds no
    weights, so a process has it once: a worker's codec and the decoder that verifies have engines of their own."""
    emit = partial(WalkEmitter, spec, dict(offsets), width, byte_dots, walk, channels)
    return CompiledModule(kept_code(lambda: emit().module, f"{spec} {width} {byte_dots} {walk} {channels}"))


def _common(program: Program, memory: Memory, shape: GangShape, gang: int) -> Arguments:
    """What every walk over a gang of so many tiles (a power of two) is given: ring, scratch, tables, places."""
    widest = min(shape.height, (shape.width + 1) // 2) * gang
    blocks = -(-(widest + DECODED_BEHIND) // program.width)
    planes = SLOTS * STRIDE
    row_bytes = shape.row_bytes - 2 * shape.channels
    period = max(gang, program.width)
    return {
        "pixels": memory.array("pixels", CHANNELS * planes + DECODED_BEHIND, np.uint8),
        "sub_errors": memory.array("sub_errors", SUB_PLANES * planes, np.int16),
        "errors": memory.array("errors", CHANNELS * planes, np.int16),
        "states": memory.array("states", STATE_SLOTS * len(program.initial_state) * STRIDE, np.int16),
        "initial": program.initial_state,
        "scratch": memory.array("scratch", blocks * program.rows.count * program.width, np.int16),
        "parameters": program.parameters,
        "rows": program.tables.rows,
        "steps": program.tables.steps,
        "symbols": program.tables.symbols,
        "lasts": program.tables.lasts,
        "gang": gang,
        "height": shape.height,
        "width": shape.width,
        "offsets": _offsets(period, gang, shape.tile_bytes, row_bytes),
        "period": period,
        "period_log2": period.bit_length() - 1,
        "period_bytes": period // gang * row_bytes,
        "row_bytes": row_bytes,
    }


@lru_cache(maxsize=64)
def _offsets(period: int, gang: int, tile_bytes: int, row_bytes: int) -> NDArray[np.int32]:
    """Where the pixels of a step lie from its first on, a row further for each gang."""
    element = np.arange(period)
    offsets: NDArray[np.int32] = (element % gang * tile_bytes + element // gang * row_bytes).astype(np.int32)
    return offsets


class GangCoder:
    """The rANS lanes of a gang: `states` uint32 `(lanes of a tile, tiles)`; `word_at` int32, from the first tile on."""

    def __init__(self, program: Program, shape: GangShape, gang: int, word_at: NDArray[np.int64]) -> None:
        """`word_at`: where each tile's words begin, or end if they are yet to be put."""
        lanes = gang << shape.lanes_log2
        width = min(program.width, lanes)
        below, group = _lane_groups(width, gang)
        period = max(gang, width)
        # A vector may reach behind the last state.
        all_states = aligned(max(lanes, program.width), np.uint32)
        all_states[:] = STATE_LOW
        self.states = all_states[:lanes].reshape(-1, gang)
        self.word_at = aligned(period, np.int32)
        self.word_at[:] = np.tile(word_at, period // gang)
        self.arguments: Arguments = {
            "lane_states": all_states,
            "word_at": self.word_at,
            "word_period": period,
            "below": below,
            "group": group,
            "lanes": lanes,
        }


@lru_cache(maxsize=64)
def _lane_groups(width: int, gang: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """For each lane of a vector, as bits: the lanes of the same tile before it, and all lanes of that tile."""
    lane = np.arange(width)
    same = lane[:, None] % gang == lane % gang
    return _bits(same & (lane < lane[:, None])), _bits(same)


def _bits(members: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Rows of truths as numbers, the first column the lowest bit."""
    bits: NDArray[np.int32] = (members << np.arange(members.shape[1])).sum(axis=1).astype(np.int32)
    return bits


def _image(memory: Memory, shape: GangShape, gang: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Memory for tiles one after the other, with room behind the last; and all their rows `(gang, h, row bytes)`."""
    image = memory.array("image", gang * shape.tile_bytes + ROOM_BEHIND, np.uint8)
    return image, image[: gang * shape.tile_bytes].reshape(gang, shape.height, shape.row_bytes)


def _gathered(memory: Memory, shape: GangShape, tiles: Sequence[Tile]) -> NDArray[np.uint8]:
    """Tiles one after the other."""
    image, rows = _image(memory, shape, len(tiles))
    for g, tile in enumerate(tiles):
        rows[g, :, : shape.width * shape.channels] = tile.reshape(shape.height, -1)
    return image


def _encode_gang(program: Program, shape: GangShape, tiles: Sequence[Tile]) -> list[bytes]:
    gang, symbols = len(tiles), shape.height * shape.width * shape.channels
    steps = shape.width + 2 * shape.height - 2
    ends = (np.arange(gang) + 1) * symbols
    coder = GangCoder(program, shape, gang, ends)
    with program.memory() as memory:
        words = memory.array("words", gang * symbols, np.uint16)
        intervals = gang * symbols + steps * shape.channels * program.width
        arguments: Arguments = {
            **_common(program, memory, shape, gang),
            **coder.arguments,
            "image": _gathered(memory, shape, tiles),
            "words": words,
            "intervals": memory.array("intervals", intervals, np.uint32),
        }
        program.run("encode", shape, arguments)
        return [pack_stream(coder.states[:, g], words[coder.word_at[g] : ends[g]]) for g in range(gang)]


def _gang_contexts(program: Program, shape: GangShape, tiles: Sequence[Tile]) -> list[TileContext]:
    gang = len(tiles)
    inputs = np.empty((gang, shape.height, shape.width, program.rows.spec.inputs), np.int8)
    values = np.empty((gang, shape.height, shape.width, VALUES), np.int16)
    with program.memory() as memory:
        image = _gathered(memory, shape, tiles)
        common = _common(program, memory, shape, gang)
        program.run("look", shape, {**common, "image": image, "inputs": inputs, "values": values})
    if shape.channels == 1:
        # Units that rest predict nothing.
        values[..., -CHANNELS + 1 :] = values[..., 1:CHANNELS]
    return [
        TileContext(inputs[g], values[g, ..., :CHANNELS], values[g, ..., CHANNELS], values[g, ..., -CHANNELS:])
        for g in range(gang)
    ]


def _decode_gang(program: Program, shape: GangShape, jobs: Sequence[TileJob], places: Sequence[Place]) -> None:
    gang = len(jobs)
    states, words, lengths = split_streams(jobs)
    ends = np.cumsum(lengths)
    coder = GangCoder(program, shape, gang, ends - lengths)
    coder.states[:] = states.T
    with program.memory() as memory:
        image, rows = _image(memory, shape, gang)
        common = _common(program, memory, shape, gang)
        given: Arguments = {"words": words, "last_word": int(ends[-1]), "image": image}
        program.run("decode", shape, {**common, **coder.arguments, **given})
        used = coder.word_at[:gang] - (ends - lengths)
        if (used > lengths).any():
            raise FormatError("tile: the words end before the pixels do; the stream is damaged")
        check_ends(coder.states.T, used, lengths)
        pixels = rows[:, :, : shape.width * shape.channels].reshape(gang, shape.height, shape.width, shape.channels)
        for place, tile in zip(places, pixels, strict=True):
            if isinstance(place, tuple):
                for c, plane in enumerate(place):
                    plane[...] = tile[:, :, c]
            else:
                place[...] = tile

"""The CUDA engine: batches of tiles to a card and back, two in flight, cut to the memory that it may use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.rans import STATE_LOW
from pilc_stream.backends.base import STATE_BYTES, WORD_BYTES, Tile, TileJob, check_end, split_stream
from pilc_stream.backends.cuda.batch import DecodingBatch, EncodingBatch
from pilc_stream.backends.cuda.kernels import JOB_COLUMNS, Status
from pilc_stream.backends.cuda.memory import Slot
from pilc_stream.backends.cuda.plan import META_WORDS
from pilc_stream.backends.cuda.program import Program
from pilc_stream.backends.cuda.shim import check_device, cuda, is_out_of_memory
from pilc_stream.backends.cuda.work import TileShape, batches
from pilc_stream.errors import DeviceError, FormatError
from pilc_stream.models.model import WaveModel

DEFAULT_BUDGET_BYTES = 4 << 30
"""Device memory for all batches in flight: tens of thousands of tiles, enough to fill any card."""

SMALLEST_BUDGET_BYTES = 1 << 20
SLOTS = 2
MOST_BATCH_BYTES = 1 << 31
"""Kernels count words of a batch in 32 bits; a batch of so many bytes stays far below."""

Result = TypeVar("Result")


class CudaEngine:
    """Codes tiles on the current CUDA device. May be shared by threads, which take turns.

    `budget_bytes`: device memory that it may use at a time. Raises DeviceError without a card that can do it.
    """

    name = "cuda"

    def __init__(self, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        check_device()
        self._budget = budget_bytes
        self._lock = threading.Lock()
        self._programs: dict[str, Program] = {}
        self._slots: list[Slot] = []

    def encode_tiles(self, model: WaveModel, tiles: Sequence[Tile], lanes_log2: Sequence[int]) -> list[bytes]:
        """One stream per tile."""
        shapes = [
            TileShape(tile.shape[0], tile.shape[1], tile.shape[2], log2)
            for tile, log2 in zip(tiles, lanes_log2, strict=True)
        ]
        out: dict[int, bytes] = {}

        def run(program: Program) -> None:
            def cost(index: int) -> int:
                shape = shapes[index]
                words = program.plan.inputs + META_WORDS + shape.channels
                return shape.pixels * (4 * words + 5 * shape.channels) + 8 * JOB_COLUMNS + 16 + (8 << shape.lanes_log2)

            def begin(slot: Slot, members: list[int]) -> tuple[list[int], EncodingBatch]:
                batch = EncodingBatch(slot, program, [shapes[i] for i in members], [tiles[i] for i in members])
                batch.begin()
                return members, batch

            for _, (members, batch) in self._pipelined(shapes, cost, begin):
                data, start = batch.download(), 0
                for index, end in zip(members, batch.ends.tolist(), strict=True):
                    out[index] = data[start:end].tobytes()
                    start = end

        self._with_retries(model, run)
        return [out[index] for index in range(len(tiles))]

    def decode_tiles(self, model: WaveModel, jobs: Sequence[TileJob]) -> list[Tile]:
        """The tiles again."""
        out: dict[int, Tile] = {}

        def run(program: Program) -> None:
            for members, pixels in self._decoded(program, jobs, None, None):
                assert pixels is not None
                whole, start = pixels.copy(), 0
                for index in members:
                    job = jobs[index]
                    end = start + job.height * job.width * job.channels
                    out[index] = whole[start:end].reshape(job.height, job.width, job.channels)
                    start = end

        self._with_retries(model, run)
        return [out[index] for index in range(len(jobs))]

    def decode_on_device(
        self, model: WaveModel, jobs: Sequence[TileJob], places: Sequence[tuple[int, int]], pixel_bytes: int
    ) -> Any:
        """Device memory, uint8 `(pixel_bytes,)`, with each tile at its place. It is complete and the caller's own."""

        def run(program: Program) -> Any:
            pixels = cuda.device_array(max(1, pixel_bytes), np.uint8)
            for _ in self._decoded(program, jobs, places, pixels):
                pass
            return pixels

        return self._with_retries(model, run)

    def _decoded(
        self, program: Program, jobs: Sequence[TileJob], places: Sequence[tuple[int, int]] | None, pixels: Any
    ) -> Iterator[tuple[list[int], NDArray[np.uint8] | None]]:
        """Batches of jobs with their pixels side by side, or None where they go to `pixels` by their `places`."""
        for job in jobs:
            if len(job.stream) < STATE_BYTES << job.lanes_log2 or len(job.stream) % WORD_BYTES:
                split_stream(job)
        shapes = [TileShape(job.height, job.width, job.channels, job.lanes_log2) for job in jobs]

        def cost(index: int) -> int:
            shape = shapes[index]
            return len(jobs[index].stream) + 8 * JOB_COLUMNS + 4 + (0 if places else shape.pixels * shape.channels)

        def begin(slot: Slot, members: list[int]) -> tuple[list[int], DecodingBatch]:
            own = [places[i] for i in members] if places else None
            batch = DecodingBatch(slot, program, [jobs[i] for i in members], own, pixels)
            batch.begin()
            return members, batch

        for _, (members, batch) in self._pipelined(shapes, cost, begin):
            for position in np.flatnonzero(batch.status).tolist():
                _refuse(jobs[members[position]], Status(int(batch.status[position])))
            yield members, batch.decoded

    def _pipelined(
        self, shapes: Sequence[TileShape], cost: Callable[[int], int], begin: Callable[[Slot, list[int]], Result]
    ) -> Iterator[tuple[Slot, Result]]:
        """Begin each batch in its slot, and give it back when it is done and the next one is on its way."""
        while len(self._slots) < SLOTS:
            self._slots.append(Slot())
        share = min(self._budget // SLOTS, MOST_BATCH_BYTES)
        under_way: list[tuple[Slot, Result]] = []
        for number, members in enumerate(batches(shapes, cost, share)):
            slot = self._slots[number % SLOTS]
            under_way.append((slot, begin(slot, members)))
            if len(under_way) == SLOTS:
                done = under_way.pop(0)
                done[0].stream.synchronize()
                yield done
        for slot, result in under_way:
            slot.stream.synchronize()
            yield slot, result

    def _with_retries(self, model: WaveModel, run: Callable[[Program], Result]) -> Result:
        """Run, with half the budget after each time that the memory did not suffice."""
        with self._lock:
            while True:
                try:
                    return run(self._program(model))
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    for slot in self._slots:
                        slot.stream.synchronize()
                    self._slots.clear()
                    if self._budget < 2 * SMALLEST_BUDGET_BYTES:
                        raise DeviceError(
                            f"cuda: out of memory with batches of {self._budget} bytes ({error}); free memory on the "
                            "card or choose smaller tiles"
                        ) from error
                    self._budget //= 2

    def _program(self, model: WaveModel) -> Program:
        if model.sha256 not in self._programs:
            self._programs[model.sha256] = Program(model)
        return self._programs[model.sha256]


def _refuse(job: TileJob, status: Status) -> None:
    """Raise the FormatError that says what the card found."""
    states, words = split_stream(job)
    if status == Status.WORDS_SHORT:
        raise FormatError("tile: the words end before the pixels do; the stream is damaged")
    if status == Status.WORDS_LEFT:
        raise FormatError(f"tile: decoding did not use all of {len(words)} words; the stream is not what was encoded")
    check_end(np.where(status == Status.BAD_END, STATE_LOW + 1, states).astype(np.uint32), len(words), len(words))

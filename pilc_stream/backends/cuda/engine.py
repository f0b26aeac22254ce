"""The CUDA engine: batches of tiles to a card and back, two in flight, cut to the memory that it may use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.rans import STATE_LOW
from pilc_stream.backends.base import STATE_BYTES, WORD_BYTES, Tile, TileJob, check_end, split_stream
from pilc_stream.backends.cuda.kernels import JOB_COLUMNS, Job, Status
from pilc_stream.backends.cuda.memory import Slot
from pilc_stream.backends.cuda.plan import META_WORDS
from pilc_stream.backends.cuda.program import CODER, Program
from pilc_stream.backends.cuda.shim import check_device, cuda, is_out_of_memory
from pilc_stream.backends.cuda.work import TileShape, batches, runs
from pilc_stream.errors import DeviceError, FormatError
from pilc_stream.models.model import WaveModel

DEFAULT_BUDGET_BYTES = 4 << 30
"""Device memory for all batches in flight: tens of thousands of tiles, enough to fill any card."""

SMALLEST_BUDGET_BYTES = 1 << 20
SLOTS = 2
MOST_BATCH_BYTES = 1 << 31
"""Kernels count words of a batch in 32 bits; a batch of so many bytes stays far below."""

Result = TypeVar("Result")


class Decoding(NamedTuple):
    """A batch whose decoding is under way: which jobs, their status, and their pixels."""

    members: list[int]
    status: NDArray[np.int32]
    pixels: NDArray[np.uint8] | None


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

            def begin(slot: Slot, members: list[int]) -> tuple[list[int], NDArray[np.int64], Any]:
                return members, *_begin_encoding(
                    slot, program, [shapes[i] for i in members], [tiles[i] for i in members]
                )

            for slot, (members, ends, streams) in self._pipelined(shapes, cost, begin):
                data = slot.download(streams, "streams", int(ends[-1]))
                slot.stream.synchronize()
                start = 0
                for index, end in zip(members, ends.tolist(), strict=True):
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

        def begin(slot: Slot, members: list[int]) -> Decoding:
            own = [places[i] for i in members] if places else None
            return Decoding(members, *_begin_decoding(slot, program, [jobs[i] for i in members], own, pixels))

        for _, (members, status, decoded) in self._pipelined(shapes, cost, begin):
            for position in np.flatnonzero(status).tolist():
                _refuse(jobs[members[position]], Status(int(status[position])))
            yield members, decoded

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


def _job_rows(shapes: Sequence[TileShape]) -> NDArray[np.int64]:
    rows = np.zeros((len(shapes), JOB_COLUMNS), np.int64)
    for row, shape in zip(rows, shapes, strict=True):
        row[: Job.LANES + 1] = shape.height, shape.width, shape.channels, 1 << shape.lanes_log2
    return rows


def _upload(slot: Slot, rows: NDArray[np.int64], size: int, fill: Callable[[NDArray[np.uint8]], None]) -> Any:
    """One transfer: the jobs, then `size` bytes that `fill` writes; gives both on the device."""
    host = slot.pinned("up", rows.nbytes + size, np.uint8)
    host[: rows.nbytes] = rows.reshape(-1).view(np.uint8)
    fill(host[rows.nbytes :])
    device = slot.upload("up", host)
    return device[: rows.nbytes].view(np.int64).reshape(rows.shape), device[rows.nbytes :]


def _side_by_side(sizes: Sequence[int]) -> NDArray[np.int64]:
    """Where each of some parts begins, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.array(sizes, np.int64))])


def _begin_encoding(
    slot: Slot, program: Program, shapes: Sequence[TileShape], tiles: Sequence[Tile]
) -> tuple[NDArray[np.int64], Any]:
    """Queue a batch: in which 16-bit word each stream will end, known once the slot is done, and all of them there."""
    rows = _job_rows(shapes)
    first_byte = _side_by_side([shape.pixels * shape.channels for shape in shapes])
    first_pixel = _side_by_side([shape.pixels for shape in shapes])
    pixels = int(first_pixel[-1])
    rows[:, Job.PIXELS_AT] = first_byte[:-1]
    rows[:, Job.ROW_BYTES] = [shape.width * shape.channels for shape in shapes]
    # A symbol puts out one word at most.
    rows[:, Job.WORD_AT], rows[:, Job.WORD_END] = first_byte[:-1], first_byte[1:]
    rows[:, Job.PIXEL_AT] = first_pixel[:-1]

    def fill(host: NDArray[np.uint8]) -> None:
        for tile, at in zip(tiles, first_byte.tolist(), strict=False):
            host[at : at + tile.size].reshape(tile.shape)[:] = tile

    jobs, image = _upload(slot, rows, int(first_byte[-1]), fill)
    most_lanes = max(1 << shape.lanes_log2 for shape in shapes)
    contexts = slot.device("contexts", pixels * (program.plan.inputs + META_WORDS), np.int32)
    intervals = slot.device("intervals", pixels * max(shape.channels for shape in shapes), np.int32)
    words = slot.device("words", int(first_byte[-1]), np.uint16)
    states = slot.device("states", len(shapes) * most_lanes, np.int32).reshape(len(shapes), most_lanes)
    lengths = slot.device("lengths", len(shapes), np.int32)
    ends = slot.device("ends", len(shapes), np.int64)
    streams = slot.device("streams", int(first_byte[-1]) + 2 * len(shapes) * most_lanes, np.uint16)
    for first, last, team in runs([shape.team_log2 for shape in shapes]):
        program.walk(slot.stream, jobs[first:last], team, image, contexts, pixels)
    program.model(slot.stream, contexts, pixels, intervals)
    for first, last, log2 in runs([shape.lanes_log2 for shape in shapes]):
        some = slice(first, last)
        CODER.lanes(slot.stream, jobs[some], log2, intervals, pixels, words, states[some], lengths[some])
    CODER.offsets(slot.stream, lengths, ends)
    CODER.assemble(slot.stream, jobs, words, states, ends, streams)
    return slot.download(ends, "ends", len(shapes)), streams


def _begin_decoding(
    slot: Slot, program: Program, jobs: Sequence[TileJob], places: Sequence[tuple[int, int]] | None, pixels: Any
) -> tuple[NDArray[np.int32], NDArray[np.uint8] | None]:
    """Queue a batch: each job's status, and the pixels side by side unless they have `places`."""
    shapes = [TileShape(job.height, job.width, job.channels, job.lanes_log2) for job in jobs]
    rows = _job_rows(shapes)
    first_byte = _side_by_side([len(job.stream) for job in jobs])
    first_pixel = _side_by_side([shape.pixels * shape.channels for shape in shapes])
    rows[:, Job.WORD_AT], rows[:, Job.WORD_END] = first_byte[:-1] // WORD_BYTES, first_byte[1:] // WORD_BYTES
    if places:
        rows[:, [Job.PIXELS_AT, Job.ROW_BYTES]] = places
    else:
        rows[:, Job.PIXELS_AT] = first_pixel[:-1]
        rows[:, Job.ROW_BYTES] = [shape.width * shape.channels for shape in shapes]

    def fill(host: NDArray[np.uint8]) -> None:
        for job, at in zip(jobs, first_byte.tolist(), strict=False):
            host[at : at + len(job.stream)] = np.frombuffer(job.stream, np.uint8)

    device_jobs, streams = _upload(slot, rows, int(first_byte[-1]), fill)
    words = streams.view(np.uint16)
    # Status and pixels come back in one transfer.
    status_bytes = 4 * len(shapes)
    back = slot.device("back", status_bytes + (0 if places else int(first_pixel[-1])), np.uint8)
    status = back[:status_bytes].view(np.int32)
    CODER.clear(slot.stream, status)
    out = pixels if places else back[status_bytes:]
    for first, last, team in runs([shape.team_log2 for shape in shapes]):
        program.decode(slot.stream, device_jobs[first:last], team, words, out, status[first:last])
    host = slot.download(back, "back", status_bytes + (0 if places else int(first_pixel[-1])))
    return host[:status_bytes].view(np.int32), None if places else host[status_bytes:]


def _refuse(job: TileJob, status: Status) -> None:
    """Raise the FormatError that says what the card found."""
    states, words = split_stream(job)
    if status == Status.WORDS_SHORT:
        raise FormatError("tile: the words end before the pixels do; the stream is damaged")
    if status == Status.WORDS_LEFT:
        raise FormatError(f"tile: decoding did not use all of {len(words)} words; the stream is not what was encoded")
    check_end(np.where(status == Status.BAD_END, STATE_LOW + 1, states).astype(np.uint32), len(words), len(words))

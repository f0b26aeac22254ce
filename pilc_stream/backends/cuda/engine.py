"""The CUDA engine: batches of tiles to a card and back, two in flight, cut to the memory that it may use."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np

from pilc_stream.arith.rans import STATE_LOW
from pilc_stream.backends.base import STATE_BYTES, WORD_BYTES, Tile, TileJob, check_end, split_stream
from pilc_stream.backends.cuda.batch import BATCH_BYTES, DecodingBatch, EncodingBatch
from pilc_stream.backends.cuda.jobs import Status
from pilc_stream.backends.cuda.memory import Slot
from pilc_stream.backends.cuda.program import Program
from pilc_stream.backends.cuda.shim import (
    as_array,
    check_device,
    cuda,
    follow,
    has_tensor_cores,
    is_cuda_error,
    is_out_of_memory,
    most_block_bytes,
)
from pilc_stream.backends.cuda.work import Ints, Shapes, batches
from pilc_stream.errors import DeviceError, FormatError, UsageError
from pilc_stream.models.model import CodecModel, WaveModel

DEFAULT_BUDGET_BYTES = 4 << 30
"""Device memory for all batches in flight: tens of thousands of tiles, enough to fill any card."""

BUDGET_VARIABLE = "PILC_CUDA_MEMORY_MB"
"""Sets another budget in the environment, in units of ``2**20`` bytes: a training step may need the card's memory."""

SMALLEST_BUDGET_BYTES = 1 << 20
SLOTS = 2
PIECES = 2 * SLOTS
"""A call's tiles go in at least so many batches, so that copies of some run beside the kernels of others, unless"""

LEAST_BATCH_BYTES = 64 << 20
"""... these would be smaller: a batch should fill the card."""

MOST_BATCH_BYTES = 1 << 31
"""Kernels count words of a batch in 32 bits; a batch of so many bytes stays far below."""

Result = TypeVar("Result")
Model = TypeVar("Model", bound=CodecModel)


class Target(NamedTuple):
    """Where decoded tiles go: `places` int64 `(tiles, 2)`, first byte in `pixels` (another library's memory) and bytes
    from row to row; `stream`: the handle of the stream that `pixels` may still be in use on."""

    places: Ints
    pixels: Any
    stream: int


class CardEngine(Generic[Model]):
    """Codes tiles on one CUDA device, by the batches of a codec. May be shared by threads, which take turns.

    `budget_bytes`: device memory for batches, the caller's pixels apart; by default what the environment says, or
    4 GiB. A single tile that needs more is coded all the same. `device`: its number; None is the one that is current
    now. Raises DeviceError without a card that can do it.
    """

    name = "cuda"
    encoding: ClassVar[type[EncodingBatch]] = EncodingBatch
    decoding: ClassVar[type[DecodingBatch]] = DecodingBatch

    def __init__(self, budget_bytes: int | None = None, device: int | None = None) -> None:
        self.device = check_device(device)
        self._budget = default_budget() if budget_bytes is None else budget_bytes
        self._lock = threading.Lock()
        self._programs: dict[str, Any] = {}
        self._slots: list[Slot] = []

    def load(self, model: Model) -> Any:
        """A model in the card's memory, as the codec's batches want it."""
        raise NotImplementedError

    def encode_tiles(self, model: Model, tiles: Sequence[Tile], lanes_log2: Sequence[int]) -> list[bytes]:
        """One stream per tile."""
        out: list[bytes] = [b""] * len(tiles)
        if not out:
            return out
        shapes = Shapes.of(*zip(*[tile.shape for tile in tiles], strict=True), lanes_log2)

        def run(program: Any, budget_bytes: int) -> None:
            def begin(slot: Slot, members: Ints, limit_bytes: int) -> Callable[[], None]:
                chosen = members.tolist()
                some = [tiles[index] for index in chosen]
                batch = self.encoding(slot, program, shapes.take(members), some, limit_bytes)
                batch.begin()

                def land() -> None:
                    for index, stream in zip(chosen, batch.streams(), strict=True):
                        out[index] = stream

                return land

            self._pipelined(shapes, self.encoding.costs(program, shapes), budget_bytes, begin)

        self._on_device(model, run)
        return out

    def decode_tiles(self, model: Model, jobs: Sequence[TileJob]) -> list[Tile]:
        """The tiles again."""
        out: list[Any] = [None] * len(jobs)

        def keep(chosen: list[int], batch: DecodingBatch) -> None:
            for index, tile in zip(chosen, batch.tiles(), strict=True):
                out[index] = tile

        if jobs:
            self._decode(model, jobs, keep)
        return out

    def decode_to_tensor(
        self, model: Model, jobs: Sequence[TileJob], places: Sequence[tuple[int, int]], pixel_bytes: int
    ) -> Any:
        """A torch tensor uint8 `(pixel_bytes,)` on the device with each tile at its place.

        Its memory is torch's, of the caller's current stream: the work begins when what is queued there is done, waits
        for no other stream and holds none up. It is complete on return, as what is wrong with a tile is raised here.
        """
        from pilc_stream.backends.cuda.tensors import room

        tensor, pixels, stream = room(pixel_bytes, self.device)
        if jobs:
            target = Target(np.array(places, np.int64), pixels, stream)
            self._decode(model, jobs, lambda chosen, batch: None, target)
        return tensor

    def _decode(
        self,
        model: Model,
        jobs: Sequence[TileJob],
        keep: Callable[[list[int], DecodingBatch], None],
        target: Target | None = None,
    ) -> None:
        streams, *columns = zip(*jobs, strict=True)
        shapes = Shapes.of(*columns)
        stream_bytes = np.fromiter(map(len, streams), np.int64, len(jobs))
        odd = (stream_bytes < STATE_BYTES << shapes.lanes_log2) | (stream_bytes % WORD_BYTES > 0)
        for index in np.flatnonzero(odd).tolist():
            split_stream(jobs[index])

        def run(program: Any, budget_bytes: int) -> None:
            refused: dict[int, Status] = {}
            taken = None
            if target:
                taken = as_array(target.pixels)
                for slot in self._slots:
                    follow(slot.stream, target.stream)

            def begin(slot: Slot, members: Ints, limit_bytes: int) -> Callable[[], None]:
                chosen = members.tolist()
                some = [streams[index] for index in chosen]
                places = target.places[members] if target else None
                batch = self.decoding(slot, program, shapes.take(members), some, places, taken, limit_bytes)
                batch.begin()

                def land() -> None:
                    for position in np.flatnonzero(batch.status).tolist():
                        refused[chosen[position]] = Status(int(batch.status[position]))
                    if not refused:
                        keep(chosen, batch)

                return land

            costs = self.decoding.costs(program, shapes, stream_bytes, placed=target is not None)
            self._pipelined(shapes, costs, budget_bytes, begin)
            if refused:
                first = min(refused)
                _refuse(jobs[first], refused[first])

        self._on_device(model, run)

    def _pipelined(
        self,
        shapes: Shapes,
        costs: Ints,
        budget_bytes: int,
        begin: Callable[[Slot, Ints, int], Callable[[], None]],
    ) -> None:
        """Begin each batch in its slot, and land it when the slot is needed again or all have begun."""
        limit = min(budget_bytes // SLOTS, MOST_BATCH_BYTES)
        pieces = max(LEAST_BATCH_BYTES, int(costs.sum()) // PIECES)
        number = 0
        for members in batches(shapes, costs, min(limit, pieces) - BATCH_BYTES):
            slot = self._slots[number % SLOTS]
            slot.land()
            slot.launch(begin(slot, members, limit))
            number += 1
        for slot in self._slots[number % SLOTS :] + self._slots[: number % SLOTS]:
            slot.land()

    def _on_device(self, model: Model, run: Callable[[Any, int], Result]) -> Result:
        """Run with the budget, or where the memory does not suffice with half of it, and so on."""
        with self._lock, cuda.gpus[self.device]:
            budget = self._budget
            while True:
                try:
                    while len(self._slots) < SLOTS:
                        self._slots.append(Slot())
                    result = run(self._program(model), budget)
                except BaseException as error:
                    self._abandon()
                    if is_cuda_error(error) and not is_out_of_memory(error):
                        raise DeviceError(
                            f"cuda: the card or its driver failed ({error}); such an error stays with the process, so "
                            "go on in a new one"
                        ) from error
                    if not is_out_of_memory(error):
                        raise
                    for slot in self._slots:
                        slot.free()
                    if budget < 2 * SMALLEST_BUDGET_BYTES:
                        raise DeviceError(
                            f"cuda: out of memory with batches of {budget} bytes ({error}); free memory on the "
                            "card or choose smaller tiles"
                        ) from error
                    budget //= 2
                else:
                    # Kept only where it helped: too large an array of the caller's is no reason for small batches.
                    self._budget = budget
                    return result

    def _abandon(self) -> None:
        """Let no batch of a failed call be under way when its memory is used again."""
        for slot in self._slots:
            try:
                slot.drop()
            except Exception:
                # A card that has failed refuses this as well; what it said first is what matters.
                continue

    def _program(self, model: Model) -> Any:
        if model.sha256 not in self._programs:
            self._programs[model.sha256] = self.load(model)
        return self._programs[model.sha256]


class CudaEngine(CardEngine[WaveModel]):
    """The wave codec's. `tensor_cores`: whether to use them; by default where the card has them for bytes.
    `block_bytes`: shared memory of a block at most; by default what the card gives."""

    def __init__(
        self,
        budget_bytes: int | None = None,
        device: int | None = None,
        *,
        tensor_cores: bool | None = None,
        block_bytes: int | None = None,
    ) -> None:
        super().__init__(budget_bytes, device)
        self._block_bytes = most_block_bytes(self.device) if block_bytes is None else block_bytes
        self.tensor_cores = has_tensor_cores(self.device) if tensor_cores is None else tensor_cores

    def load(self, model: WaveModel) -> Program:
        """A model in the card's memory."""
        return Program(model, tensor_cores=self.tensor_cores, block_bytes=self._block_bytes)


def default_budget() -> int:
    """Bytes of device memory that an engine may use where nobody says. Raises UsageError for an odd variable."""
    text = os.environ.get(BUDGET_VARIABLE)
    if text is None:
        return DEFAULT_BUDGET_BYTES
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{BUDGET_VARIABLE} is {text!r}: give a whole number of 2**20 bytes, 1 or more")
    return int(text) << 20


def _refuse(job: TileJob, status: Status) -> None:
    """Raise the FormatError that says what the card found."""
    states, words = split_stream(job)
    if status == Status.WORDS_SHORT:
        raise FormatError("tile: the words end before the pixels do; the stream is damaged")
    if status == Status.WORDS_LEFT:
        raise FormatError(f"tile: decoding did not use all of {len(words)} words; the stream is not what was encoded")
    check_end(np.where(status == Status.BAD_END, STATE_LOW + 1, states).astype(np.uint32), len(words), len(words))

"""A batch on its way through a card, in stages: each queues its part of the work on the batch's stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.backends.base import WORD_BYTES, Tile, TileJob
from pilc_stream.backends.cuda.kernels import JOB_COLUMNS, Job
from pilc_stream.backends.cuda.memory import Slot
from pilc_stream.backends.cuda.plan import META_WORDS
from pilc_stream.backends.cuda.program import CODER, Program
from pilc_stream.backends.cuda.work import TileShape, runs

Fill = Callable[[NDArray[np.uint8]], None]


class Batch:
    """Jobs with the bytes that go up with them, in one transfer."""

    def __init__(self, slot: Slot, program: Program, shapes: Sequence[TileShape], sizes: Sequence[int]) -> None:
        """`sizes`: the bytes that go up for each tile."""
        self.slot, self.program, self.shapes = slot, program, shapes
        self.first_byte = _side_by_side(sizes)
        self.rows = np.zeros((len(shapes), JOB_COLUMNS), np.int64)
        self.rows[:, : Job.LANES + 1] = [(s.height, s.width, s.channels, 1 << s.lanes_log2) for s in shapes]
        self._host = slot.pinned("up", self.rows.nbytes + int(self.first_byte[-1]), np.uint8)
        self._device = slot.device("up", self._host.size, np.uint8)

    @property
    def stages(self) -> Mapping[str, Callable[[], None]]:
        """What is to be done, in this order."""
        raise NotImplementedError

    def begin(self) -> None:
        """Queue everything."""
        for stage in self.stages.values():
            stage()

    def _upload(self) -> None:
        self._host[: self.rows.nbytes] = self.rows.reshape(-1).view(np.uint8)
        self._fill(self._host[self.rows.nbytes :])
        self.slot.upload("up", self._host)

    def _fill(self, host: NDArray[np.uint8]) -> None:
        raise NotImplementedError

    @property
    def _jobs(self) -> Any:
        return self._device[: self.rows.nbytes].view(np.int64).reshape(self.rows.shape)

    @property
    def _sent(self) -> Any:
        return self._device[self.rows.nbytes :]


class EncodingBatch(Batch):
    """Tiles that become streams. When the slot is done, `ends` holds in which 16-bit word each of `streams` ends."""

    def __init__(self, slot: Slot, program: Program, shapes: Sequence[TileShape], tiles: Sequence[Tile]) -> None:
        super().__init__(slot, program, shapes, [shape.pixels * shape.channels for shape in shapes])
        self._tiles = tiles
        first_pixel = _side_by_side([shape.pixels for shape in shapes])
        self._pixels, symbols = int(first_pixel[-1]), int(self.first_byte[-1])
        rows = self.rows
        rows[:, Job.PIXELS_AT] = self.first_byte[:-1]
        rows[:, Job.ROW_BYTES] = [shape.width * shape.channels for shape in shapes]
        # A symbol puts out one word at most.
        rows[:, Job.WORD_AT], rows[:, Job.WORD_END] = self.first_byte[:-1], self.first_byte[1:]
        rows[:, Job.PIXEL_AT] = first_pixel[:-1]
        count, most_lanes = len(shapes), max(1 << shape.lanes_log2 for shape in shapes)
        self._contexts = slot.device("contexts", self._pixels * (program.plan.inputs + META_WORDS), np.int32)
        self._intervals = slot.device("intervals", self._pixels * max(s.channels for s in shapes), np.int32)
        self._words = slot.device("words", symbols, np.uint16)
        self._states = slot.device("states", count * most_lanes, np.int32).reshape(count, most_lanes)
        self._lengths = slot.device("lengths", count, np.int32)
        self._ends = slot.device("ends", count, np.int64)
        self.streams = slot.device("streams", symbols + 2 * count * most_lanes, np.uint16)
        self.ends: NDArray[np.int64] = slot.pinned("ends", count, np.int64)

    @property
    def stages(self) -> Mapping[str, Callable[[], None]]:
        """What is to be done, in this order."""
        return {
            "upload": self._upload,
            "context": self._walk,
            "network": self._model,
            "coding": self._lanes,
            "assembly": self._assemble,
            "lengths": self._lengths_down,
        }

    def _fill(self, host: NDArray[np.uint8]) -> None:
        for tile, at in zip(self._tiles, self.first_byte.tolist(), strict=False):
            host[at : at + tile.size].reshape(tile.shape)[:] = tile

    def _walk(self) -> None:
        for first, last, team in runs([shape.team_log2 for shape in self.shapes]):
            jobs = self._jobs[first:last]
            self.program.walk(self.slot.stream, jobs, team, self._sent, self._contexts, self._pixels)

    def _model(self) -> None:
        self.program.model(self.slot.stream, self._contexts, self._pixels, self._intervals)

    def _lanes(self) -> None:
        arrays = self._intervals, self._pixels, self._words
        for first, last, log2 in runs([shape.lanes_log2 for shape in self.shapes]):
            some = slice(first, last)
            CODER.lanes(self.slot.stream, self._jobs[some], log2, *arrays, self._states[some], self._lengths[some])

    def _assemble(self) -> None:
        CODER.offsets(self.slot.stream, self._lengths, self._ends)
        CODER.assemble(self.slot.stream, self._jobs, self._words, self._states, self._ends, self.streams)

    def _lengths_down(self) -> None:
        self.slot.download(self._ends, "ends", len(self.shapes))

    def download(self) -> NDArray[np.uint16]:
        """All streams side by side; for a batch whose slot is done."""
        data = self.slot.download(self.streams, "streams", int(self.ends[-1]))
        self.slot.stream.synchronize()
        return data


class DecodingBatch(Batch):
    """Streams that become tiles. When the slot is done, `status` holds what was found, and `decoded` the pixels, side
    by side, or None where they went to memory of the caller's by `places`."""

    def __init__(
        self,
        slot: Slot,
        program: Program,
        jobs: Sequence[TileJob],
        places: Sequence[tuple[int, int]] | None = None,
        pixels: Any = None,
    ) -> None:
        shapes = [TileShape(job.height, job.width, job.channels, job.lanes_log2) for job in jobs]
        super().__init__(slot, program, shapes, [len(job.stream) for job in jobs])
        self._streams = [job.stream for job in jobs]
        rows = self.rows
        rows[:, Job.WORD_AT], rows[:, Job.WORD_END] = (
            self.first_byte[:-1] // WORD_BYTES,
            self.first_byte[1:] // WORD_BYTES,
        )
        first_pixel = _side_by_side([shape.pixels * shape.channels for shape in shapes])
        if places:
            rows[:, [Job.PIXELS_AT, Job.ROW_BYTES]] = places
        else:
            rows[:, Job.PIXELS_AT] = first_pixel[:-1]
            rows[:, Job.ROW_BYTES] = [shape.width * shape.channels for shape in shapes]
        # Status and pixels come back in one transfer.
        status_bytes = 4 * len(shapes)
        self._back_bytes = status_bytes + (0 if places else int(first_pixel[-1]))
        self._back = slot.device("back", self._back_bytes, np.uint8)
        self._status = self._back[:status_bytes].view(np.int32)
        self._pixels = pixels if places else self._back[status_bytes:]
        host = slot.pinned("back", self._back_bytes, np.uint8)
        self.status: NDArray[np.int32] = host[:status_bytes].view(np.int32)
        self.decoded = None if places else host[status_bytes:]

    @property
    def stages(self) -> Mapping[str, Callable[[], None]]:
        """What is to be done, in this order."""
        return {"upload": self._upload, "coding and network": self._decode, "download": self._download}

    def _fill(self, host: NDArray[np.uint8]) -> None:
        for stream, at in zip(self._streams, self.first_byte.tolist(), strict=False):
            host[at : at + len(stream)] = np.frombuffer(stream, np.uint8)

    def _decode(self) -> None:
        CODER.clear(self.slot.stream, self._status)
        words = self._sent.view(np.uint16)
        for first, last, team in runs([shape.team_log2 for shape in self.shapes]):
            some = slice(first, last)
            self.program.decode(self.slot.stream, self._jobs[some], team, words, self._pixels, self._status[some])

    def _download(self) -> None:
        self.slot.download(self._back, "back", self._back_bytes)


def _side_by_side(sizes: Sequence[int]) -> NDArray[np.int64]:
    """Where each of some parts begins, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.array(sizes, np.int64))])

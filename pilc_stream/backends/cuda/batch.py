"""A batch on its way through a card, in stages: each queues its part of the work on the batch's stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.backends.base import WORD_BYTES, Tile
from pilc_stream.backends.cuda.jobs import JOB_COLUMNS, Job
from pilc_stream.backends.cuda.memory import PART_BYTES, Sizes, Slot
from pilc_stream.backends.cuda.plan import META_WORDS
from pilc_stream.backends.cuda.program import CODER
from pilc_stream.backends.cuda.work import Ints, Shapes, runs, side_by_side
from pilc_stream.records.tiling import MAX_LANES_LOG2

JOB_BYTES = 8 * JOB_COLUMNS
BATCH_BYTES = 12 * PART_BYTES
"""What the parts of a batch take at most beyond what its tiles cost."""


class Batch:
    """Jobs with the bytes that go up with them, in one transfer."""

    def __init__(self, slot: Slot, program: Any, shapes: Shapes, sent_bytes: Ints) -> None:
        """`program`: of the codec's own kind; `sent_bytes`: what goes up for each tile."""
        self.slot, self.program, self.shapes = slot, program, shapes
        self.first_byte = side_by_side(sent_bytes)
        self.rows = np.zeros((len(shapes), JOB_COLUMNS), np.int64)
        self.rows[:, Job.HEIGHT], self.rows[:, Job.WIDTH] = shapes.height, shapes.width
        self.rows[:, Job.CHANNELS], self.rows[:, Job.LANES] = shapes.channels, 1 << shapes.lanes_log2

    def _lay_out(self, device: Sizes, back: Sizes, limit_bytes: int) -> None:
        """Parts for what goes up, for what else is on the device, and for what comes back."""
        up = {"up": (self.rows.nbytes + int(self.first_byte[-1]), np.uint8)}
        self.slot.lay_out({**up, **device, **back}, {**up, **back}, limit_bytes)
        sent = self.slot.device("up")
        self.jobs = sent[: self.rows.nbytes].view(np.int64).reshape(self.rows.shape)
        self._sent = sent[self.rows.nbytes :]

    @property
    def stages(self) -> Mapping[str, Callable[[], None]]:
        """What is to be done, in this order."""
        raise NotImplementedError

    def begin(self) -> None:
        """Queue everything."""
        for stage in self.stages.values():
            stage()

    def _upload(self) -> None:
        host = self.slot.pinned("up")
        host[: self.rows.nbytes] = self.rows.reshape(-1).view(np.uint8)
        self._fill(host[self.rows.nbytes :])
        self.slot.upload("up")

    def _fill(self, host: NDArray[np.uint8]) -> None:
        raise NotImplementedError


class EncodingBatch(Batch):
    """Tiles that become streams. When the slot is done, `download` fetches them, side by side."""

    def __init__(self, slot: Slot, program: Any, shapes: Shapes, tiles: Sequence[Tile], limit_bytes: int = 0) -> None:
        super().__init__(slot, program, shapes, shapes.symbols)
        self._tiles = tiles
        first_pixel, room = side_by_side(shapes.pixels), side_by_side(self.most_words(shapes))
        self._pixels, symbols, count = int(first_pixel[-1]), int(room[-1]), len(shapes)
        rows = self.rows
        rows[:, Job.PIXELS_AT] = self.first_byte[:-1]
        rows[:, Job.ROW_BYTES] = shapes.row_bytes
        rows[:, Job.WORD_AT], rows[:, Job.WORD_END] = room[:-1], room[1:]
        rows[:, Job.PIXEL_AT] = first_pixel[:-1]
        most_lanes = 1 << int(shapes.lanes_log2.max())
        device: Sizes = {
            **self._working_parts(),
            "words": (symbols, np.uint16),
            "states": (count * most_lanes, np.int32),
            "lengths": (count, np.int32),
        }
        back: Sizes = {"ends": (count, np.int64), "streams": (symbols + 2 * count * most_lanes, np.uint16)}
        self._lay_out(device, back, limit_bytes)
        self._states = slot.device("states").reshape(count, most_lanes)
        self._lengths, self._words = slot.device("lengths"), slot.device("words")
        self.ends: NDArray[np.int64] = slot.pinned("ends")
        """In which 16-bit word each stream ends."""

    @staticmethod
    def most_words(shapes: Shapes) -> Ints:
        """16-bit words that each tile's stream may need, its states apart: a symbol puts out one at most."""
        return shapes.symbols

    def _working_parts(self) -> Sizes:
        return {
            "contexts": (self._pixels * (self.program.plan.inputs + META_WORDS), np.int32),
            "intervals": (self._pixels * int(self.shapes.channels.max()), np.int32),
        }

    @staticmethod
    def costs(program: Any, shapes: Shapes) -> Ints:
        """Bytes of device memory that each tile takes at most, whatever stands beside it in a batch."""
        per_pixel = 4 * (program.plan.inputs + META_WORDS + int(shapes.channels.max()))
        per_symbol = 1 + 2 * WORD_BYTES
        most_lanes = 1 << MAX_LANES_LOG2
        return np.asarray(shapes.pixels * per_pixel + shapes.symbols * per_symbol + JOB_BYTES + 12 + 8 * most_lanes)

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
        # One copy for all tiles that are as wide as the one before.
        for first, last, _ in runs(self.shapes.width << 4 | self.shapes.channels):
            room = host[self.first_byte[first] : self.first_byte[last]]
            np.concatenate(self._tiles[first:last], out=room.reshape(-1, *self._tiles[first].shape[1:]))

    def _walk(self) -> None:
        for first, last, team in runs(self.shapes.team_log2):
            self.program.walk(
                self.slot.stream, self.jobs[first:last], team, self._sent, self.slot.device("contexts"), self._pixels
            )

    def _model(self) -> None:
        self.program.model(self.slot.stream, self.slot.device("contexts"), self._pixels, self.slot.device("intervals"))

    def _lanes(self) -> None:
        arrays = self.slot.device("intervals"), self._pixels, self._words
        for first, last, log2 in runs(self.shapes.lanes_log2):
            some = slice(first, last)
            CODER.lanes(self.slot.stream, self.jobs[some], log2, *arrays, self._states[some], self._lengths[some])

    def _assemble(self) -> None:
        ends = self.slot.device("ends")
        CODER.offsets(self.slot.stream, self._lengths, ends)
        streams = self.slot.device("streams")
        CODER.assemble(self.slot.stream, self.jobs, self._words, self._states, ends, streams)

    def _lengths_down(self) -> None:
        self.slot.download("ends")

    def download(self) -> NDArray[np.uint16]:
        """All streams side by side; for a batch whose slot is done."""
        data = self.slot.download("streams", int(self.ends[-1]))
        self.slot.stream.synchronize()
        return data

    def streams(self) -> list[bytes]:
        """The stream of each tile; for a batch whose slot is done."""
        data = self.download().tobytes()
        ends = (WORD_BYTES * self.ends).tolist()
        return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


class DecodingBatch(Batch):
    """Streams that become tiles. When the slot is done, `status` holds what was found for each, and `tiles` gives them,
    unless they went to memory of the caller's by `places`."""

    def __init__(
        self,
        slot: Slot,
        program: Any,
        shapes: Shapes,
        streams: Sequence[memoryview],
        places: Ints | None = None,
        pixels: Any = None,
        limit_bytes: int = 0,
    ) -> None:
        """`places` `(tiles, 2)`: first byte in `pixels`, and bytes from row to row."""
        super().__init__(slot, program, shapes, np.fromiter(map(len, streams), np.int64, len(streams)))
        self._streams = streams
        rows = self.rows
        rows[:, Job.WORD_AT] = self.first_byte[:-1] // WORD_BYTES
        rows[:, Job.WORD_END] = self.first_byte[1:] // WORD_BYTES
        self._first_pixel = side_by_side(shapes.symbols)
        if places is None:
            rows[:, Job.PIXELS_AT], rows[:, Job.ROW_BYTES] = self._first_pixel[:-1], shapes.row_bytes
        else:
            rows[:, [Job.PIXELS_AT, Job.ROW_BYTES]] = places
        # Status and pixels come back in one transfer.
        status_bytes = 4 * len(shapes)
        back_bytes = status_bytes + (int(self._first_pixel[-1]) if places is None else 0)
        self._lay_out(self._working_parts(), {"back": (back_bytes, np.uint8)}, limit_bytes)
        back, host = slot.device("back"), slot.pinned("back")
        self._status = back[:status_bytes].view(np.int32)
        self._pixels = back[status_bytes:] if places is None else pixels
        self.status: NDArray[np.int32] = host[:status_bytes].view(np.int32)
        self._decoded = host[status_bytes:]

    def _working_parts(self) -> Sizes:
        return {}

    @staticmethod
    def costs(program: Any, shapes: Shapes, stream_bytes: Ints, *, placed: bool) -> Ints:
        """Bytes of device memory that each tile takes, beside those of the caller's."""
        return stream_bytes + JOB_BYTES + 4 + (0 if placed else shapes.symbols)

    @property
    def stages(self) -> Mapping[str, Callable[[], None]]:
        """What is to be done, in this order."""
        return {"upload": self._upload, "coding and network": self._decode, "download": self._download}

    def _fill(self, host: NDArray[np.uint8]) -> None:
        host[:] = np.frombuffer(b"".join(self._streams), np.uint8)

    def _decode(self) -> None:
        CODER.clear(self.slot.stream, self._status)
        words = self._sent.view(np.uint16)
        for first, last, team in runs(self.shapes.team_log2):
            some = slice(first, last)
            self.program.decode(self.slot.stream, self.jobs[some], team, words, self._pixels, self._status[some])

    def _download(self) -> None:
        self.slot.download("back")

    def tiles(self) -> list[Tile]:
        """The tiles, in memory of their own; for a batch whose slot is done."""
        whole, out = self._decoded.copy(), list[Tile]()
        for first, last, _ in runs(self.shapes.kinds):
            shape = (self.shapes.height[first], self.shapes.width[first], self.shapes.channels[first])
            out += list(whole[self._first_pixel[first] : self._first_pixel[last]].reshape(last - first, *shape))
        return out

"""A batch of the codec `pilc` on its way through a card, in stages (see `backends.cuda.batch`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from pilc_stream.arith.blocks import BLOCK
from pilc_stream.backends.base import WORD_BYTES
from pilc_stream.backends.cuda.batch import JOB_BYTES, DecodingBatch, EncodingBatch
from pilc_stream.backends.cuda.memory import Sizes
from pilc_stream.backends.cuda.program import CODER
from pilc_stream.backends.cuda.work import Ints, Shapes, runs, side_by_side
from pilc_stream.backends.pilc.cuda_program import PilcProgram, Tiles
from pilc_stream.records.tiling import MAX_LANES_LOG2

TABLE_BYTES = 4
INTERVAL_BYTES = 4
FOUND_BYTES = 4
"""Of a pixel's residuals: a word for three bytes."""


def block_counts(shapes: Shapes) -> Ints:
    """Blocks of each tile."""
    return -(-shapes.height // BLOCK) * -(-shapes.width // BLOCK)


def _block_bytes(program: PilcProgram) -> int:
    """Device memory of a block: its two symbols, and activations."""
    return 2 + 4 * sum(program.plan.scratch_words)


def _network_parts(program: PilcProgram, shapes: Shapes) -> dict[str, tuple[int, Any]]:
    blocks = int(block_counts(shapes).sum())
    first, second = program.plan.scratch_words
    return {
        "choices": (2 * blocks, np.uint8),
        "tables": (int(shapes.symbols.sum()), np.int32),
        "even layers": (blocks * first, np.int32),
        "odd layers": (blocks * second, np.int32),
    }


class Run(NamedTuple):
    """Tiles of one shape and lanes: they, and where their blocks, pixels and symbols begin in the batch."""

    tiles: Tiles
    first: int
    block: int
    pixel: int
    symbol: int


def _runs(shapes: Shapes, jobs: Any) -> Iterator[Run]:
    firsts = [side_by_side(sizes) for sizes in (block_counts(shapes), shapes.pixels, shapes.symbols)]
    # Lanes take three bits.
    for first, last, _ in runs(shapes.kinds << 3 | shapes.lanes_log2):
        columns = (shapes.height, shapes.width, shapes.channels, shapes.lanes_log2, shapes.team_log2)
        tiles = Tiles(jobs[first:last], last - first, *(int(column[first]) for column in columns))
        yield Run(tiles, first, *(int(begins[first]) for begins in firsts))


class PilcEncodingBatch(EncodingBatch):
    """Tiles that become streams."""

    @staticmethod
    def most_words(shapes: Shapes) -> Ints:
        """16-bit words that each tile's stream may need, its states apart: a symbol puts out one at most."""
        return shapes.symbols + 2 * block_counts(shapes)

    def _working_parts(self) -> Sizes:
        symbols = int(self.most_words(self.shapes).sum())
        return {**_network_parts(self.program, self.shapes), "intervals": (symbols, np.int32)}

    @staticmethod
    def costs(program: PilcProgram, shapes: Shapes) -> Ints:
        """Bytes of device memory that each tile takes at most, whatever stands beside it in a batch."""
        most_words, most_lanes = PilcEncodingBatch.most_words(shapes), 1 << MAX_LANES_LOG2
        network = block_counts(shapes) * _block_bytes(program) + shapes.symbols * (1 + TABLE_BYTES)
        return network + most_words * (INTERVAL_BYTES + 2 * WORD_BYTES) + JOB_BYTES + 12 + 8 * most_lanes

    @property
    def stages(self) -> Mapping[str, Callable[[], None]]:
        """What is to be done, in this order."""
        return {
            "upload": self._upload,
            "choice": self._choose,
            "network": self._network,
            "intervals": self._intervals,
            "coding": self._lanes,
            "assembly": self._assemble,
            "lengths": self._lengths_down,
        }

    def _choose(self) -> None:
        for run in _runs(self.shapes, self.jobs):
            choices = self.slot.device("choices")[2 * run.block :]
            self.program.choose(self.slot.stream, run.tiles, self._sent, choices)

    def _network(self) -> None:
        _decode_network(self)

    def _intervals(self) -> None:
        parts = self.slot.device("choices"), self.slot.device("tables"), self.slot.device("intervals")
        for run in _runs(self.shapes, self.jobs):
            choices, tables, intervals = parts
            self.program.intervals(
                self.slot.stream, run.tiles, self._sent, choices[2 * run.block :], tables[run.symbol :],
                intervals[2 * run.block + run.symbol :]
            )  # fmt: skip

    def _lanes(self) -> None:
        intervals = self.slot.device("intervals")
        for run in _runs(self.shapes, self.jobs):
            some = slice(run.first, run.first + run.tiles.number)
            self.program.lanes(
                self.slot.stream, run.tiles, intervals[2 * run.block + run.symbol :], self._words, self._states[some],
                self._lengths[some]
            )  # fmt: skip


class PilcDecodingBatch(DecodingBatch):
    """Streams that become tiles."""

    def _working_parts(self) -> Sizes:
        shapes = self.shapes
        return {
            **_network_parts(self.program, shapes),
            "found": (FOUND_BYTES * int(shapes.pixels.sum()), np.uint8),
            "states": (int((1 << shapes.lanes_log2).sum()), np.int32),
            "places": (len(shapes), np.int32),
        }

    @staticmethod
    def costs(program: PilcProgram, shapes: Shapes, stream_bytes: Ints, *, placed: bool) -> Ints:
        """Bytes of device memory that each tile takes, beside those of the caller's."""
        network = block_counts(shapes) * _block_bytes(program) + shapes.symbols * TABLE_BYTES
        lanes = FOUND_BYTES * shapes.pixels + 4 * (1 << shapes.lanes_log2) + 4
        return np.asarray(DecodingBatch.costs(program, shapes, stream_bytes, placed=placed) + network + lanes)

    @property
    def stages(self) -> Mapping[str, Callable[[], None]]:
        """What is to be done, in this order."""
        return {
            "upload": self._upload,
            "indices": self._blocks,
            "network": self._network,
            "coding": self._residuals,
            "prediction": self._undo,
            "download": self._download,
        }

    def _blocks(self) -> None:
        CODER.clear(self.slot.stream, self._status)
        for run, states, places, status in self._lane_runs():
            choices = self.slot.device("choices")[2 * run.block :]
            self.program.blocks(self.slot.stream, run.tiles, self._received, choices, states, places, status)

    def _network(self) -> None:
        _decode_network(self)

    def _residuals(self) -> None:
        tables, found = self.slot.device("tables"), self.slot.device("found")
        for run, states, places, status in self._lane_runs():
            self.program.residuals(
                self.slot.stream, run.tiles, self._received, tables[run.symbol :], states, places,
                found[FOUND_BYTES * run.pixel :], status
            )  # fmt: skip

    def _undo(self) -> None:
        choices, found = self.slot.device("choices"), self.slot.device("found").view(np.int32)
        for run in _runs(self.shapes, self.jobs):
            self.program.undo(self.slot.stream, run.tiles, choices[2 * run.block :], found[run.pixel :], self._pixels)

    @property
    def _received(self) -> Any:
        return self._sent.view(np.uint16)

    def _lane_runs(self) -> Iterator[tuple[Run, Any, Any, Any]]:
        """Runs with their part of states, places and status."""
        states, places = self.slot.device("states"), self.slot.device("places")
        first_state = side_by_side(np.asarray(1 << self.shapes.lanes_log2))
        for run in _runs(self.shapes, self.jobs):
            some = slice(run.first, run.first + run.tiles.number)
            yield run, states[int(first_state[run.first]) :], places[some], self._status[some]


def _decode_network(batch: PilcEncodingBatch | PilcDecodingBatch) -> None:
    """The table words of a batch; each run has all of the room for activations, one after the other."""
    slot = batch.slot
    scratch = slot.device("even layers"), slot.device("odd layers")
    for run in _runs(batch.shapes, batch.jobs):
        choices, tables = slot.device("choices")[2 * run.block :], slot.device("tables")[run.symbol :]
        batch.program.network(slot.stream, run.tiles, choices, scratch, tables)

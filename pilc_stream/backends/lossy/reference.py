"""The reference backend of the codec `lossy`: as FORMAT.md states it, in NumPy int64 and Python integers. Slow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pilc_stream.backends.base import Tile, TileJob
from pilc_stream.backends.lossy.base import (
    CodingTables,
    EncodedTile,
    Escapes,
    Ints,
    OpenedTile,
    Shape,
    open_tile,
    pack_tile,
    rounded_values,
    symbols_of,
    tiles_by_latents,
    walk,
)
from pilc_stream.backends.lossy.network import HostArithmetic
from pilc_stream.backends.lossy.transforms import analyse, synthesise
from pilc_stream.backends.reference import LaneReader, written_lanes
from pilc_stream.models.lossy import LossyModel


class LossyReferenceEngine:
    """The specification, executable."""

    name = "reference"

    def __init__(self) -> None:
        self._arithmetic = HostArithmetic(np.int64)

    def encode_tiles(
        self, model: LossyModel, tiles: Sequence[Tile], qualities: Sequence[int], lanes_log2: Sequence[int]
    ) -> list[EncodedTile]:
        """Streams and decoded latents."""
        out = []
        for tile, quality, log2 in zip(tiles, qualities, lanes_log2, strict=True):
            found, writer = analyse(model, tile, quality), TileWriter(model)
            tables, shape = model.quality(quality), Shape(*tile.shape[:2])
            latents = walk(model, tables, self._arithmetic, writer, shape, found.hyper, found.latents)
            out.append(EncodedTile(writer.stream(quality, 1 << log2), latents))
        return out

    def decode_latents(self, model: LossyModel, jobs: Sequence[TileJob]) -> list[tuple[int, NDArray[np.int32]]]:
        """Qualities and latents."""
        out = []
        for job in jobs:
            opened = open_tile(job)
            reader = TileReader(model, opened)
            shape = Shape(job.height, job.width)
            out.append((opened.quality, walk(model, model.quality(opened.quality), self._arithmetic, reader, shape)))
            reader.finish()
        return out

    def decode_tiles(self, model: LossyModel, jobs: Sequence[TileJob]) -> list[Tile]:
        """The tiles."""
        return tiles_by_latents(self, model, jobs)

    def synthesise(
        self, model: LossyModel, qualities: Sequence[int], latents: Sequence[NDArray[np.int32]], jobs: Sequence[Shape]
    ) -> list[Tile]:
        """The tiles from their latents."""
        return [
            synthesise(model, each, quality, *shape)
            for each, quality, shape in zip(latents, qualities, jobs, strict=True)
        ]


class TileWriter:
    """Takes the values of a tile, and codes them at the end."""

    def __init__(self, model: CodingTables) -> None:
        self._model = model
        self._intervals: list[tuple[int, int]] = []
        self._escapes: list[int] = []

    def values(self, index: Ints, wanted: NDArray[np.float64] | None) -> Ints:
        """Values rounded from those wanted."""
        assert wanted is not None
        values = rounded_values(index, wanted)
        symbols, escapes = symbols_of(self._model, index[index > 0], values[index > 0])
        for row, symbol in zip(index[index > 0], symbols, strict=True):
            start, end = self._model.starts[row, symbol : symbol + 2]
            self._intervals.append((int(start), int(end - start)))
        self._escapes += escapes.tolist()
        return values

    def stream(self, quality: int, lanes: int) -> bytes:
        """The tile's stream."""
        numbered = [(number % lanes, *interval) for number, interval in enumerate(self._intervals)]
        return pack_tile(quality, self._escapes, written_lanes(numbered, lanes))


class TileReader:
    """Gives the values of a tile's stream, as their scales become known."""

    def __init__(self, model: CodingTables, opened: OpenedTile) -> None:
        self._lanes, self._starts, self._escapes = (
            LaneReader(opened.lanes),
            model.starts[:, :-1],
            Escapes(opened.escapes),
        )
        self._number = 0

    def values(self, index: Ints, wanted: NDArray[np.float64] | None) -> Ints:
        """Values from the lanes. Raises FormatError where these end too early."""
        values = np.zeros(len(index), np.int64)
        places = np.flatnonzero(index)
        symbols = []
        for place in places:
            symbols.append(self._lanes.symbol(self._number, self._starts[index[place]]))
            self._number += 1
        values[places] = self._escapes.fill(np.array(symbols, np.int64))
        return values

    def finish(self) -> None:
        """Check that everything was used. Raises FormatError."""
        self._lanes.finish()
        self._escapes.finish()

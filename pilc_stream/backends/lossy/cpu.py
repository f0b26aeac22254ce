"""The CPU backend of the codec `lossy`: float32 BLAS for the networks, compiled lanes, several tiles over threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.rans import STATE_LOW
from pilc_stream.backends.base import Tile, TileJob, check_end, pack_stream, split_stream
from pilc_stream.backends.lossy import kernels
from pilc_stream.backends.lossy.base import (
    Arithmetic,
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
from pilc_stream.errors import FormatError
from pilc_stream.models.lossy import LossyModel

Synthesis = Callable[[LossyModel, NDArray[np.int32], int, int, int], Tile]


class LossyCpuEngine:
    """Codes tiles; latents and streams do not depend on the number of threads or on the arithmetic's device."""

    def __init__(self, threads: int = 1, name: str = "cpu", parts: tuple[Arithmetic, Synthesis] | None = None) -> None:
        """`parts`: entropy nets and synthesis on another device."""
        self.name, self.threads = name, threads
        chosen: tuple[Arithmetic, Synthesis] = parts or (HostArithmetic(np.float32), synthesise)
        self._arithmetic, self._synthesise = chosen

    def encode_tiles(
        self, model: LossyModel, tiles: Sequence[Tile], qualities: Sequence[int], lanes_log2: Sequence[int]
    ) -> list[EncodedTile]:
        """Streams and decoded latents."""

        def code(number: int) -> EncodedTile:
            tile, quality = tiles[number], qualities[number]
            found, writer = analyse(model, tile, quality), TileWriter(model)
            latents = walk(
                model,
                model.quality(quality),
                self._arithmetic,
                writer,
                Shape(*tile.shape[:2]),
                found.hyper,
                found.latents,
            )
            return EncodedTile(writer.stream(quality, 1 << lanes_log2[number]), latents)

        return self._each(code, len(tiles))

    def decode_latents(self, model: LossyModel, jobs: Sequence[TileJob]) -> list[tuple[int, NDArray[np.int32]]]:
        """Qualities and latents."""

        def code(number: int) -> tuple[int, NDArray[np.int32]]:
            opened = open_tile(jobs[number])
            reader = TileReader(model, opened)
            shape = Shape(jobs[number].height, jobs[number].width)
            latents = walk(model, model.quality(opened.quality), self._arithmetic, reader, shape)
            reader.finish()
            return opened.quality, latents

        return self._each(code, len(jobs))

    def decode_tiles(self, model: LossyModel, jobs: Sequence[TileJob]) -> list[Tile]:
        """The tiles."""
        return tiles_by_latents(self, model, jobs)

    def synthesise(
        self, model: LossyModel, qualities: Sequence[int], latents: Sequence[NDArray[np.int32]], jobs: Sequence[Shape]
    ) -> list[Tile]:
        """The tiles from their latents."""
        return self._each(lambda i: self._synthesise(model, latents[i], qualities[i], *jobs[i]), len(jobs))

    def _each(self, work: Callable[[int], Any], count: int) -> list[Any]:
        if self.threads == 1 or count < 2:
            return [work(number) for number in range(count)]
        with ThreadPoolExecutor(min(self.threads, count)) as pool:
            return list(pool.map(work, range(count)))


class TileWriter:
    """Takes the values of a tile, and codes them at the end."""

    def __init__(self, model: CodingTables) -> None:
        self._model = model
        self._rows: list[Ints] = []
        self._values: list[Ints] = []

    def values(self, index: Ints, wanted: NDArray[np.float64] | None) -> Ints:
        """Values rounded from those wanted."""
        assert wanted is not None
        values = rounded_values(index, wanted)
        coded = index > 0
        self._rows.append(index[coded])
        self._values.append(values[coded])
        return values

    def stream(self, quality: int, lanes: int) -> bytes:
        """The tile's stream."""
        rows, values = np.concatenate(self._rows), np.concatenate(self._values)
        symbols, escapes = symbols_of(self._model, rows, values)
        states = np.full(lanes, STATE_LOW, np.uint32)
        # At most one word leaves per symbol.
        words = np.empty(len(symbols), np.uint16)
        used = kernels.encode_lanes(self._model.starts, rows, symbols, states, words)
        return pack_tile(quality, escapes.tolist(), pack_stream(states, words[len(words) - used :]))


class TileReader:
    """Gives the values of a tile's stream, as their scales become known."""

    def __init__(self, model: CodingTables, opened: OpenedTile) -> None:
        self._starts, self._escapes = model.starts, Escapes(opened.escapes)
        self._states, self._words = split_stream(opened.lanes)
        self._used, self._first = 0, 0

    def values(self, index: Ints, wanted: NDArray[np.float64] | None) -> Ints:
        """Values from the lanes. Raises FormatError where these end too early."""
        values = np.zeros(len(index), np.int64)
        places = np.flatnonzero(index)
        symbols = np.empty(len(places), np.int64)
        self._used = kernels.decode_lanes(
            self._starts, index[places], self._first, self._states, self._words, self._used, symbols
        )
        if self._used == kernels.OUT_OF_WORDS:
            raise FormatError("tile: the words end before the latents do; the stream is damaged")
        self._first += len(places)
        values[places] = self._escapes.fill(symbols)
        return values

    def finish(self) -> None:
        """Check that everything was used. Raises FormatError."""
        check_end(self._states, self._used, len(self._words))
        self._escapes.finish()

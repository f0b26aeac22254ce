"""The backends of the lossy family: one engine, whose machine computes and whose coder writes and reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pilc_stream.backends.base import Tile, TileJob
from pilc_stream.backends.lossy.base import (
    CodingTables,
    EncodedTile,
    OpenedTile,
    Shape,
    ValueCoder,
    open_tile,
    tiles_by_latents,
)
from pilc_stream.backends.lossy.family.coding import Networks
from pilc_stream.backends.lossy.family.machine import Machine
from pilc_stream.errors import FormatError
from pilc_stream.models.family import QUALITY, FamilyModel


class Writer(ValueCoder, Protocol):
    """Takes the values of a tile, and codes them at the end."""

    def stream(self, quality: int, lanes: int) -> bytes:
        """The tile's stream."""


class Reader(ValueCoder, Protocol):
    """Gives the values of a tile's stream."""

    def finish(self) -> None:
        """Check that everything was used. Raises FormatError."""


class FamilyEngine:
    """Codes tiles; latents and streams do not depend on the machine that computes the latents' tables."""

    def __init__(
        self,
        name: str,
        machine: Machine,
        writer: Callable[[CodingTables], Writer],
        reader: Callable[[CodingTables, OpenedTile], Reader],
        threads: int = 1,
    ) -> None:
        """`writer`, `reader`: the coder of a tile."""
        self.name, self.threads, self._machine = name, threads, machine
        self._writer, self._reader = writer, reader
        self._networks: dict[str, Networks] = {}

    def encode_tiles(
        self, model: FamilyModel, tiles: Sequence[Tile], qualities: Sequence[int], lanes_log2: Sequence[int]
    ) -> list[EncodedTile]:
        """Streams and decoded latents."""
        networks = self._of(model)

        def code(number: int) -> EncodedTile:
            tile, writer = tiles[number], self._writer(model)
            latents = networks.walk(writer, Shape(*tile.shape[:2]), networks.analyse(tile))
            return EncodedTile(writer.stream(QUALITY, 1 << lanes_log2[number]), latents)

        return self._each(code, len(tiles))

    def decode_latents(self, model: FamilyModel, jobs: Sequence[TileJob]) -> list[tuple[int, NDArray[np.int32]]]:
        """Qualities and latents in 256ths."""
        networks = self._of(model)

        def code(number: int) -> tuple[int, NDArray[np.int32]]:
            opened = open_tile(jobs[number])
            if opened.quality != QUALITY:
                raise FormatError(
                    f"tile: a quality of {opened.quality}, but the profile {model.profile!r} has one quality, which is "
                    f"written as {QUALITY}; the stream is damaged"
                )
            reader = self._reader(model, opened)
            latents = networks.walk(reader, Shape(jobs[number].height, jobs[number].width))
            reader.finish()
            return opened.quality, latents

        return self._each(code, len(jobs))

    def decode_tiles(self, model: FamilyModel, jobs: Sequence[TileJob]) -> list[Tile]:
        """The tiles."""
        return tiles_by_latents(self, model, jobs)

    def synthesise(
        self, model: FamilyModel, qualities: Sequence[int], latents: Sequence[NDArray[np.int32]], jobs: Sequence[Shape]
    ) -> list[Tile]:
        """The tiles from their latents."""
        networks = self._of(model)
        return self._each(lambda number: networks.synthesise(latents[number], *jobs[number]), len(jobs))

    def _of(self, model: FamilyModel) -> Networks:
        if model.sha256 not in self._networks:
            self._networks[model.sha256] = Networks(model, self._machine)
        return self._networks[model.sha256]

    def _each(self, work: Callable[[int], Any], count: int) -> list[Any]:
        if self.threads == 1 or count < 2:
            return [work(number) for number in range(count)]
        with ThreadPoolExecutor(min(self.threads, count)) as pool:
            return list(pool.map(work, range(count)))

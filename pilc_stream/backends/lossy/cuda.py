"""The CUDA backend of the codec `lossy`: networks in torch, lanes in Numba-CUDA, tiles of one size in one batch.

What is on the card stays there: streams or pixels go up, pixels or streams come back. All is queued on the caller's
current stream of torch. What is wrong with a stream is raised when all batches are under way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from pilc_stream.backends.base import Tile, TileJob
from pilc_stream.backends.cuda.engine import SMALLEST_BUDGET_BYTES, default_budget
from pilc_stream.backends.cuda.shim import SIMULATED, check_device, cuda, is_cuda_error, is_out_of_memory
from pilc_stream.backends.cuda.tensors import room, torch_device, usable
from pilc_stream.backends.lossy.base import EncodedTile, MeasuredTile, Shape, latent_grid, open_tile, tiles_by_latents
from pilc_stream.backends.lossy.card import CardNets
from pilc_stream.backends.lossy.cuda_batch import (
    COLOURS,
    Members,
    as_grey,
    batches,
    continued,
    put_tiles,
    squared_errors,
)
from pilc_stream.backends.lossy.cuda_lanes import CardReader, CardWriter, CodeTables, code_tables, latent_checksums
from pilc_stream.backends.lossy.cuda_walk import code_batch, decode_batch, place_bytes
from pilc_stream.errors import DeviceError
from pilc_stream.models.lossy import LossyModel

CHUNK_PLACES = 1 << (4 if SIMULATED else 12)
"""Of transforms: as many places as the largest tile has, few where the host computes them."""

Result = TypeVar("Result")


class _Encoded(NamedTuple):
    """A batch that is coded: `source` and what analysis and walk made of it, on the device."""

    members: Members
    source: torch.Tensor
    streams: list[bytes]
    latents: torch.Tensor


class _Decoded(NamedTuple):
    """A batch that is being decoded; `reader` says whether its streams were sound."""

    members: Members
    qualities: list[int]
    reader: CardReader
    latents: torch.Tensor


class LossyCudaEngine:
    """Codes tiles on one card. May be shared by threads, which take turns."""

    name = "cuda"

    def __init__(
        self, device: int | None = None, budget_bytes: int | None = None, nets: CardNets | None = None
    ) -> None:
        """`device`: its number; None is the one that is current now. `budget_bytes`: device memory for a batch, the
        caller's pixels apart; by default as for other codecs. `nets`: others than the device's own, to watch them.

        Raises DeviceError without a card that both torch and the kernels can use.
        """
        if not usable():
            raise DeviceError(
                "device 'cuda': this torch finds no card; use 'cpu', whose payloads are the same, or install a torch "
                "that fits the driver"
            )
        self.device = check_device(device)
        self.nets = CardNets(torch_device(self.device), CHUNK_PLACES)
        self._budget = default_budget() if budget_bytes is None else budget_bytes
        self._tables: dict[str, CodeTables] = {}
        self._lock = threading.Lock()

    def encode_tiles(
        self, model: LossyModel, tiles: Sequence[Tile], qualities: Sequence[int], lanes_log2: Sequence[int]
    ) -> list[EncodedTile]:
        """Streams and decoded latents."""

        def run() -> dict[int, EncodedTile]:
            out: dict[int, EncodedTile] = {}
            for batch in self._encoded(model, tiles, qualities, lanes_log2):
                latents = batch.latents.cpu().numpy()
                out.update(zip(batch.members.numbers, map(EncodedTile, batch.streams, latents), strict=True))
            return out

        return _in_order(self._on_device(run))

    def encode_measured(
        self,
        model: LossyModel,
        tiles: Sequence[Tile],
        qualities: Sequence[int],
        lanes_log2: Sequence[int],
        channels: Sequence[int],
    ) -> list[MeasuredTile]:
        """Streams, with the checksums of latents and the squared errors of what is decoded."""

        def run() -> dict[int, MeasuredTile]:
            out: dict[int, MeasuredTile] = {}
            for batch in self._encoded(model, tiles, qualities, lanes_log2):
                numbers = batch.members.numbers
                tables = self.nets.tables(model, [qualities[number] for number in numbers])
                again = self.nets.synthesise(model, batch.latents, tables, batch.members.shape)
                coloured = torch.tensor([channels[number] == COLOURS for number in numbers], device=again.device)
                again = torch.where(coloured[:, None, None, None], again, as_grey(again))
                errors = squared_errors(batch.source, again, [Shape(*tiles[number].shape[:2]) for number in numbers])
                checksums = latent_checksums(self._tables_of(model).program, batch.latents).tolist()
                out.update(zip(numbers, map(MeasuredTile, batch.streams, checksums, errors), strict=True))
            return out

        return _in_order(self._on_device(run))

    def decode_latents(self, model: LossyModel, jobs: Sequence[TileJob]) -> list[tuple[int, NDArray[np.int32]]]:
        """Qualities and latents."""

        def run() -> dict[int, tuple[int, NDArray[np.int32]]]:
            out: dict[int, tuple[int, NDArray[np.int32]]] = {}
            for batch in self._decoded(model, jobs):
                latents = batch.latents.cpu().numpy()
                batch.reader.finish()
                out.update(zip(batch.members.numbers, zip(batch.qualities, latents, strict=True), strict=True))
            return out

        return _in_order(self._on_device(run))

    def decode_tiles(self, model: LossyModel, jobs: Sequence[TileJob]) -> list[Tile]:
        """The tiles."""
        return tiles_by_latents(self, model, jobs)

    def synthesise(
        self, model: LossyModel, qualities: Sequence[int], latents: Sequence[NDArray[np.int32]], jobs: Sequence[Shape]
    ) -> list[Tile]:
        """The tiles from their latents."""

        def run() -> dict[int, Tile]:
            out: dict[int, Tile] = {}
            for members in batches(jobs, [0] * len(jobs), self._most_places(model)):
                there = torch.from_numpy(np.stack([latents[number] for number in members.numbers]))
                tables = self.nets.tables(model, [qualities[number] for number in members.numbers])
                pixels = self.nets.synthesise(model, there.to(self.nets.device), tables, members.shape).cpu().numpy()
                for number, tile in zip(members.numbers, pixels, strict=True):
                    out[number] = tile[: jobs[number].height, : jobs[number].width]
            return out

        return _in_order(self._on_device(run))

    def decode_to_tensor(
        self, model: LossyModel, jobs: Sequence[TileJob], places: Sequence[tuple[int, int]], pixel_bytes: int
    ) -> tuple[Any, list[int]]:
        """The pixels on the device, each tile at its place, of the caller's current stream; the latents' checksums."""

        def run() -> tuple[Any, list[int]]:
            out, queued = room(pixel_bytes, self.device)[0], []
            for batch in self._decoded(model, jobs):
                numbers = batch.members.numbers
                checksums = latent_checksums(self._tables_of(model).program, batch.latents)
                tables = self.nets.tables(model, batch.qualities)
                pixels = self.nets.synthesise(model, batch.latents, tables, batch.members.shape)
                put_tiles(pixels, [jobs[number] for number in numbers], [places[number] for number in numbers], out)
                queued.append((numbers, batch.reader, checksums))
            found: dict[int, int] = {}
            for numbers, reader, checksums in queued:
                reader.finish()
                found.update(zip(numbers, checksums.tolist(), strict=True))
            return out, _in_order(found)

        return self._on_device(run)

    def clock(self) -> float:
        """Seconds, by a clock that is read when all that was queued is done."""
        if self.nets.device.type == "cuda":
            torch.cuda.synchronize(self.nets.device)
        return time.perf_counter()

    def _encoded(
        self, model: LossyModel, tiles: Sequence[Tile], qualities: Sequence[int], lanes_log2: Sequence[int]
    ) -> Iterator[_Encoded]:
        shapes = [Shape(*tile.shape[:2]) for tile in tiles]
        for members in batches(shapes, lanes_log2, self._most_places(model)):
            some = [qualities[number] for number in members.numbers]
            source = continued([tiles[number] for number in members.numbers], members.shape).to(self.nets.device)
            tables, writer = self.nets.tables(model, some), CardWriter(self._tables_of(model), some, members.lanes_log2)
            found = self.nets.analyse(model, source, tables)
            latents = code_batch(model, tables, self.nets, writer, latent_grid(*members.shape), found)
            yield _Encoded(members, source, writer.streams(), latents)

    def _decoded(self, model: LossyModel, jobs: Sequence[TileJob]) -> Iterator[_Decoded]:
        shapes = [Shape(job.height, job.width) for job in jobs]
        for members in batches(shapes, [job.lanes_log2 for job in jobs], self._most_places(model)):
            opened = [open_tile(jobs[number]) for number in members.numbers]
            qualities = [tile.quality for tile in opened]
            reader = CardReader(self._tables_of(model), opened, self.nets.device)
            tables, grid = self.nets.tables(model, qualities), latent_grid(*members.shape)
            yield _Decoded(members, qualities, reader, decode_batch(model, tables, self.nets, reader, grid))

    def _most_places(self, model: LossyModel) -> int:
        return self._budget // place_bytes(model.spec)

    def _tables_of(self, model: LossyModel) -> CodeTables:
        if model.sha256 not in self._tables:
            self._tables[model.sha256] = code_tables(model.starts, self.nets.device)
        return self._tables[model.sha256]

    def _on_device(self, run: Callable[[], Result]) -> Result:
        """Run with the budget, or where the memory does not suffice with half of it, and so on."""
        # What a training step computes in float16 must not be computed so here.
        plain = torch.autocast(self.nets.device.type, enabled=False)
        with self._lock, cuda.gpus[self.device], plain:
            while True:
                try:
                    return run()
                except Exception as error:
                    if not (isinstance(error, torch.OutOfMemoryError) or is_out_of_memory(error)):
                        if is_cuda_error(error) or "CUDA error" in str(error):
                            raise DeviceError(
                                f"cuda: the card or its driver failed ({error}); such an error stays with the process, "
                                "so go on in a new one"
                            ) from error
                        raise
                    if self._budget < 2 * SMALLEST_BUDGET_BYTES:
                        raise DeviceError(
                            f"cuda: out of memory with batches of {self._budget} bytes ({error}); free memory on the "
                            "card or choose smaller tiles"
                        ) from error
                    self._budget //= 2


def _in_order(found: dict[int, Result]) -> list[Result]:
    return [found[number] for number in range(len(found))]

"""Tiles of the codec `lossy`: each begins with the checksum of its latents and its PSNR, then comes its stream."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, Generic, NamedTuple, TypeVar

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.context import CHANNELS
from pilc_stream.backends.base import Tile, TileJob
from pilc_stream.backends.lossy import LossyDeviceEngine, LossyEngine
from pilc_stream.backends.lossy.base import MeasuredTile, Shape
from pilc_stream.errors import ChecksumError, DeviceError, TruncatedError
from pilc_stream.models.family import FamilyModel
from pilc_stream.models.lossy import LossyModel
from pilc_stream.records.payload import Header, Payload

PEAK = 255
PSNR_UNITS = 100
"""A tile's PSNR is stored in hundredths of a dB, limited to what 16 bits hold."""

MOST_PSNR = 99.99
"""What is said of a tile that came back exactly."""

CRC_BYTES, PSNR_BYTES = 4, 2
HEAD_BYTES = CRC_BYTES + PSNR_BYTES
PIXELS_PER_BYTE = 1 << 13
"""More than any tile has: of 1024 x 1024 pixels the 32 lanes alone take 128 bytes."""

Kind = TypeVar("Kind", bound=LossyModel | FamilyModel)
"""The kinds of models: of variable quality, and of the lossy family, each for one trade-off."""


class Wanted(NamedTuple):
    """A tile to be decoded: the `job` of the engine, in the image's channels, and the latents' `checksum`."""

    job: TileJob
    checksum: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.job.height, self.job.width, self.job.channels


class LossyTiles(Generic[Kind]):
    """Codes tiles by a model on an engine, of which a device keeps latents and pixels to itself."""

    def __init__(self, model: Kind, engine: LossyEngine[Kind]) -> None:
        self._model, self._engine = model, engine

    @property
    def on_device(self) -> bool:
        """Whether the engine is a device's."""
        return isinstance(self._engine, LossyDeviceEngine)

    def encode(
        self, tiles: Sequence[Tile], qualities: Sequence[int], headers: Sequence[Header]
    ) -> list[tuple[bytes, float]]:
        """Streams of tiles `(h, w, 3)` of images of these headers, with their heads; and the PSNR of each."""
        out = []
        for tile, each in zip(tiles, self._measured(tiles, qualities, headers), strict=True):
            psnr = psnr_of_error(each.squared_error / tile.size)
            head = each.checksum.to_bytes(CRC_BYTES, "little")
            head += round(PSNR_UNITS * psnr).to_bytes(PSNR_BYTES, "little")
            out.append((head + each.stream, psnr))
        return out

    def decode(self, wanted: Sequence[Wanted]) -> list[Tile]:
        """The tiles. Raises ChecksumError where latents are not those that were encoded."""
        if not wanted:
            return []
        if self.on_device:
            firsts = list(accumulate((math.prod(each.shape) for each in wanted), initial=0))
            places = [(first, each.shape[1] * each.shape[2]) for first, each in zip(firsts[:-1], wanted, strict=True)]
            pixels = self.decode_to_tensor(wanted, places, firsts[-1]).cpu().numpy()
            parts = np.split(pixels, firsts[1:-1])
            return [part.reshape(each.shape) for part, each in zip(parts, wanted, strict=True)]
        found = self._engine.decode_latents(self._model, [each.job for each in wanted])
        _check(wanted, [latent_checksum(latents) for _, latents in found])
        shapes = [Shape(each.job.height, each.job.width) for each in wanted]
        qualities, latents = [quality for quality, _ in found], [latents for _, latents in found]
        tiles = self._engine.synthesise(self._model, qualities, latents, shapes)
        return [_in_channels(tile, each.job.channels) for tile, each in zip(tiles, wanted, strict=True)]

    def decode_to_tensor(self, wanted: Sequence[Wanted], places: Sequence[tuple[int, int]], pixel_bytes: int) -> Any:
        """The tiles in a device's memory, as `LossyDeviceEngine` has them. Raises as `decode`, and DeviceError."""
        if not isinstance(self._engine, LossyDeviceEngine):
            raise DeviceError(f"device {self._engine.name!r}: images cannot stay there; only those of 'cuda' can")
        jobs = [each.job for each in wanted]
        pixels, checksums = self._engine.decode_to_tensor(self._model, jobs, places, pixel_bytes)
        _check(wanted, checksums)
        return pixels

    def _measured(
        self, tiles: Sequence[Tile], qualities: Sequence[int], headers: Sequence[Header]
    ) -> list[MeasuredTile]:
        lanes_log2, channels = ([getattr(header, name) for header in headers] for name in ("lanes_log2", "channels"))
        if isinstance(self._engine, LossyDeviceEngine):
            return self._engine.encode_measured(self._model, tiles, qualities, lanes_log2, channels)
        found = self._engine.encode_tiles(self._model, tiles, qualities, lanes_log2)
        shapes = [Shape(*tile.shape[:2]) for tile in tiles]
        again = self._engine.synthesise(self._model, qualities, [each.latents for each in found], shapes)
        out = []
        for tile, decoded, each, count in zip(tiles, again, found, channels, strict=True):
            error = int(np.square(tile.astype(np.int32) - _in_channels(decoded, count)).sum())
            out.append(MeasuredTile(each.stream, latent_checksum(each.latents), error))
        return out


def tiles_of(payload: Payload, wanted: Sequence[int]) -> Iterator[Wanted]:
    """Some tiles of a payload. Raises TruncatedError where one cannot hold its pixels."""
    header = payload.header
    for index in wanted:
        _, _, height, width = header.tiling.tile(index)
        stream = payload.tiles[index]
        # Memory and time stay in proportion to the bytes that come, whatever a hostile header announces.
        if len(stream) < HEAD_BYTES or height * width > PIXELS_PER_BYTE * len(stream):
            raise TruncatedError(
                f"tile: a stream of {len(stream)} bytes cannot hold {height} x {width} pixels; the header or the "
                "stream is not what was encoded"
            )
        job = TileJob(stream[HEAD_BYTES:], height, width, header.channels, header.lanes_log2)
        yield Wanted(job, int.from_bytes(stream[:CRC_BYTES], "little"))


def psnr_of_error(error: float) -> float:
    """dB of a mean squared error."""
    return MOST_PSNR if error <= 0 else min(MOST_PSNR, float(10 * np.log10(PEAK**2 / error)))


def latent_checksum(latents: NDArray[np.int32]) -> int:
    """CRC-32C of the latents of a tile."""
    return int(google_crc32c.value(np.ascontiguousarray(latents, "<i4").tobytes()))


def _check(wanted: Sequence[Wanted], checksums: Sequence[int]) -> None:
    if any(each.checksum != found for each, found in zip(wanted, checksums, strict=True)):
        raise ChecksumError(
            "tile: the latents differ from those that were encoded although the bytes are the same; the device does "
            "not compute exactly: decode on another, and report this"
        )


def _in_channels(tile: Tile, channels: int) -> Tile:
    """Of three channels that were equal one is their mean, rounded."""
    if channels == CHANNELS:
        return tile
    return np.asarray((tile.sum(axis=2, keepdims=True, dtype=np.int32) + 1) // CHANNELS, np.uint8)

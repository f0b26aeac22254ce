"""The codec `lossy`: a learned transform whose latents are coded exactly, after Minnen and Johnston (2023).

Latents, and the bytes, are the same on every device, as everything that picks a table is integer; the pixels that a
decoder makes of them may differ by a grey level between devices. A payload says how far it is from its source: each
tile carries its PSNR, and the checksum of its latents, by which a decoder knows that it has read what was written.
Chosen by name only, never in place of a lossless codec.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.context import CHANNELS
from pilc_stream.backends.base import Tile, TileJob
from pilc_stream.backends.lossy import LossyEngine, open_lossy_engine
from pilc_stream.backends.lossy.base import Shape
from pilc_stream.backends.lossy.family import open_family_engine
from pilc_stream.codecs.base import Image, check_image, header_fields
from pilc_stream.codecs.modelled import CHANNEL_COUNTS, WithModel, checked_tiles
from pilc_stream.codecs.raw import RawCodec
from pilc_stream.codecs.tiled import paste
from pilc_stream.errors import ChecksumError, TruncatedError, UsageError
from pilc_stream.models.family import QUALITY, FamilyModel, is_family_model, load_family_model
from pilc_stream.models.lossy import QUALITIES, LossyModel, is_lossy_model, load_lossy_model
from pilc_stream.records.payload import Header, Payload, pack_payload, parse_payload
from pilc_stream.records.tiling import MAX_TILE_LOG2, Region, Tiling, default_lanes_log2

NAME = "lossy"
DEFAULT_QUALITY = 50
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


class LossyCodec(WithModel[Kind]):
    """Encodes 8-bit grey and RGB images, with a quality or for a PSNR to be reached."""

    name = NAME

    def __init__(
        self,
        model: Kind,
        engine: LossyEngine[Kind],
        quality: int | None = None,
        psnr: float | None = None,
        tile_log2: int = MAX_TILE_LOG2,
    ) -> None:
        """`quality`: 1 to 100, 50 if none is given. `psnr`: instead, the least dB of every tile; the smallest quality
        that has it is taken, or the largest of all. A model of the family takes neither. Raises UsageError for
        others."""
        if isinstance(model, FamilyModel):
            if quality is not None or psnr is not None:
                raise UsageError(
                    f"profile {model.profile!r}: its model was trained for one trade-off, {model.tradeoff}, and has no "
                    "other quality; leave out quality and psnr, or train a model with another --tradeoff"
                )
            quality = QUALITY
        quality = DEFAULT_QUALITY if quality is None else quality
        if not 1 <= quality <= QUALITIES:
            raise UsageError(f"quality: {quality} is not possible; it must lie in 1..{QUALITIES}")
        if psnr is not None and not 0 < psnr < MOST_PSNR:
            raise UsageError(f"psnr: {psnr} dB is not possible; it must lie between 0 and {MOST_PSNR}")
        self.model, self.engine, self.quality, self.psnr, self.tile_log2 = model, engine, quality, psnr, tile_log2

    def refuses(self, image: NDArray[Any]) -> str | None:
        """Why this codec cannot take the image; None where it can."""
        if image.dtype != np.uint8:
            return f"samples of {image.dtype}; the codec 'lossy' takes uint8"
        channels = 1 if image.ndim == 2 else image.shape[2]
        if channels not in CHANNEL_COUNTS:
            return f"{channels} channels; the codec 'lossy' takes 1 (grey) or 3 (RGB) and no alpha"
        return None

    def encode(self, images: Sequence[NDArray[Any]], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
        """One payload per image; UsageError for a refused one."""
        return [self._encode(*each) for each in zip(images, extras or [None] * len(images), strict=True)]

    def _encode(self, image: NDArray[Any], extras: bytes | None) -> bytes:
        check_image(image)
        reason = self.refuses(image)
        if reason:
            raise UsageError(f"image of shape {image.shape}: {reason}; use a lossless profile")
        header = Header(
            codec=self.name,
            model_digest=self.model.short_digest,
            tile_log2=self.tile_log2,
            lanes_log2=default_lanes_log2(Tiling(image.shape[0], image.shape[1], self.tile_log2)),
            extras=extras or b"",
            **header_fields(image),
        )
        whole = image.reshape(header.height, header.width, header.channels)
        tiles = [
            np.broadcast_to(whole[y : y + height, x : x + width], (height, width, CHANNELS))
            for y, x, height, width in header.tiling.tiles()
        ]
        if self.psnr is None:
            coded = self._coded(tiles, [self.quality] * len(tiles), header)
        else:
            coded = [self._reaching(tile, self.psnr, header) for tile in tiles]
        payload = pack_payload(header, [stream for stream, _ in coded])
        stored = RawCodec().encode([image], [extras])[0] if len(payload) >= header.raw_bytes else payload
        return min(payload, stored, key=len)

    def _coded(self, tiles: Sequence[Tile], qualities: Sequence[int], header: Header) -> list[tuple[bytes, float]]:
        """Streams with their heads, and the PSNR of each."""
        found = self.engine.encode_tiles(self.model, tiles, qualities, [header.lanes_log2] * len(tiles))
        shapes = [Shape(*tile.shape[:2]) for tile in tiles]
        again = self.engine.synthesise(self.model, qualities, [each.latents for each in found], shapes)
        out = []
        for tile, decoded, each in zip(tiles, again, found, strict=True):
            if header.channels == 1:
                decoded = np.broadcast_to(_grey(decoded)[..., None], tile.shape)
            error = float(np.square(tile.astype(np.int32) - decoded).mean())
            psnr = psnr_of_error(error)
            head = _latent_crc(each.latents).to_bytes(CRC_BYTES, "little")
            head += round(PSNR_UNITS * psnr).to_bytes(PSNR_BYTES, "little")
            out.append((head + each.stream, psnr))
        return out

    def _reaching(self, tile: Tile, wanted: float, header: Header) -> tuple[bytes, float]:
        """The stream of the smallest quality that reaches the PSNR, as far as PSNR rises with quality."""
        low, high = 1, QUALITIES
        best: tuple[bytes, float] | None = None
        while low < high:
            middle = (low + high) // 2
            found = self._coded([tile], [middle], header)[0]
            if found[1] >= wanted:
                best, high = found, middle
            else:
                low = middle + 1
        return best or self._coded([tile], [low], header)[0]


class LossyDecoder(Generic[Kind]):
    """Decodes payloads of one model."""

    def __init__(self, model: Kind, engine: LossyEngine[Kind]) -> None:
        self.model, self.engine = model, engine

    def decode(self, payloads: Sequence[Payload], regions: Sequence[Region | None]) -> list[Image]:
        """The images, or their regions from the tiles that touch them.

        Raises ChecksumError where latents are not those that were encoded.
        """
        wanted_tiles = [checked_tiles(*each) for each in zip(payloads, regions, strict=True)]
        jobs = [job for payload, wanted in zip(payloads, wanted_tiles, strict=True) for job in _jobs(payload, wanted)]
        found = self.engine.decode_latents(self.model, [job.job for job in jobs])
        for job, (_, latents) in zip(jobs, found, strict=True):
            if _latent_crc(latents) != job.crc:
                raise ChecksumError(
                    "tile: the latents differ from those that were encoded although the bytes are the same; the "
                    "device does not compute exactly: decode on another, and report this"
                )
        shapes = [Shape(job.job.height, job.job.width) for job in jobs]
        tiles = iter(
            self.engine.synthesise(
                self.model, [quality for quality, _ in found], [latents for _, latents in found], shapes
            )
        )
        out: list[Image] = []
        for payload, region, wanted in zip(payloads, regions, wanted_tiles, strict=True):
            header = payload.header
            y0, x0, height, width = region or Region(0, 0, header.height, header.width)
            image = np.empty((height, width, header.channels), np.uint8)
            for index in wanted:
                tile = next(tiles)
                paste(
                    image,
                    y0,
                    x0,
                    tile if header.channels == CHANNELS else _grey(tile)[..., None],
                    header.tiling.tile(index),
                )
            out.append(image[:, :, 0] if header.two_axes else image)
        return out


def is_lossy(data: bytes) -> bool:
    """Whether a model file is for this codec."""
    return is_lossy_model(data) or is_family_model(data)


def lossy_codec(data: bytes, device: str, threads: int) -> LossyCodec[Any]:
    """The codec of a model file of either kind."""
    if is_family_model(data):
        return LossyCodec(load_family_model(data), open_family_engine(device, threads))
    return LossyCodec(load_lossy_model(data), open_lossy_engine(device, threads))


def lossy_decoder(data: bytes, device: str, threads: int) -> LossyDecoder[Any]:
    """The decoder for payloads of a model file of either kind."""
    if is_family_model(data):
        return LossyDecoder(load_family_model(data), open_family_engine(device, threads))
    return LossyDecoder(load_lossy_model(data), open_lossy_engine(device, threads))


class _Job(NamedTuple):
    """`job` of the engine, and the checksum that its latents must have."""

    job: TileJob
    crc: int


def _jobs(payload: Payload, wanted: Sequence[int]) -> Iterator[_Job]:
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
        job = TileJob(stream[HEAD_BYTES:], height, width, CHANNELS, header.lanes_log2)
        yield _Job(job, int.from_bytes(stream[:CRC_BYTES], "little"))


def payload_psnr(payload: bytes | memoryview) -> float:
    """The PSNR in dB of a payload of this codec, over all its tiles, as its encoder measured it."""
    parsed = parse_payload(payload)
    errors, weights = [], []
    for tile, place in zip(parsed.tiles, parsed.header.tiling.tiles(), strict=True):
        hundredths = int.from_bytes(tile[CRC_BYTES:HEAD_BYTES], "little")
        errors.append(PEAK**2 * 10 ** (-hundredths / PSNR_UNITS / 10))
        weights.append(place.height * place.width)
    return psnr_of_error(float(np.average(errors, weights=weights)))


def fidelity(payload: bytes | None) -> dict[str, Any]:
    """The columns `lossless` and `psnr` of a record: of a payload of this codec, or (None) of whatever is exact."""
    return {"lossless": payload is None, "psnr": None if payload is None else round(payload_psnr(payload), 2)}


def psnr_of_error(error: float) -> float:
    """dB of a mean squared error."""
    return MOST_PSNR if error <= 0 else min(MOST_PSNR, float(10 * np.log10(PEAK**2 / error)))


def _latent_crc(latents: NDArray[np.int32]) -> int:
    return int(google_crc32c.value(np.ascontiguousarray(latents, "<i4").tobytes()))


def _grey(tile: Tile) -> Tile:
    """One channel of three that were equal: their mean, rounded."""
    return np.asarray((tile.sum(axis=2, dtype=np.int32) + 1) // CHANNELS, np.uint8)

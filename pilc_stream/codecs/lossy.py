"""The codec `lossy`: a learned transform whose latents are coded exactly, after Minnen and Johnston (2023).

Latents, and the bytes, are the same on every device, as everything that picks a table is integer; the pixels that a
decoder makes of them may differ by a grey level between devices. A payload says how far it is from its source: each
tile carries its PSNR, and the checksum of its latents, by which a decoder knows that it has read what was written.
Chosen by name only, never in place of a lossless codec.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.context import CHANNELS
from pilc_stream.backends.base import Tile
from pilc_stream.backends.lossy import LossyEngine, open_lossy_engine
from pilc_stream.backends.lossy.family import open_family_engine
from pilc_stream.codecs.base import Image, check_image, header_fields
from pilc_stream.codecs.device_images import DeviceImages
from pilc_stream.codecs.lossy_tiles import (
    CRC_BYTES,
    HEAD_BYTES,
    MOST_PSNR,
    PEAK,
    PSNR_UNITS,
    Kind,
    LossyTiles,
    psnr_of_error,
    tiles_of,
)
from pilc_stream.codecs.modelled import CHANNEL_COUNTS, WithModel, checked_tiles
from pilc_stream.codecs.raw import RawCodec
from pilc_stream.codecs.tiled import paste
from pilc_stream.errors import UsageError
from pilc_stream.models.family import QUALITY, FamilyModel, is_family_model, load_family_model
from pilc_stream.models.lossy import QUALITIES, is_lossy_model, load_lossy_model
from pilc_stream.records.payload import Header, Payload, pack_payload, parse_payload
from pilc_stream.records.tiling import MAX_TILE_LOG2, Region, Tiling, default_lanes_log2

NAME = "lossy"
DEFAULT_QUALITY = 50


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
        self._tiles = LossyTiles(model, engine)

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
        cut = [self._cut(*each) for each in zip(images, extras or [None] * len(images), strict=True)]
        tiles = [tile for _, parts in cut for tile in parts]
        headers = [header for header, parts in cut for _ in parts]
        if self.psnr is None:
            coded = iter(self._tiles.encode(tiles, [self.quality] * len(tiles), headers))
        else:
            coded = map(partial(self._reaching, self.psnr), tiles, headers)
        out = []
        for image, (header, parts) in zip(images, cut, strict=True):
            payload = pack_payload(header, [stream for stream, _ in islice(coded, len(parts))])
            stored = RawCodec().encode([image], [header.extras])[0] if len(payload) >= header.raw_bytes else payload
            out.append(min(payload, stored, key=len))
        return out

    def _cut(self, image: NDArray[Any], extras: bytes | None) -> tuple[Header, list[Tile]]:
        """The header of an image, and its tiles in three channels."""
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
        return header, [
            np.broadcast_to(whole[y : y + height, x : x + width], (height, width, CHANNELS))
            for y, x, height, width in header.tiling.tiles()
        ]

    def _reaching(self, wanted: float, tile: Tile, header: Header) -> tuple[bytes, float]:
        """The stream of the smallest quality that reaches the PSNR, as far as PSNR rises with quality."""
        low, high = 1, QUALITIES
        best: tuple[bytes, float] | None = None
        while low < high:
            middle = (low + high) // 2
            found = self._tiles.encode([tile], [middle], [header])[0]
            if found[1] >= wanted:
                best, high = found, middle
            else:
                low = middle + 1
        return best or self._tiles.encode([tile], [low], [header])[0]


class LossyDecoder(Generic[Kind]):
    """Decodes payloads of one model."""

    def __init__(self, model: Kind, engine: LossyEngine[Kind]) -> None:
        self._tiles = LossyTiles(model, engine)

    def decode(self, payloads: Sequence[Payload], regions: Sequence[Region | None]) -> list[Image]:
        """The images, or their regions from the tiles that touch them.

        Raises ChecksumError where latents are not those that were encoded.
        """
        numbers = [checked_tiles(*each) for each in zip(payloads, regions, strict=True)]
        wanted = [tile for each in zip(payloads, numbers, strict=True) for tile in tiles_of(*each)]
        tiles = iter(self._tiles.decode(wanted))
        out: list[Image] = []
        for payload, region, chosen in zip(payloads, regions, numbers, strict=True):
            header = payload.header
            y0, x0, height, width = region or Region(0, 0, header.height, header.width)
            image = np.empty((height, width, header.channels), np.uint8)
            for index in chosen:
                paste(image, y0, x0, next(tiles), header.tiling.tile(index))
            out.append(image[:, :, 0] if header.two_axes else image)
        return out

    def decode_to_tensors(self, payloads: Sequence[Payload]) -> list[Any]:
        """The images as torch tensors in the device's memory, which each tile was decoded into at its place.

        Raises as `decode`, and DeviceError where the engine is not a device's.
        """
        wanted = [tile for payload in payloads for tile in tiles_of(payload, checked_tiles(payload, None))]
        images = DeviceImages.of([payload.header for payload in payloads])
        return images.views(self._tiles.decode_to_tensor(wanted, images.places, images.pixel_bytes))

    @property
    def on_device(self) -> bool:
        """Whether images can stay where they are decoded."""
        return self._tiles.on_device


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

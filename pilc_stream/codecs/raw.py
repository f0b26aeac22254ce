"""The codec `raw`: pixels as they are, for what no other codec takes or makes smaller. Takes every image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.codecs.base import Image, check_all_tiles, check_image, header_fields
from pilc_stream.records.payload import Header, Payload, pack_payload
from pilc_stream.records.tiling import Region

BAND_BYTES = 1 << 24


class RawCodec:
    """Pixels in C order, 16-bit samples little-endian."""

    name = "raw"
    profile = "raw"
    model_sha256 = ""
    model_bytes = b""

    def refuses(self, image: NDArray[Any]) -> str | None:
        """Never."""
        return None

    def encode(self, images: Sequence[NDArray[Any]], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
        """One payload per image."""
        out = []
        for image, extra in zip(images, extras or [None] * len(images), strict=True):
            check_image(image)
            body = np.ascontiguousarray(image).astype(image.dtype.newbyteorder("<"), copy=False).tobytes()
            out.append(pack_payload(Header(codec="raw", extras=extra or b"", **header_fields(image)), [body]))
        return out


def raw_bands(payload: Payload) -> Iterator[Image]:
    """The image from the top down, some rows at a time."""
    check_all_tiles(payload)
    header = payload.header
    rows = np.frombuffer(payload.tiles[0], f"<u{header.sample_bytes}").reshape(header.shape)
    step = max(1, BAND_BYTES * header.height // header.raw_bytes)
    for y in range(0, header.height, step):
        yield rows[y : y + step].astype(rows.dtype.newbyteorder("="), copy=True)


class RawDecoder:
    """The inverse of `RawCodec`."""

    def decode(self, payloads: Sequence[Payload], regions: Sequence[Region | None]) -> list[Image]:
        """The images or their regions, as arrays of their own."""
        out = []
        for payload, region in zip(payloads, regions, strict=True):
            check_all_tiles(payload)
            header = payload.header
            image = np.frombuffer(payload.tiles[0], f"<u{header.sample_bytes}").reshape(header.shape)
            if region is not None:
                image = image[region.y : region.y + region.height, region.x : region.x + region.width]
            out.append(image.astype(image.dtype.newbyteorder("="), copy=True))
        return out

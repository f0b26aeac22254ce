"""The codec `webp`: tiles as lossless WebP, by libwebp. For repetition: screens, drawings, icons, palettes, masks. And,
as a profile, for photographs that CPUs alone read: larger than by `fast`, but decoded faster than PNG.

A stock codec as one more choice by size. Every stream is decoded again when it is made: the exactness of a library is
checked, not trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.codecs.base import TileCoder, check_image
from pilc_stream.codecs.tiled import TiledDecoder, encode_tiled, tile_coder
from pilc_stream.errors import FormatError, UsageError
from pilc_stream.images.webp import BEST_QUALITY, QUICK_QUALITY, decode_vp8l, encode_vp8l
from pilc_stream.records.payload import Header

SAMPLES_PER_BYTE = 1 << 15
"""VP8L codes a picture of one colour in as good as no bytes; a stream is filled up with zeros to this."""

TILE_LOG2 = 11
"""A screen is one tile, and a row of tiles of a very wide picture fits in memory."""

PHOTOGRAPH_TILE_LOG2 = 10
"""Parts of photographs are read, but each stream takes libwebp and Pillow a moment: tiles of 512 are 6 % slower."""


class WebpCodec:
    """Encodes 8-bit images of any channels."""

    name = "webp"
    profile = "webp"
    model_sha256 = ""
    model_bytes = b""

    def __init__(self, tile_log2: int = TILE_LOG2, quality: int = BEST_QUALITY) -> None:
        """`quality`: libwebp's effort, 0 to 100."""
        self.tile_log2, self.quality = tile_log2, quality

    def refuses(self, image: NDArray[Any]) -> str | None:
        """Why this codec cannot take the image; None where it can."""
        return None if image.dtype == np.uint8 else f"samples of {image.dtype}; the webp codec takes uint8"

    def encode(self, images: Sequence[NDArray[Any]], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
        """One payload per image; UsageError for a refused one, FormatError where libwebp gives back other pixels."""
        out = []
        for image, extra in zip(images, extras or [None] * len(images), strict=True):
            check_image(image)
            if reason := self.refuses(image):
                raise UsageError(f"image of shape {image.shape}: {reason}; use the codec 'raw'")
            payload = encode_tiled(image, extra, self.name, self.tile_log2, self._encode_tile)
            assert payload is not None  # every tile has a stream
            out.append(payload)
        return out

    def tile_coder(self, image: NDArray[Any], most_log2: int) -> TileCoder:
        """What codes an image like this, in tiles of at most ``2**most_log2``."""
        return tile_coder(image, self.name, min(self.tile_log2, most_log2), self._encode_tile)

    def _encode_tile(self, tile: NDArray[np.uint8]) -> bytes:
        stream = encode_vp8l(tile, self.quality).ljust(-(-tile.size // SAMPLES_PER_BYTE), b"\0")
        if not np.array_equal(decode_vp8l(stream, *tile.shape), tile):
            raise FormatError("webp: libwebp gives back other pixels than it was given; update Pillow")
        return stream


def _decode_tile(stream: memoryview, height: int, width: int, header: Header) -> NDArray[np.uint8]:
    if header.bit_depth != 8:
        raise FormatError(f"payload (webp): samples of {header.bit_depth} bits; there are 8")
    return decode_vp8l(stream, height, width, header.channels)


def photograph_codec() -> WebpCodec:
    """The profile `webp`."""
    return WebpCodec(PHOTOGRAPH_TILE_LOG2, QUICK_QUALITY)


def webp_decoder() -> TiledDecoder:
    """The inverse of `WebpCodec`."""
    return TiledDecoder(_decode_tile, SAMPLES_PER_BYTE)

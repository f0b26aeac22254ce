"""The codec `deep`: samples of 16 bits, by predictors and probabilities that adapt to the tile; no model.

A tile's stream is one byte, the bits that its largest sample needs, and what `backends.deep` makes of the channels in
the order G, R, B, A (others as they are). On every device it runs on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.codecs.base import TileCoder, check_image
from pilc_stream.codecs.raw import RawCodec
from pilc_stream.codecs.tiled import TiledDecoder, encode_tiled, tile_coder
from pilc_stream.errors import FormatError, TruncatedError
from pilc_stream.records.payload import Header

SAMPLES_PER_BYTE = 1 << 12
"""Five decisions a sample, of a probability of at most 65504 / 65536: no byte holds more than 2271 samples."""

TILE_LOG2 = 10
"""Probabilities are learned anew in each tile, so tiles are large."""

_ORDERS = {1: [0], 2: [0, 1], 3: [1, 0, 2], 4: [1, 0, 2, 3]}


class DeepCodec:
    """Encodes every image; what would grow, by more than a few bytes, is stored by `raw`."""

    name = "deep"
    profile = "deep"
    model_sha256 = ""
    model_bytes = b""

    def __init__(self, tile_log2: int = TILE_LOG2) -> None:
        self.tile_log2 = tile_log2

    def refuses(self, image: NDArray[Any]) -> str | None:
        """Never."""
        return None

    def encode(self, images: Sequence[NDArray[Any]], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
        """One payload per image."""
        out = []
        for image, extra in zip(images, extras or [None] * len(images), strict=True):
            check_image(image)
            payload = encode_tiled(image, extra, self.name, self.tile_log2, _encode_tile)
            out.append(payload or RawCodec().encode([image], [extra])[0])
        return out

    def tile_coder(self, image: NDArray[Any], most_log2: int) -> TileCoder:
        """What codes an image like this, in tiles of at most ``2**most_log2``."""
        return tile_coder(image, self.name, min(self.tile_log2, most_log2), _encode_tile)


def _encode_tile(tile: NDArray[Any]) -> bytes | None:
    from pilc_stream.backends.deep import encode_tile

    bits = max(1, int(tile.max()).bit_length())
    stream = encode_tile(tile[:, :, _ORDERS[tile.shape[2]]], bits)
    return None if stream is None else bytes([bits]) + stream


def _decode_tile(stream: memoryview, height: int, width: int, header: Header) -> NDArray[np.int64]:
    from pilc_stream.backends.deep import OUT_OF_BYTES, decode_tile

    bits = stream[0]
    if not 1 <= bits <= header.bit_depth:
        raise FormatError(f"tile (deep): {bits} bits a sample; there are 1 to {header.bit_depth}")
    coded = decode_tile(stream[1:], height, width, header.channels, bits)
    if isinstance(coded, int):
        if coded == OUT_OF_BYTES:
            raise TruncatedError("tile (deep): the stream ends before the last sample")
        raise FormatError("tile (deep): the stream is not what an encoder writes")
    return coded[:, :, np.argsort(_ORDERS[header.channels])]


def deep_decoder() -> TiledDecoder:
    """The inverse of `DeepCodec`."""
    return TiledDecoder(_decode_tile, SAMPLES_PER_BYTE)

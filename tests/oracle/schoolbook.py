"""A decoder written from FORMAT.md alone, in plain Python integers, one sub-pixel after the other.

It imports nothing of the project and shares no line with it, so that an error in both would have to be made twice.
Names and numbers of sections are those of the document. Here is the whole; `schoolbook_layout` has sections 1 and 3,
`schoolbook_wave` 4 to 7, `schoolbook_planes` 12, `schoolbook_deep` 14.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from schoolbook_deep import deep_tile
from schoolbook_layout import DEEP, PLANES, RAW, Head, Picture, RefusedError, Tile, crc32c, must, read_streams, tiles_of
from schoolbook_planes import planes_samples
from schoolbook_wave import Context, Model, PixelModel, Watch, decode_tile, decode_view, scaled, wavefront

__all__ = ["Context", "Model", "PixelModel", "RefusedError", "crc32c", "decode", "scaled", "wavefront"]


def decode(payload: bytes, model_file: bytes | None = None, watch: Watch | None = None) -> Picture:
    """The image in a payload. `watch` is told about each symbol of `wave` as it is decoded."""
    head, streams = read_streams(payload)
    if head.codec == RAW:
        samples = raw_samples(head, streams[0])
    elif head.codec == PLANES:
        samples = planes_samples(head, streams[0], lambda part: decode(part, model_file, watch).samples)
    elif head.codec == DEEP:
        samples = tiled_samples(head, streams, lambda *tile: deep_tile(*tile, head.channels, head.bits))
    else:
        must(model_file is not None, "no model")
        assert model_file is not None
        must(hashlib.sha256(model_file).digest()[:4] == head.digest, "another model")
        model, lanes = Model(model_file), 1 << head.lanes_log2

        def decode_stream(stream: bytes, height: int, width: int) -> Tile:
            if head.views:
                return decode_view(model, stream, height, width, head.channels, lanes)
            return decode_tile(model, stream, height, width, head.channels, lanes, watch)

        samples = tiled_samples(head, streams, decode_stream)
    shape = (head.height, head.width) if head.two_axes else (head.height, head.width, head.channels)
    return Picture(shape, head.bits, samples, head.extras, head.fields)


# Section 2: raw.


def raw_samples(head: Head, stream: bytes) -> list[int]:
    step = head.bits // 8
    must(len(stream) == head.height * head.width * head.channels * step, "pixels of another number")
    return [int.from_bytes(stream[i : i + step], "little") for i in range(0, len(stream), step)]


def tiled_samples(head: Head, streams: list[bytes], decode_stream: Callable[[bytes, int, int], Tile]) -> list[int]:
    """The image's samples from its tiles' streams, each of which `decode_stream` decodes at its height and width."""
    image = [[[0] * head.channels for _ in range(head.width)] for _ in range(head.height)]
    for (top, left, height, width), stream in zip(tiles_of(head), streams, strict=True):
        tile = decode_stream(stream, height, width)
        for y in range(height):
            for x in range(width):
                image[top + y][left + x] = tile[y][x]
    return [sample for row in image for pixel in row for sample in pixel]

"""Lossless WebP as a stock coder for repetitive pictures: the bare VP8L bit stream of RFC 9649, without its file.

The stream's own header is compared with what is expected before libwebp sees it, so that nothing is allocated by it.
"""

from __future__ import annotations

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pilc_stream.errors import FormatError

MAX_EDGE = 16383
"""Of a WebP picture."""

BEST_QUALITY, QUICK_QUALITY = 100, 20
"""Of Kodak on one core: 1.5 and 11.8 MB/s in, 3.189 and 3.229 bits per sub-pixel, 160 MB/s out."""

_SIGNATURE = 0x2F
_HEADER_BYTES = 5
_FILE_BYTES = 20
"""RIFF, its length, WEBP, VP8L and its length: what a file has before the stream."""

_MODES = {3: "RGB", 4: "RGBA"}


def encode_vp8l(tile: NDArray[np.uint8], quality: int = BEST_QUALITY) -> bytes:
    """The VP8L stream of a tile `(h, w, 1..4)` of at most MAX_EDGE a side; grey is stored as equal colours.

    `quality`: libwebp's effort, 0 to 100.
    """
    coloured = tile if tile.shape[2] > 2 else np.concatenate([tile[:, :, :1]] * 3 + [tile[:, :, 1:]], axis=2)
    picture = Image.frombytes(_MODES[coloured.shape[2]], tile.shape[1::-1], np.ascontiguousarray(coloured).tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True, quality=quality, method=4, exact=True)
    return buffer.getvalue()[_FILE_BYTES:]


def decode_vp8l(stream: bytes | memoryview, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """The tile again, uint8 `(height, width, channels)`. Raises FormatError for any other stream."""
    data = bytes(stream)
    if len(data) < _HEADER_BYTES or data[0] != _SIGNATURE:
        raise FormatError("tile (webp): the stream is no VP8L stream")
    (fields,) = struct.unpack_from("<I", data, 1)
    found = (fields & 0x3FFF) + 1, (fields >> 14 & 0x3FFF) + 1, fields >> 29
    if found != (width, height, 0):
        raise FormatError(
            f"tile (webp): the stream is of {found[1]} x {found[0]} pixels, version {found[2]}; the payload's header "
            f"says {height} x {width}, and version 0 is known"
        )
    data += b"\0" * (len(data) % 2)
    file = b"RIFF" + struct.pack("<I", len(data) + 12) + b"WEBPVP8L" + struct.pack("<I", len(data)) + data
    try:
        with Image.open(io.BytesIO(file), formats=["WEBP"]) as picture:
            # Without alpha Pillow has three bytes a pixel already.
            pixels = np.array(picture if picture.mode == "RGB" and channels in (1, 3) else picture.convert("RGBA"))
    except Exception as error:
        # On damaged streams Pillow raises nearly every kind of exception.
        raise FormatError(f"tile (webp): the stream cannot be decoded: {error}") from error
    if pixels.shape[:2] != (height, width):
        raise FormatError(f"tile (webp): the stream decodes to {pixels.shape}, not to {height} x {width} pixels")
    if pixels.shape[2] == channels:
        return pixels
    return np.ascontiguousarray(pixels[:, :, [[0], [0, 3], [0, 1, 2]][channels - 1]])

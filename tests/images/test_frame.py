"""A file from its pixels and what lies around them, byte for byte."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pilc_stream.errors import FormatError
from pilc_stream.images import Pixels, decode_image, encode_png, framed, source_of
from pilc_stream.images.metadata import FRAME, Chunk, pack_extras, unpack_extras


def file(array: np.ndarray[Any, Any], kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape, dtype)


@pytest.mark.parametrize(
    "data",
    [
        file(noise(7, 9, 3), "BMP"),
        file(noise(7, 9), "BMP"),
        file(noise(7, 9, 3), "PPM"),
        file(noise(7, 9), "PPM"),
        file(noise(7, 9, 3), "TIFF", description="words"),
        file(noise(7, 9, dtype=np.uint16), "TIFF"),
        b"P6 5 4\n65535\n" + noise(120).tobytes(),
        b"P5\n# a comment\n 5 4 65535\n" + noise(40).tobytes() + b"what follows",
    ],
)
def test_the_file_comes_back(data: bytes) -> None:
    pixels = framed(data, decode_image(data))
    assert pixels is not None
    assert source_of(pixels) == data
    # The frame is ours alone: a PNG does not have it.
    assert FRAME not in encode_png(pixels)
    frame = unpack_extras(
        pixels.extras, 1 if pixels.array.ndim == 2 else pixels.array.shape[2], 8 * pixels.array.itemsize
    )
    assert len(frame[-1].data) < 1200


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_what_is_compressed_is_not_framed(kind: str) -> None:
    data = file(noise(8, 8), kind)
    assert framed(data, decode_image(data)) is None


def test_without_a_frame_there_is_no_file() -> None:
    assert source_of(Pixels(noise(3, 3), "L")) is None


@pytest.mark.parametrize(
    "frame",
    [
        b"\x00\x00\x00\x00\x00junk",
        b"\xff\x00\x00\x00\x00x\x9c\x03\x00\x00\x00\x00\x01",
        b"\x00\x09\x00\x00\x00x\x9c\x03\x00\x00\x00\x00\x01",
    ],
)
def test_a_damaged_frame_is_a_format_error(frame: bytes) -> None:
    with pytest.raises(FormatError, match="frame"):
        source_of(Pixels(noise(3, 3), "L", pack_extras([Chunk(FRAME, frame)])))


def test_a_short_frame_is_refused_with_the_metadata() -> None:
    with pytest.raises(FormatError):
        source_of(Pixels(noise(3, 3), "L", pack_extras([Chunk(FRAME, b"\0")])))

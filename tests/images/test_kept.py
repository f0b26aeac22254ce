from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pilc_stream.errors import ImageError
from pilc_stream.images.kept import decode_kept

ODD = Path(__file__).parents[3] / "shared" / "data" / "eval" / "odd"


def file_bytes(image: Image.Image, name: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def noise(shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(3).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 2), (5, 7, 3), (5, 7, 4)])
def test_pixels_come_as_the_file_has_them(shape: tuple[int, ...]) -> None:
    pixels = noise(shape)
    decoded = decode_kept(file_bytes(Image.fromarray(pixels)))
    assert np.array_equal(decoded, pixels)
    assert decoded.flags.writeable


def test_sixteen_bit_grey_keeps_its_bits() -> None:
    pixels = noise((6, 4), np.uint16)
    decoded = decode_kept(file_bytes(Image.fromarray(pixels)))
    assert decoded.dtype == np.uint16
    assert np.array_equal(decoded, pixels)


def test_palettes_and_bits_are_expanded() -> None:
    pixels = noise((5, 7, 3)) // 64 * 64
    palette = Image.fromarray(pixels).quantize(256)
    assert np.array_equal(decode_kept(file_bytes(palette)), np.asarray(palette.convert("RGB")))
    bits = noise((5, 9)) > 127
    assert np.array_equal(decode_kept(file_bytes(Image.fromarray(bits))), bits * np.uint8(255))


def test_a_transparent_colour_becomes_an_alpha_channel() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0] = 9, 8, 7
    decoded = decode_kept(file_bytes(Image.fromarray(pixels), transparency=(9, 8, 7)))
    assert decoded.tolist() == [[[9, 8, 7, 0], [0, 0, 0, 255]], [[0, 0, 0, 255]] * 2]


def test_of_an_animation_the_first_frame_is_shown() -> None:
    frames = [Image.fromarray(np.full((4, 4, 3), level, np.uint8)) for level in (10, 200)]
    decoded = decode_kept(file_bytes(frames[0], save_all=True, append_images=frames[1:]))
    assert np.array_equal(decoded, np.full((4, 4, 3), 10, np.uint8))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello", "text"),
        (file_bytes(Image.fromarray(noise((40, 40, 4))))[:900], "cannot be decoded"),
        (file_bytes(Image.fromarray(np.ones((3, 3), np.float32)), "TIFF"), "floating-point"),
        (file_bytes(Image.fromarray(np.full((3, 3), 1 << 20, np.int32)), "TIFF"), "more than 16 bits"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode_kept(data)


def test_the_size_limit_holds() -> None:
    with pytest.raises(ImageError, match="above the limit"):
        decode_kept(file_bytes(Image.fromarray(noise((30, 30, 4)))), max_pixels=899)


@pytest.mark.skipif(not ODD.is_dir(), reason="the odd images lie beside the repository and are not here")
@pytest.mark.parametrize("group", ["alpha", "animated", "depth16", "palette", "tiny"])
def test_odd_files_are_shown_like_pillow_or_refused(group: str) -> None:
    shown = 0
    for path in sorted((ODD / group).iterdir()):
        try:
            decoded = decode_kept(path.read_bytes())
        except ImageError:
            continue
        with Image.open(path) as image:
            assert decoded.shape[:2] == image.size[::-1], path.name
            is_whole = decoded.dtype == np.uint8 and not (image.mode == "L" and image.has_transparency_data)
            if image.mode in ("L", "LA", "RGBA", "CMYK") and is_whole:
                assert np.array_equal(decoded, np.asarray(image)), path.name
        shown += 1
    assert shown

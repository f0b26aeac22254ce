"""PNG and .npy files written from bands of rows."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pilc_stream.errors import FormatError, ImageError
from pilc_stream.images import Pixels, decode_image, rows
from pilc_stream.images.rows import PngWriter, npy_head

_KINDS = [
    *(("L", 0, np.uint8), ("LA", 2, np.uint8), ("RGB", 3, np.uint8), ("RGBA", 4, np.uint8), ("1", 0, np.uint8)),
    *(("I;16", 0, np.uint16), ("LA", 2, np.uint16), ("RGB", 3, np.uint16), ("RGBA", 4, np.uint16)),
]


def _written(image: Pixels, step: int) -> bytes:
    sink = io.BytesIO()
    stand_in = Pixels(np.zeros_like(image.array), image.mode, image.extras)
    writer = PngWriter(sink, stand_in)
    for y in range(0, len(image.array), step):
        writer.push(image.array[y : y + step])
    writer.finish()
    return sink.getvalue()


def _drawn(height: int, width: int, channels: int, kind: Any, seed: int) -> np.ndarray[Any, Any]:
    y, x, c = np.indices((height, width, channels or 1))
    noise = np.random.default_rng(seed).integers(0, 5, y.shape)
    array = ((5 * y + 3 * x + 40 * c + noise) * (1 if kind is np.uint8 else 201)).astype(kind)
    return array if channels else array[:, :, 0]


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(_KINDS),
    height=st.integers(1, 40),
    width=st.integers(1, 30),
    step=st.integers(1, 45),
    part_bytes=st.sampled_from([1, 100, 1 << 20]),
    seed=st.integers(0, 99),
)
def test_a_png_of_bands_is_read_as_the_image(
    kind: tuple[str, int, Any], height: int, width: int, step: int, part_bytes: int, seed: int
) -> None:
    mode, channels, dtype = kind
    array = _drawn(height, width, channels, dtype, seed)
    array = array // 128 * 255 if mode == "1" else array
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "PART_BYTES", part_bytes)
        again = decode_image(_written(Pixels(array, mode), step))
    assert again.mode == mode
    np.testing.assert_array_equal(again.array, array)


def test_palette_and_metadata_come_along() -> None:
    file = io.BytesIO()
    palette = Image.fromarray(_drawn(30, 20, 3, np.uint8, 0)).convert("P")
    palette.save(file, "PNG", dpi=(72, 72), transparency=b"\0\x80", gamma=0.4)
    pixels = decode_image(file.getvalue())
    again = decode_image(_written(pixels, 7))
    assert (again.mode, again.extras) == ("P", pixels.extras)
    np.testing.assert_array_equal(again.array, pixels.array)


def test_rows_are_filtered() -> None:
    array = np.repeat(np.arange(200, dtype=np.uint8)[:, None], 300, 1)
    assert len(_written(Pixels(array, "L"), 50)) < array.size // 50


def test_wrong_modes_and_metadata_are_errors() -> None:
    with pytest.raises(ImageError, match="cannot be written as PNG"):
        PngWriter(io.BytesIO(), Pixels(np.zeros((2, 2, 3), np.uint8), "L"))
    with pytest.raises(FormatError):
        PngWriter(io.BytesIO(), Pixels(np.zeros((2, 2, 3), np.uint8), "RGB", b"\xff"))


@pytest.mark.parametrize("kind", [np.uint8, "<u2"])
def test_npy_head(kind: Any) -> None:
    array = _drawn(9, 7, 3, np.uint16, 0).astype(kind)
    np.testing.assert_array_equal(np.load(io.BytesIO(npy_head(Pixels(array, "RGB")) + array.tobytes())), array)

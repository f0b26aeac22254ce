from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from pilc_stream.errors import ImageError
from pilc_stream.images import decode_image
from pilc_stream.images.arrays import array_file

SIDES = st.integers(1, 9)


@given(
    SIDES.flatmap(lambda h: SIDES.flatmap(lambda w: arrays(np.uint8, st.sampled_from([(h, w), (h, w, 1), (h, w, 3)]))))
)
def test_grey_and_colour_come_back(array: Any) -> None:
    np.testing.assert_array_equal(decode_image(array_file(array)).array.squeeze(), array.squeeze())


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_comes_back_to_whoever_reads_the_file(channels: int) -> None:
    array = np.random.default_rng(1).integers(0, 256, (5, 7, channels), np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(array_file(array)))), array)


def test_sixteen_bits_have_their_high_byte_first() -> None:
    array = np.array([[1, 256], [65535, 0]], np.uint16)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(array_file(array)))), array)
    assert array_file(array.astype(">u2")) == array_file(array) == b"P5\n2 2\n65535\n\x00\x01\x01\x00\xff\xff\x00\x00"


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 2), np.float32), np.zeros((0, 3), np.uint8), np.zeros((2, 2, 5), np.uint8), np.zeros(4, np.uint8)],
)
def test_what_is_no_image_is_refused(array: Any) -> None:
    with pytest.raises(ImageError):
        array_file(array)

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pilc_stream.codecs import Decoder, inspect_payload
from pilc_stream.codecs.raw import RawCodec
from pilc_stream.errors import UsageError


@st.composite
def images(draw: st.DrawFn) -> NDArray[Any]:
    """Any array that a payload can hold."""
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    if draw(st.booleans()):
        shape = (*shape, draw(st.integers(1, 4)))
    kind = draw(st.sampled_from([np.uint8, np.uint16]))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    return random.integers(0, np.iinfo(kind).max + 1, shape).astype(kind)


@given(st.lists(images(), max_size=4))
def test_every_array_comes_back(arrays: list[NDArray[Any]]) -> None:
    payloads = RawCodec().encode(arrays)
    assert payloads == [RawCodec().encode([array])[0] for array in arrays]
    for ours, theirs in zip(Decoder().decode(payloads), arrays, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        assert np.array_equal(ours, theirs)


def test_the_array_is_the_callers_own() -> None:
    payload = RawCodec().encode([np.zeros((3, 3), np.uint16)])[0]
    for region in (None, (1, 1, 2, 2)):
        array = Decoder().decode([payload], [region])[0]
        array += 1  # neither read-only nor a view of the payload
    assert not Decoder().decode([payload])[0].any()


def test_samples_of_16_bits_are_little_endian() -> None:
    payload = RawCodec().encode([np.array([[0x1234]], np.uint16)])[0]
    assert payload[6:8] == b"\x34\x12"
    assert inspect_payload(payload).bit_depth == 16


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.uint32, np.float64, bool, ">u2"])
def test_other_samples_are_refused(kind: Any) -> None:
    with pytest.raises(UsageError, match="give uint8 or uint16"):
        RawCodec().encode([np.zeros((2, 2), kind)])

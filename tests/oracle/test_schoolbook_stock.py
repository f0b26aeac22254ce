"""`planes` and `deep` against the decoder that was written from FORMAT.md alone: sound streams, and forged ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import schoolbook
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pilc_stream.codecs import Decoder
from pilc_stream.codecs.deep import DeepCodec
from pilc_stream.codecs.planes import indexed, pack_planes, split
from pilc_stream.codecs.raw import RawCodec
from pilc_stream.errors import FormatError
from pilc_stream.records.payload import pack_payload, parse_payload

Image = NDArray[Any]


def decoded_by_the_book(payload: bytes) -> Image | None:
    """The image; None where the book refuses the payload."""
    try:
        picture = schoolbook.decode(payload)
    except schoolbook.RefusedError:
        return None
    return np.array(picture.samples).reshape(picture.shape)


def decoded_by_the_code(payload: bytes) -> Image | None:
    try:
        return Decoder().decode([payload])[0]
    except FormatError:
        return None


@st.composite
def images(draw: st.DrawFn) -> Image:
    """Images of all modes: from flat ones over slopes to the largest steps there are."""
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    channels = draw(st.sampled_from([None, 1, 2, 3, 4]))
    kind = draw(st.sampled_from([np.uint8, np.uint16]))
    shape = (height, width) if channels is None else (height, width, channels)
    random = np.random.default_rng(draw(st.integers(0, 1 << 20)))
    largest = np.iinfo(kind).max
    noise = draw(st.sampled_from([0, 1, 3, 40, int(largest)]))
    image = np.indices(shape).sum(axis=0) * draw(st.sampled_from([0, 1, 7, 257])) + random.integers(0, noise + 1, shape)
    if draw(st.booleans()):
        image = np.where(random.random(shape) < 0.2, largest, image)
    return (image % (int(largest) + 1)).astype(kind)


def by_planes(image: Image, few: bool) -> bytes:
    whole = indexed(split(image)) if few else split(image)
    parts = [codec.encode([part])[0] for codec, part in zip((DeepCodec(4), RawCodec()), whole.parts, strict=False)]
    return pack_planes(image, whole, parts, None)


@settings(max_examples=80)
@given(images())
def test_deep(image: Image) -> None:
    payload = DeepCodec(4).encode([image])[0]
    assert np.array_equal(decoded_by_the_book(payload), image)
    assert np.array_equal(decoded_by_the_code(payload), image)


@settings(max_examples=60)
@given(images(), st.booleans())
def test_planes(image: Image, few: bool) -> None:
    payload = by_planes(image, few)
    assert np.array_equal(decoded_by_the_book(payload), image)
    assert np.array_equal(decoded_by_the_code(payload), image)


@pytest.mark.parametrize("codec", ["deep", "planes"])
@settings(max_examples=120)
@given(image=images(), data=st.data())
def test_both_refuse_the_same_streams(codec: str, image: Image, data: st.DataObject) -> None:
    """Damaged streams under right checksums: what one refuses the other does, and what is left has the same pixels."""
    payload = DeepCodec(4).encode([image])[0] if codec == "deep" else by_planes(image, data.draw(st.booleans()))
    parsed = parse_payload(payload)
    stream = bytearray(parsed.tiles[0])
    place = data.draw(st.integers(0, len(stream) - 1))
    kind = data.draw(st.sampled_from(["flip", "set", "cut", "add"]))
    if kind == "flip":
        stream[place] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "set":
        stream[place] = data.draw(st.integers(0, 255))
    elif kind == "cut":
        del stream[place]
    else:
        stream[place:place] = data.draw(st.binary(min_size=1, max_size=3))
    forged = pack_payload(parsed.header, [bytes(stream), *(bytes(tile) for tile in parsed.tiles[1:])])
    book, code = decoded_by_the_book(forged), decoded_by_the_code(forged)
    assert (book is None) == (code is None)
    assert book is None or np.array_equal(book, code)

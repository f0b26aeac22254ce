"""Images of all kinds through the choice: exact, the smallest stays, and a photograph costs no more than it did."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from engines import engine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_model import small_model

from pilc_stream.backends import deep as deep_backend
from pilc_stream.codecs import Decoder, inspect_payload
from pilc_stream.codecs.choice import ChoosingCodec
from pilc_stream.codecs.deep import DeepCodec
from pilc_stream.codecs.planes import indexed, pack_planes, part_headers, split
from pilc_stream.codecs.raw import RawCodec
from pilc_stream.codecs.traits import traits_of
from pilc_stream.codecs.wave import WaveCodec
from pilc_stream.codecs.webp import WebpCodec
from pilc_stream.errors import FormatError, TruncatedError, UsageError
from pilc_stream.images.webp import decode_vp8l, encode_vp8l
from pilc_stream.records.payload import Header, pack_payload, parse_payload

Image = NDArray[Any]
Maker = Callable[..., NDArray[np.uint8]]


@cache
def choice() -> ChoosingCodec:
    return ChoosingCodec(WaveCodec(small_model(), engine("cpu")))


@cache
def decoder() -> Decoder:
    return Decoder("cpu", models=lambda digest: small_model().file_bytes)


def codec_of(payload: bytes) -> str:
    return parse_payload(payload).header.codec


def drawing(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    y, x, c = np.indices((height, width, channels))
    return ((x // 9 + y // 7) % 3 * 90 + 5 * c).astype(np.uint8)


@st.composite
def images(draw: st.DrawFn) -> Image:
    """Any image, mostly of few values, so that all ways are gone."""
    height, width = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    channels = draw(st.sampled_from([None, 1, 2, 3, 4]))
    kind = draw(st.sampled_from([np.uint8, np.uint16]))
    top = draw(st.sampled_from([1, 2, 7, 255, np.iinfo(kind).max]))
    seed = draw(st.integers(0, 1 << 30))
    shape = (height, width) if channels is None else (height, width, channels)
    image = np.random.default_rng(seed).integers(0, top, shape, kind, endpoint=True)
    if channels in (3, 4) and draw(st.booleans()):
        image[:, :, 1:3] = image[:, :, :1]
    if channels in (2, 4) and draw(st.booleans()):
        image[:, :, -1] = draw(st.integers(0, int(np.iinfo(kind).max)))
    return image


@settings(max_examples=60, deadline=None)
@given(st.lists(images(), min_size=1, max_size=3))
def test_every_image_comes_back_and_a_batch_changes_nothing(batch: list[Image]) -> None:
    payloads = choice().encode(batch)
    assert payloads == [choice().encode([image])[0] for image in batch]
    for image, payload, ours in zip(batch, payloads, decoder().decode(payloads), strict=True):
        assert ours.dtype == image.dtype
        assert ours.shape == image.shape
        assert np.array_equal(ours, image)
        assert len(payload) <= len(RawCodec().encode([image])[0])


def test_a_photograph_is_coded_once_by_the_profile(photo_like: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    for stock in (WebpCodec, DeepCodec):
        monkeypatch.setattr(stock, "encode", lambda *_: pytest.fail("a photograph was tried by a stock codec"))
    # The model of the tests is a poor one.
    monkeypatch.setattr("pilc_stream.codecs.choice.HARD_BITS", 9.0)
    photo = photo_like(96, 120)
    assert choice().encode([photo], [b"words"]) == WaveCodec(small_model(), engine("cpu")).encode([photo], [b"words"])


def test_what_is_chosen(photo_like: Maker) -> None:
    photo = photo_like(64, 64)
    grey = np.repeat(photo[:, :, :1], 3, axis=2)
    mask = 255 * (np.indices((64, 64)).sum(axis=0) > 60).astype(np.uint8)[:, :, None]
    solid, masked = np.full_like(mask, 255), np.concatenate([photo, mask], axis=2)
    deep = photo.astype(np.uint16) * 201 + np.indices((64, 64, 3)).sum(axis=0).astype(np.uint16)
    sizes = {name: len(choice().encode([image])[0]) for name, image in (("photo", photo), ("grey", photo[:, :, 0]))}
    for name, image, most, codec in (
        ("drawing", drawing(64, 64, 3), 200, "webp"),
        ("grey as RGB", grey, sizes["grey"] + 30, "planes"),
        ("opaque", np.concatenate([photo, solid], axis=2), sizes["photo"] + 60, None),
        ("masked", masked, sizes["photo"] + 150, None),
        ("8 bits in 16", photo.astype(np.uint16) * 257, sizes["photo"] + 400, "planes"),
        ("shifted 16 bits", (photo[:, :, 0].astype(np.uint16) << 4), sizes["grey"] + 200, "planes"),
        ("16 bits", deep, 30000, "deep"),
    ):
        payload = choice().encode([image])[0]
        assert codec_of(payload) == codec or codec is None, name
        assert len(payload) <= most, name
        assert np.array_equal(decoder().decode([payload])[0], image), name
    whole = split(masked)
    wave = WaveCodec(small_model(), engine("cpu"))
    info = inspect_payload(pack_planes(masked, whole, wave.encode(whole.parts), None))
    assert (info.codec, info.model_digest) == ("planes", small_model().short_digest.hex())


def test_traits_of_many_are_those_of_each(photo_like: Maker) -> None:
    gaps, grey = photo_like(240, 300) // 4 * 4, photo_like(30, 30)[:, :, :1].repeat(3, axis=2)
    batch = [photo_like(30, 30), drawing(30, 30, 3), drawing(30, 30, 1), gaps, grey]
    found = traits_of(batch)
    assert found == [traits_of([image])[0] for image in batch]
    assert [each.repetitive for each in found[:3]] == [False, True, True]
    assert found[3].gaps
    assert found[4].grey
    assert not found[0].grey


def test_deep_is_the_same_compiled_and_not() -> None:
    y, x, c = np.indices((7, 9, 3))
    tile = (x * 2711 + y * 1307 + c * c * 77).astype(np.int64) % 60000
    stream = np.empty(600, np.uint8)
    used = deep_backend.code_tile.py_func(tile.copy(), 16, stream, False)
    assert stream[:used].tobytes() == deep_backend.encode_tile(tile.astype(np.uint16), 16)
    again = np.zeros_like(tile)
    # NumPy's bytes would wrap where Numba's widen.
    assert deep_backend.code_tile.py_func(again, 16, stream[:used].astype(np.int64), True) == used
    assert np.array_equal(again, tile)


@pytest.mark.parametrize("codec", [DeepCodec(4), WebpCodec(4)], ids=lambda codec: codec.name)
def test_tiles_and_regions_of_the_stock_codecs(codec: DeepCodec | WebpCodec, photo_like: Maker) -> None:
    for channels in (1, 3):
        image = photo_like(37, 50)[:, :, :channels] // 8
        payload = codec.encode([image], [b"words"])[0]
        assert (codec_of(payload), len(parse_payload(payload).tiles)) == (codec.name, 12)
        region = (14, 15, 20, 9)
        assert np.array_equal(decoder().decode([payload], [region])[0], image[14:34, 15:24])
        assert np.array_equal(decoder().decode([payload])[0], image)
        assert decoder().extras(payload) == b"words"


def test_webp_takes_eight_bits_only() -> None:
    with pytest.raises(UsageError, match="uint16"):
        WebpCodec().encode([np.zeros((3, 3), np.uint16)])
    header = Header("webp", 3, 3, 1, 16, True, tile_log2=4)
    with pytest.raises(FormatError, match="16 bits"):
        decoder().decode([pack_payload(header, [bytes(30)])])


def test_libwebp_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilc_stream.codecs.webp.decode_vp8l", lambda *_: np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(FormatError, match="other pixels"):
        WebpCodec().encode([np.full((4, 4, 3), 9, np.uint8)])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("opaque", [False, True])
def test_tiles_of_all_channels_come_back_from_webp(channels: int, opaque: bool) -> None:
    tile = np.random.default_rng(channels).integers(0, 200, (6, 7, channels)).astype(np.uint8)
    if opaque and channels in (2, 4):
        tile[:, :, -1] = 255  # which Pillow stores, and gives back, as a picture without alpha
    assert np.array_equal(decode_vp8l(encode_vp8l(tile), *tile.shape), tile)


@pytest.mark.parametrize("shape", [(4, 5, 3), (5, 4, 3), (4, 4, 1)])
def test_a_webp_stream_of_another_size_is_refused_before_it_is_decoded(shape: tuple[int, int, int]) -> None:
    stream = encode_vp8l(np.zeros((4, 4, 3), np.uint8))
    if shape[:2] == (4, 4):
        assert decode_vp8l(stream, *shape).shape == shape
    else:
        with pytest.raises(FormatError, match="the payload's header"):
            decode_vp8l(stream, *shape)


@pytest.mark.parametrize(("codec", "bits"), [("webp", 8), ("deep", 16)])
def test_a_large_tile_with_an_almost_empty_stream_is_refused(codec: str, bits: int) -> None:
    header = Header(codec, 1024, 1024, 3, bits, False, tile_log2=10)
    with pytest.raises(TruncatedError, match="cannot hold"):
        decoder().decode([pack_payload(header, [b"/" + bytes(60)])])


def forged(whole: Image, change: Callable[[bytearray], None]) -> bytes:
    """A payload of planes whose stream was changed under a right checksum."""
    parts = split(whole)
    payload = parse_payload(pack_planes(whole, parts, DeepCodec().encode(parts.parts), None))
    stream = bytearray(payload.tiles[0])
    change(stream)
    return pack_payload(payload.header, [bytes(stream)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.__setitem__(0, 16 | s[0]), "a layout"),
        (lambda s: s.__setitem__(0, s[0] ^ 1), "a part is"),
        (lambda s: s.__setitem__(0, 0), "begins with|ends inside|not the bytes|CRC"),
        (lambda s: s.__setitem__(0, s[0] | 4), "table"),
        (lambda s: s.clear(), "empty"),
        (lambda s: s.__delitem__(slice(4, None)), "part of|shorter|begins"),
        (lambda s: s.__delitem__(slice(-1, None)), "CRC|do not hold|stream"),
        (lambda s: s.extend(b"x"), "CRC|stream"),
    ],
)
def test_forged_planes_are_refused(change: Callable[[bytearray], None], message: str) -> None:
    image = np.random.default_rng(0).integers(0, 255, (6, 7, 4)).astype(np.uint16)
    with pytest.raises(FormatError, match=message):
        decoder().decode([forged(image, change)])


def test_planes_within_planes_and_parts_of_another_size_are_refused() -> None:
    image = np.arange(48, dtype=np.uint16).reshape(4, 4, 3)
    whole = split(image)
    inner = pack_planes(image, whole, DeepCodec().encode(whole.parts), None)
    other = DeepCodec().encode([image[:3]])[0]
    named = DeepCodec().encode([image], [b"words"])[0]
    for part in (inner, other, named, RawCodec().encode([image.astype(np.uint8)])[0]):
        with pytest.raises(FormatError, match="a part is"):
            decoder().decode([pack_planes(image, whole, [part], None)])


def test_indices_beyond_their_table_are_refused() -> None:
    image = np.array([[[5], [9]], [[5], [70]]], np.uint16)
    few = indexed(split(image))
    assert [table.tolist() for table in few.tables] == [[5, 9, 70]]
    high = few.colour.copy()
    high[0, 0] = 3
    with pytest.raises(FormatError, match="an index of 3 into 3 values"):
        decoder().decode([pack_planes(image, few, RawCodec().encode([high]), None)])
    payload = pack_planes(image, few, RawCodec().encode([few.colour]), None)
    assert np.array_equal(decoder().decode([payload])[0], image)
    assert [part.codec for part in part_headers(parse_payload(payload))] == ["raw"]

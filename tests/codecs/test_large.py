"""Images coded and decoded in bands: the bytes of the whole, whatever bands they come in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from engines import engine, pilc_engine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_model import small_model
from small_pilc import small_pilc_model

from pilc_stream.codecs import Decoder, bands, encode_large, inspect_payload, large, survey
from pilc_stream.codecs import raw as raw_codec
from pilc_stream.codecs.base import TilingCodec
from pilc_stream.codecs.choice import ChoosingCodec
from pilc_stream.codecs.deep import DeepCodec
from pilc_stream.codecs.pilc import PilcCodec
from pilc_stream.codecs.planes import ALPHA, GREY, TABLE
from pilc_stream.codecs.raw import RawCodec
from pilc_stream.codecs.wave import WaveCodec
from pilc_stream.codecs.webp import WebpCodec
from pilc_stream.errors import ChecksumError, FormatError, UsageError
from pilc_stream.images import pixel_sha256
from pilc_stream.records.payload import parse_payload

Image = NDArray[Any]


def wave() -> WaveCodec:
    return WaveCodec(small_model(), engine("cpu"), tile_log2=4)


CODECS: dict[str, Callable[[], TilingCodec]] = {
    "wave": wave,
    "pilc": lambda: PilcCodec(small_pilc_model(), pilc_engine("cpu"), tile_log2=4),
    "webp": lambda: WebpCodec(4),
    "deep": lambda: DeepCodec(4),
}


@cache
def decoder() -> Decoder:
    models = [small_model().file_bytes, small_pilc_model().file_bytes]
    return Decoder("cpu", models=lambda digest: next(m for m in models if hashlib.sha256(m).digest()[:4] == digest))


@pytest.fixture(autouse=True)
def _small_cuttings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "CUTTING", 16)
    monkeypatch.setattr(bands, "PIECE_BYTES", 100)
    monkeypatch.setattr(raw_codec, "BAND_BYTES", 1000)


def in_bands(image: Image, rows: int) -> Callable[[], Iterator[Image]]:
    return lambda: (image[y : y + rows] for y in range(0, len(image), rows))


def photograph(height: int, width: int, channels: int | None, kind: Any = np.uint8, seed: int = 0) -> Image:
    """Slopes with a little noise."""
    y, x, c = np.indices((height, width, channels or 1))
    noise = np.random.default_rng(seed).integers(0, 12, y.shape)
    image = (((y + 2 * x) // 3 + 9 * c + noise) * (1 if kind == np.uint8 else 255) % 65536).astype(kind)
    return image if channels else image[:, :, 0]


def coded(codec: Any, image: Image, rows: int, extras: bytes = b"") -> bytes:
    payload, digest = encode_large(codec, image.shape, image.dtype, in_bands(image, rows), extras)
    assert digest == pixel_sha256(image)
    assert payload is not None
    return payload


def decoded(payload: bytes) -> Image:
    return np.concatenate(list(decoder().decode_bands(payload)))


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=8, deadline=None)
@given(
    height=st.integers(40, 60),
    width=st.integers(40, 60),
    channels=st.sampled_from([None, 1, 3]),
    rows=st.integers(1, 70),
    extras=st.binary(max_size=9),
)
def test_the_payload_is_that_of_the_whole_image(
    name: str, height: int, width: int, channels: int | None, rows: int, extras: bytes
) -> None:
    codec = CODECS[name]()
    image = photograph(height, width, channels, np.uint16 if name == "deep" else np.uint8)
    payload = coded(codec, image, rows, extras)
    assert payload == codec.encode([image], [extras or None])[0]
    np.testing.assert_array_equal(decoded(payload), image)
    assert decoder().extras(payload) == extras


OPAQUE = np.dstack((photograph(50, 70, 3), np.full((50, 70), 77, np.uint8)))
GAPS = photograph(50, 70, 3) // 8 * 8
DEEP = photograph(50, 70, 4, np.uint16)


@pytest.mark.parametrize(
    ("image", "plan", "codecs"),
    [
        (photograph(50, 70, None), large.Plan(0), [wave()]),
        (photograph(50, 70, 4), large.Plan(ALPHA), [wave(), WebpCodec(5)]),
        (photograph(50, 70, 2), large.Plan(ALPHA), [WebpCodec(5), wave()]),
        (OPAQUE, large.Plan(0, 77), [wave()]),
        (np.repeat(photograph(50, 70, 1), 3, 2), large.Plan(GREY), [wave()]),
        (GAPS, large.Plan(TABLE, None, np.unique(GAPS)), [wave()]),
        (DEEP, large.Plan(ALPHA | TABLE, None, np.unique(DEEP[:, :, :3])), [DeepCodec(5), DeepCodec(4)]),
    ],
    ids=["grey", "alpha", "grey and alpha", "opaque", "three equal", "gaps", "16 bits"],
)
@pytest.mark.parametrize("rows", [3, 100])
def test_parts_of_different_tiles_make_the_image(
    image: Image, plan: large.Plan, codecs: list[TilingCodec], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "_chosen", lambda *_: (plan, codecs))
    payload = coded(ChoosingCodec(wave()), image, rows, b"note")
    assert inspect_payload(payload).codec == "planes"
    assert decoder().extras(payload) == b"note"
    for again in (decoded(payload), decoder().decode([payload])[0]):
        assert (again.dtype, again.shape) == (image.dtype, image.shape)
        np.testing.assert_array_equal(again, image)
    np.testing.assert_array_equal(decoder().decode([payload], [(5, 9, 30, 40)])[0], image[5:35, 9:49])


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (photograph(50, 70, 3), "wave"),
        (GAPS, "planes"),
        (np.random.default_rng(0).integers(0, 1 << 11, (90, 90), np.uint16), "deep"),
        ((np.indices((90, 90))[1] // 9 % 3 * 90).astype(np.uint8), "planes"),
    ],
    ids=["photograph", "gaps", "16 bits", "drawing"],
)
def test_the_smallest_is_taken(image: Image, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "WORTHWHILE_VALUES", 1500)
    payload = coded(ChoosingCodec(wave()), image, 20)
    assert inspect_payload(payload).codec == found
    np.testing.assert_array_equal(decoded(payload), image)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_images_of_few_values_come_back_or_are_not_coded(data: st.DataObject) -> None:
    height, width, rows = (data.draw(st.integers(1, 40)) for _ in range(3))
    channels, kind = data.draw(st.sampled_from([None, 1, 2, 3, 4])), data.draw(st.sampled_from([np.uint8, np.uint16]))
    top = data.draw(st.sampled_from([0, 1, 7, np.iinfo(kind).max]))
    shape = (height, width, channels) if channels else (height, width)
    image = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, top + 1, shape).astype(kind)
    payload, digest = encode_large(ChoosingCodec(wave()), image.shape, image.dtype, in_bands(image, rows))
    assert digest == pixel_sha256(image)
    if payload is not None:
        assert len(payload) < image.nbytes
        np.testing.assert_array_equal(decoded(payload), image)


def test_noise_and_a_codec_without_tiles_give_no_payload() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    for codec in (ChoosingCodec(wave()), RawCodec()):
        payload, digest = encode_large(codec, noise.shape, noise.dtype, in_bands(noise, 7))
        assert payload is None
        assert digest == pixel_sha256(noise)


def test_wide_images_have_smaller_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    image = photograph(64, 300, 3)
    monkeypatch.setattr(bands, "BAND_BYTES", 300 * 3 * 40)
    payload = coded(ChoosingCodec(WaveCodec(small_model(), engine("cpu"), tile_log2=8)), image, 64)
    assert parse_payload(payload).header.tile_log2 == 5
    np.testing.assert_array_equal(decoded(payload), image)


def test_raw_payloads_come_in_bands() -> None:
    image = photograph(50, 70, 3, np.uint16)
    (payload,) = RawCodec().encode([image])
    assert len(list(decoder().decode_bands(payload))) > 10
    np.testing.assert_array_equal(decoded(payload), image)


def test_what_is_no_image_is_refused() -> None:
    image = np.zeros((4, 4, 5), np.uint8)
    with pytest.raises(UsageError, match="5 channels"):
        encode_large(ChoosingCodec(wave()), image.shape, image.dtype, in_bands(image, 1))


def test_damage_is_found_in_the_band_that_has_it() -> None:
    payload = bytearray(coded(wave(), photograph(64, 64, 3), 64))
    payload[-10] ^= 1
    found = decoder().decode_bands(bytes(payload))
    assert [len(next(found)) for _ in range(3)] == [16, 16, 16]
    with pytest.raises(ChecksumError):
        next(found)


def test_bands_above_the_limit_are_refused() -> None:
    payload = coded(wave(), photograph(64, 64, 3), 64)
    small = Decoder("cpu", models=lambda digest: small_model().file_bytes, max_pixels=16 * 64)
    assert sum(map(len, small.decode_bands(payload))) == 64
    smaller = Decoder("cpu", models=lambda digest: small_model().file_bytes, max_pixels=16 * 64 - 1)
    with pytest.raises(FormatError, match="above the limit of 1023"):
        list(smaller.decode_bands(payload))

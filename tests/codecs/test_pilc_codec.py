"""The codec `pilc` through the front: payloads, regions, batches, refusals and damage."""

from __future__ import annotations

import numpy as np
import pytest
from engines import PILC_ENGINES, pilc_engine
from small_pilc import small_pilc_model

from pilc_stream.codecs import Decoder, inspect_payload, open_codec
from pilc_stream.codecs.pilc import PilcCodec
from pilc_stream.codecs.raw import RawCodec
from pilc_stream.errors import ChecksumError, FormatError, ModelError, TruncatedError, UnsupportedError, UsageError
from pilc_stream.models.pilc import PilcModel
from pilc_stream.records.payload import pack_payload, parse_payload


@pytest.fixture(scope="module")
def model() -> PilcModel:
    return small_pilc_model()


@pytest.fixture(scope="module")
def codec(model: PilcModel) -> PilcCodec:
    return PilcCodec(model, pilc_engine("cpu"), tile_log2=5)


@pytest.fixture(scope="module")
def decoder(model: PilcModel) -> Decoder:
    return Decoder("cpu", models=lambda digest: model.file_bytes if digest == model.short_digest else None)


def picture(height: int, width: int, channels: int | None = 3) -> np.ndarray:
    y, x, c = np.indices((height, width, channels or 1))
    noise = np.random.default_rng(height * width).integers(0, 4, y.shape)
    pixels = (60 + x + y // 2 + 9 * c + 40 * ((x // 9 + y // 7) % 2) + noise).clip(0, 255).astype(np.uint8)
    return pixels if channels else pixels[:, :, 0]


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 70, 3), (64, 33, 1), (31, 40, None), (33, 33, 3)])
def test_pixels_come_back(codec: PilcCodec, decoder: Decoder, shape: tuple) -> None:
    image = picture(*shape)
    back = decoder.decode(codec.encode([image]))[0]
    assert back.dtype == image.dtype
    assert np.array_equal(back, image)


def test_payloads_do_not_depend_on_the_batch_or_the_backend(model: PilcModel) -> None:
    images = [picture(40, 37), picture(9, 30, None), picture(40, 37)[::-1].copy()]
    payloads = {}
    for name in PILC_ENGINES:
        codec = PilcCodec(model, pilc_engine(name), tile_log2=4)
        payloads[name] = codec.encode(images)
        assert payloads[name] == [codec.encode([image])[0] for image in images]
    assert payloads["cpu"] == payloads["reference"] == payloads["cpu, 2 threads"]
    assert inspect_payload(payloads["cpu"][0]).codec == "pilc"


def test_a_region_needs_its_tiles_only(codec: PilcCodec, decoder: Decoder) -> None:
    image = picture(90, 64)
    payload = codec.encode([image])[0]
    assert np.array_equal(decoder.decode([payload], [(29, 3, 11, 40)])[0], image[29:40, 3:43])
    damaged = bytearray(payload)
    damaged[-10] ^= 1
    assert np.array_equal(decoder.decode([bytes(damaged)], [(0, 0, 20, 20)])[0], image[:20, :20])
    with pytest.raises(ChecksumError):
        decoder.decode([bytes(damaged)])


def test_every_flipped_bit_and_every_truncation_is_noticed(codec: PilcCodec, decoder: Decoder) -> None:
    payload = codec.encode([picture(9, 11)])[0]
    assert inspect_payload(payload).codec == "pilc"
    for bit in range(8 * len(payload)):
        damaged = bytearray(payload)
        damaged[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(FormatError):
            decoder.decode([bytes(damaged)])
    for length in range(len(payload)):
        with pytest.raises(FormatError):
            decoder.decode([payload[:length]])
    with pytest.raises(FormatError):
        decoder.decode([payload + b"\0"])


def test_a_hostile_head_costs_nothing(codec: PilcCodec, decoder: Decoder) -> None:
    image = picture(8, 8)
    header = parse_payload(codec.encode([image])[0]).header
    hostile = pack_payload(
        type(header)(**{**fields(header), "height": 1000, "width": 1000, "tile_log2": 10}), [bytes(64)]
    )
    with pytest.raises(TruncatedError, match="cannot hold 1000 x 1000"):
        decoder.decode([hostile])
    two = pack_payload(type(header)(**{**fields(header), "channels": 2}), [bytes(64)])
    with pytest.raises(FormatError, match="there are 1 or 3 of 8"):
        decoder.decode([two])


def fields(header) -> dict:
    return {name: getattr(header, name) for name in type(header).__slots__}


def test_what_it_does_not_take(codec: PilcCodec) -> None:
    for image in (np.zeros((4, 4), np.uint16), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 2), np.uint8)):
        assert codec.refuses(image)
        with pytest.raises(UsageError, match="use the codec 'raw'"):
            codec.encode([image])


def test_noise_is_stored(codec: PilcCodec, decoder: Decoder) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    payload = codec.encode([image], [b"mine"])[0]
    assert payload == RawCodec().encode([image], [b"mine"])[0]
    assert np.array_equal(decoder.decode([payload])[0], image)


def test_a_changed_model_file_is_refused(codec: PilcCodec, model: PilcModel) -> None:
    payload = codec.encode([picture(16, 16)])[0]
    with pytest.raises(ModelError, match="it was changed"):
        Decoder("cpu", models=lambda _: model.file_bytes + b" ").decode([payload])


def test_the_profile_ships_and_any_image_goes_through_it() -> None:
    codec, decoder = open_codec("pilc", "cpu"), Decoder("cpu")
    assert (codec.name, codec.profile) == ("pilc", "pilc")
    images = [picture(300, 70), picture(20, 20, 4), picture(30, 20).astype(np.uint16) * 200]
    payloads = codec.encode(images, [b"x", None, None])
    assert decoder.extras(payloads[0]) == b"x"
    for image, back in zip(images, decoder.decode(payloads), strict=True):
        assert back.dtype == image.dtype
        assert np.array_equal(back, image)
    assert inspect_payload(payloads[0]).profile == "pilc"


def test_an_unknown_codec_number_is_still_refused(codec: PilcCodec, decoder: Decoder) -> None:
    payload = bytearray(codec.encode([picture(16, 16)])[0])
    payload[2] |= 15
    with pytest.raises(UnsupportedError):
        decoder.decode([bytes(payload)])

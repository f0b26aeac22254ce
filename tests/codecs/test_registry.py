from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from engines import engine
from numpy.typing import NDArray
from small_model import SPECS, random_model, small_model

from pilc_stream.codecs import PAYLOAD_MAGIC, Decoder, encode_any, inspect_payload, open_codec, profiles
from pilc_stream.codecs.raw import RawCodec
from pilc_stream.codecs.wave import WaveCodec
from pilc_stream.errors import ChecksumError, FormatError, ModelError, ModelNotFoundError, TruncatedError, UsageError
from pilc_stream.models.model import WaveModel
from pilc_stream.records.payload import Header, pack_payload

Pixels = NDArray[np.uint8]
Maker = Callable[..., Pixels]


def models(*known: WaveModel) -> Callable[[bytes], bytes | None]:
    return {model.short_digest: model.file_bytes for model in known}.get


def test_profiles_open() -> None:
    assert profiles()[-1] == "raw"
    raw = open_codec("raw")
    assert (raw.name, raw.profile, raw.model_sha256, raw.model_bytes) == ("raw", "raw", "", b"")
    with pytest.raises(UsageError, match=r"profile 'best' is unknown; known profiles: .*fast.*raw"):
        open_codec("best")


@pytest.mark.parametrize("shape", [(40, 50, 3), (40, 50), (9, 8, 4), (1, 1, 3), (1200, 20, 3)], ids=str)
def test_the_profile_webp(shape: tuple[int, ...], photo_like: Maker) -> None:
    codec = open_codec("webp")
    assert (codec.name, codec.profile, codec.model_sha256, codec.model_bytes) == ("webp", "webp", "", b"")
    pixels = photo_like(*shape[:2], shape[2] if len(shape) == 3 else None)
    payload = codec.encode([pixels])[0]
    decoded = Decoder().decode([payload], [(0, 0, 1, 1)])[0], Decoder().decode([payload])[0]
    assert np.array_equal(decoded[0], pixels[:1, :1])
    assert np.array_equal(decoded[1], pixels)
    if shape == (1200, 20, 3):
        info = inspect_payload(payload)
        assert (info.codec, info.tiles, info.tile_shape) == ("webp", 2, (600, 20))


def test_the_profile_webp_takes_16_bits_as_every_profile_does(photo_like: Maker) -> None:
    pixels = photo_like(30, 20, 3).astype(np.uint16) * 257
    assert np.array_equal(Decoder().decode(open_codec("webp").encode([pixels]))[0], pixels)


def test_a_model_file_opens(tmp_path: Path, photo_like: Maker) -> None:
    model = small_model()
    path = tmp_path / "mine.safetensors"
    path.write_bytes(model.file_bytes)
    codec = open_codec(model_path=path)
    assert (codec.name, codec.profile) == ("wave", "small")
    assert (codec.model_sha256, codec.model_bytes) == (model.sha256, model.file_bytes)
    pixels = photo_like(30, 20)
    payload = codec.encode([pixels])[0]
    assert np.array_equal(Decoder(models=models(model)).decode([payload])[0], pixels)


def test_a_model_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="cannot be read"):
        open_codec(model_path=tmp_path / "nothing.safetensors")
    (tmp_path / "text.safetensors").write_text("not a model")
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        open_codec(model_path=tmp_path / "text.safetensors")


def test_one_call_decodes_many_codecs_and_models(photo_like: Maker) -> None:
    small, other = small_model(), random_model(SPECS["width one"], seed=1)
    images = [photo_like(20, 20, seed=seed) for seed in range(4)]
    flat = np.full((20, 20, 3), 7, np.uint8)
    payloads = [
        RawCodec().encode([images[0]])[0],
        WaveCodec(small, engine("cpu")).encode([images[1]])[0],
        wave_payload(other, flat),
        RawCodec().encode([images[2].astype(np.uint16) << 8])[0],
        WaveCodec(small, engine("cpu"), 4).encode([images[3]])[0],
    ]
    assert [inspect_payload(payload).codec for payload in payloads] == ["raw", "wave", "wave", "raw", "wave"]
    expected = [images[0], images[1], flat, images[2].astype(np.uint16) << 8, images[3]]
    decoder = Decoder(models=models(small, other))
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
        decoded = decoder.decode([payloads[i] for i in order])
        for ours, i in zip(decoded, order, strict=True):
            assert ours.dtype == expected[i].dtype
            assert np.array_equal(ours, expected[i])
    regions = [None, (3, 4, 5, 6), None, (0, 0, 20, 1), (19, 19, 1, 1)]
    for ours, whole, region in zip(decoder.decode(payloads, regions), expected, regions, strict=True):
        y, x, h, w = region or (0, 0, 20, 20)
        assert np.array_equal(ours, whole[y : y + h, x : x + w])
    assert decoder.decode([]) == []


def wave_payload(model: WaveModel, pixels: Pixels) -> bytes:
    """By `wave`, even where `raw` would be smaller."""
    header = Header("wave", *pixels.shape, 8, False, model.short_digest, tile_log2=7, lanes_log2=0)
    return pack_payload(header, engine("cpu").encode_tiles(model, [pixels], [0]))


def test_a_model_is_asked_for_once(photo_like: Maker) -> None:
    model, asked = small_model(), []

    def source(digest: bytes) -> bytes | None:
        asked.append(digest)
        return model.file_bytes

    decoder = Decoder(models=source)
    payloads = WaveCodec(model, engine("cpu")).encode([photo_like(20, 20, seed=seed) for seed in range(3)])
    decoder.decode(payloads)
    decoder.decode(payloads[:1])
    assert asked == [model.short_digest]


def test_a_model_that_is_nowhere_is_named(photo_like: Maker) -> None:
    payload = WaveCodec(small_model(), engine("cpu")).encode([photo_like(20, 20)])[0]
    for decoder in (Decoder(), Decoder(models=lambda _: None)):
        with pytest.raises(ModelNotFoundError, match=small_model().sha256[:8]):
            decoder.decode([payload])
        assert decoder.inspect(payload).profile is None


def test_another_model_than_the_one_asked_for_is_refused(photo_like: Maker) -> None:
    payload = WaveCodec(small_model(), engine("cpu")).encode([photo_like(20, 20)])[0]
    with pytest.raises(ModelError, match="has the digest"):
        Decoder(models=lambda _: random_model(SPECS["small"], 0).file_bytes).decode([payload])
    with pytest.raises(ModelError, match="has the digest"):
        Decoder(models=lambda _: b"rotten").decode([payload])


@pytest.mark.parametrize("codec_name", ["raw", "wave"])
def test_extras_come_back_and_are_checked(codec_name: str, photo_like: Maker) -> None:
    codec = RawCodec() if codec_name == "raw" else WaveCodec(small_model(), engine("cpu"), 4)
    extras = bytes(range(256))
    with_extras, without = codec.encode([photo_like(20, 20)] * 2, [extras, None])
    decoder = Decoder()
    assert decoder.extras(with_extras) == extras
    assert decoder.extras(without) == b""
    damaged = bytearray(with_extras)
    damaged[damaged.index(extras) + 100] ^= 1
    with pytest.raises(ChecksumError):
        decoder.extras(bytes(damaged))


@pytest.mark.parametrize("lanes_side", [8, 64])
@pytest.mark.parametrize("extras", [b"", b"x" * 200])
def test_the_parts_of_a_payload_add_up(lanes_side: int, extras: bytes, photo_like: Maker) -> None:
    pixels = photo_like(lanes_side, 2 * lanes_side)
    for codec in (RawCodec(), WaveCodec(small_model(), engine("cpu"), 6)):
        payload = codec.encode([pixels], [extras])[0]
        info = inspect_payload(payload)
        parts = info.header_bytes + info.flush_bytes + info.word_bytes + info.checksum_bytes
        assert info.payload_bytes == len(payload) == parts
        assert info.extras_bytes == len(extras) < info.header_bytes
        assert info.raw_bytes == pixels.nbytes
        assert info.shape == pixels.shape
        assert info.bits_per_sub_pixel == pytest.approx(8 * len(payload) / pixels.size, abs=1e-3)
        assert info.flush_bytes == 4 * info.lanes * info.tiles
        assert json.loads(json.dumps(info.to_json()))["codec"] == codec.name
    assert info.tile_shape == (lanes_side, min(2 * lanes_side, 64))
    assert info.lanes == (1 if lanes_side == 8 else 4)


def test_inspect_refuses_a_tile_without_room_for_its_states() -> None:
    header = Header("wave", 4, 4, 3, 8, False, b"abcd", tile_log2=4, lanes_log2=3)
    with pytest.raises(TruncatedError, match="shorter than the states of its 8 lanes"):
        inspect_payload(pack_payload(header, [bytes(30)]))


def test_inspect_checks_every_tile(photo_like: Maker) -> None:
    payload = WaveCodec(small_model(), engine("cpu"), 4).encode([photo_like(20, 40)])[0]
    assert inspect_payload(payload).tiles == 6
    for position in range(0, len(payload), 11):
        with pytest.raises(FormatError):
            inspect_payload(payload[:position] + bytes([payload[position] ^ 128]) + payload[position + 1 :])


def test_what_a_profile_does_not_take_is_coded_by_others(photo_like: Maker) -> None:
    images = [photo_like(9, 9), photo_like(9, 9).astype(np.uint16), photo_like(9, 9, 4), photo_like(9, 9, None)]
    payloads = encode_any(images, "fast", "cpu", 1)
    assert [inspect_payload(payload).codec for payload in payloads][1:3] == ["deep", "planes"]
    assert all(payload.startswith(PAYLOAD_MAGIC) for payload in payloads)
    for ours, theirs in zip(Decoder().decode(payloads), images, strict=True):
        assert np.array_equal(ours, theirs)
    with pytest.raises(UsageError, match="image: "):
        encode_any([np.zeros((2, 2), np.int64)], "fast", "cpu", 1)

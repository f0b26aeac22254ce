"""The codec `lossy` through the front: equal latents everywhere, regions, grey, qualities, refusals and damage."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resealing import resealed
from small_lossy import small_lossy_model
from torch_lossy import torch_engine

from pilc_stream.backends.base import TileJob
from pilc_stream.backends.lossy import LossyEngine, open_lossy_engine
from pilc_stream.backends.lossy.cpu import LossyCpuEngine
from pilc_stream.backends.lossy.reference import LossyReferenceEngine
from pilc_stream.codecs import Decoder, inspect_payload, open_codec
from pilc_stream.codecs.lossy import HEAD_BYTES, LossyCodec, payload_psnr
from pilc_stream.errors import ChecksumError, DeviceError, FormatError, ModelError, TruncatedError, UsageError
from pilc_stream.models.lossy import LossyModel, load_lossy_model
from pilc_stream.records.payload import pack_payload, parse_header, parse_payload

ENGINES: dict[str, Callable[[], LossyEngine]] = {
    "reference": LossyReferenceEngine,
    "cpu": LossyCpuEngine,
    "cpu, 2 threads": lambda: LossyCpuEngine(threads=2),
    "torch": torch_engine,
}


@pytest.fixture(scope="module")
def model() -> LossyModel:
    # As it is read: floats as the file holds them.
    return load_lossy_model(small_lossy_model().file_bytes)


def codec_of(model: LossyModel, engine: str = "cpu", quality: int = 50, **options: object) -> LossyCodec:
    return LossyCodec(model, ENGINES[engine](), quality, **options)  # type: ignore[arg-type]


def decoder_of(model: LossyModel, device: str = "cpu") -> Decoder:
    return Decoder(device, models=lambda digest: model.file_bytes if digest == model.short_digest else None)


def picture(height: int, width: int, channels: int | None = 3) -> np.ndarray:
    y, x, c = np.indices((height, width, channels or 1))
    noise = np.random.default_rng(height * width).integers(0, 30, y.shape)
    pixels = (60 + x + y // 2 + 9 * c + 60 * ((x // 9 + y // 7) % 2) + noise).clip(0, 255).astype(np.uint8)
    return pixels if channels else pixels[:, :, 0]


@pytest.mark.parametrize("quality", [1, 50, 100])
@pytest.mark.parametrize("shape", [(16, 16), (1, 90), (70, 41)])
def test_every_backend_decodes_the_latents_that_any_encoded(model: LossyModel, shape: tuple, quality: int) -> None:
    tile = picture(*shape)
    engines = {name: make() for name, make in ENGINES.items()}
    coded = {name: engine.encode_tiles(model, [tile], [quality], [1])[0] for name, engine in engines.items()}
    for writer, (stream, latents) in coded.items():
        job = TileJob(memoryview(stream), *shape, 3, 1)
        for reader, engine in engines.items():
            found_quality, found = engine.decode_latents(model, [job])[0]
            assert found_quality == quality
            assert np.array_equal(found, latents), (writer, reader)
    tiles = [engine.decode_tiles(model, [job])[0].astype(np.int64) for engine in engines.values()]
    assert max(int(np.abs(tile - tiles[0]).max()) for tile in tiles) <= 1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_latents_agree_under_other_random_models(seed: int) -> None:
    model = small_lossy_model(seed)
    tile = picture(70, 50)
    stream, latents = LossyCpuEngine().encode_tiles(model, [tile], [60 + seed], [2])[0]
    job = TileJob(memoryview(stream), 70, 50, 3, 2)
    assert np.array_equal(LossyReferenceEngine().decode_latents(model, [job])[0][1], latents)


def test_values_beyond_the_table_come_back(model: LossyModel) -> None:
    """Great contrast under narrow tables needs escapes, and these have a place of their own."""
    hard = np.zeros((64, 64, 3), np.uint8)
    hard[::2] = 255
    narrow = {**model.tensors, "quality.scale": np.full_like(model.tensors["quality.scale"], -128)}
    narrow["quality.gain"] = np.full_like(narrow["quality.gain"], 65535)
    other = LossyModel(model.spec, model.layers, narrow, model.floats, "narrow")
    stream, latents = LossyCpuEngine().encode_tiles(other, [hard], [100], [0])[0]
    assert stream[1] > 0
    assert np.abs(latents).max() > 16 * 64
    job = TileJob(memoryview(stream), 64, 64, 3, 0)
    for engine in (LossyCpuEngine(), LossyReferenceEngine()):
        assert np.array_equal(engine.decode_latents(other, [job])[0][1], latents)


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 70, 3), (64, 33, 1), (31, 40, None), (40, 33, 3)])
def test_any_size_comes_back_about_as_it_was(model: LossyModel, shape: tuple) -> None:
    image = picture(*shape)
    payload = codec_of(model).encode([image])[0]
    back = decoder_of(model).decode([payload])[0]
    assert back.shape == image.shape
    assert back.dtype == np.uint8
    if parse_header(payload).codec == "lossy":
        error = float(np.square(image.astype(float) - back).mean())
        assert 10 * np.log10(255**2 / error) == pytest.approx(payload_psnr(payload), abs=0.02)


def test_a_region_comes_from_its_own_tiles(model: LossyModel) -> None:
    image = picture(70, 90)
    payload = codec_of(model, tile_log2=5).encode([image])[0]
    whole = decoder_of(model).decode([payload])[0]
    found = decoder_of(model).decode([payload], [(20, 33, 30, 40)])[0]
    assert np.array_equal(found, whole[20:50, 33:73])
    # Damage elsewhere is no concern of the region's.
    parsed = parse_payload(payload)
    broken = payload[: len(payload) - len(parsed.tiles[-1]) // 2] + bytes(len(parsed.tiles[-1]) // 2)
    assert np.array_equal(decoder_of(model).decode([broken], [(0, 0, 5, 5)])[0], whole[:5, :5])
    with pytest.raises(ChecksumError, match="CRC-32C"):
        decoder_of(model).decode([broken])


def test_a_batch_never_changes_its_members(model: LossyModel) -> None:
    images = [picture(40, 37), picture(9, 30, None), picture(40, 37)[::-1].copy()]
    codec = codec_of(model)
    assert codec.encode(images) == [codec.encode([image])[0] for image in images]


def test_quality_and_psnr(model: LossyModel) -> None:
    image = picture(64, 64)
    found = [payload_psnr(codec_of(model, quality=quality).encode([image])[0]) for quality in (1, 40, 100)]
    assert found == sorted(found)
    wanted = (found[0] + found[2]) / 2
    reaching = codec_of(model, psnr=wanted).encode([image])[0]
    quality = parse_payload(reaching).tiles[0][HEAD_BYTES]
    assert payload_psnr(reaching) >= wanted - 0.005
    assert 1 < quality < 100
    assert payload_psnr(codec_of(model, quality=quality - 1).encode([image])[0]) <= wanted + 0.005
    # What cannot be reached is come as near to as can be.
    assert parse_payload(codec_of(model, psnr=99).encode([image])[0]).tiles[0][HEAD_BYTES] == 100


@pytest.mark.parametrize("options", [{"quality": 0}, {"quality": 101}, {"psnr": 0.0}, {"psnr": 100.0}])
def test_impossible_qualities_are_refused(model: LossyModel, options: dict) -> None:
    with pytest.raises(UsageError, match="is not possible"):
        codec_of(model, **options)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((4, 4, 4), np.uint8), "no alpha"),
        (np.zeros((4, 4, 2), np.uint8), "no alpha"),
        (np.zeros((4, 4, 3), np.uint16), "takes uint8"),
    ],
)
def test_what_it_does_not_take_is_refused_in_words(model: LossyModel, image: np.ndarray, reason: str) -> None:
    codec = codec_of(model)
    assert reason in str(codec.refuses(image))
    with pytest.raises(UsageError, match=reason):
        codec.encode([image])


def test_a_lossless_profile_takes_no_quality() -> None:
    with pytest.raises(UsageError, match="loses nothing"):
        open_codec("fast", "cpu", quality=50)
    with pytest.raises(UsageError, match="loses nothing"):
        open_codec("raw", "cpu", psnr=30.0)


def test_a_model_file_opens_the_codec(model: LossyModel, tmp_path) -> None:
    path = tmp_path / "lossy.safetensors"
    path.write_bytes(model.file_bytes)
    codec = open_codec(device="cpu", model_path=path, quality=70)
    assert (codec.name, codec.profile) == ("lossy", "small")
    payload = codec.encode([picture(32, 40)])[0]
    assert payload == codec_of(model, quality=70).encode([picture(32, 40)])[0]
    assert inspect_payload(payload).codec == "lossy"
    with pytest.raises(UsageError, match="give one of them"):
        open_codec(device="cpu", model_path=path, quality=70, psnr=30.0)


def test_damaged_bytes_never_decode(model: LossyModel) -> None:
    payload = codec_of(model).encode([picture(30, 45)])[0]
    decoder = decoder_of(model)
    for at in range(0, len(payload), 7):
        broken = bytearray(payload)
        broken[at] ^= 0x24
        with pytest.raises((FormatError, ModelError)):
            decoder.decode([bytes(broken)])
    for cut in range(0, len(payload), 11):
        with pytest.raises(FormatError):
            decoder.decode([payload[:cut]])


def test_other_latents_than_those_encoded_are_refused(model: LossyModel) -> None:
    """A device that does not compute exactly is found out."""
    payload = codec_of(model).encode([picture(30, 45)])[0]

    def other_checksum(tile: bytearray) -> None:
        tile[0] ^= 1

    with pytest.raises(ChecksumError, match="does not compute exactly"):
        decoder_of(model).decode([resealed(payload, other_checksum)])


@settings(max_examples=60, deadline=None)
@given(st.integers(HEAD_BYTES, 400), st.integers(1, 255))
def test_streams_that_no_encoder_wrote_are_refused(at: int, flip: int) -> None:
    model = small_lossy_model()
    payload = codec_of(model).encode([picture(30, 45)])[0]

    def change(tile: bytearray) -> None:
        tile[at % len(tile)] ^= flip

    if at % len(parse_payload(payload).tiles[0]) >= HEAD_BYTES:
        with pytest.raises(FormatError):
            decoder_of(model).decode([resealed(payload, change)])


def test_a_head_that_announces_too_much_is_refused_at_once(model: LossyModel) -> None:
    parsed = parse_payload(codec_of(model).encode([picture(30, 45)])[0])
    header = type(parsed.header)(
        **{name: getattr(parsed.header, name) for name in parsed.header.__slots__} | {"height": 1024, "width": 1024}
    )
    hostile = pack_payload(header, [bytes(parsed.tiles[0][:40])])
    with pytest.raises(TruncatedError, match="cannot hold 1024 x 1024"):
        decoder_of(model).decode([hostile])


def test_devices() -> None:
    assert open_lossy_engine("cpu").name == "cpu"
    assert open_lossy_engine("reference").name == "reference"
    with pytest.raises(UsageError, match="is unknown"):
        open_lossy_engine("tpu")
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match=r"finds no card|is not installed"):
            open_lossy_engine("cuda")

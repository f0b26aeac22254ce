"""Payloads of the lossy family: equal latents everywhere, rates as the nets say, one trade-off, damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from resealing import resealed
from small_family import SMALL, TRADEOFF, picture, small_family_model, small_net

import pilc_stream as pilc
from pilc_stream.backends.base import TileJob
from pilc_stream.backends.lossy import cpu
from pilc_stream.backends.lossy.base import LossyEngine
from pilc_stream.backends.lossy.family import open_family_engine
from pilc_stream.backends.lossy.family.card import TorchMachine
from pilc_stream.backends.lossy.family.engine import FamilyEngine
from pilc_stream.codecs import Decoder, inspect_payload, open_codec
from pilc_stream.codecs.lossy import HEAD_BYTES, LossyCodec, payload_psnr
from pilc_stream.errors import ChecksumError, DeviceError, FormatError, ModelError, UsageError
from pilc_stream.models.family import FamilyModel
from pilc_stream.records.payload import parse_header, parse_payload
from pilc_stream.training.lossy.family_train import in_unit
from workers.job import run_job
from workers.settings import JobSettings

STREAM_HEAD_BYTES = 2
"""Of a stream without escapes, before its lanes."""

ENGINES: dict[str, Callable[[], LossyEngine[FamilyModel]]] = {
    "reference": lambda: open_family_engine("reference"),
    "cpu": lambda: open_family_engine("cpu"),
    "cpu, 2 threads": lambda: open_family_engine("cpu", 2),
    "torch": lambda: FamilyEngine("cuda", TorchMachine("cpu"), cpu.TileWriter, cpu.TileReader),
}


def codec_of(model: FamilyModel, **options: object) -> LossyCodec:
    return LossyCodec(model, open_family_engine("cpu"), **options)  # type: ignore[arg-type]


def decoder_of(model: FamilyModel, device: str = "cpu") -> Decoder:
    return Decoder(device, models=lambda digest: model.file_bytes if digest == model.short_digest else None)


@pytest.mark.parametrize("kind", SMALL)
def test_every_backend_decodes_the_latents_that_any_encoded(kind: str) -> None:
    model, shapes = small_family_model(kind), [(70, 101), (1, 20)]
    tiles = [picture(*shape) for shape in shapes]
    engines = {name: make() for name, make in ENGINES.items()}
    coded = {name: engine.encode_tiles(model, tiles, [1, 1], [1, 0]) for name, engine in engines.items()}
    for writer, found in coded.items():
        assert len(np.unique(found[0].latents)) > 50
        jobs = [
            TileJob(memoryview(each.stream), *shape, 3, lanes)
            for each, shape, lanes in zip(found, shapes, (1, 0), strict=True)
        ]
        for reader, engine in engines.items():
            for each, (quality, latents) in zip(found, engine.decode_latents(model, jobs), strict=True):
                assert quality == 1
                assert np.array_equal(latents, each.latents), (writer, reader)
    jobs = [TileJob(memoryview(coded["cpu"][0].stream), *shapes[0], 3, 1)]
    seen = [engine.decode_tiles(model, jobs)[0].astype(np.int64) for engine in engines.values()]
    assert max(int(np.abs(tile - seen[0]).max()) for tile in seen) <= 1


def rates(kind: str, steps: int) -> tuple[float, float]:
    """Bits of a picture: as the trained net estimates them, and of the stream without its head and lanes' states."""
    import torch

    image, net = picture(256, 256), small_net(kind, steps)
    with torch.no_grad():
        estimated = float(net(in_unit(image[None])).bits)
    stream = open_family_engine("cpu").encode_tiles(small_family_model(kind, steps), [image], [1], [0])[0].stream
    return estimated, 8.0 * (len(stream) - STREAM_HEAD_BYTES - 4)


def test_streams_are_as_long_as_the_float_net_estimates() -> None:
    estimated, stored = rates("Conv", 120)
    assert estimated > 5000
    assert stored == pytest.approx(estimated, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["CHARM", "CHARM merged and split", "SwinT"])
def test_streams_of_other_kinds_are_as_long_as_estimated(kind: str) -> None:
    estimated, stored = rates(kind, 400)
    assert estimated > 3000
    assert stored == pytest.approx(estimated, rel=0.01)


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 70, 3), (64, 33, 1), (31, 40, None)])
def test_any_size_comes_back_about_as_it_was(shape: tuple) -> None:
    model, image = small_family_model("Conv", 120), picture(*shape)
    payload = codec_of(model).encode([image])[0]
    back = decoder_of(model).decode([payload])[0]
    assert (back.shape, back.dtype) == (image.shape, np.uint8)
    if parse_header(payload).codec == "lossy":
        error = float(np.square(image.astype(float) - back).mean())
        assert 10 * np.log10(255**2 / error) == pytest.approx(payload_psnr(payload), abs=0.02)


def test_a_region_comes_from_its_own_tiles() -> None:
    model, image = small_family_model("CHARM"), picture(70, 90)
    payload = codec_of(model, tile_log2=5).encode([image])[0]
    whole = decoder_of(model).decode([payload])[0]
    assert np.array_equal(decoder_of(model).decode([payload], [(20, 33, 30, 40)])[0], whole[20:50, 33:73])
    assert np.array_equal(decoder_of(model, "reference").decode([payload])[0], whole)


def test_a_batch_never_changes_its_members() -> None:
    images = [picture(40, 37), picture(9, 30, None), picture(40, 37)[::-1].copy()]
    codec = codec_of(small_family_model("ELIC"))
    assert codec.encode(images) == [codec.encode([image])[0] for image in images]


def test_a_model_has_one_quality(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    path.write_bytes(small_family_model().file_bytes)
    codec = open_codec(device="cpu", model_path=path)
    assert (codec.name, codec.profile) == ("lossy", "lossy-small")
    payload = codec.encode([picture(64, 64)])[0]
    assert inspect_payload(payload).codec == "lossy"
    assert parse_payload(payload).tiles[0][HEAD_BYTES] == 1
    for asked in ({"quality": 50}, {"psnr": 30.0}, {"quality": 1, "psnr": 30.0}):
        with pytest.raises(UsageError, match=f"trained for one trade-off, {TRADEOFF}|give one of them"):
            open_codec(device="cpu", model_path=path, **asked)  # type: ignore[arg-type]


def test_a_data_set_of_such_a_model(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    images = [picture(70, 60, seed=seed) for seed in range(3)]
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{number}.jpg", quality=98, subsampling=0)
    model = tmp_path / "g.safetensors"
    model.write_bytes(small_family_model("Conv", 120).file_bytes)
    settings = JobSettings(
        sources=(str(tmp_path / "pictures"),),
        destination=str(tmp_path / "set"),
        model_path=str(model),
        device="cpu",
        workers=0,
    )
    report = run_job(settings)
    assert report.to_json()["run"]["lossy"]["images"] == 3
    model.unlink()
    found = pilc.open(str(tmp_path / "set"))
    assert [found[number].pixels.shape for number in range(3)] == [(70, 60, 3)] * 3
    assert np.abs(found[0].pixels.astype(float) - images[0]).mean() < 40


def test_damaged_bytes_never_decode() -> None:
    """Every bit, and every length."""
    model = small_family_model("Conv", 120)
    payload = codec_of(model).encode([picture(30, 45)])[0]
    decoder = decoder_of(model)
    for bit in range(8 * len(payload)):
        broken = bytearray(payload)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            decoder.decode([bytes(broken)])
    for cut in range(len(payload)):
        with pytest.raises(FormatError):
            decoder.decode([payload[:cut]])


def test_streams_that_no_encoder_wrote_are_refused() -> None:
    model = small_family_model("CHARM")
    payload = codec_of(model).encode([picture(64, 45)])[0]
    for at in range(HEAD_BYTES, len(parse_payload(payload).tiles[0])):
        with pytest.raises(FormatError):
            decoder_of(model).decode([resealed(payload, lambda tile, at=at: tile.__setitem__(at, tile[at] ^ 0x55))])  # type: ignore[misc]
    with pytest.raises(FormatError, match="has one quality"):
        decoder_of(model).decode([resealed(payload, lambda tile: tile.__setitem__(HEAD_BYTES, 50))])
    with pytest.raises(ChecksumError, match="does not compute exactly"):
        decoder_of(model).decode([resealed(payload, lambda tile: tile.__setitem__(0, tile[0] ^ 1))])


def test_another_models_payloads_are_refused() -> None:
    payload = codec_of(small_family_model("ELIC")).encode([picture(64, 45)])[0]
    other = small_family_model("Conv")
    with pytest.raises(ModelError, match="it was changed"):
        Decoder("cpu", models=lambda _: other.file_bytes).decode([payload])


def test_devices() -> None:
    assert [open_family_engine(name).name for name in ("cpu", "reference")] == ["cpu", "reference"]
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="finds no card"):
            open_family_engine("cuda")

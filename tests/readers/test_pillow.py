from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_sets import MakeDataset

import pilc_stream as pilc
import pilc_stream.readers.pillow as room
from pilc_stream.codecs import encode_any
from pilc_stream.errors import ChecksumError, FormatError, ImageError, ModelNotFoundError
from pilc_stream.images.decode import decode_image
from pilc_stream.records.payload import PAYLOAD_MAGIC, Header, pack_payload


def pixels_of(shape: tuple[int, ...], dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, np.iinfo(dtype).max, shape, dtype)


@pytest.mark.parametrize(
    ("shape", "dtype", "mode"),
    [
        ((7, 5), np.uint8, "L"),
        ((7, 5, 1), np.uint8, "L"),
        ((7, 5, 2), np.uint8, "LA"),
        ((40, 30, 3), np.uint8, "RGB"),
        ((7, 5, 4), np.uint8, "RGBA"),
        ((7, 5), np.uint16, "I;16"),
    ],
)
def test_pillow_opens_and_saves_payloads(tmp_path: Path, shape: tuple[int, ...], dtype: Any, mode: str) -> None:
    pixels = pixels_of(shape, dtype)
    path = tmp_path / "picture.pilc"
    path.write_bytes(pilc.compress(pixels))
    with Image.open(path) as image:
        assert (image.format, image.mode, image.size) == ("PILC", mode, (5, 7) if shape[0] == 7 else (30, 40))
        assert np.array_equal(np.array(image), pixels.reshape(shape[:2]) if shape[2:] == (1,) else pixels)
        image.save(tmp_path / "again.pilc", profile="raw")
    again = pilc.decompress((tmp_path / "again.pilc").read_bytes())
    assert np.array_equal(again, pixels.reshape(again.shape))
    assert pilc.inspect((tmp_path / "again.pilc").read_bytes()).codec == "raw"


def test_pixels_are_decoded_when_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = pilc.compress(pixels_of((30, 20, 3)))
    image = Image.open(io.BytesIO(payload))
    calls = []
    decode = room.Decoder.decode
    monkeypatch.setattr(room.Decoder, "decode", lambda *args: calls.append(1) or decode(*args))
    assert image.size == (20, 30)
    assert not calls
    assert image.crop((1, 2, 5, 9)).size == (4, 7)
    image.resize((3, 3))
    assert len(calls) == 1


def test_metadata_comes_along(file_of: Any) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description"
    png = file_of(pixels_of((6, 5, 3)), icc_profile=b"a colour profile" * 20, exif=exif)
    decoded = decode_image(png)
    header = Header("raw", 6, 5, 3, 8, False, extras=decoded.extras)
    image = Image.open(io.BytesIO(pack_payload(header, [decoded.array.tobytes()])))
    assert image.info["icc_profile"] == b"a colour profile" * 20
    assert image.getexif()[0x010E] == "a description"


def test_what_cannot_be_opened_or_saved_says_why(tmp_path: Path) -> None:
    payload = pilc.compress(pixels_of((9, 8, 3)))
    damaged = payload[:-1] + bytes([payload[-1] ^ 1])
    with pytest.raises(ChecksumError):
        Image.open(io.BytesIO(damaged)).load()
    with pytest.raises(FormatError):
        Image.open(io.BytesIO(PAYLOAD_MAGIC + b"\xff" * 20))
    with pytest.raises(ImageError, match="no mode for 3 channels of 16 bits"):
        Image.open(io.BytesIO(pilc.compress(pixels_of((4, 4, 3), np.uint16))))
    with pytest.raises(ImageError, match="Mode P is none that a payload holds"):
        Image.new("P", (3, 3)).save(tmp_path / "palette.pilc")


def test_models_of_a_data_set_are_found_there(
    make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = make_dataset([1], shape=(40, 40, 3), levels=16, profile="fast")
    monkeypatch.setattr("pilc_stream.codecs.registry.preset_digests", dict)
    monkeypatch.setattr(room, "_manifests", {})
    payload = made.records[0].payload
    with pytest.raises(ModelNotFoundError):
        Image.open(io.BytesIO(payload)).load()
    room.use_models(made.url)
    assert np.array_equal(np.array(Image.open(io.BytesIO(payload))), made.images[0])


def test_hugging_face_reads_shards_as_images(make_dataset: MakeDataset, tmp_path: Path, file_of: Any) -> None:
    datasets = pytest.importorskip("datasets")
    kept = pixels_of((5, 6, 3))
    made = make_dataset([3, 2], kept={1: file_of(kept)}, shape=(12, 10, 3), profile="fast")
    files = [str(made.path / shard.path) for shard in made.manifest.shards]
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(loaded.features["image"], datasets.Image)
    for row, record in enumerate(loaded):
        assert record["key"] == made.records[row].key
        assert record["label"] == row % 3
        assert np.array_equal(np.array(record["image"]), kept if row == 1 else made.images[row])


def test_payloads_of_all_kinds_are_recognised() -> None:
    for profile in ("fast", "raw"):
        [payload] = encode_any([pixels_of((33, 20, 3)) // 16], profile, "auto", 1)
        assert Image.open(io.BytesIO(payload)).format == "PILC"


def test_a_lossy_profile_takes_a_quality() -> None:
    image = Image.fromarray(pixels_of((33, 20, 3)))
    sizes = []
    for quality in (5, 95):
        file = io.BytesIO()
        image.save(file, "PILC", profile="lossy-light", quality=quality)
        sizes.append(file.tell())
    assert sizes[0] < sizes[1]

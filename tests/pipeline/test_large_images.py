"""Images above the limit of what is decoded whole: coded, verified and exported in bands, or kept with a reason."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pilc_stream.codecs import Decoder, large, open_codec, survey
from pilc_stream.images import bands_png, decode_image
from pilc_stream.pipeline import large as large_images
from pilc_stream.pipeline.compress import CompressSettings, ShardResult, make_shard
from pilc_stream.pipeline.decompress import export
from pilc_stream.pipeline.plan import job_fingerprint, plan_shards
from pilc_stream.pipeline.plan import survey as survey_listing
from pilc_stream.pipeline.verify import verify_dataset
from pilc_stream.records.commit import create_job
from pilc_stream.records.manifest import Manifest, finish
from pilc_stream.storage import Store, expand

HEIGHT, WIDTH = 300, 260
SETTINGS = CompressSettings(max_pixels=1000, device="cpu")


@pytest.fixture(autouse=True)
def _all_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands_png, "BAND_BYTES", 20_000)
    monkeypatch.setattr(survey, "CUTTING", 64)
    monkeypatch.setattr(large_images, "LARGE_RAW_BYTES", 1000)


def _drawn(channels: int = 3, kind: Any = np.uint8) -> np.ndarray[Any, Any]:
    y, x, c = np.indices((HEIGHT, WIDTH, channels))
    noise = np.random.default_rng(0).integers(0, 8, y.shape)
    array = ((100 + 60 * np.sin(x / 40 + c) + y / 4 + noise) * (1 if kind is np.uint8 else 250)).astype(kind)
    return array if channels > 1 else array[:, :, 0]


def _file(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _files() -> dict[str, bytes]:
    return {
        "alpha.png": _file(Image.fromarray(_drawn(4))),
        "deep.png": _file(Image.fromarray(_drawn(1, np.uint16))),
        "grey.tif": _file(Image.fromarray(_drawn(1)), "TIFF", compression="tiff_lzw"),
        "index.png": _file(Image.fromarray(_drawn()).convert("P"), dpi=(72, 72)),
        "photo.png": _file(Image.fromarray(_drawn()), dpi=(72, 72)),
        "small.png": _file(Image.fromarray(_drawn()[:20, :30])),
    }


def _compressed(folder: Path, store: Store, settings: CompressSettings, profile: str = "fast") -> ShardResult:
    codec = open_codec(profile, "cpu")
    listing = survey_listing(expand([str(folder)]))
    fields = {"codec": codec.name, "profile": codec.profile, "model_sha256": codec.model_sha256}
    create_job(store, job_fingerprint(listing, **fields, max_pixels=settings.max_pixels))
    (task,) = plan_shards(expand([str(folder)]))
    return make_shard(task, codec, store, settings)


Make = Callable[..., tuple[ShardResult, Manifest]]


@pytest.fixture
def made(tmp_path: Path, folder_of: Callable[..., Path]) -> Make:
    """Compresses files into a data set; its manifest and what became of the shard."""

    def make(files: dict[str, bytes], profile: str = "fast", **settings: Any) -> tuple[ShardResult, Manifest]:
        store = Store.open(str(tmp_path / f"dataset{len(list(tmp_path.iterdir()))}"))
        result = _compressed(folder_of(files), store, replace(SETTINGS, **settings), profile)
        return result, finish(store)

    return make


def test_large_images_are_coded_verified_and_given_back(made: Make, tmp_path: Path) -> None:
    files = _files()
    result, manifest = made(files)
    assert result.errors == ()
    assert result.statistics is not None
    assert result.statistics.fallback == {}
    assert result.statistics.verified == len(files)
    report = verify_dataset(manifest, device="cpu")
    assert (report.ok, report.decoded) == (True, len(files))
    for format in ("png", "npy"):
        out = tmp_path / format
        assert export(manifest, str(out), format, device="cpu").failed == ()
        for name, data in files.items():
            whole = decode_image(data)
            path = (out / name).with_suffix(f".{format}")
            if format == "npy":
                np.testing.assert_array_equal(np.load(path), whole.array)
                continue
            again = decode_image(path.read_bytes())
            assert (again.mode, again.extras) == (whole.mode, whole.extras)
            np.testing.assert_array_equal(again.array, whole.array)


def test_a_photograph_has_the_payload_of_the_whole(made: Make) -> None:
    files = {"photo.png": _files()["photo.png"]}
    tables = [made(files, max_pixels=limit)[1].reader(0) for limit in (1000, 1 << 20)]
    assert tables[0].payload(0) == tables[1].payload(0)
    assert tables[0].columns().drop_columns(["source_sha256"]) == tables[1].columns().drop_columns(["source_sha256"])


def test_above_both_limits_and_without_bands_files_are_kept_with_a_reason(made: Make) -> None:
    image = Image.fromarray(_drawn())
    files = {"a.jpg": _file(image, "JPEG"), "b.png": _file(image)}
    pixels = HEIGHT * WIDTH
    reasons = {
        pixels: [
            f"says {WIDTH}x{HEIGHT} pixels, above the limit of 1000 for images that are decoded whole, and JPEG files "
            "are not read in bands of rows; raise max_pixels if the file is to be trusted"
        ],
        pixels - 1: ["raise max_streamed_pixels if the file is to be trusted"] * 2,
        0: ["above the limit of 1000; raise max_pixels if the file is to be trusted"] * 2,
    }
    for limit, expected in reasons.items():
        result, manifest = made(files, max_streamed_pixels=limit)
        assert [error.stage for error in result.errors] == ["decode"] * len(expected)
        for error, reason in zip(result.errors, expected, strict=True):
            assert reason in error.reason
        assert manifest.reader(0).payload(0) == files["a.jpg"]
    assert made(files, max_pixels=pixels)[0].errors == ()


def test_what_is_not_coded_or_not_smaller_is_kept(made: Make) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    result, manifest = made({"a.png": _file(Image.fromarray(_drawn()), transparency=(1, 2, 3))})
    assert result.statistics is not None
    assert result.statistics.fallback == {"transparent colour": 1}
    for profile in ("fast", "raw"):
        result, manifest = made({"a.png": _file(Image.fromarray(noise))}, profile)
        assert result.statistics is not None
        assert result.statistics.fallback == {"not smaller than the source": 1}
        assert verify_dataset(manifest, device="cpu").ok


def test_damage_behind_the_first_rows_costs_one_record(made: Make) -> None:
    photo = _files()["photo.png"]
    damaged = bytearray(photo)
    damaged[len(photo) * 3 // 4] ^= 255
    result, manifest = made({"a.png": bytes(damaged), "b.png": photo})
    assert [(error.key, error.stage) for error in result.errors] == [("a.png", "decode")]
    assert manifest.reader(0).payload(0) == bytes(damaged)
    assert (result.entry.failed, result.entry.fallback) == (1, 0)
    assert verify_dataset(manifest, device="cpu").ok


def test_source_and_pixels_as_what_is_kept(made: Make) -> None:
    files = {"photo.png": _files()["photo.png"]}
    result, _ = made(files, keep="source")
    assert result.statistics is not None
    assert result.statistics.fallback == {"a file that its pixels do not give back byte for byte": 1}
    _, manifest = made(files, keep="pixels")
    assert Decoder("cpu").extras(manifest.reader(0).payload(0)) == b""


def test_a_codec_that_gives_other_pixels_is_found_out(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bands = Decoder.decode_bands

    def wrong(self: Decoder, payload: bytes) -> Any:
        for band in bands(self, payload):
            band[0, 0] += 1
            yield band

    monkeypatch.setattr(Decoder, "decode_bands", wrong)
    result, manifest = made({"photo.png": _files()["photo.png"]})
    assert [(error.stage, "other pixels" in error.reason) for error in result.errors] == [("verify", True)]
    monkeypatch.undo()
    assert verify_dataset(manifest, device="cpu").ok


def test_an_encoder_that_fails_costs_one_record(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no luck")

    monkeypatch.setattr(large, "_payload", broken)
    result, _ = made({"photo.png": _files()["photo.png"]})
    assert [(error.stage, "no luck" in error.reason) for error in result.errors] == [("encode", True)]


def test_damaged_payloads_are_findings(made: Make, tmp_path: Path) -> None:
    _, manifest = made({"photo.png": _files()["photo.png"]})
    entry = manifest.shards[0]
    path = Path(manifest.store.url) / entry.path
    file = bytearray(path.read_bytes())
    offset, length = manifest.range_array(0)[0].tolist()
    file[offset + length // 2] ^= 1
    path.write_bytes(file)
    findings = verify_dataset(manifest, device="cpu").failed
    assert any("CRC-32C" in finding.reason for finding in findings)
    report = export(manifest, str(tmp_path / "out"), device="cpu")
    assert [finding.key for finding in report.failed] == ["photo.png"]
    assert report.files == 0
    assert not list((tmp_path / "out").rglob("*.png"))

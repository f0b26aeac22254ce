"""The lossy report: measured points, records that are gone on with, tables, plot; and what the package recorded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pilc_stream.errors import UsageError, VerifyError
from pilc_stream.reports.lossy_files import LOSSY_NAMES, lossy_json_text, lossy_report, write_lossy_report
from pilc_stream.reports.lossy_markdown import (
    lossy_models_table,
    lossy_rates_table,
    lossy_savings_table,
    whole_lossy_report,
)
from pilc_stream.reports.lossy_measure import LossyCodec, measure_lossy, psnr_of
from pilc_stream.reports.lossy_peers import lossy_peers
from pilc_stream.reports.lossy_plot import lossy_digest
from pilc_stream.reports.lossy_profiles import peer_codec, profile_codec, profile_codecs
from pilc_stream.reports.lossy_report import build_lossy_report
from pilc_stream.reports.lossy_times import add_times, with_coders
from pilc_stream.reports.plot import DESCRIBED
from pilc_stream.reports.sets import ImageSet
from pilc_stream.reports.tables import MEASURED, TABLES, recorded_report

ROOT = Path(__file__).resolve().parents[2]

IMAGE = np.add.outer(np.arange(24) * 5, np.arange(32) * 4)[:, :, None].repeat(3, axis=2).astype(np.uint8)


def steps_codec(name: str, cost: float = 1.0, is_peer: bool = True, version: str = "1") -> LossyCodec:
    """Pixels in steps of 64 to 4; a file of as many bytes as a rate that falls with the step asks for."""

    def encode(images: Sequence[Any], quality: float) -> list[bytes]:
        step = int(2 ** (7 - quality))
        pixels = [image // step * step + step // 2 for image in images]
        return [each.tobytes() + bytes(int(cost * 100 * quality)) for each in pixels]

    def decode(files: Sequence[bytes]) -> list[Any]:
        return [np.frombuffer(file[: IMAGE.size], np.uint8).reshape(IMAGE.shape) for file in files]

    return LossyCodec(name, version, is_peer, "cpu", (1, 2, 3, 4, 5), encode, decode)


@pytest.fixture
def photos() -> ImageSet:
    return ImageSet("photos", [IMAGE, IMAGE[::-1].copy()], 0)


def model_row(name: str, seconds: dict[str, float], published: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "parts": ["ELIC", "CHARM", "SwinT"],
        "parameters": 38_440_000,
        "kflop": {"synthesis": 900.0, "hyper_synthesis": 5.0, "entropy_model": 60.0},
        "seconds_per_mp": {"synthesis": 0.5, "hyper_synthesis": 0.1, "entropy_model": 0.2, **seconds},
        "latents_per_pixel": 1.0,
        "published": published,
    }


def test_psnr_is_that_of_all_samples() -> None:
    other = IMAGE.copy()
    other[0, 0, 0] += 10
    assert psnr_of(IMAGE, other) == pytest.approx(10 * np.log10(255**2 / (100 / IMAGE.size)))
    assert psnr_of(IMAGE, IMAGE) == 99


def test_points_are_of_whole_files_and_recorded_runs_are_not_repeated(photos: ImageSet, tmp_path: Path) -> None:
    record = measure_lossy(photos, [steps_codec("A")], tmp_path)
    points = record["codecs"]["A"]["points"]
    assert [point["quality"] for point in points] == [1, 2, 3, 4, 5]
    assert points[0]["bpp"] == pytest.approx(8 * (IMAGE.size + 100) / (24 * 32), abs=1e-5)
    assert points[0]["psnr"] < points[-1]["psnr"]
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text()) == record
    broken = LossyCodec("A", "1", True, "cpu", (1,), lambda *_: pytest.fail("measured again"), lambda files: [])
    assert measure_lossy(photos, [broken, steps_codec("B")], tmp_path)["codecs"].keys() == {"A", "B"}
    again = measure_lossy(photos, [steps_codec("A", cost=2, version="2")], tmp_path)
    assert again["codecs"]["A"]["points"][0]["bpp"] > points[0]["bpp"]


def test_what_cannot_be_measured_is_told(photos: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="grey ones"):
        measure_lossy(ImageSet("grey", [IMAGE[:, :, 0]], 0), [steps_codec("A")])
    turned = LossyCodec("T", "", True, "cpu", (1,), lambda images, _: [b""] * 2, lambda _: [IMAGE[:4], IMAGE])
    with pytest.raises(VerifyError, match="gives"):
        measure_lossy(photos, [turned])
    measure_lossy(photos, [steps_codec("A")], tmp_path)
    next(tmp_path.iterdir()).write_text("[]")
    with pytest.raises(UsageError, match="this is no record"):
        measure_lossy(photos, [steps_codec("A")], tmp_path)


def test_the_report_tells_savings_costs_and_times(photos: ImageSet, tmp_path: Path) -> None:
    record = measure_lossy(photos, [steps_codec("lossy-x", 0.5, is_peer=False), steps_codec("JPEG")])
    published = {"parameters_m": 38.0, "kflop": 1076.4, "mp_per_s": [7.4, 9.9], "saved_percent": 22.86}
    add_times(record, "cpu", lambda: [model_row("lossy-x", {"coder": 0.2}), model_row("lossy-a", {}, published)], None)
    report = build_lossy_report([record], [])
    (curves,) = report.sets
    assert [curve.name for curve in curves.profiles] == ["lossy-x"]
    assert curves.published == []
    saved = curves.savings["lossy-x"]["JPEG"]
    assert saved is not None
    assert saved > 0
    assert "| `lossy-x` | everywhere |" in lossy_savings_table(report)
    assert "| photos (2) | `lossy-x` |" in lossy_rates_table(report)
    assert "| `lossy-a` | ELIC, CHARM, SwinT | 38.44 | 965.0 | 1.25 / 1 | 7.4 / 9.9 | 22.9 % |" in lossy_models_table(
        report
    )
    paths = write_lossy_report(report, tmp_path / "out")
    assert [path.name for path in paths] == list(LOSSY_NAMES)
    assert json.loads(paths[1].read_text()) == json.loads(json.dumps(report.to_json()))
    with Image.open(paths[2]) as picture:
        assert picture.size[0] == 1430
        assert lossy_digest(report) in picture.info["Description"]
    assert lossy_digest(report) in paths[3].read_text()


def test_the_whole_of_kodak_is_compared_with_published_curves(photos: ImageSet) -> None:
    record = measure_lossy(ImageSet("kodak", photos.images, 0), [steps_codec("JPEG")])
    assert build_lossy_report([record], []).sets[0].published == []
    report = build_lossy_report([{**record, "images": 24}], [])
    assert [curve.name for curve in report.sets[0].published][:2] == ["BPG 4:4:4", "VTM"]
    assert "Minnen and Johnston 2023" in whole_lossy_report(report)


def test_what_was_measured_just_now_stands_before_older_records(photos: ImageSet) -> None:
    now, older = (measure_lossy(photos, [steps_codec("JPEG", cost, version=str(cost))]) for cost in (1, 2))
    add_times(now, "cpu", lambda: [model_row("now", {})], None)
    add_times(older, "cpu", lambda: [model_row("older", {})], None)
    report = build_lossy_report([now, older], [])
    assert (len(report.sets), report.settings) == (1, {"JPEG": "1"})
    assert [[model.name for model in each.models] for each in report.devices] == [["now"]]
    assert report.sets[0].peers[0].points[0][0] == now["codecs"]["JPEG"]["points"][0]["bpp"]


def test_times_are_taken_once_for_the_same_models() -> None:
    record: dict[str, Any] = {"set": "s", "times": {}, "codecs": {"p": {"is_peer": False, "version": "1"}}}
    add_times(record, "cpu", lambda: [model_row("m", {})], None)
    add_times(record, "cpu", lambda: pytest.fail("timed again"), None)
    record["codecs"]["p"]["version"] = "2"
    add_times(record, "cpu", list, None)
    assert record["times"]["cpu"]["models"] == []


def test_a_model_without_coder_takes_that_of_another_by_its_latents() -> None:
    light, other = model_row("light", {"coder": 0.4}), model_row("other", {})
    other["latents_per_pixel"] = 1.5
    assert [row["seconds_per_mp"]["coder"] for row in with_coders([other, light])] == [pytest.approx(0.6), 0.4]
    assert with_coders([other]) == [other]


def test_profiles_code_whole_payloads_at_each_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Codec:
        def encode(self, images: Sequence[Any]) -> list[bytes]:
            return [image.tobytes() for image in images]

        def decode(self, payloads: Sequence[bytes]) -> list[Any]:
            return [np.frombuffer(payload, np.uint8) for payload in payloads]

    def opened(*given: Any, **options: Any) -> Codec:
        asked.append((given, options))
        return Codec()

    monkeypatch.setattr("pilc_stream.reports.lossy_profiles.open_codec", opened)
    monkeypatch.setattr("pilc_stream.reports.lossy_profiles.shared_decoder", opened)
    codec = profile_codec("fast", "cpu", 1)
    assert codec.decode(codec.encode([IMAGE], codec.qualities[0]))[0].tolist() == IMAGE.ravel().tolist()
    assert asked[0] == (("fast", "cpu", 1), {"quality": codec.qualities[0]})
    assert len(codec.version) == 64
    with pytest.raises(UsageError, match="'fast' is no lossy profile"):
        profile_codecs(["fast"], "cpu", 1)


def test_a_peer_codes_image_after_image() -> None:
    pytest.importorskip("imagecodecs")
    codec = peer_codec(lossy_peers()[0])
    files = codec.encode([IMAGE, IMAGE[:8]], codec.qualities[-1])
    assert [decoded.shape for decoded in codec.decode(files)] == [IMAGE.shape, (8, 32, 3)]


@pytest.mark.parametrize("name", ["JPEG", "WebP", "AVIF", "JPEG XL"])
def test_peers_spend_more_on_better_pictures(name: str, photo_like: Any) -> None:
    pytest.importorskip("imagecodecs")
    (peer,) = (each for each in lossy_peers() if each.name == name)
    image = photo_like(48, 64)
    files = [peer.encode(image, quality) for quality in (peer.qualities[0], peer.qualities[-1])]
    (cheap, poor), (dear, good) = sorted((len(file), psnr_of(image, peer.decode(file))) for file in files)
    assert cheap < dear
    assert 15 < poor < good
    assert peer.decode(files[0]).shape == image.shape


def test_jpeg_has_halved_colour() -> None:
    pytest.importorskip("imagecodecs")
    jpeg = lossy_peers()[0]
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, ::2] = (255, 0, 0)
    image[:, 1::2] = (0, 0, 255)
    assert psnr_of(image, jpeg.decode(jpeg.encode(image, 95))) < 15


def test_recorded_curves_and_courses_are_whole() -> None:
    report = lossy_report()
    for each in report.sets:
        for curve in (*each.profiles, *each.peers):
            assert len(curve.points) >= 5
    for course in report.courses:
        assert course["course"][-1]["step"] <= course["recipe"]["steps"]
        assert {"device", "date", "versions"} <= course.keys()


WRITE = "run: python -m pilc_stream.reports.tables README.md"


def test_readme_and_report_show_the_recorded_runs() -> None:
    report, text = lossy_report(), (ROOT / "README.md").read_text()
    for name in ("lossy-savings", "lossy-models"):
        assert f"<!-- table: {name} -->\n{TABLES[name](recorded_report())}" in text, WRITE
    markdown, document, picture, drawing = (MEASURED / name for name in LOSSY_NAMES)
    assert markdown.read_text() == whole_lossy_report(report), WRITE
    assert document.read_text() == lossy_json_text(report), WRITE
    with Image.open(picture) as image:
        assert image.info["Description"] == DESCRIBED + lossy_digest(report), WRITE
    assert lossy_digest(report) in drawing.read_text(), WRITE

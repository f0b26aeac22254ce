"""JPEG photographs compressed with a lossy profile, read by every reader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_lossy import small_lossy_model

import pilc_stream as pilc
import pilc_stream.readers.pillow as pillow_room
from pilc_stream.errors import PilcError
from pilc_stream.pipeline.decompress import export
from pilc_stream.pipeline.verify import verify_dataset
from pilc_stream.records.manifest import Manifest
from workers.job import run_job
from workers.settings import JobSettings

COUNT = 6
HEIGHT, WIDTH = 96, 80


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[JobSettings, object]:
    """A data set of JPEG files, one of them grey, and of a PNG with alpha, which the codec does not take."""
    folder = tmp_path_factory.mktemp("jpegs")
    y, x, c = np.indices((HEIGHT, WIDTH, 3))
    for number in range(COUNT):
        random = np.random.default_rng(number)
        pixels = 120 + 50 * np.sin(x / (5 + number)) + 40 * np.sin(y / 7 + c) + random.normal(0, 25, y.shape)
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        if number == 4:
            image = image.convert("L")
        image.save(folder / f"{number}.jpg", quality=98, subsampling=0)
    random = np.random.default_rng(9)
    Image.fromarray(random.integers(0, 256, (20, 20, 4), np.uint8), "RGBA").save(folder / "z.png")
    model = folder.parent / "lossy.safetensors"
    model.write_bytes(small_lossy_model().file_bytes)
    settings = JobSettings(
        sources=(str(folder),),
        destination=str(folder.parent / "set"),
        model_path=str(model),
        quality=20,
        device="cpu",
        workers=0,
    )
    return settings, run_job(settings)


def test_the_report_says_what_was_lost(made: tuple) -> None:
    _, report = made
    assert report.totals.failed == 0
    lossy = report.to_json()["run"]["lossy"]
    assert lossy["images"] == report.statistics.codecs["lossy"] == COUNT
    assert 5 < lossy["least_psnr"] <= lossy["mean_psnr"] < 99
    assert any("no alpha" in reason for reason in report.statistics.fallback)


def test_each_record_says_whether_and_how_much_it_lost(made: tuple) -> None:
    settings, _ = made
    dataset = pilc.open(settings.destination, device="cpu", columns=["lossless", "psnr"])
    manifest = Manifest.load(settings.destination)
    table = pq.read_table(Path(settings.destination) / manifest.shards[0].path)
    rows = table.select(["key", "codec", "lossless", "psnr"]).to_pylist()
    assert [row["lossless"] for row in rows] == [False] * COUNT + [True]
    assert rows[-1]["codec"] == "source"
    assert rows[-1]["psnr"] is None
    for number, row in enumerate(rows[:COUNT]):
        sample = dataset[number]
        with Image.open(Path(settings.sources[0]) / row["key"]) as source:
            error = np.square(np.asarray(source, np.float64) - sample.pixels).mean()
        assert 10 * np.log10(255**2 / error) == pytest.approx(row["psnr"], abs=0.02)
        assert sample.columns == {"lossless": False, "psnr": row["psnr"]}


def test_verification_goes_by_the_latents(made: tuple, tmp_path: Path) -> None:
    settings, _ = made
    manifest = Manifest.load(settings.destination)
    report = verify_dataset(manifest, device="cpu")
    assert report.ok
    assert report.decoded == COUNT
    assert pilc.open(settings.destination, device="cpu", verify=True)[0].pixels.shape == (HEIGHT, WIDTH, 3)
    exported = export(manifest, str(tmp_path), device="cpu")
    assert not exported.failed


def test_another_quality_is_another_job(made: tuple) -> None:
    settings, _ = made
    with pytest.raises(PilcError, match="quality"):
        run_job(replace(settings, quality=30))


def test_readers_of_training_loops(made: tuple) -> None:
    pytest.importorskip("torch")
    from pilc_stream.readers.torch import StreamingImages
    from pilc_stream.readers.torch_gpu import GpuDecoder
    from pilc_stream.readers.torch_loader import ImageLoader

    settings, _ = made
    dataset = pilc.open(settings.destination, device="cpu")
    expected = [dataset[number].pixels for number in range(COUNT)]
    options = {"batch_size": 1, "shuffle": False}
    streamed = list(StreamingImages(settings.destination, **options))
    payloads = ImageLoader(StreamingImages(settings.destination, **options, output="payload"), 0)
    for batches in (streamed, list(GpuDecoder(payloads, "cpu"))):
        assert len(batches) == COUNT + 1
        for batch, pixels in zip(batches, expected, strict=False):
            image = batch["image"][0] if isinstance(batch["image"], list) else batch["image"]
            planes = pixels.reshape(HEIGHT, WIDTH, -1).transpose(2, 0, 1)
            assert np.array_equal(image.numpy().reshape(planes.shape), planes)


def test_pillow_and_batches_read_the_payloads(made: tuple, tmp_path: Path) -> None:
    settings, _ = made
    manifest = Manifest.load(settings.destination)
    dataset = pilc.open(settings.destination, device="cpu")
    table = pq.read_table(Path(settings.destination) / manifest.shards[0].path)
    payloads = [row["bytes"] for row in table.column("image").to_pylist()[:COUNT]]
    images = pilc.decompress_batch(payloads, device="cpu", models=manifest.model_file)
    assert all(np.array_equal(image, dataset[number].pixels) for number, image in enumerate(images))
    region = pilc.decompress(payloads[0], region=(3, 5, 20, 30), device="cpu", models=manifest.model_file)
    assert np.array_equal(region, images[0][3:23, 5:35])
    path = tmp_path / "photo.pilc"
    path.write_bytes(payloads[0])
    pillow_room.use_models(settings.destination)
    with Image.open(path) as image:
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), images[0])

"""A WebDataset of the CIFAR-10 images becomes a data set whose labels and pixels agree with the source."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pilc_stream.readers.dataset import Dataset
from pilc_stream.records.manifest import Manifest
from workers.job import run_job
from workers.settings import JobSettings

IMAGES_PER_TAR = 400


def write_tars(rows: list[dict[str, object]], folder: Path) -> None:
    """As `webdataset.ShardWriter` does: `<key>.png`, `.cls` and `.json` beside each other."""
    for first in range(0, len(rows), IMAGES_PER_TAR):
        with tarfile.open(folder / f"cifar-{first // IMAGES_PER_TAR:03}.tar", "w") as tar:
            for number, row in enumerate(rows[first : first + IMAGES_PER_TAR], start=first):
                members = {
                    "cls": str(label(row)).encode(),
                    "json": json.dumps({"source": row["source"]}).encode(),
                    "png": row["image"],
                }
                for suffix, data in members.items():
                    entry = tarfile.TarInfo(f"{number:06}.{suffix}")
                    entry.size = len(data)  # type: ignore[arg-type]
                    tar.addfile(entry, io.BytesIO(data))  # type: ignore[arg-type]


def label(row: dict[str, object]) -> int:
    """The number of the image in its batch, which the file at hand has instead of a class."""
    return int(str(row["source"]).rpartition(" ")[2])


def png_of(data: bytes) -> bytes:
    sink = io.BytesIO()
    Image.open(io.BytesIO(data)).save(sink, "PNG")
    return sink.getvalue()


def test_cifar_10_as_a_webdataset(shared_data: Path, tmp_path: Path) -> None:
    table = pq.read_table(shared_data / "eval" / "cifar10_test.parquet", columns=["image", "source"])
    rows = [{**row, "image": png_of(row["image"])} for row in table.to_pylist()]
    (tmp_path / "tars").mkdir()
    write_tars(rows, tmp_path / "tars")

    report = run_job(
        JobSettings(
            sources=(f"{tmp_path}/tars/*.tar",),
            destination=str(tmp_path / "dataset"),
            workers=0,
            threads=1,
            verify="none",
            shard_size=600_000,
        )
    )

    assert (report.totals.images, report.totals.failed) == (len(rows), 0)
    assert report.totals.shards > 1
    assert report.totals.payload_bytes < 0.9 * sum(len(row["image"]) for row in rows)
    dataset = Dataset(Manifest.load(str(tmp_path / "dataset")))
    assert dataset.manifest.reader(0).schema.field("cls").type == pa.int64()
    assert [sample.key for sample in dataset] == [
        f"cifar-{number // IMAGES_PER_TAR:03}.tar/{number:06}.png" for number in range(len(rows))
    ]
    for sample, row in zip(dataset, rows, strict=True):
        assert np.array_equal(sample.pixels, np.asarray(Image.open(io.BytesIO(row["image"]))))
        assert sample.columns["cls"] == label(row)
        assert json.loads(sample.columns["json"]) == {"source": row["source"]}

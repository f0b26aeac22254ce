"""What a payload costs beyond its symbols: header, final states, checksums, on real photographs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from pilc_stream.codecs import PayloadInfo, inspect_payload, open_codec

SMALL_IMAGE_SHARE = 0.015
LARGE_IMAGE_SHARE = 0.003


def photographs(file: Path, count: int) -> Iterator[NDArray[np.uint8]]:
    """The first images of a Parquet file, RGB."""
    for batch in pq.ParquetFile(file).iter_batches(batch_size=32, columns=["image"]):
        for data in batch.column("image").to_pylist():
            if count == 0:
                return
            count -= 1
            with Image.open(io.BytesIO(data)) as image:
                yield np.asarray(image.convert("RGB"))


def share(infos: list[PayloadInfo]) -> float:
    """The mean share of a payload that is not its symbols."""
    assert np.mean([info.codec == "wave" for info in infos]) > 0.9
    infos = [info for info in infos if info.codec == "wave"]
    overheads = [info.header_bytes + info.flush_bytes + info.checksum_bytes for info in infos]
    return float(np.mean([part / info.payload_bytes for part, info in zip(overheads, infos, strict=True)]))


def coded(images: list[NDArray[np.uint8]]) -> list[PayloadInfo]:
    return [inspect_payload(payload) for payload in open_codec("fast", "cpu").encode(images)]


@pytest.mark.parametrize("count", [200, pytest.param(1017, marks=pytest.mark.slow)])
def test_a_32x32_photograph(shared_data: Path, count: int) -> None:
    images = list(photographs(shared_data / "eval" / "cifar10_test.parquet", count))
    infos = coded(images)
    assert len(infos) == count
    assert {info.shape for info in infos} == {(32, 32, 3)}
    assert share(infos) <= SMALL_IMAGE_SHARE


def test_a_256x256_photograph(shared_data: Path) -> None:
    infos = coded(list(photographs(shared_data / "train" / "photo-00.parquet", 24)))
    assert {info.shape for info in infos} == {(256, 256, 3)}
    assert share(infos) <= LARGE_IMAGE_SHARE


@pytest.mark.parametrize("shape", [(257, 256), (300, 400), (512, 512)], ids=str)
def test_larger_photographs(shared_data: Path, shape: tuple[int, int]) -> None:
    # Four tiles of the set put together, and cut to sizes that fill their tiles more or less well.
    tiles = list(photographs(shared_data / "train" / "photo-00.parquet", 8))
    images = [
        np.concatenate([np.concatenate(tiles[i : i + 2], axis=1), np.concatenate(tiles[i + 2 : i + 4], axis=1)])
        for i in (0, 4)
    ]
    infos = coded([np.ascontiguousarray(image[: shape[0], : shape[1]]) for image in images])
    assert share(infos) <= LARGE_IMAGE_SHARE


@pytest.mark.slow
def test_a_whole_photograph(shared_data: Path) -> None:
    files = sorted((shared_data / "eval" / "kodak").glob("*.png"))[:3]
    assert files
    images = []
    for file in files:
        with Image.open(file) as image:
            images.append(np.asarray(image.convert("RGB")))
    assert share(coded(images)) <= LARGE_IMAGE_SHARE

"""A folder of image files, and data sets made of it with the codec that needs no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pilc_stream.codecs import open_codec
from pilc_stream.pipeline.compress import CompressSettings, compress_shard
from pilc_stream.pipeline.plan import job_fingerprint, plan_shards, survey
from pilc_stream.records.commit import create_job
from pilc_stream.records.manifest import Manifest, finish
from pilc_stream.storage import Store, expand

Files = Mapping[str, bytes]


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[[Files], Path]:
    """Writes files by relative name below a folder and returns that."""

    def write(files: Files) -> Path:
        folder = tmp_path / "source"
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder

    return write


@pytest.fixture
def dataset_of(tmp_path: Path, folder_of: Callable[[Files], Path]) -> Callable[..., Manifest]:
    """Compresses files with the codec `raw` into a finished data set."""

    def make(files: Files, shard_bytes: int = 1 << 20, **settings: Any) -> Manifest:
        folder = folder_of(files)
        store = Store.open(str(tmp_path / "dataset"))
        codec = open_codec("raw")
        job = job_fingerprint(
            survey(expand([str(folder)])),
            codec=codec.name,
            profile=codec.profile,
            model_sha256=codec.model_sha256,
            max_pixels=1 << 20,
            shard_bytes=shard_bytes,
            keep=settings.get("keep", "display"),
        )
        create_job(store, job)
        for task in plan_shards(expand([str(folder)]), shard_bytes):
            compress_shard(task, codec, store, CompressSettings(**settings))
        return finish(store)

    return make


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "dataset"))


@pytest.fixture
def bitmaps(folder_of: Callable[..., Path], photo_like: Any, file_of: Any) -> Path:
    """Ten BMP files, which the codec `raw` makes a little smaller."""
    return folder_of({f"{number:02d}.bmp": file_of(photo_like(8, 8, seed=number), "BMP") for number in range(10)})

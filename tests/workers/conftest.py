"""Fixtures of small jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest
from small_jobs import SHARD_BYTES, Remembering, fill

from workers.settings import JobSettings

Photo = Callable[..., npt.NDArray[Any]]
FileOf = Callable[..., bytes]


@pytest.fixture
def reporter() -> Remembering:
    return Remembering()


@pytest.fixture
def images(photo_like: Photo, file_of: FileOf) -> Callable[[int], dict[str, bytes]]:
    """A maker of so many BMP files, each of which `raw` makes a little smaller: BMP pads its rows."""

    def make(count: int) -> dict[str, bytes]:
        return {f"{index:03}.bmp": file_of(photo_like(17, 25, seed=index), "BMP") for index in range(count)}

    return make


@pytest.fixture
def source(tmp_path: Path, images: Callable[[int], dict[str, bytes]]) -> Path:
    """A folder with six images: three shards."""
    folder = tmp_path / "source"
    fill(folder, images(6))
    return folder


@pytest.fixture
def settings_of(tmp_path: Path) -> Callable[..., JobSettings]:
    """A maker of settings for small jobs in this process."""

    def make(source: Path | str, **fields: Any) -> JobSettings:
        defaults: dict[str, Any] = {
            "destination": str(tmp_path / "dataset"),
            "profile": "raw",
            "workers": 0,
            "shard_size": SHARD_BYTES,
        }
        return JobSettings(sources=(str(source),), **{**defaults, **fields})

    return make


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One local Ray for all tests that do not start their own."""
    ray = pytest.importorskip("ray")
    from workers.session import ray_session

    assert not ray.is_initialized()
    with ray_session(None, 2):
        yield

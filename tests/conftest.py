"""Fixtures that tests of any room may use: an S3 on loopback, the data folder beside the project, small images."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from PIL import Image

# Loaded as plugins, never collected: doctests of several modules named conftest would get into each other's way.
collect_ignore_glob = ["*conftest.py", "*fuzz/fuzz.py"]

Pixels = npt.NDArray[np.uint8]

# How long an example takes says more about the machine than about the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@dataclass(frozen=True)
class S3Server:
    """An S3 service on loopback. `options` are the storage options to reach it with."""

    endpoint: str

    @property
    def options(self) -> dict[str, Any]:
        return {"key": "test", "secret": "test", "endpoint_url": self.endpoint}

    def make_bucket(self, name: str) -> str:
        """Create a bucket and return its URL."""
        s3fs = pytest.importorskip("s3fs")
        s3fs.S3FileSystem(**self.options).mkdir(name)
        return f"s3://{name}"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    moto_server = pytest.importorskip("moto.server")
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield S3Server(f"http://{host}:{port}")
    server.stop()


@pytest.fixture
def s3_bucket(s3_server: S3Server, request: pytest.FixtureRequest) -> str:
    """The URL of a bucket of this test's own; reach it with `s3_server.options`."""
    return s3_server.make_bucket(f"test-{abs(hash(request.node.nodeid)):x}")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images beside the project."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs real images, and there is no {folder}")
    return folder


@pytest.fixture(scope="session")
def photo_like() -> Callable[..., Pixels]:
    """A maker of uint8 pixels, `(height, width)` or `(height, width, channels)`, smooth with some noise."""

    def make(height: int, width: int, channels: int | None = 3, seed: int = 0) -> Pixels:
        random = np.random.default_rng(seed)
        depth = channels or 1
        y, x = np.mgrid[:height, :width]
        waves = [np.sin(x / (5 + c) + random.random()) + np.cos(y / (7 + c) + random.random()) for c in range(depth)]
        smooth = 128 + 50 * np.stack(waves, axis=-1)
        pixels = np.clip(smooth + random.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)
        return pixels if channels else pixels[..., 0]

    return make


@pytest.fixture(scope="session")
def file_of() -> Callable[..., bytes]:
    """A maker of image file bytes from pixels; `format` and other keywords go to `Image.save`."""

    def make(pixels: Pixels, format: str = "PNG", **options: Any) -> bytes:
        sink = io.BytesIO()
        Image.fromarray(pixels).save(sink, format, **options)
        return sink.getvalue()

    return make

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

numcodecs = pytest.importorskip("numcodecs")

from pilc_stream.errors import FormatError, TruncatedError, UsageError  # noqa: E402
from pilc_stream.readers.numcodecs import PilcCodec  # noqa: E402


def chunk_of(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(0, 40, shape, dtype)


@pytest.mark.parametrize(
    ("chunk", "axes"),
    [
        (chunk_of(20, 30, 3), 3),
        (chunk_of(4, 20, 30, 3), 3),
        (chunk_of(2, 3, 8, 9, 4), 3),
        (chunk_of(20, 30), 2),
        (chunk_of(5, 20, 3, dtype=np.uint16), 2),
        (np.asfortranarray(chunk_of(6, 7, 3)), 3),
    ],
)
def test_chunks_come_back(chunk: np.ndarray, axes: int) -> None:
    codec = PilcCodec(image_axes=axes)
    encoded = codec.encode(chunk)
    decoded = codec.decode(encoded)
    assert decoded.dtype == chunk.dtype
    assert np.array_equal(decoded.reshape(chunk.shape), chunk)
    out = np.empty(chunk.shape, chunk.dtype)
    codec.decode(encoded, out=out)
    assert np.array_equal(out, chunk)


def test_the_configuration_makes_the_codec_again() -> None:
    numcodecs.register_codec(PilcCodec)
    codec = PilcCodec("raw", 2)
    again = numcodecs.get_codec(codec.get_config())
    assert again.get_config() == {"id": "pilc", "profile": "raw", "image_axes": 2}
    chunk = chunk_of(20, 30)
    assert again.encode(chunk) == codec.encode(chunk)
    assert len(PilcCodec("fast", 2).encode(chunk)) < len(codec.encode(chunk))


def test_what_is_no_chunk_is_refused() -> None:
    codec = PilcCodec()
    with pytest.raises(UsageError, match="holds no images of 3 axes"):
        codec.encode(chunk_of(4, 4))
    with pytest.raises(UsageError, match="array of float64"):
        codec.encode(np.zeros((4, 4, 3)))
    with pytest.raises(UsageError, match="image_axes is 1"):
        PilcCodec(image_axes=1)
    encoded = codec.encode(chunk_of(2, 4, 4, 3))
    for data in (b"", encoded[:5], encoded[:-1], encoded + b"x"):
        with pytest.raises(TruncatedError):
            codec.decode(data)
    with pytest.raises(FormatError):
        codec.decode(encoded[:-1] + bytes([encoded[-1] ^ 1]))


def test_zarr_stores_images_as_payloads(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    numcodecs.register_codec(PilcCodec)
    images = chunk_of(5, 30, 20, 3)
    settings = {"shape": images.shape, "chunks": (2, 30, 20, 3), "dtype": "uint8", "zarr_format": 2}
    array = zarr.create_array(str(tmp_path / "images.zarr"), compressors=PilcCodec(), **settings)
    array[:] = images
    again = zarr.open_array(str(tmp_path / "images.zarr"), mode="r")
    assert np.array_equal(again[:], images)
    assert np.array_equal(again[3, 4:9], images[3, 4:9])
    stored = sum(path.stat().st_size for path in (tmp_path / "images.zarr").rglob("*") if path.is_file())
    assert stored < images.nbytes

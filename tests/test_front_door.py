"""What a newcomer meets first: `import pilc_stream as pilc`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small_model import small_model

import pilc_stream as pilc
from pilc_stream.codecs.wave import WaveCodec
from pilc_stream.errors import FormatError, ModelNotFoundError, PilcError, UsageError

Maker = Callable[..., NDArray[np.uint8]]


@pytest.fixture
def images(photo_like: Maker) -> list[NDArray[Any]]:
    """One of everything."""
    return [
        photo_like(40, 30),
        photo_like(17, 60, None),
        photo_like(40, 30, 1, seed=1),
        photo_like(9, 9, 4),
        photo_like(9, 9, 2),
        photo_like(20, 20, None).astype(np.uint16) << 8,
        photo_like(8, 8).astype(np.uint16),
        np.zeros((1, 1), np.uint8),
        photo_like(300, 270),
    ]


@pytest.mark.parametrize("profile", ["fast", "raw"])
def test_every_image_comes_back_alone_and_in_a_batch(profile: str, images: list[NDArray[Any]]) -> None:
    payloads = pilc.compress_batch(images, profile)
    assert payloads == [pilc.compress(image, profile) for image in images]
    assert payloads[::-1] == pilc.compress_batch(images[::-1], profile)
    for ours in (pilc.decompress_batch(payloads), [pilc.decompress(payload) for payload in payloads]):
        for image, pixels in zip(ours, images, strict=True):
            assert image.dtype == pixels.dtype
            assert np.array_equal(image, pixels)


def test_the_default_profile_makes_photographs_smaller(photo_like: Maker) -> None:
    pixels = photo_like(64, 64)
    payload = pilc.compress(pixels)
    info = pilc.inspect(payload)
    assert (info.codec, info.profile) == ("wave", "fast")
    assert info.payload_bytes == len(payload) < 0.7 * pixels.nbytes


def test_bytes_do_not_depend_on_device_or_threads(photo_like: Maker) -> None:
    pixels = photo_like(23, 34)
    payload = pilc.compress(pixels)
    assert payload == pilc.compress(pixels, device="reference") == pilc.compress(pixels, device="cpu", threads=3)
    for device in ("auto", "cpu", "reference"):
        assert np.array_equal(pilc.decompress(payload, device=device), pixels)


def test_a_region_is_a_slice(images: list[NDArray[Any]]) -> None:
    for pixels, payload in zip(images, pilc.compress_batch(images), strict=True):
        height, width = pixels.shape[:2]
        y, x = height // 3, width // 2
        region = (y, x, height - y, max(1, (width - x) // 2))
        expected = pixels[y:, x : x + region[3]]
        assert np.array_equal(pilc.decompress(payload, region=region), expected)
        assert np.array_equal(pilc.decompress_batch([payload, payload], regions=[None, region])[1], expected)


def test_a_model_that_does_not_ship_is_given_by_the_caller(photo_like: Maker) -> None:
    model, pixels = small_model(), photo_like(30, 30)
    payload = WaveCodec(model, reference()).encode([pixels])[0]
    with pytest.raises(ModelNotFoundError, match=model.sha256[:8]):
        pilc.decompress(payload)
    known = {model.short_digest: model.file_bytes}
    assert np.array_equal(pilc.decompress(payload, models=known.get, device="reference"), pixels)


def reference() -> Any:
    from pilc_stream.backends import open_engine

    return open_engine("reference")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pilc.compress(np.zeros((2, 2), np.int32)), "give uint8 or uint16"),
        (lambda: pilc.compress(np.zeros((2, 2, 5), np.uint8)), "5 channels"),
        (lambda: pilc.compress(np.zeros((0, 2), np.uint8)), "0 x 2 pixels"),
        (lambda: pilc.compress(np.zeros((2, 2), np.uint8), profile="best"), "profile 'best' is unknown"),
        (lambda: pilc.compress(np.zeros((2, 2), np.uint8), device="tpu"), "device 'tpu' is unknown"),
        (lambda: pilc.compress(np.zeros((2, 2), np.uint8), threads=0), "give 1 or more"),
        (lambda: pilc.decompress(pilc.compress(np.zeros((2, 2), np.uint8), "raw"), region=(0, 0, 3, 1)), "inside"),
    ],
)
def test_a_wrong_argument_is_a_usage_error(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n" + bytes(40), b"\xb1\x1c", bytes(100)])
def test_other_bytes_are_a_format_error(data: bytes) -> None:
    for call in (pilc.decompress, pilc.inspect):
        with pytest.raises(FormatError, match="payload: "):
            call(data)
    assert issubclass(FormatError, PilcError)


def test_what_is_announced_is_there_and_documented() -> None:
    for name in pilc.__all__:
        thing = getattr(pilc, name)
        assert name == "__version__" or inspect.getdoc(thing)
    assert pilc.__version__.count(".") == 2


def test_a_quality_is_for_lossy_profiles_alone(photo_like: Maker) -> None:
    pixels = photo_like(64, 48)
    coarse, fine = (pilc.compress(pixels, "lossy-light", quality=quality) for quality in (10, 90))
    assert len(coarse) < len(fine) < pixels.nbytes
    assert pilc.decompress(fine).shape == pixels.shape
    with pytest.raises(UsageError, match="loses nothing"):
        pilc.compress(pixels, "fast", quality=90)

"""What the shipped profiles promise on photographs they were not trained on: whole payloads, all overhead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pilc_stream.codecs import Decoder, open_codec
from pilc_stream.reports.sets import load_images

LIMITS = [("fast", "kodak", 3.10, 2200), ("fast", "cifar10_test.parquet", 4.05, 2200)]


@pytest.mark.parametrize(("profile", "name", "limit_bpsp", "limit_macs"), LIMITS)
def test_a_profile_keeps_its_promise(
    shared_data: Path, profile: str, name: str, limit_bpsp: float, limit_macs: int
) -> None:
    images, left_out = load_images(shared_data / "eval" / name)
    assert left_out == 0
    codec = open_codec(profile, "cpu")
    payloads = codec.encode(images)
    for image, decoded in zip(images, Decoder("cpu").decode(payloads), strict=True):
        assert np.array_equal(image, decoded)
    assert 8 * sum(map(len, payloads)) / sum(image.size for image in images) <= limit_bpsp
    assert sum(codec.model.spec.macs_per_pixel().values()) <= limit_macs  # type: ignore[attr-defined]

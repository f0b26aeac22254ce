"""What the shipped profiles promise on photographs they were not trained on: whole payloads, all overhead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pilc_stream.codecs import Decoder, open_profile
from pilc_stream.models.model import load_model
from pilc_stream.models.shipped import preset_bytes
from pilc_stream.reports.sets import load_images

MOST_MACS = {"fast": 2200, "default": 6000, "high": 20_000, "max": 64_000}
"""Multiply-accumulates per pixel that a profile may take to decode."""

MOST_BITS = {
    "kodak": (3.03, 2.97, 2.92, 2.87),
    "mcmaster": (3.75, 3.63, 3.56, 3.50),
    "highres": (2.02, 1.95, 1.91, 1.88),
    "cifar10_test.parquet": (3.92, 3.80, 3.72, 3.65),
    "imagenet64.parquet": (4.01, 3.91, 3.84, 3.78),
}
"""Bits per sub-pixel of each set: at most these, in the order of `MOST_MACS`."""

MOST_BITS_OF_PILC = {"kodak": 3.127, "highres": 2.141, "cifar10_test.parquet": 4.0}
"""Of the profile `pilc`: 30 % below optimised PNG, as the paper has it."""

QUICK = {("fast", "kodak"), ("fast", "cifar10_test.parquet")}


def cases() -> list[object]:
    """Every profile on every set; most are slow."""
    every = [("pilc", name, limit) for name, limit in MOST_BITS_OF_PILC.items()]
    every += [(profile, name, limits[i]) for name, limits in MOST_BITS.items() for i, profile in enumerate(MOST_MACS)]
    return [
        pytest.param(*case, marks=[] if case[:2] in QUICK else [pytest.mark.slow], id=f"{case[0]}-{case[1]}")
        for case in every
    ]


@pytest.mark.parametrize(("profile", "name", "limit"), cases())
def test_a_profile_keeps_its_promise(shared_data: Path, profile: str, name: str, limit: float) -> None:
    images, left_out = load_images(shared_data / "eval" / name)
    assert left_out == 0
    payloads = open_profile(profile, "cpu", threads=2).encode(images)
    for image, decoded in zip(images, Decoder("cpu", threads=2).decode(payloads), strict=True):
        assert np.array_equal(image, decoded)
    assert 8 * sum(map(len, payloads)) / sum(image.size for image in images) <= limit


@pytest.mark.parametrize("profile", MOST_MACS)
def test_a_profile_stays_within_its_computation(profile: str) -> None:
    assert sum(load_model(preset_bytes(profile)).spec.macs_per_pixel().values()) <= MOST_MACS[profile]


@pytest.mark.parametrize("profile", MOST_MACS)
def test_rounding_to_integers_costs_at_most_half_a_per_cent(profile: str) -> None:
    recipe = load_model(preset_bytes(profile)).recipe
    assert recipe["validation_bits"] <= 1.005 * recipe["float_validation_bits"]

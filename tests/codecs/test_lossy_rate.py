"""What the shipped light profile promises: its rate against JPEG and WebP, its estimate of it, and what it costs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pilc_stream.backends.lossy.base import Ints, Shape, rounded_values, walk
from pilc_stream.backends.lossy.network import HostArithmetic
from pilc_stream.backends.lossy.transforms import analyse
from pilc_stream.codecs import Decoder, open_codec
from pilc_stream.models.lossy import LossyModel, load_lossy_model
from pilc_stream.models.lossy_spec import SCALE_LEAST, SCALE_STEPS
from pilc_stream.models.shipped import preset_bytes
from pilc_stream.reports.lossy_curves import Curve, curve_of, rate_saving
from pilc_stream.reports.lossy_measure import psnr_of

PROFILE = "lossy-light"
RATES = (0.2, 1.0)
"""Bits per pixel between which rates are compared."""

LEAST_SAVING = {"JPEG": 0.38, "WebP": 0.03}
"""Of the rate at equal PSNR."""

MOST_FLOPS = 20_000
MOST_MODEL_BYTES = 1 << 20


@pytest.fixture(scope="module")
def model() -> LossyModel:
    return load_lossy_model(preset_bytes(PROFILE))


@pytest.fixture(scope="module")
def kodak(shared_data: Path) -> list[np.ndarray]:
    files = sorted((shared_data / "eval" / "kodak").glob("*.png"))
    assert len(files) == 24
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


class Estimate:
    """Rounds values as an encoder does and adds up what the model's Gaussians say that they cost."""

    def __init__(self) -> None:
        self.bits = 0.0

    def values(self, index: Ints, wanted: np.ndarray | None) -> Ints:
        assert wanted is not None
        values = rounded_values(index, wanted)
        width = SCALE_LEAST * 2 ** (index / SCALE_STEPS) * math.sqrt(2)
        upper, lower = ((np.abs(values) + offset) / width for offset in (0.5, -0.5))
        share = np.array([math.erfc(a) - math.erfc(b) for a, b in zip(lower, upper, strict=True)]) / 2
        self.bits -= float(np.log2(np.maximum(share, 2.0**-32))[index > 0].sum())
        return values


def test_decoding_costs_what_a_light_model_may(model: LossyModel) -> None:
    parts = model.spec.macs_per_pixel()
    assert set(parts) == {"hyper", "passes", "synthesis"}
    assert 2 * sum(parts.values()) <= MOST_FLOPS
    assert len(model.file_bytes) <= MOST_MODEL_BYTES


@pytest.mark.slow
def test_payloads_are_as_long_as_the_model_estimates(model: LossyModel, kodak: list[np.ndarray]) -> None:
    arithmetic = HostArithmetic(np.float32)
    for quality in (20, 70):
        codec = open_codec(PROFILE, "cpu", quality=quality)
        estimated = stored = 0.0
        for image in kodak[::6]:
            found, estimate = analyse(model, image, quality), Estimate()
            shape = Shape(*image.shape[:2])
            walk(model, model.quality(quality), arithmetic, estimate, shape, found.hyper, found.latents)
            estimated += estimate.bits
            stored += 8 * len(codec.encode([image])[0])
        assert stored == pytest.approx(estimated, rel=0.01)


@pytest.mark.slow
def test_rates_on_kodak(kodak: list[np.ndarray]) -> None:
    """Whole payloads against JPEG (4:2:0, optimised) and WebP, at equal PSNR of RGB."""
    from pilc_stream.reports.lossy_peers import lossy_peers

    ours = curve_of(PROFILE, [_ours(kodak, quality) for quality in (1, 20, 40, 60, 80)])
    for peer in lossy_peers():
        if peer.name in LEAST_SAVING:
            found: list[tuple[float, float]] = []
            for quality in peer.qualities:
                files = [peer.encode(image, quality) for image in kodak]
                found.append(_point(kodak, files, [peer.decode(file) for file in files]))
            theirs: Curve = curve_of(peer.name, found)
            saving = rate_saving(ours, theirs, RATES)
            assert saving is not None
            assert saving >= LEAST_SAVING[peer.name]


def _ours(images: list[np.ndarray], quality: int) -> tuple[float, float]:
    payloads = open_codec(PROFILE, "cpu", quality=quality).encode(images)
    return _point(images, payloads, Decoder("cpu").decode(payloads))


def _point(images: list[np.ndarray], files: list[bytes], decoded: list[np.ndarray]) -> tuple[float, float]:
    """Mean bits per pixel and mean PSNR."""
    rates = [8 * len(file) / (image.shape[0] * image.shape[1]) for file, image in zip(files, images, strict=True)]
    return float(np.mean(rates)), float(np.mean([psnr_of(*pair) for pair in zip(images, decoded, strict=True)]))

"""The page on `pilc` and `wave`: what is measured adds up, and is shown."""

from __future__ import annotations

import numpy as np
import pytest

from pilc_stream.models.pilc import load_pilc_model
from pilc_stream.models.shipped import preset_bytes
from pilc_stream.reports.sets import ImageSet
from pilc_stream.reports.two_codecs import measure, page, recorded_rates


@pytest.fixture(scope="module")
def record() -> dict:
    model = load_pilc_model(preset_bytes("pilc"))
    y, x, c = np.indices((40, 48, 3))
    slope = (40 + x + y // 2 + 5 * c).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    found = measure(ImageSet("two", [slope, noise, slope[:, :, 0].copy()], 0), model)
    return {"machine": {"cpu": "some CPU"}, "macs_per_pixel": model.spec.macs_per_pixel(), "sets": [found]}


def test_the_parts_are_the_whole(record: dict) -> None:
    found = record["sets"][0]
    # Noise is stored, and belongs to no part.
    stored = 16 * 16 * 3
    parts = sum(found[f"{name}_bytes"] for name in ("indices", "residual", "overhead"))
    assert stored < found["payload_bytes"] - parts < stored + 20
    assert 0 < found["residual_bytes"] < found["raw_bytes"] / 2
    assert min(found["cpu_seconds"].values()) > 0


def test_the_page_shows_what_was_found(record: dict) -> None:
    bpsp = 8 * record["sets"][0]["payload_bytes"] / record["sets"][0]["raw_bytes"]
    text = page(record, {"two": {"png": 2 * bpsp, "fast": 1.2345}}, ("fast", "max"))
    row = next(line for line in text.splitlines() if line.startswith("| two |"))
    assert row == f"| two | {bpsp:.3f} | 50.0 % | 1.234 | not recorded |"
    assert "some CPU" in text


def test_rates_of_an_unknown_set() -> None:
    assert recorded_rates("no digest") == {}

"""The page on `pilc` and `wave`: what is measured adds up, and is shown."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="Numba-CUDA is not installed")

from pilc_stream.models.pilc import load_pilc_model
from pilc_stream.models.shipped import preset_bytes
from pilc_stream.reports.sets import ImageSet
from pilc_stream.reports.two_codecs import PAGE, RECORD, WAVES, measure, page, recorded_figures, table_rows


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
    rates = {"two": {"PNG": 2 * bpsp, "fast": 1.2345}}
    text = page(record, rates, ("fast", "max"), table_rows(record, ("fast",)))
    row = next(line for line in text.splitlines() if line.startswith("| two |"))
    assert row == f"| two | {bpsp:.3f} | 50.0 % | 1.234 | not recorded |"
    assert "some CPU" in text
    found = record["sets"][0]
    measured = next(line for line in text.splitlines() if line.startswith("| CPU, one thread, two | pilc |"))
    whole = [found["raw_bytes"] / found["cpu_seconds"][way] / 1e6 for way in ("encode", "decode")]
    assert measured.endswith(f"| none needed | {whole[0]:,.0f} / {whole[1]:,.0f} |")
    for card in ("V100", "H200"):
        for profile in ("pilc", "fast"):
            assert f"| {card} | {profile} | predicted | yes | yes | yes: " in text


def test_the_recorded_page_is_that_of_the_record() -> None:
    record = json.loads(RECORD.read_text())
    text = PAGE.read_text()
    for row in table_rows(record, WAVES):
        assert f"| {row.device} | {row.profile} | {row.kind} |" in text
    assert "not recorded" not in text


def test_figures_of_an_unknown_set() -> None:
    assert recorded_figures("no digest") == {}

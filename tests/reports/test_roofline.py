"""The roofline: bounds from counts, predictions from bounds."""

from __future__ import annotations

import pytest

pytest.importorskip("numba_cuda", reason="Numba-CUDA is not installed")

from pilc_stream.backends.cuda.proof import Resources, Work
from pilc_stream.models.model import load_model
from pilc_stream.models.pilc import is_pilc_model, load_pilc_model
from pilc_stream.models.shipped import lossless_preset_names, preset_bytes
from pilc_stream.records.tiling import Tiling
from pilc_stream.reports.roofline import (
    REALISTIC,
    Roofline,
    ceilings,
    pilc_rounds,
    roof,
    roofline,
    table,
    wave_roof,
    wavefront,
)
from pilc_stream.reports.roofline_document import DOCUMENT, recorded, with_table


def test_the_wavefront_of_a_tile() -> None:
    # Three rows of four: steps of 1, 1, 2, 2, 2, 2, 1, 1 pixels.
    walk = wavefront(3, 4, lanes=1)
    assert (walk.steps, walk.pixels, walk.threads, walk.turns) == (8, 12, 8 * 32, 12)
    assert wavefront(3, 4, lanes=2).turns == 8
    large = wavefront(256, 256, lanes=16)
    assert (large.steps, large.pixels) == (766, 65536)


def test_bounds_follow_the_card() -> None:
    taken = Resources("model", (7, 0), registers=64, stack_bytes=0, spill_bytes=0, shared_bytes=1024)
    done = Work("model", instructions=1000, dp4a=500, mma=0, shared_bytes=100, global_bytes=90)
    v100, h200 = (roof(card, taken, done) for card in ("V100", "H200"))
    assert v100.bounds == {"integer": 80 * 1.53e9 * 64 / 1000, "memory": 900e9 / 90}
    assert v100.pixels_per_s == REALISTIC * 80 * 1.53e9 * 64 / 1000
    assert h200.pixels_per_s > v100.pixels_per_s
    assert v100.blocks == 8
    walk = wave_roof("V100", Resources("walk", (7, 0), 128, 0, 0, 40_000), Work("walk", 1000, 0, 0, 100, 90), 8)
    assert walk.blocks == 2
    assert walk.bounds["integer"] < v100.bounds["integer"]
    decode = wave_roof("V100", Resources("decode", (7, 0), 128, 0, 0, 40_000), Work("decode", 1000, 0, 0, 100, 90), 8)
    assert decode.bounds["latency"] < walk.bounds["latency"]
    kernels = {"decode": decode, "walk": walk, "model": v100}
    line = Roofline("V100", "any", 8, kernels, ("walk", "model"), ("decode",))
    assert line.encode_mb_per_s == pytest.approx(3e-6 / (1 / walk.pixels_per_s + 1 / v100.pixels_per_s))
    assert "| V100 | any |" in table([line])
    assert line.picture_seconds is not None
    low, high = line.picture_seconds
    # 48 tiles of at most 228 x 256, one on a multiprocessor: the steps of one.
    assert 738 - 60 < low * 1.53e9 / 2 / 1000 < 766 * 6
    assert high == pytest.approx(3 * low)
    products = Work("model", instructions=1000, dp4a=0, mma=10, shared_bytes=100, global_bytes=90)
    assert roof("H200", taken, products).bounds["tensor"] == 132 * 1.98e9 * 4096 * 32 / (10 * 4096)
    assert line.to_json()["kernels"]["walk"]["blocks"] == 2


def test_every_card_is_described_with_its_source() -> None:
    assert {"V100", "H200"} <= set(ceilings())
    assert all(card.source for card in ceilings().values())


@pytest.mark.slow
def test_fast_is_predicted_to_do_a_gigabyte_each_way_on_a_v100() -> None:
    line = roofline("V100", "fast", preset_bytes("fast"))
    print(table([line]))
    assert min(line.encode_mb_per_s, line.decode_mb_per_s) >= 1000


def test_the_document_shows_the_record() -> None:
    text = DOCUMENT.read_text()
    assert with_table(text) == text, "run: python -m pilc_stream.reports.roofline_document"
    assert {(line.card, line.profile) for line in recorded()} == {
        (card, profile) for card in ceilings() for profile in lossless_preset_names()
    }


def test_the_recorded_predictions_reach_the_goals_on_a_v100() -> None:
    v100 = {line.profile: line for line in recorded() if line.card == "V100"}
    assert all(line.encode_mb_per_s and line.decode_mb_per_s for line in v100.values()), "a profile does not fit"
    for profile, goal in (("fast", 1000), ("high", 200), ("pilc", 200)):
        assert min(v100[profile].encode_mb_per_s, v100[profile].decode_mb_per_s) >= goal
    assert all(one.resources.spill_bytes == 0 for line in v100.values() for one in line.kernels.values())


def test_the_recorded_predictions_for_pilc_on_an_h200() -> None:
    line = next(line for line in recorded() if (line.card, line.profile) == ("H200", "pilc"))
    assert min(line.encode_mb_per_s, line.decode_mb_per_s) >= 2000


def test_tiles_are_those_of_the_model() -> None:
    for line in recorded():
        data = preset_bytes(line.profile)
        assert line.tile_log2 == (load_pilc_model if is_pilc_model(data) else load_model)(data).tile_log2
    # A step of a tile of 512 a side has 256 pixels.
    wide = wave_roof("H200", Resources("walk", (9, 0), 128, 0, 0, 40_000), Work("walk", 1000, 0, 0, 100, 90), 9, 256)
    small = wave_roof("H200", Resources("walk", (9, 0), 128, 0, 0, 40_000), Work("walk", 1000, 0, 0, 100, 90), 8, 128)
    assert (small.blocks, wide.blocks) == (4, 2)
    assert wide.bounds["integer"] > small.bounds["integer"]


def test_what_fits_no_multiprocessor_is_said() -> None:
    large = wave_roof("V100", Resources("decode", (7, 0), 128, 0, 0, 97 << 10), Work("decode", 1000, 0, 0, 100, 90), 8)
    line = Roofline("V100", "any", 8, {"decode": large}, ("decode",), ("decode",))
    assert (large.blocks, line.decode_mb_per_s, line.picture_seconds) == (0, 0, None)
    assert table([line]).count("no block fits") == 4


def test_what_pilc_does_one_after_the_other() -> None:
    tiling = Tiling(256, 256, 8)
    rounds = [pilc_rounds(kernel, tiling) for kernel in ("blocks", "residuals", "lanes", "undo", "choose")]
    assert rounds == [2048, 12288, 12288, 766, 0]


def test_a_roofline_goes_through_json() -> None:
    for line in recorded():
        assert Roofline.from_json(line.to_json()) == line

"""The backends of the codec `pilc` write the same bytes and give back the same pixels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from contents import CONTENTS
from engines import PILC_ENGINES, pilc_engine
from hypothesis import given, settings
from hypothesis import strategies as st
from small_pilc import SMALL_PILC_SPEC, WIDE_PILC_SPEC, random_pilc_model, small_pilc_model

from pilc_stream.arith.blocks import check_taps
from pilc_stream.backends.base import TileJob
from pilc_stream.backends.pilc import open_pilc_engine
from pilc_stream.backends.pilc.base import Choices, block_grid, quarter_pixels
from pilc_stream.backends.pilc.cpu import PilcCpuEngine, Program, code_tile, distributions
from pilc_stream.backends.pilc.reference import distributions as reference_distributions
from pilc_stream.errors import FormatError, UsageError

SIMULATED_CASES = ["shapes", "architectures", "damage", "wide"]


def check(model, tiles, lanes) -> None:
    expected = pilc_engine("reference").encode_tiles(model, tiles, lanes)
    jobs = [TileJob(memoryview(s), *t.shape, n) for s, t, n in zip(expected, tiles, lanes, strict=True)]
    for name in PILC_ENGINES:
        assert pilc_engine(name).encode_tiles(model, tiles, lanes) == expected
        for tile, back in zip(tiles, pilc_engine(name).decode_tiles(model, jobs), strict=True):
            assert back.dtype == np.uint8
            assert np.array_equal(back, tile)


@settings(max_examples=8, deadline=None)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.sampled_from([1, 3]),
    content=st.sampled_from(sorted(CONTENTS)),
    lanes=st.integers(0, 5),
)
def test_any_tile(height: int, width: int, channels: int, content: str, lanes: int) -> None:
    tile = CONTENTS[content](height, width, channels, 7)
    check(small_pilc_model(), [tile, tile[::-1].copy()], [lanes, 0])


@pytest.mark.parametrize("at_the_bound", [False, True])
@pytest.mark.parametrize("spec", [SMALL_PILC_SPEC, WIDE_PILC_SPEC], ids=["small", "wide"])
def test_any_model(spec, at_the_bound: bool) -> None:
    model = random_pilc_model(spec, 11, at_the_bound=at_the_bound)
    check(model, [CONTENTS["photo"](17, 10, 3, 1), CONTENTS["noise"](9, 24, 1, 2)], [1, 0])


def test_the_network_in_float32_and_float64() -> None:
    model = random_pilc_model(WIDE_PILC_SPEC, 3, at_the_bound=True)
    random = np.random.default_rng(1)
    shape = block_grid(37, 29)
    choices = Choices(random.integers(0, 17, shape), random.integers(0, 5, shape))
    rows, centres = distributions(Program(model), [choices], 37, 29)[0]
    expected = reference_distributions(model, choices, 37, 29)
    assert np.array_equal(rows, expected.rows)
    assert np.array_equal(centres, expected.centres)
    assert len(np.unique(rows)) > 1


def test_an_encoder_takes_the_predictor_that_fits() -> None:
    # Rows that repeat: north is certain, and so is west plus north less north-west; west is not.
    row = np.random.default_rng(4).integers(0, 256, (1, 24, 3))
    tile = row.repeat(24, 0).astype(np.uint8)
    coding = code_tile(Program(small_pilc_model()), tile)
    assert (coding.choices.predictors[1:] > 0).all()
    assert not coding.residuals[0, 8:].any()


def test_quarters_count_the_pixels_inside() -> None:
    counts = quarter_pixels(13, 9)
    assert counts.shape == (2, 2, 4)
    assert counts.sum() == 13 * 9
    assert counts[0, 0].tolist() == [16] * 4
    assert counts[1, 1].tolist() == [4, 0, 1, 0]


@pytest.mark.parametrize("name", list(PILC_ENGINES))
def test_damaged_streams(name: str) -> None:
    model, tile = small_pilc_model(), CONTENTS["photo"](19, 22, 3, 2)
    good = pilc_engine(name).encode_tiles(model, [tile], [1])[0]
    for data in (good[:-2], good + b"\0\0", good[:8], good[:3], bytes(4) + good[4:], good[:9]):
        with pytest.raises(FormatError, match=r"^tile: "):
            pilc_engine(name).decode_tiles(model, [TileJob(memoryview(data), *tile.shape, 1)])


@pytest.mark.parametrize(
    ("channel", "taps"),
    [(0, []), (0, [(0, 0, 0)]), (0, [(1, 0, -1)]), (1, [(0, 0, 1)]), (2, [(1, 1, 0)]), (1, [(0, -1, 0)] * 2)],
)
def test_taps_that_are_not_decoded_yet_are_refused(channel: int, taps: list) -> None:
    with pytest.raises(ValueError, match="tap"):
        check_taps(channel, taps)


@pytest.mark.parametrize("device", ["tpu", "cpu:1", "cuda:"])
def test_unknown_devices(device: str) -> None:
    with pytest.raises(UsageError, match="is unknown"):
        open_pilc_engine(device)
    with pytest.raises(UsageError, match="threads"):
        open_pilc_engine("cpu", 0)
    assert isinstance(open_pilc_engine("auto"), PilcCpuEngine)


@pytest.mark.slow
@pytest.mark.parametrize("case", SIMULATED_CASES)
def test_cuda_in_the_simulator(case: str) -> None:
    pytest.importorskip("numba_cuda", reason="Numba-CUDA is not installed")
    program = Path(__file__).with_name("simulated_pilc.py")
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(program.parents[1] / "codecs")}
    done = subprocess.run(
        [sys.executable, str(program), case], capture_output=True, text=True, timeout=550, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]

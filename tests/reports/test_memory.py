"""The picture of the memory report, its recorded run, and that no step holds all pixels."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from pilc_stream.images import decode_image
from pilc_stream.pipeline import large
from pilc_stream.reports import memory
from pilc_stream.reports.memory import measure, picture, write_picture

MEASURED = Path(memory.__file__).parent / "measured" / "memory.json"
PROMISED_BYTES = 1_500_000_000


def test_the_file_is_the_picture() -> None:
    file = io.BytesIO()
    write_picture(file, 300, 150)
    np.testing.assert_array_equal(decode_image(file.getvalue()).array, picture(300, 0, 150))
    np.testing.assert_array_equal(picture(300, 0, 150)[70:90], picture(300, 70, 90))


def test_the_recorded_run_keeps_the_promise() -> None:
    recorded = json.loads(MEASURED.read_text())
    assert recorded["picture"] == {"width": 30_000, "height": 30_000, "raw_bytes": 2_700_000_000}
    assert {step["step"] for step in recorded["steps"]} == {"compress", "verify", "read a region", "decompress"}
    for step in recorded["steps"]:
        assert step["peak_rss_bytes"] < PROMISED_BYTES, step["step"]
    assert {"date", "versions", "command"} <= set(recorded["machine"])


@pytest.mark.slow
def test_every_step_takes_less_memory_than_the_pixels(tmp_path: Path) -> None:
    # Above the limit of what is decoded whole, and above that of what is verified and exported so.
    taken = measure(tmp_path, 30_000, 8_000)
    raw_bytes = taken["picture"]["raw_bytes"]
    assert raw_bytes > large.LARGE_RAW_BYTES
    assert {step["step"]: step["peak_rss_bytes"] for step in taken["steps"] if step["peak_rss_bytes"] > raw_bytes} == {}

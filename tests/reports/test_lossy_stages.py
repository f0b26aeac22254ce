"""Stages of a lossy profile's decoder: each is timed, and the row tells the model's size and cost."""

from __future__ import annotations

from typing import Any

import pytest
from small_lossy import small_lossy_model

from pilc_stream.reports.lossy_report import DECODER_PARTS, ModelTime
from pilc_stream.reports.lossy_stages import profile_times, stage_seconds


def test_every_stage_takes_time_and_all_are_a_row_of_the_report(photo_like: Any) -> None:
    model = small_lossy_model()
    image = photo_like(64, 96)
    seconds = stage_seconds(model, image, 40, "cpu", rounds=2)
    assert set(seconds) == {*DECODER_PARTS, "coder"}
    row = ModelTime(**profile_times(model, image, 40, "cpu", rounds=1))
    assert row.decoder_kflop == pytest.approx(2 * sum(model.spec.macs_per_pixel().values()) / 1000, abs=0.02)
    assert row.parameters > 0
    assert row.mp_per_s(True) is not None

"""How far trainings came: the record, its points and its table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_family import picture, small_family_model

from pilc_stream.errors import UsageError
from pilc_stream.training.lossy.family_course import (
    RECORD,
    course_table,
    joined,
    measured_course,
    measured_payloads,
)


def test_the_record_is_of_rising_steps() -> None:
    record = json.loads(RECORD.read_text())
    steps = [point["step"] for point in record["points"]]
    assert steps == sorted(set(steps))
    assert steps[-1] <= record["recipe"]["steps"]
    lines = course_table(record).splitlines()
    assert lines[-1].startswith(f"| `lossy-{record['recipe']['member']}` | {record['recipe']['tradeoff']:g} |")
    assert len(lines) == 2 + len(steps)


def test_what_payloads_take() -> None:
    model, images = small_family_model(), [picture(64, 96), picture(40, 40)]
    found = measured_payloads(model, images)
    assert found == measured_payloads(model, images[::-1])
    assert found["bpp"] > 0
    assert 5 < found["psnr"] < 60


def test_points_found_again_take_the_place_of_known_ones() -> None:
    known = [{"step": 1, "bpp": 1.0}, {"step": 5, "bpp": 0.5}]
    found = [{"step": 5, "bpp": 0.4}, {"step": 3, "bpp": 0.7}]
    assert [(each["step"], each["bpp"]) for each in joined(known, found)] == [(1, 1.0), (3, 0.7), (5, 0.4)]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.jpg")
    with pytest.raises(UsageError, match="no PNG image"):
        measured_course(tmp_path, [])

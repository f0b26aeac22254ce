"""The measurement of the pipeline's overhead: what it measures, not how long that takes."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from pilc_stream.cli import cli
from pilc_stream.errors import JobError, UsageError
from pilc_stream.pipeline.loading import MAX_BATCH_IMAGES
from pilc_stream.storage import SourceFile, Store
from workers import overhead
from workers.overhead import Scaling, Watch, measure_overhead
from workers.progress import Snapshot, Totals

Measure = Callable[..., overhead.Overhead]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary data sets go."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def measure(source: Path, scratch: Path) -> Measure:
    said: list[str] = []
    return lambda **fields: measure_overhead(
        **{"source": str(source), "profile": "raw", "threads": 2, "rounds": 2, "shard_size": 3000, **fields},
        actors=False,
        say=said.append,
    )


def test_job_and_stages_are_compared_with_and_without_verification(measure: Measure, scratch: Path) -> None:
    found = measure()

    assert (found.images, found.raw_bytes, found.threads, found.rounds) == (6, 6 * 17 * 25 * 3, 2, 2)
    assert [comparison.verify for comparison in found.comparisons] == ["none", "all"]
    assert [list(comparison.stages_s) for comparison in found.comparisons] == [
        ["read", "decode", "code"],
        ["read", "decode", "code", "verify"],
    ]
    for comparison in found.comparisons:
        assert comparison.job_s > 0
        assert comparison.ratio > 0
        assert all(seconds > 0 for seconds in comparison.stages_s.values())
    assert found.scaling is None
    assert list(scratch.iterdir()) == []


def test_bare_stages_code_every_image(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "_CHUNK_BYTES", 3000)
    coded: list[int] = []
    batches = overhead._batches
    monkeypatch.setattr(overhead, "_batches", lambda arrays: coded.append(len(arrays)) or batches(arrays))

    measure(rounds=1)

    assert sum(coded) == 6
    assert len(coded) > 1


def test_batches_are_those_of_a_job() -> None:
    small, large = np.zeros((8, 8), np.uint8), np.zeros((2048, 1500, 3), np.uint8)
    assert [len(batch) for batch in overhead._batches([small] * (MAX_BATCH_IMAGES + 5))] == [MAX_BATCH_IMAGES, 5]
    assert [len(batch) for batch in overhead._batches([large, large, small])] == [1, 2]
    assert list(overhead._batches([])) == []


def test_chunks_hold_every_file_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "_CHUNK_BYTES", 100)
    store = Store.open("memory://chunks")
    files = [SourceFile(str(number), str(number), 40, store) for number in range(7)]
    chunks = list(overhead._chunks(files))
    assert [file for chunk in chunks for file in chunk] == files
    assert [len(chunk) for chunk in chunks] == [3, 3, 1]


def test_a_rate_is_taken_from_when_all_actors_are_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 14.0, 15.0, 16.0, 18.0])
    monkeypatch.setattr(overhead.time, "perf_counter", lambda: next(clock))
    watch, snapshot = Watch(), Snapshot()
    watch.show(snapshot)
    for shards in (1, 2, 3, 4, 6):
        watch.show(replace(snapshot, made=Totals(shards=shards, raw_bytes=shards * 1_000_000)))
    assert watch.mb_s(1) == pytest.approx(5 / 8)
    assert watch.mb_s(2) == pytest.approx(4 / 4)
    with pytest.raises(UsageError, match="too few to compare actors by"):
        watch.mb_s(3)


def test_a_disturbed_measurement_is_none() -> None:
    with pytest.raises(JobError, match="disturbed: a worker was lost"):
        Watch().say("a worker was lost")


def test_cores_are_given_back() -> None:
    before = os.sched_getaffinity(0)
    with overhead._cores(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before
    with pytest.raises(UsageError, match="actors want"), overhead._cores(len(before) + 1):
        pytest.fail("there are not so many cores")


def test_scaling_is_the_median_of_the_rounds(monkeypatch: pytest.MonkeyPatch, measure: Measure) -> None:
    rates = iter([10.0, 19.0, 12.0, 18.0, 10.0, 20.0])
    monkeypatch.setattr(overhead, "_actors_mb_s", lambda settings, workers: next(rates))
    settings: Any = None
    assert overhead._scaling(settings, 3, lambda _: None) == Scaling(1.9, 10.0, 19.0)


def test_a_folder_without_images_is_refused(measure: Measure, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UsageError, match="no image was found there"):
        measure(source=str(tmp_path / "nothing"))


def test_the_command_says_it_in_words_and_as_json(source: Path, scratch: Path) -> None:
    arguments = ["overhead", str(source), "--profile", "raw", "--rounds", "1", "--threads", "1", "--shard-size", "3kB"]
    said = CliRunner().invoke(cli, arguments)
    assert said.exit_code == 0, said.stderr
    assert "6 images" in said.stdout
    assert "without verification" in said.stdout
    assert "times as long" in said.stdout
    report = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).stdout)
    assert report["images"] == 6
    assert len(report["comparisons"]) == 2

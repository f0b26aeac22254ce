from __future__ import annotations

from dataclasses import replace

import pytest
from small_jobs import Remembering

from pilc_stream.pipeline.statistics import StageTimes
from pilc_stream.records.record import Record, ShardEntry
from workers.progress import Board, Tally, Totals

ENTRY = ShardEntry(
    index=0,
    path="data/part-000000-aaaaaaaaaaaa.parquet",
    sha256="a" * 64,
    shard_bytes=700,
    rows=5,
    failed=1,
    fallback=2,
    raw_bytes=1000,
    source_bytes=600,
    payload_bytes=500,
    sub_pixels=1000,
    seconds=1.0,
)


def test_totals_are_sums_over_entries() -> None:
    totals = Totals.of([ENTRY, replace(ENTRY, index=1, rows=3, failed=0)])

    assert (totals.shards, totals.images, totals.failed, totals.fallback) == (2, 8, 1, 4)
    assert (totals.raw_bytes, totals.source_bytes, totals.payload_bytes, totals.shard_bytes) == (2000, 1200, 1000, 1400)


def test_bpsp_is_payload_bits_of_all_records_over_sub_pixels_of_those_with_pixels() -> None:
    assert Totals.of([ENTRY]).bpsp == pytest.approx(8 * 500 / 1000)
    assert Totals.of([replace(ENTRY, sub_pixels=0)]).bpsp is None


def test_a_tally_counts_what_records_will_be_stored_with() -> None:
    record = Record("a.png", b"12345", "raw", "", 2, 2, 1, 8, "L", 4, 60, bytes(32), bytes(32))

    assert Tally.of([record, record]) == Tally(images=2, raw_bytes=8, source_bytes=120, payload_bytes=10)


def test_a_board_adds_commits_and_tallies_and_forgets_the_tally_of_what_is_committed(reporter: Remembering) -> None:
    board = Board(reporter)
    board.plan(20, 4, Totals.of([ENTRY]))
    board.tally(0, 0, Tally(2, 400, 200, 150))
    board.tally(1, 1, Tally(1, 100, 90, 80))

    assert board.snapshot.images_done == 5 + 3
    assert board.snapshot.coded == Tally(3, 500, 290, 230)

    board.commit(0, ENTRY)
    assert board.snapshot.coded == Tally(5 + 1, 1000 + 100, 600 + 90, 500 + 80)
    assert board.snapshot.images_done == 5 + 5 + 1
    assert board.snapshot.failed == 2
    assert reporter.snapshots[-1] == board.snapshot


def test_a_lost_worker_takes_its_part_back(reporter: Remembering) -> None:
    board = Board(reporter)
    board.tally(0, 0, Tally(2, 400, 200, 150))
    board.tally(0, 1, Tally(1, 4, 2, 1))
    board.tally(1, 2, Tally(5, 50, 50, 50))
    board.lose(0)

    assert board.snapshot.coded == Tally(5, 50, 50, 50)


def test_seconds_of_work_stay_when_a_shard_is_committed(reporter: Remembering) -> None:
    board = Board(reporter)
    board.tally(0, 0, Tally(decode_s=2.0))
    board.tally(0, 1, Tally(decode_s=1.0))
    assert board.snapshot.seconds["decode"] == 3.0
    board.commit(0, ENTRY, StageTimes(decode=2.5, write=0.5))
    assert board.snapshot.seconds == {"read": 0.0, "decode": 3.5, "code": 0.0, "verify": 0.0, "write": 0.5}


def test_what_changes_nothing_is_not_shown(reporter: Remembering) -> None:
    board = Board(reporter)
    board.phase("working")
    shown = len(reporter.snapshots)
    board.phase("working")
    board.tally(0, 0, Tally())

    assert len(reporter.snapshots) == shown

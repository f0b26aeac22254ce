from __future__ import annotations

import pytest

from pilc_stream.errors import JobError
from pilc_stream.pipeline.compress import ShardResult
from pilc_stream.pipeline.plan import ShardTask
from pilc_stream.pipeline.statistics import ShardStatistics
from pilc_stream.records.record import ShardEntry
from workers.ledger import Ledger, Patience
from workers.planning import Work
from workers.progress import Board, Silent

PATIENCE = Patience(attempts=3, first_delay_s=1.0, factor=4.0, given_up_in_a_row=2)


def work(index: int) -> Work:
    return Work(ShardTask(index, ()))


def result(index: int) -> ShardResult:
    entry = ShardEntry(index, "p", "a" * 64, 10, 2, 0, 0, 100, 60, 50, 100, 1.0)
    return ShardResult(entry, ShardStatistics(verified=2), ())


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(Board(Silent()), PATIENCE)


def test_a_shard_is_tried_again_after_longer_and_longer_waits_then_given_up(ledger: Ledger) -> None:
    assert [ledger.failed(work(7), "no luck") for _ in range(3)] == [1.0, 4.0, None]
    assert ledger.given_up == {7: "no luck"}


def test_waits_have_a_limit() -> None:
    assert Patience(first_delay_s=1.0, factor=10.0).delay_s(9) == 60.0


def test_shards_given_up_one_after_the_other_end_the_job(ledger: Ledger) -> None:
    for index in (0, 0, 0, 1, 1):
        ledger.failed(work(index), "disk full")

    with pytest.raises(JobError, match=r"2 shards in a row failed 3 times each.*disk full\."):
        ledger.failed(work(1), "disk full")


def test_a_shard_made_in_between_lets_the_job_go_on(ledger: Ledger) -> None:
    for index in (0, 2):
        for _ in range(3):
            ledger.failed(work(index), "bad sector")
        ledger.done(0, result(index + 1))

    assert sorted(ledger.given_up) == [0, 2]
    with pytest.raises(JobError, match=r"2 of 4 shards could not be made.*shard 0: bad sector; shard 2: bad sector\."):
        ledger.check(4)


def test_nothing_is_raised_where_nothing_was_given_up(ledger: Ledger) -> None:
    ledger.failed(work(0), "once")
    ledger.done(0, result(0))
    ledger.done(0, result(1))

    ledger.check(2)
    assert ledger.statistics.verified == 4


def test_a_shard_committed_by_somebody_else_counts_without_statistics(ledger: Ledger) -> None:
    ledger.done(0, ShardResult(result(0).entry, None, ()))

    assert ledger.statistics == ShardStatistics()

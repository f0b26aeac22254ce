"""What became of the shards of a run: sums of those that were made, patience with those that fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from pilc_stream.errors import JobError
from pilc_stream.pipeline.compress import ShardResult
from pilc_stream.pipeline.statistics import ShardStatistics
from workers.planning import Work
from workers.progress import Board


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a job goes on with what fails.

    `attempts`: how often a shard is tried, waiting `first_delay_s`, then `factor` times longer, in seconds.
    `given_up_in_a_row`: so many shards given up, none made in between, end the job: nothing works any more.
    `lost_in_a_row`: so many workers lost per worker, no shard made in between, end it as well.
    """

    attempts: int = 3
    first_delay_s: float = 1.0
    factor: float = 4.0
    given_up_in_a_row: int = 3
    lost_in_a_row: int = 3

    def delay_s(self, failures: int) -> float:
        """How long to wait after so many failures (at least 1), in seconds."""
        return min(60.0, self.first_delay_s * self.factor ** (failures - 1))


class Ledger:
    """Books results. `statistics` of the shards made; `given_up`: the shards that were not, by number, and why."""

    def __init__(
        self, board: Board, patience: Patience, quarantine: Callable[[Work, int, str], None] | None = None
    ) -> None:
        """`quarantine` is called with a work that is given up, how often it was tried, and why it failed last."""
        self._board = board
        self._patience = patience
        self._quarantine = quarantine
        self._attempts: Counter[int] = Counter()
        self._in_a_row = 0
        self.statistics = ShardStatistics()
        self.given_up: dict[int, str] = {}

    def done(self, worker: int, result: ShardResult) -> None:
        """Book a committed shard."""
        self._in_a_row = 0
        if result.statistics is not None:
            self.statistics.add(result.statistics)
        times = result.statistics.times if result.statistics is not None else None
        self._board.commit(worker, result.entry, times)

    def failed(self, work: Work, reason: str) -> float | None:
        """Book a failed attempt. Return after how many seconds to try again, None where the shard is given up.

        Raises JobError where one shard after the other is given up.
        """
        index = work.task.index
        self._attempts[index] += 1
        attempts = self._attempts[index]
        if attempts < self._patience.attempts:
            delay = self._patience.delay_s(attempts)
            self._board.say(f"Shard {index} failed and will be tried again in {delay:g} s: {reason}")
            return delay
        self.given_up[index] = reason
        if self._quarantine:
            self._quarantine(work, attempts, reason)
        self._in_a_row += 1
        self._board.say(f"Shard {index} failed {attempts} times and is left out of this run, quarantined: {reason}")
        if self._in_a_row >= self._patience.given_up_in_a_row:
            raise JobError(
                f"{self._in_a_row} shards in a row failed {attempts} times each, so the job stops. The last reason: "
                f"{_sentence(reason)} What is committed stays; run the same command again when the cause is removed."
            )
        return None

    def check(self, shards: int) -> None:
        """Raise JobError where shards were given up; `shards` is how many the job has."""
        if self.given_up:
            named = "; ".join(f"shard {index}: {reason}" for index, reason in sorted(self.given_up.items())[:5])
            more = f"; and {len(self.given_up) - 5} more" if len(self.given_up) > 5 else ""
            raise JobError(
                f"{len(self.given_up)} of {shards} shards could not be made, so the data set is not finished. "
                f"{_sentence(named + more)} The others are committed and stay; run the same command again to try "
                "only these."
            )


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."

"""Who codes next: the shards that a worker has in flight share its codec, and the one that came first goes first."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock that goes to the lowest number that waits for it.

    So the first shard is coded as fast as its images come, and the next one fills the gaps: while images of the first
    are on their way, and while it is built, put and committed.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: list[int] = []
        self._taken = False

    @contextmanager
    def of(self, number: int) -> Iterator[None]:
        """Hold the lock for a block."""
        with self._condition:
            self._waiting.append(number)
            self._condition.wait_for(lambda: not self._taken and number == min(self._waiting))
            self._waiting.remove(number)
            self._taken = True
        try:
            yield
        finally:
            with self._condition:
                self._taken = False
                self._condition.notify_all()

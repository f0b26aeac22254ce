"""A run without Ray: one worker in this process, a few shards at a time in threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from pilc_stream.errors import DeviceError
from pilc_stream.pipeline.compress import ShardResult
from workers.ledger import Ledger
from workers.maker import SHARDS_IN_FLIGHT, ShardMaker, WorkerSpec, reason_of
from workers.planning import Work
from workers.progress import Board, Tally

LOOK_EVERY_S = 0.25


def run_inline(
    spec: WorkerSpec,
    works: Iterable[Work],
    board: Board,
    ledger: Ledger,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Make all `works`, trying again as the ledger says. Raises what the ledger and the listing raise.

    Raises DeviceError or ModelError where the codec cannot be had at all. When it is interrupted, shards that are being
    committed are finished, the others given up.
    """
    _Inline(spec, board, ledger, sleep).run(works)


class _Inline:
    def __init__(self, spec: WorkerSpec, board: Board, ledger: Ledger, sleep: Callable[[float], None]) -> None:
        self._spec = spec
        self._board = board
        self._ledger = ledger
        self._sleep = sleep
        # Reports come from the threads of shards, and a board has one: only the last of each shard counts.
        self._tallies: dict[int, Tally] = {}
        self._maker = ShardMaker(spec, self._tallies.__setitem__)
        self._running: dict[Future[ShardResult], Work] = {}
        self._threads = ThreadPoolExecutor(SHARDS_IN_FLIGHT, thread_name_prefix="pilc-shard")

    def run(self, works: Iterable[Work]) -> None:
        self._board.phase("working")
        try:
            for work in works:
                self._begin(work)
                while len(self._running) >= SHARDS_IN_FLIGHT:
                    self._settle()
            while self._running:
                self._settle()
        finally:
            self._maker.stop()
            self._threads.shutdown(wait=True, cancel_futures=True)

    def _begin(self, work: Work) -> None:
        self._running[self._threads.submit(self._maker.make, work)] = work

    def _settle(self) -> None:
        """Wait a while for a shard to be done, and book it; show how far the others are."""
        done, _ = wait(self._running, timeout=LOOK_EVERY_S, return_when=FIRST_COMPLETED)
        for future in done:
            self._take(future, self._running.pop(future))
        for index, tally in list(self._tallies.items()):
            self._board.tally(0, index, tally)

    def _take(self, future: Future[ShardResult], work: Work) -> None:
        index = work.task.index
        try:
            result = future.result()
        except Exception as error:
            self._tallies.pop(index, None)
            self._board.tally(0, index, Tally())
            delay = self._ledger.failed(work, reason_of(error))
            if delay is not None:
                if isinstance(error, DeviceError):
                    # A fault of a device stays with the context that it happened in.
                    self._maker = ShardMaker(self._spec, self._tallies.__setitem__)
                self._sleep(delay)
                self._begin(work)
        else:
            self._tallies.pop(index, None)
            self._ledger.done(0, result)

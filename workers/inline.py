"""A run without Ray: one worker in this process, shard after shard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from pilc_stream.errors import DeviceError
from workers.ledger import Ledger
from workers.maker import ShardMaker, WorkerSpec, reason_of
from workers.planning import Work
from workers.progress import Board


def run_inline(
    spec: WorkerSpec,
    works: Iterable[Work],
    board: Board,
    ledger: Ledger,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Make all `works`, trying again as the ledger says. Raises what the ledger and the listing raise.

    Raises DeviceError or ModelError where the codec cannot be had at all.
    """
    maker = ShardMaker(spec, lambda tally: board.tally(0, tally))
    board.phase("working")
    for work in works:
        delay: float | None = 0.0
        while delay is not None:
            if delay:
                sleep(delay)
            try:
                ledger.done(0, maker.make(work))
                break
            except Exception as error:
                delay = ledger.failed(work, reason_of(error))
                if isinstance(error, DeviceError) and delay is not None:
                    # A fault of a device stays with the context that it happened in.
                    maker = ShardMaker(spec, lambda tally: board.tally(0, tally))

"""The state of a pass: which order, and how far. Numbers that know no path, so that the data set may move.

A state is a dictionary that JSON can hold: `version`, `order_version`, `dataset` (a digest of the shards), `seed`,
`shuffle`, `mixing`, `epoch`, and `cursor`, the position in the global order from which nothing has been read yet. It
says nothing of ranks and workers, so that any number of them can go on from it. Only a state that is asked for inside
a DataLoader worker also has that worker's `share`, `[rank, world, worker, workers, batch size]`, and how many
positions of it were `taken` since `cursor`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pilc_stream.errors import UsageError

STATE_VERSION = 1
"""Version of a state."""

# What torchdata's StatefulDataLoader calls the parts of its own state.
_SNAPSHOT, _STEP, _STEPS_SINCE = "_snapshot", "_snapshot_step", "_steps_since_snapshot"
_WORKERS, _DATASET = "_worker_snapshots", "dataset_state"


def check_state(state: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise UsageError, naming the field, unless `state` has every field that is `expected`."""
    for name, value in expected.items():
        if state.get(name) != value:
            raise UsageError(
                f"This state cannot be resumed: its {name} is {state.get(name)!r}, here it is {value!r}. "
                "Open the same data set with the same settings, or begin the epoch anew."
            )


def without_loader(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """`state` itself or, where it is the state of a torchdata StatefulDataLoader, that of the data set in it.

    The states of workers become one cursor: the first position that one of them has not passed. Everything before it
    was read; what was read after it, which only skipped samples bring about, is read again.
    """
    if _DATASET in state:
        return dict(state[_DATASET])
    if _SNAPSHOT not in state:
        return state
    snapshot = state[_SNAPSHOT]
    workers = [worker[_DATASET] for worker in snapshot[_WORKERS].values()]
    if not workers or any(worker is None for worker in workers):
        raise UsageError("This state of a StatefulDataLoader holds no state of a StreamingImages.")
    if state.get(_STEPS_SINCE):
        raise UsageError(
            f"This state was taken {state[_STEPS_SINCE]} batches after the workers were last asked. To go on with "
            "other numbers of ranks or workers, give the StatefulDataLoader snapshot_every_n_steps=1."
        )
    whole = {name: value for name, value in workers[0].items() if name not in ("taken", "share")}
    _, world, _, _, _ = workers[0]["share"]
    return {**whole, "cursor": whole["cursor"] + _first_missing(workers) * world}


def _first_missing(workers: Iterable[Mapping[str, Any]]) -> int:
    """The first of the rank's samples, counted from the cursor on, that its worker has not passed."""
    missing: list[int] = []
    for worker in workers:
        _, _, number, count, batch_size = worker["share"]
        batches, inside = divmod(worker["taken"], batch_size)
        missing.append((number + count * batches) * batch_size + inside)
    return min(missing)

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilc_stream.errors import UsageError
from pilc_stream.readers.order import EpochOrder, Split
from pilc_stream.readers.state import check_state, without_loader


def loader_state(begin: int, taken: list[int], splits: list[Split], steps_since: int = 0) -> dict[str, Any]:
    """What torchdata's StatefulDataLoader says when its workers have passed `taken` positions each."""
    workers = {}
    for number, (count, split) in enumerate(zip(taken, splits, strict=True)):
        share = [split.rank, split.world, split.worker, split.workers, split.batch_size]
        state = {"version": 1, "epoch": 3, "cursor": begin, "taken": count, "share": share}
        workers[f"worker_{number}"] = {"worker_id": number, "dataset_state": state, "fetcher_state": None}
    return {"_snapshot": {"_snapshot_step": 7, "_worker_snapshots": workers}, "_steps_since_snapshot": steps_since}


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=5),
    st.integers(0, 2**64 - 1),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 6),
    st.data(),
)
def test_workers_states_become_the_place_up_to_which_all_has_been_read(
    sizes: list[int], seed: int, world: int, workers: int, batch_size: int, data: st.DataObject
) -> None:
    order = EpochOrder(sizes, seed)
    begin = data.draw(st.integers(0, order.total))
    stop = Split(0, world).end(begin, order.total, "drop")
    shares = {}
    for rank in range(world):
        for worker in range(workers):
            split = Split(rank, world, worker, workers, batch_size)
            shares[rank, worker] = split, split.positions(begin, begin, stop).tolist()
    batches = -(-(stop - begin) // (world * batch_size))
    steps = data.draw(st.integers(0, batches))
    passed: set[int] = set()
    cursors = set()
    for rank in range(world):
        taken = []
        for worker in range(workers):
            _, positions = shares[rank, worker]
            mine = len(range(worker, steps, workers)) * batch_size
            passed.update(positions[:mine])
            taken.append(min(mine, len(positions)))
        state = without_loader(loader_state(begin, taken, [shares[rank, worker][0] for worker in range(workers)]))
        assert set(state) == {"version", "epoch", "cursor"}
        cursors.add(min(state["cursor"], stop))
    assert cursors == {begin + len(passed)}
    assert passed == set(range(begin, begin + len(passed)))


def test_after_skipped_samples_nothing_is_missed() -> None:
    # Worker 1 has filled up its batch with the first sample of its next one.
    splits = [Split(0, 1, worker, 2, 4) for worker in range(2)]
    assert without_loader(loader_state(0, [4, 5], splits))["cursor"] == 8


def test_states_without_workers_are_what_they_hold() -> None:
    plain = {"version": 1, "cursor": 5}
    assert without_loader(plain) == plain
    assert without_loader({"dataset_state": plain, "_num_yielded": 3}) == plain


def test_what_cannot_be_resumed_is_refused_in_words() -> None:
    splits = [Split(0, 1, 0, 1, 4)]
    with pytest.raises(UsageError, match="taken 2 batches after the workers were last asked"):
        without_loader(loader_state(0, [4], splits, steps_since=2))
    with pytest.raises(UsageError, match="holds no state of a StreamingImages"):
        without_loader({"_snapshot": {"_worker_snapshots": {"worker_0": {"dataset_state": None}}}})
    with pytest.raises(UsageError, match="its seed is 1, here it is 2"):
        check_state({"seed": 1, "epoch": 0}, {"seed": 2})

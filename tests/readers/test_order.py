from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilc_stream.errors import UsageError
from pilc_stream.readers.order import EpochOrder, Mixing, Split, Tail, effective_batch, permutation, stream_key

SIZES = st.lists(st.integers(0, 70), max_size=9)
SEEDS = st.integers(0, 2**64 - 1)
MIXINGS = st.builds(
    lambda block, extra, group: Mixing(block_rows=block, window_rows=block + extra, group_shards=group),
    st.integers(1, 9),
    st.integers(0, 40),
    st.integers(1, 6),
)
ORDERS = st.builds(EpochOrder, SIZES, SEEDS, st.integers(0, 5), st.booleans(), MIXINGS)


def read(order: EpochOrder, begin: int, split: Split, tail: Tail) -> list[int]:
    """The rows that one reader reads from position `begin` on."""
    rows: list[int] = []
    for window in order.windows(begin, split.end(begin, order.total, tail)):
        rows += window.rows[split.positions(begin, window.start, window.stop) - window.start].tolist()
    return rows


def rank_batches(
    order: EpochOrder, begin: int, rank: int, world: int, workers: int, b: int, tail: Tail
) -> list[list[int]]:
    """The batches of a rank in the order in which a DataLoader asks its workers for them."""
    streams = [read(order, begin, Split(rank, world, worker, workers, b), tail) for worker in range(workers)]
    queues = [[rows[i : i + b] for i in range(0, len(rows), b)] for rows in streams]
    return [queue[turn] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)]


@given(ORDERS)
def test_every_row_stands_at_one_position(order: EpochOrder) -> None:
    rows = order.rows()
    assert rows.dtype == np.int64
    assert np.array_equal(np.sort(rows), np.arange(order.total))
    if not order.shuffle:
        assert np.array_equal(rows, np.arange(order.total))


@given(ORDERS, st.data())
def test_windows_from_any_position_continue_the_same_order(order: EpochOrder, data: st.DataObject) -> None:
    rows = order.rows()
    start = data.draw(st.integers(0, order.total))
    stop = data.draw(st.integers(start, 3 * order.total))
    position = start
    for window in order.windows(start, stop):
        assert window.start == position
        assert len(window.rows)
        assert np.array_equal(window.rows, rows[np.arange(window.start, window.stop) % order.total])
        position = window.stop
    assert position == stop


@given(ORDERS, st.integers(1, 6), st.integers(1, 4), st.integers(1, 7), st.data())
def test_ranks_and_workers_read_every_sample_once(
    order: EpochOrder, world: int, workers: int, batch_size: int, data: st.DataObject
) -> None:
    begin = data.draw(st.integers(0, order.total))
    seen: list[int] = []
    for rank in range(world):
        splits = [Split(rank, world, worker, workers, batch_size) for worker in range(workers)]
        mine = [read(order, begin, split, "ragged") for split in splits]
        assert sum(map(len, mine)) == Split(rank, world).rank_samples(begin, order.total, "ragged")
        seen += [row for rows in mine for row in rows]
    assert sorted(seen) == sorted(order.rows()[begin:].tolist())


@given(ORDERS, st.integers(1, 6), st.integers(1, 4), st.integers(1, 7), st.sampled_from(["pad", "drop"]))
def test_all_ranks_get_equal_batches(order: EpochOrder, world: int, workers: int, batch_size: int, tail: Tail) -> None:
    ranks = [rank_batches(order, 0, rank, world, workers, batch_size, tail) for rank in range(world)]
    sizes = [[len(batch) for batch in batches] for batches in ranks]
    assert sizes == [sizes[0]] * world
    assert sum(sizes[0]) == Split(0, world).rank_samples(0, order.total, tail)
    # Whole batches: only the last one of a rank may be short.
    assert all(size == batch_size for size in sizes[0][:-1])
    counts = np.bincount([row for batches in ranks for batch in batches for row in batch], minlength=order.total)
    if tail == "drop":
        assert counts.max(initial=0) <= 1
        assert order.total - counts.sum() == order.total % world
    elif order.total:
        assert counts.min() >= 1
        assert counts.sum() == -(-order.total // world) * world
        # What is repeated is the beginning of the epoch.
        again = np.arange(order.total, counts.sum()) % order.total
        assert np.array_equal(counts - 1, np.bincount(order.rows()[again], minlength=order.total))


@given(ORDERS, st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(1, 6))
def test_batches_do_not_depend_on_the_number_of_workers(
    order: EpochOrder, world: int, workers: int, other: int, batch_size: int
) -> None:
    for rank in range(world):
        batches = rank_batches(order, 0, rank, world, workers, batch_size, "ragged")
        assert batches == rank_batches(order, 0, rank, world, other, batch_size, "ragged")


@given(
    ORDERS,
    st.tuples(st.integers(1, 4), st.integers(1, 3)),
    st.tuples(st.integers(1, 4), st.integers(1, 3)),
    st.integers(1, 5),
    st.data(),
)
def test_stopping_and_going_on_with_other_ranks_and_workers_misses_and_doubles_nothing(
    order: EpochOrder, first: tuple[int, int], second: tuple[int, int], batch_size: int, data: st.DataObject
) -> None:
    world, workers = first
    ranks = [rank_batches(order, 0, rank, world, workers, batch_size, "ragged") for rank in range(world)]
    steps = data.draw(st.integers(0, max(map(len, ranks))))
    seen = [row for batches in ranks for batch in batches[:steps] for row in batch]
    cursor = min(order.total, steps * batch_size * world)
    assert sorted(seen) == sorted(order.rows()[:cursor].tolist())
    world, workers = second
    for rank in range(world):
        for batch in rank_batches(order, cursor, rank, world, workers, batch_size, "ragged"):
            seen += batch
    assert sorted(seen) == list(range(order.total))


@given(SIZES.filter(lambda sizes: sum(sizes) > 30), SEEDS, MIXINGS)
def test_seed_and_epoch_change_the_order(sizes: Sequence[int], seed: int, mixing: Mixing) -> None:
    rows = EpochOrder(sizes, seed, 0, True, mixing).rows()
    assert np.array_equal(rows, EpochOrder(list(sizes), seed, 0, True, mixing).rows())
    assert not np.array_equal(rows, EpochOrder(sizes, seed, 1, True, mixing).rows())
    assert not np.array_equal(rows, EpochOrder(sizes, seed ^ 1, 0, True, mixing).rows())


def digest(rows: np.ndarray) -> str:
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:16]


def test_the_order_is_the_one_that_order_version_1_defines() -> None:
    # If this fails the order has changed, and saved positions of earlier releases point elsewhere: raise ORDER_VERSION.
    assert permutation(8, stream_key(1, 2)).tolist() == [2, 4, 1, 7, 0, 5, 3, 6]
    mixing = Mixing(block_rows=4, window_rows=24, group_shards=2)
    rows = EpochOrder([5, 0, 7, 4], seed=3, epoch=1, mixing=mixing).rows()
    assert rows.tolist() == [4, 1, 2, 12, 14, 13, 15, 0, 3, 6, 9, 10, 5, 11, 7, 8]
    assert digest(EpochOrder([1000, 2000, 500, 1], seed=2**64 - 1, epoch=9).rows()) == "edad191022413f1c"
    # More than one slab.
    assert digest(EpochOrder([600_000] * 3, mixing=Mixing(64, 4096)).rows()) == "d6f01e6727ac689f"


def test_a_million_rows_mix_as_the_docstring_says() -> None:
    order = EpochOrder([50_000] * 20, seed=5, mixing=Mixing.for_payloads(2048))
    rows = order.rows()
    assert 0.7 < effective_batch(rows, 64) < 0.95
    assert 0.4 < effective_batch(rows, 256) < 0.65
    assert effective_batch(np.arange(1_000_000), 64) == pytest.approx(1 / 64, rel=0.01)
    assert effective_batch(permutation(1_000_000, 7), 64) == pytest.approx(1, rel=0.1)
    # Reading stays sequential: the first window is made of whole blocks.
    first = np.sort(next(order.windows()).rows)
    reads = 1 + np.count_nonzero(np.diff(first) != 1)
    assert reads <= len(first) / 128 * 1.2


def test_windows_are_bounded_whatever_the_size_of_the_data_set() -> None:
    mixing = Mixing(block_rows=16, window_rows=1000, group_shards=4)
    lengths = [len(window.rows) for window in EpochOrder([30_000] * 50, mixing=mixing).windows()]
    assert sum(lengths) == 1_500_000
    assert max(lengths) < 1000 + 2 * 16


def test_rows_of_a_block_part_in_the_next_epoch() -> None:
    mixing = Mixing(block_rows=50, window_rows=50)
    runs = [
        {frozenset(window.rows.tolist()) for window in EpochOrder([1000], 1, epoch, True, mixing).windows()}
        for epoch in range(2)
    ]
    assert not runs[0] & runs[1]


@pytest.mark.parametrize(
    ("payload_bytes", "block_rows", "window_rows"),
    [(0, 256, 65536), (100, 256, 65536), (2048, 128, 32768), (100_000, 2, 671), (2**19, 1, 128), (2**30, 1, 1)],
)
def test_mixing_follows_the_size_of_the_payloads(payload_bytes: int, block_rows: int, window_rows: int) -> None:
    assert Mixing.for_payloads(payload_bytes) == Mixing(block_rows, window_rows)


def test_few_samples() -> None:
    empty = EpochOrder([])
    assert empty.rows().tolist() == []
    assert read(empty, 0, Split(1, 3), "pad") == []
    assert Split(1, 3).rank_samples(0, 0, "pad") == 0
    one = EpochOrder([0, 1, 0], seed=8)
    assert [read(one, 0, Split(rank, 3), "pad") for rank in range(3)] == [[0], [0], [0]]
    assert [read(one, 0, Split(rank, 3), "drop") for rank in range(3)] == [[], [], []]
    assert [read(one, 0, Split(rank, 3), "ragged") for rank in range(3)] == [[0], [], []]
    # The cursor of a padded epoch may lie beyond its end: nothing is left then.
    assert Split(0, 2).rank_samples(4, 3, "pad") == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: EpochOrder([3, -1]), "Shard sizes hold -1"),
        (lambda: EpochOrder([3], seed=-1), "seed is -1"),
        (lambda: EpochOrder([3], seed=2**64), "seed is 18446744073709551616"),
        (lambda: EpochOrder([3], epoch=-2), "epoch is -2"),
        (lambda: Mixing(block_rows=9, window_rows=8), "block_rows"),
        (lambda: Mixing(block_rows=0), "block_rows"),
        (lambda: Mixing(group_shards=0), "group_shards"),
        (lambda: Split(2, 2), "Rank 2 of 2"),
        (lambda: Split(0, 1, 3, 3), "Worker 3 of 3"),
        (lambda: Split(batch_size=0), "batch size is 0"),
        (lambda: effective_batch(np.arange(10), 6), "fewer than two batches"),
    ],
)
def test_wrong_numbers_are_refused_in_words(make: object, words: str) -> None:
    assert callable(make)
    with pytest.raises(UsageError, match=words):
        make()

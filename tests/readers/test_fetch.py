from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilc_stream.errors import StorageError
from pilc_stream.readers import fetch as room
from pilc_stream.readers.fetch import GAP_BYTES, REQUEST_BYTES, Prefetcher, fetch
from pilc_stream.readers.pieces import Pieces
from pilc_stream.storage import RetryPolicy, Store


class MemoryStore(Store):
    """Objects in memory; counts what is asked for."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__("memory://nowhere", {}, RetryPolicy())
        self.objects = objects
        self.requests: list[tuple[str, int, int]] = []

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self.requests += [(path, offset, length) for offset, length in ranges]
        if path not in self.objects:
            raise StorageError(f"{path}: not found")
        return [self.objects[path][offset : offset + length] for offset, length in ranges]


def pieces_of(paths: Sequence[str], wanted: Sequence[tuple[int, int, int]]) -> Pieces:
    path, offset, length = np.array(wanted, np.int64).reshape(-1, 3).T
    return Pieces(paths, path, offset, length, np.full(len(path), -1))


def random_bytes(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 3 * GAP_BYTES), st.integers(0, 900)), max_size=12), max_size=3),
    st.data(),
)
def test_pieces_come_back_in_the_order_in_which_they_were_asked_for(
    objects: list[list[tuple[int, int]]], data: st.DataObject
) -> None:
    store, places = MemoryStore({}), []
    for number, layout in enumerate(objects):
        at = 0
        for gap, length in layout:
            places.append((number, at + gap, length))
            at += gap + length
        store.objects[f"object-{number}"] = random_bytes(at, number)
    wanted = data.draw(st.lists(st.sampled_from(places), max_size=20)) if places else []
    pieces = pieces_of(sorted(store.objects), wanted)
    expected = [store.objects[f"object-{number}"][at : at + length] for number, at, length in wanted]
    assert fetch(store, pieces) == expected
    assert len(store.requests) <= len(wanted)
    assert pieces.total_bytes == sum(map(len, expected))


def test_close_pieces_are_one_request_and_far_ones_are_not() -> None:
    store = MemoryStore({"a": random_bytes(4 * GAP_BYTES), "b": random_bytes(1000)})
    near, far = 100 + GAP_BYTES, 2 * 100 + 2 * GAP_BYTES + 1
    fetch(store, pieces_of(["a", "b"], [(1, 0, 10), (0, near, 100), (0, 0, 100), (0, far, 100)]))
    assert sorted(store.requests) == [("a", 0, near + 100), ("a", far, 100), ("b", 0, 10)]


def test_a_long_run_is_cut_into_requests() -> None:
    size, step = 3 * REQUEST_BYTES, 1 << 18
    store = MemoryStore({"a": random_bytes(size)})
    data = fetch(store, pieces_of(["a"], [(0, at, step) for at in range(0, size, step)]))
    assert b"".join(data) == store.objects["a"]
    assert sorted(store.requests) == [("a", at, REQUEST_BYTES) for at in range(0, size, REQUEST_BYTES)]


def test_nothing_is_asked_for_nothing() -> None:
    store = MemoryStore({})
    assert fetch(store, pieces_of([], [])) == []
    assert store.requests == []


def test_the_prefetcher_keeps_the_order_and_the_limit() -> None:
    store = MemoryStore({"a": random_bytes(10_000)})
    planned = 0

    def plan() -> Iterator[tuple[int, Pieces]]:
        nonlocal planned
        for number in range(50):
            planned = number + 1
            yield number, pieces_of(["a"], [(0, 100 * number, 100)])

    with Prefetcher(store, plan(), 350) as parcels:
        for expected, (number, data) in enumerate(parcels):
            # Held: at most three parcels of 100 bytes; planned: one more that waits for room.
            assert planned <= expected + 4
            assert number == expected
            assert data == [store.objects["a"][100 * number : 100 * number + 100]]
    assert planned == 50


def test_a_parcel_above_the_limit_is_read_alone() -> None:
    store = MemoryStore({"a": random_bytes(100)})
    plan = [(number, pieces_of(["a"], [(0, 0, 100)])) for number in range(3)]
    with Prefetcher(store, plan, 1) as parcels:
        assert [number for number, _ in parcels] == [0, 1, 2]


def test_errors_of_reads_and_plans_reach_the_consumer() -> None:
    store = MemoryStore({"a": b"abc"})

    def plan() -> Iterator[tuple[int, Pieces]]:
        yield 0, pieces_of(["a"], [(0, 0, 3)])
        raise ValueError("no more plans")

    with Prefetcher(store, plan(), 10) as parcels:
        reading = iter(parcels)
        assert next(reading) == (0, [b"abc"])
        with pytest.raises(ValueError, match="no more plans"):
            next(reading)
    missing = [(0, pieces_of(["b"], [(0, 0, 1), (0, 1, 1)]))]
    with Prefetcher(store, missing, 10) as parcels, pytest.raises(StorageError, match="b: not found"):
        list(parcels)


def test_leaving_early_stops_the_threads() -> None:
    before = set(threading.enumerate())
    store = MemoryStore({"a": b"abc"})
    plan = ((number, pieces_of(["a"], [(0, 0, 3)])) for number in range(10**9))
    with Prefetcher(store, plan, 30) as parcels:
        next(iter(parcels))
    deadline = time.monotonic() + 30
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before
    assert len(store.requests) <= 12


def test_what_is_let_go_of_makes_room_for_what_comes() -> None:
    step = 2 * GAP_BYTES
    store = MemoryStore({"a": random_bytes(8 * step)})
    plan = [(number, pieces_of(["a"], [(0, (4 * number + at) * step, 100) for at in range(4)])) for number in (0, 1)]
    with Prefetcher(store, iter(plan), 400) as parcels:
        reading = iter(parcels)
        number, data = next(reading)
        assert (number, len(data)) == (0, 4)
        # The first parcel, in our hands, is all that may be held; a part of it makes room for a part of the second.
        for released in range(3):
            assert len(store.requests) == 4 + released
            parcels.release(100)
            deadline = time.monotonic() + 30
            while len(store.requests) < 5 + released and time.monotonic() < deadline:
                time.sleep(0.01)
        # More than is held cannot be let go of.
        parcels.release(10_000)
        assert next(reading) == (1, [store.objects["a"][at * step :][:100] for at in range(4, 8)])
        assert list(reading) == []


def test_ranges_are_asked_for_by_several_threads() -> None:
    together = threading.Barrier(room.REQUESTS)

    class MeetingStore(MemoryStore):
        def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
            together.wait(30)
            return super().read_ranges(path, ranges)

    store = MeetingStore({"a": random_bytes(10_000)})
    ranges = [(3 * number, number % 7) for number in range(2 * room.REQUESTS)]
    found = room.SideBySide(store).read_ranges("a", ranges)
    assert found == [store.objects["a"][offset : offset + length] for offset, length in ranges]


def test_requests_run_side_by_side() -> None:
    together = threading.Barrier(room.REQUESTS)

    class MeetingStore(MemoryStore):
        def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
            together.wait(30)
            return super().read_ranges(path, ranges)

    step = GAP_BYTES * 2
    store = MeetingStore({"a": random_bytes(step * room.REQUESTS)})
    assert len(fetch(store, pieces_of(["a"], [(0, at * step, 5) for at in range(room.REQUESTS)]))) == room.REQUESTS

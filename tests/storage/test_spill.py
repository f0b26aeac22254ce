from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from pilc_stream.storage.spill import sorted_stream


@given(st.lists(st.tuples(st.text(max_size=3), st.integers())), st.integers(1, 20))
def test_it_sorts_whatever_the_size_of_a_run(items: list[tuple[str, int]], run_items: int) -> None:
    assert list(sorted_stream(items, run_items)) == sorted(items)


def test_memory_grows_with_a_run_not_with_the_items() -> None:
    numbers = random.Random(0)

    def items(count: int) -> Iterator[str]:
        return (f"{numbers.random():.12f}" for _ in range(count))

    def peak_of(count: int) -> int:
        tracemalloc.start()
        previous = ""
        for item in sorted_stream(items(count), 2_000):
            assert item >= previous
            previous = item
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    # All items at once would take 6 MB.
    assert peak_of(80_000) < 2_500_000


def test_what_is_read_only_in_part_leaves_no_file_open() -> None:
    stream = sorted_stream(range(100, 0, -1), 10)
    assert isinstance(stream, Iterator)
    assert next(stream) == 1
    del stream

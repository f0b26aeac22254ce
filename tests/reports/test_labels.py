"""Labels are moved apart as little as possible, and put where they cover least."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilc_stream.reports.labels import best_place, outside, overlap, points_between, spread

POSITIONS = st.lists(st.floats(0, 100), max_size=12)


def test_what_has_room_stays() -> None:
    assert spread([5.0, 1.0, 9.0], 2.0, 0.0, 10.0) == [5.0, 1.0, 9.0]


def test_neighbours_give_way_to_both_sides() -> None:
    assert spread([5.0, 5.5, 9.0], 1.5, 0.0, 10.0) == [4.5, 6.0, 9.0]


def test_all_are_kept_inside() -> None:
    assert spread([9.9, 10.0], 1.0, 0.0, 10.0) == [9.0, 10.0]
    assert spread([0.0, 0.1], 1.0, 0.0, 10.0) == [0.0, 1.0]


@given(POSITIONS, st.floats(0.1, 5))
def test_labels_keep_their_order_and_distance(positions: list[float], gap: float) -> None:
    moved = spread(positions, gap, 0.0, 100.0)
    assert len(moved) == len(positions)
    for low, high in pairwise(sorted(moved)):
        assert high - low >= gap - 1e-6
    for i, a in enumerate(positions):
        for j, b in enumerate(positions):
            if a < b:
                assert moved[i] < moved[j]
    if gap * len(positions) <= 100:
        assert all(-1e-6 <= place <= 100 + 1e-6 for place in moved)


def test_boxes_share_what_they_share() -> None:
    assert overlap((0, 0, 2, 2), (1, 1, 5, 3)) == 1
    assert overlap((0, 0, 2, 2), (3, 0, 5, 2)) == 0
    assert outside((0, 0, 2, 2), (1, 0, 9, 9)) == 2


def test_a_label_goes_where_it_covers_least() -> None:
    frame = (0.0, 0.0, 10.0, 10.0)
    right, left, off = (5.0, 5.0, 7.0, 6.0), (2.0, 5.0, 4.0, 6.0), (9.0, 5.0, 12.0, 6.0)
    assert best_place([right, left], [], frame) == 0
    assert best_place([right, left], [(6.0, 5.0, 8.0, 6.0)], frame) == 1
    assert best_place([off, right], [], frame) == 1


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=1, max_size=5))
def test_points_along_a_line_are_close(corners: list[tuple[float, float]]) -> None:
    points = points_between(corners, 3.0)
    assert points[-1] == corners[-1]
    assert {*corners} <= {*points}
    assert all(math.dist(a, b) <= 3.0 + 1e-9 for a, b in pairwise(points))


def test_no_line_has_no_points() -> None:
    assert points_between([], 1.0) == []
    assert points_between([(1.0, 2.0)], 1.0) == [(1.0, 2.0)]
    assert points_between([(0.0, 0.0), (0.0, 2.0)], 1.0) == [(0.0, 0.0), (0.0, pytest.approx(1.0)), (0.0, 2.0)]

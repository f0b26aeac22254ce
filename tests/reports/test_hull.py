"""The hull of rate and speed: convex, rising, and nothing lies below it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilc_stream.reports.hull import TOLERANCE, height_at, lies_on, lower_hull

POINTS = st.lists(
    st.tuples(st.integers(-20, 20), st.integers(0, 20)).map(lambda point: (float(point[0]), float(point[1]))),
    min_size=1,
    max_size=12,
)


def test_a_hull_by_hand() -> None:
    slow_and_large, best, middle, above, fast = (0.0, 5.0), (1.0, 2.0), (2.0, 2.5), (2.0, 4.0), (4.0, 5.0)
    hull = lower_hull([slow_and_large, fast, above, middle, best])
    assert hull == [best, middle, fast]
    on_hull = [lies_on(hull, point) for point in (slow_and_large, best, middle, above, fast)]
    assert on_hull == [False, True, True, False, True]


def test_the_hull_is_level_for_lower_speeds_and_ends_at_the_fastest() -> None:
    hull = lower_hull([(1.0, 2.0), (3.0, 4.0)])
    assert [height_at(hull, x) for x in (-9.0, 1.0, 2.0, 3.0, 3.1)] == [2.0, 2.0, 3.0, 4.0, None]
    assert height_at([], 0.0) is None


def test_a_newcomer_is_measured_against_the_hull() -> None:
    hull = lower_hull([(1.0, 2.0), (3.0, 4.0)])
    assert lies_on(hull, (2.0, 2.9))
    assert lies_on(hull, (2.0, 3.0))
    assert not lies_on(hull, (2.0, 3.1))
    assert lies_on(hull, (5.0, 9.0)), "faster than all"
    assert lies_on(hull, (0.0, 1.9)), "smaller than all"
    assert not lies_on(hull, (0.0, 2.0)), "as small as one that is faster"


def test_points_on_a_straight_line_all_lie_on_the_hull() -> None:
    whole, broken = [(1.0 * i, 3.0 * i) for i in range(5)], [(0.1 * i, 0.3 * i) for i in range(5)]
    assert lower_hull(whole) == [whole[0], whole[-1]]
    assert all(lies_on(lower_hull(points), point) for points in (whole, broken) for point in points)


@given(POINTS)
def test_a_hull_is_convex_and_rises(points: list[tuple[float, float]]) -> None:
    hull = lower_hull(points)
    assert set(hull) <= set(points)
    slopes = [(y1 - y0) / (x1 - x0) for (x0, y0), (x1, y1) in pairwise(hull)]
    assert all(slope > 0 for slope in slopes)
    assert all(a < b for a, b in pairwise(slopes))


@given(POINTS)
def test_no_point_lies_below_and_every_vertex_lies_on(points: list[tuple[float, float]]) -> None:
    hull = lower_hull(points)
    for x, y in points:
        height = height_at(hull, x)
        assert height is not None
        assert y >= height - TOLERANCE
    assert all(lies_on(hull, vertex) for vertex in hull)
    # Whoever is beaten by another point does not lie on the hull.
    for x, y in points:
        if any(other_x > x and other_y <= y for other_x, other_y in points):
            assert not lies_on(hull, (x, y))


@given(POINTS, st.randoms())
def test_the_order_of_the_points_does_not_matter(points: list[tuple[float, float]], random: object) -> None:
    shuffled = list(points)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert lower_hull(shuffled) == lower_hull(points)


def test_no_points_have_no_hull() -> None:
    assert lower_hull([]) == []
    assert lies_on([], (1.0, 1.0))


def test_the_distance_at_a_speed_is_what_interpolates() -> None:
    hull = lower_hull([(0.0, 2.0), (2.0, 3.0), (3.0, 6.0)])
    assert height_at(hull, 0.5) == pytest.approx(2.25)
    assert height_at(hull, 2.5) == pytest.approx(4.5)

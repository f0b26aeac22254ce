"""The hull of a rate-speed plane, where more speed and fewer bits are better.

Points are `(x, y)`, `x` being the logarithm of a speed and `y` a rate. A codec as good as a point is also good for any
lower speed and any higher rate, so the hull is that of the quadrants to the upper left of the points: a convex line
that rises from the smallest rate, which also holds for all lower speeds, to the fastest point. Beyond that is nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Point = tuple[float, float]

TOLERANCE = 1e-9
"""Rates nearer than this are equal: the rounding of an interpolation is no distance."""


def lower_hull(points: Iterable[Point]) -> list[Point]:
    """The hull's vertices from the slowest to the fastest; empty for no points."""
    hull: list[Point] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        # Slower without fewer bits: dominated.
        while hull and hull[-1][1] >= y:
            hull.pop()
        while len(hull) > 1 and _turns_down(hull[-2], hull[-1], (x, y)):
            hull.pop()
        hull.append((x, y))
    return hull


def height_at(hull: Sequence[Point], x: float) -> float | None:
    """The smallest rate that the hull reaches at `x`; None beyond its fastest vertex, and for an empty hull."""
    if not hull or x > hull[-1][0]:
        return None
    if x <= hull[0][0]:
        return hull[0][1]
    right = next(index for index, vertex in enumerate(hull) if vertex[0] >= x)
    (x0, y0), (x1, y1) = hull[right - 1], hull[right]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def lies_on(hull: Sequence[Point], point: Point) -> bool:
    """Whether the point is on the hull's line or better than it; on the flat part to the left it is not: some vertex
    is faster at the same rate."""
    x, y = point
    height = height_at(hull, x)
    if height is None:
        return True
    return y < height - TOLERANCE or (y <= height + TOLERANCE and x >= hull[0][0])


def _turns_down(a: Point, b: Point, c: Point) -> bool:
    """Whether `b` lies on or above the line from `a` to `c`."""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])

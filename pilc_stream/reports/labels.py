"""Labels of a plot that do not cover each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The positions, moved as little as possible (least squares) so that neighbours are `gap` apart, in order, and all
    lie in `low` to `high`; where there is no room for all, they reach beyond `high`."""
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    # With the gaps taken out, "at least `gap` apart" is "not falling": an isotonic regression, by pooling.
    pools: list[tuple[float, int]] = []
    for rank, index in enumerate(order):
        total, count = positions[index] - rank * gap, 1
        while pools and pools[-1][0] / pools[-1][1] >= total / count:
            more, members = pools.pop()
            total, count = total + more, count + members
        pools.append((total, count))
    flat = [total / count for total, count in pools for _ in range(count)]
    highest = max(low, high - gap * (len(positions) - 1))
    moved = [min(max(value, low), highest) + rank * gap for rank, value in enumerate(flat)]
    return [place for _, place in sorted(zip(order, moved, strict=True))]


def overlap(a: Box, b: Box) -> float:
    """The area that two boxes share."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)


def outside(a: Box, frame: Box) -> float:
    """The area of a box that lies outside a frame."""
    return (a[2] - a[0]) * (a[3] - a[1]) - overlap(a, frame)


def points_between(corners: Sequence[tuple[float, float]], step: float) -> list[tuple[float, float]]:
    """Points along the line through `corners`, at most `step` apart."""
    points = []
    for (x0, y0), (x1, y1) in pairwise(corners):
        count = math.ceil(math.hypot(x1 - x0, y1 - y0) / step)
        points += [(x0 + (x1 - x0) * i / count, y0 + (y1 - y0) * i / count) for i in range(count)]
    return [*points, *corners[-1:]]


def best_place(candidates: Sequence[Box], taken: Sequence[Box], frame: Box) -> int:
    """The index of the candidate that covers least of what is taken and of what is outside; the first of equals."""
    costs = [sum(overlap(box, other) for other in taken) + outside(box, frame) for box in candidates]
    return costs.index(min(costs))

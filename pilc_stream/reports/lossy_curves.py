"""Rate-distortion curves, and what one saves against another: Bjontegaard's measure (VCEG-M33, 2001).

The logarithm of the rate is interpolated over PSNR by a piecewise cubic that keeps the data's monotony (PCHIP: Fritsch
and Carlson's limits on Fritsch and Butland's slopes), as standards bodies do now, not by one cubic through all points.
The saving is the mean difference of the logarithms over the PSNR that both curves reach.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

LEAST_POINTS = 3
LEAST_OVERLAP_DB = 0.5
"""Two curves that share less are not compared."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A codec's `points` on a set: (bits per pixel, PSNR in dB), both rising."""

    name: str
    points: tuple[tuple[float, float], ...]


def curve_of(name: str, points: Sequence[tuple[float, float]]) -> Curve:
    """The curve of measured points, by rate; points that cost more for no better picture are left out."""
    rising: list[tuple[float, float]] = []
    for rate, psnr in sorted(points):
        if not rising or (rate > rising[-1][0] and psnr > rising[-1][1]):
            rising.append((rate, psnr))
    return Curve(name, tuple(rising))


def anchors() -> tuple[str, list[Curve]]:
    """The published curves on Kodak that come with the package, and where they are from."""
    document = json.loads((resources.files("pilc_stream.reports") / "lossy_anchors.json").read_text())
    curves = [curve_of(name, [(rate, psnr) for rate, psnr in found]) for name, found in document["curves"].items()]
    return document["source"], curves


def rate_saving(curve: Curve, reference: Curve, rates: tuple[float, float] | None = None) -> float | None:
    """How much less `curve` takes than `reference` for the same PSNR, as a share: 0.3 is 30 % smaller.

    With `rates`, only where the reference takes so many bits per pixel. None where the curves share too little.
    """
    if min(len(curve.points), len(reference.points)) < LEAST_POINTS:
        return None
    ours, theirs = _Interpolated(curve), _Interpolated(reference)
    low, high = max(ours.low, theirs.low), min(ours.high, theirs.high)
    if rates is not None:
        low, high = max(low, theirs.psnr_at(rates[0])), min(high, theirs.psnr_at(rates[1]))
    if high - low < LEAST_OVERLAP_DB:
        return None
    return 1 - math.exp((ours.integral(low, high) - theirs.integral(low, high)) / (high - low))


def psnr_at(curve: Curve, rate: float) -> float | None:
    """The PSNR of a curve at a rate; None outside of it."""
    if len(curve.points) < LEAST_POINTS or not curve.points[0][0] <= rate <= curve.points[-1][0]:
        return None
    return _Interpolated(curve).psnr_at(rate)


class _Interpolated:
    """The natural logarithm of the rate over PSNR."""

    def __init__(self, curve: Curve) -> None:
        self.psnr = np.array([psnr for _, psnr in curve.points])
        self.log_rate = np.log([rate for rate, _ in curve.points])
        self.slopes = _slopes(self.psnr, self.log_rate)
        self.low, self.high = float(self.psnr[0]), float(self.psnr[-1])

    def at(self, psnr: Floats) -> Floats:
        """The logarithms at values of PSNR between the first and the last."""
        place = np.clip(np.searchsorted(self.psnr, psnr, side="right") - 1, 0, len(self.psnr) - 2)
        width = self.psnr[place + 1] - self.psnr[place]
        t = (psnr - self.psnr[place]) / width
        from_left = (1 + 2 * t) * (1 - t) ** 2 * self.log_rate[place] + t * (1 - t) ** 2 * width * self.slopes[place]
        from_right = t**2 * (3 - 2 * t) * self.log_rate[place + 1] + t**2 * (t - 1) * width * self.slopes[place + 1]
        return np.asarray(from_left + from_right)

    def integral(self, low: float, high: float) -> float:
        """Over PSNR; Simpson's rule on each piece, which is exact for cubics."""
        edges = np.array([low, *(knot for knot in self.psnr if low < knot < high), high])
        starts, stops = edges[:-1], edges[1:]
        # The middle of a piece is inside it; its ends may be read from either side.
        values = self.at(starts) + 4 * self.at((starts + stops) / 2) + self.at(stops)
        return float(((stops - starts) * values / 6).sum())

    def psnr_at(self, rate: float) -> float:
        """The PSNR at a rate; that of the nearest end where the curve has no such rate."""
        wanted = math.log(rate)
        low, high = self.low, self.high
        if wanted <= self.log_rate[0] or wanted >= self.log_rate[-1]:
            return low if wanted <= self.log_rate[0] else high
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.at(np.array([middle]))[0] < wanted else (low, middle)
        return low


def _slopes(x: Floats, y: Floats) -> Floats:
    """The slopes of PCHIP at the knots."""
    widths, secants = np.diff(x), np.diff(y) / np.diff(x)
    slopes = np.empty_like(x)
    # Weighted harmonic means of the neighbouring secants, all positive on a rising curve.
    before, after = 2 * widths[1:] + widths[:-1], widths[1:] + 2 * widths[:-1]
    slopes[1:-1] = (before + after) / (before / secants[:-1] + after / secants[1:])
    slopes[0] = _end_slope(widths[0], widths[1], secants[0], secants[1])
    slopes[-1] = _end_slope(widths[-1], widths[-2], secants[-1], secants[-2])
    return slopes


def _end_slope(width: float, next_width: float, secant: float, next_secant: float) -> float:
    """Of the parabola through three points, kept within what is monotone."""
    slope = ((2 * width + next_width) * secant - width * next_secant) / (width + next_width)
    return min(max(slope, 0.0), 3 * secant)

"""Small plots as SVG, written by hand: a report must open anywhere, without a library and without a network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

WIDTH: Final = 640
HEIGHT: Final = 220
_LEFT: Final = 64
_BOTTOM: Final = 40
_TOP: Final = 12
_STYLE: Final = "font-family='sans-serif' font-size='11' fill='currentColor'"


def bars(values: Sequence[tuple[str, float]], unit: str) -> str:
    """Upright bars, each with its label below; `unit` is written at the axis. Labels are left out where they crowd."""
    top = max((value for _, value in values), default=0.0)
    step = (WIDTH - _LEFT) / max(1, len(values))
    every = max(1, round(40 / step))
    parts = []
    for position, (label, value) in enumerate(values):
        height = _scaled(value, top)
        x = _LEFT + position * step
        parts.append(
            f"<rect x='{x + 1:.1f}' y='{HEIGHT - _BOTTOM - height:.1f}' width='{max(1.0, step - 2):.1f}' "
            f"height='{height:.1f}' fill='#3b82c4'><title>{escape(label)}: {value:g}</title></rect>"
        )
        if position % every == 0:
            parts.append(_text(x + step / 2, HEIGHT - _BOTTOM + 14, label, "middle"))
    return _figure(parts, top, unit)


def line(points: Sequence[tuple[float, float]], unit: str, below: str) -> str:
    """A line through `points` (x rising); `unit` names what rises, `below` what runs from left to right."""
    top = max((y for _, y in points), default=0.0)
    first, last = (points[0][0], points[-1][0]) if points else (0.0, 0.0)
    span = (last - first) or 1.0
    path = " ".join(
        f"{_LEFT + (x - first) / span * (WIDTH - _LEFT - 8):.1f},{HEIGHT - _BOTTOM - _scaled(y, top):.1f}"
        for x, y in points
    )
    parts = [f"<polyline points='{path}' fill='none' stroke='#3b82c4' stroke-width='2'/>"]
    parts += [_text(_LEFT, HEIGHT - _BOTTOM + 14, f"{first:g}", "start")]
    parts += [_text(WIDTH - 8, HEIGHT - _BOTTOM + 14, f"{last:.4g} {below}", "end")]
    return _figure(parts, top, unit)


def _figure(parts: Sequence[str], top: float, unit: str) -> str:
    axis = HEIGHT - _BOTTOM
    frame = (
        f"<line x1='{_LEFT}' y1='{axis}' x2='{WIDTH}' y2='{axis}' stroke='currentColor'/>"
        + _text(_LEFT - 6, _TOP + 8, f"{top:.4g}", "end")
        + _text(_LEFT - 6, axis, "0", "end")
        + _text(_LEFT - 6, _TOP + 22, unit, "end")
    )
    return f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' role='img'>{frame}{''.join(parts)}</svg>"


def _scaled(value: float, top: float) -> float:
    return (HEIGHT - _BOTTOM - _TOP) * value / top if top > 0 else 0.0


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' {_STYLE}>{escape(text)}</text>"

"""The plot of the lossy report: PSNR against rate by set; time against computation, and time by part, by device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilc_stream.reports.lossy_markdown import short
from pilc_stream.reports.lossy_report import CODER, DECODER_PARTS, DeviceTimes, LossyReport, ModelTime, SetCurves
from pilc_stream.reports.plot import DESCRIBED, RESOLUTION, label_points, require_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES = 13.0
ROW_INCHES = 5.0
RATE_LIMIT = 2.0
"""Bits per pixel up to which curves are drawn: beyond, nobody asks for a lossy codec."""

PROFILE_COLOURS = ("#1f5fb4", "#5b3fa8", "#0d7d86")
PEER_COLOURS = {"JPEG": "#8c8c8c", "WebP": "#3a9d6e", "AVIF": "#b3205e", "JPEG XL": "#d97a1f"}
OTHER_COLOUR = "#6b6b00"
PUBLISHED_STYLES = (("--", "#555555"), (":", "#111111"), ("-.", "#8a5a2b"), ((0, (6, 2, 1, 2, 1, 2)), "#7a7aa8"))
PART_COLOURS = {"synthesis": "#1f5fb4", "hyper_synthesis": "#3a9d6e", "entropy_model": "#d97a1f", CODER: "#8c8c8c"}


def lossy_digest(report: LossyReport) -> str:
    """The digest of what is drawn, hex."""
    values = report.to_json()
    drawn = {name: values[name] for name in ("sets", "devices")}
    return hashlib.sha256(json.dumps(drawn).encode()).hexdigest()


def draw_lossy(report: LossyReport, paths: Sequence[Path]) -> None:
    """Draw the plot into files, their formats being those of the suffixes. Raises UsageError without matplotlib."""
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = max(1, len(report.sets) + len(report.devices))
    with rc_context({"svg.hashsalt": "pilc", "svg.fonttype": "none", "font.size": 9.5}):
        figure = Figure(figsize=(WIDTH_INCHES, ROW_INCHES * rows), facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        _draw_rows(figure, report, rows)
        for path in paths:
            about: dict[str, Any] = {"Description": DESCRIBED + lossy_digest(report)}
            if path.suffix == ".svg":
                about["Date"] = None
            figure.savefig(path, dpi=RESOLUTION, metadata=about)


def _draw_rows(figure: Figure, report: LossyReport, rows: int) -> None:
    grid = figure.add_gridspec(rows, 2)
    for row, each in enumerate(report.sets):
        _draw_curves(figure.add_subplot(grid[row, 0]), each, RATE_LIMIT, legend=True)
        _draw_curves(figure.add_subplot(grid[row, 1]), each, RATE_LIMIT / 4, legend=False)
    panels = []
    for row, times in enumerate(report.devices, start=len(report.sets)):
        panels.append((figure.add_subplot(grid[row, 0]), times))
        _draw_computation(*panels[-1])
        _draw_parts(figure.add_subplot(grid[row, 1]), times)
    # Labels find their places among the points once these have theirs.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, times in panels:
        label_points(axes, figure.dpi, [_labelled(model) for model in times.models], [])


def _draw_curves(axes: Axes, each: SetCurves, limit: float, legend: bool) -> None:
    shown: list[float] = []

    def plot(points: Sequence[tuple[float, float]], **style: Any) -> None:
        inside = [point for point in points if point[0] <= limit]
        # One point more, cut off by the axis, so that the line goes on to its edge.
        inside = list(points[: len(inside) + 1])
        shown.extend(psnr for rate, psnr in inside if rate <= limit)
        axes.plot([rate for rate, _ in inside], [psnr for _, psnr in inside], **style)

    for number, curve in enumerate(each.published):
        style, colour = PUBLISHED_STYLES[number % len(PUBLISHED_STYLES)]
        plot(curve.points, color=colour, linestyle=style, linewidth=1.2, label=f"{curve.name} (published)")
    for curve in each.peers:
        colour = PEER_COLOURS.get(curve.name, OTHER_COLOUR)
        plot(curve.points, color=colour, linewidth=1.3, marker="s", markersize=3.5, label=curve.name)
    for number, curve in enumerate(each.profiles):
        colour = PROFILE_COLOURS[number % len(PROFILE_COLOURS)]
        plot(curve.points, color=colour, linewidth=2.4, marker="o", markersize=5, label=curve.name)
    axes.set_xlim(0, limit)
    if shown:
        margin = 0.04 * (max(shown) - min(shown) or 1)
        axes.set_ylim(min(shown) - margin, max(shown) + margin)
    _plain(axes, "bits per pixel, whole files", "PSNR of RGB, dB")
    title = f"{each.name} ({each.images} images)" if legend else f"{each.name}, up to {limit:g} bits per pixel"
    axes.set_title(title, loc="left", fontweight="bold", fontsize=11)
    if legend:
        axes.legend(loc="lower right", frameon=False, fontsize=9)


def _draw_computation(axes: Axes, times: DeviceTimes) -> None:
    for _, kflop, speed, colour in map(_labelled, times.models):
        axes.plot([kflop], [speed], "o", color=colour, markersize=7)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(0.09)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_tick)
        axis.set_minor_formatter(_tick)
    _plain(axes, "kFLOP per pixel to decode", "megapixels per second to decode, without coder")
    axes.set_title(f"On {times.device}", loc="left", fontweight="bold", fontsize=10)


def _labelled(model: ModelTime) -> tuple[str, float, float, str]:
    """A model's label, kFLOP per pixel, megapixels per second without coder, and colour."""
    label = model.name.removeprefix("lossy-")
    is_family = model.published is not None or label == "final"
    speed = 1 / sum(model.seconds_per_mp[part] for part in DECODER_PARTS)
    colour = PROFILE_COLOURS[1] if is_family else PROFILE_COLOURS[0]
    return label.upper() if len(label) == 1 else label, model.decoder_kflop, speed, colour


def _draw_parts(axes: Axes, times: DeviceTimes) -> None:
    names = [model.name for model in times.models]
    ends = [0.0] * len(names)
    for part, colour in PART_COLOURS.items():
        widths = [1000 * model.seconds_per_mp.get(part, 0.0) for model in times.models]
        axes.barh(names, widths, left=ends, color=colour, label=DECODER_PARTS.get(part, part), height=0.65)
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    for name, end in zip(names, ends, strict=True):
        axes.annotate(short(end), xy=(end, name), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.13 * max(ends, default=1.0))
    _plain(axes, "milliseconds per megapixel to decode", "")
    axes.set_title("Time by part", loc="left", fontweight="bold", fontsize=11)
    axes.legend(loc="lower right", frameon=False, fontsize=9)


def _tick(value: float, position: float = 0) -> str:
    """Labels 1, 2 and 5 times the powers of ten."""
    return f"{value:,g}" if f"{value:e}"[0] in "125" and value == float(f"{value:.0e}") else ""


def _plain(axes: Axes, horizontal: str, vertical: str) -> None:
    axes.set_xlabel(horizontal)
    axes.set_ylabel(vertical)
    axes.grid(True, which="major", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)

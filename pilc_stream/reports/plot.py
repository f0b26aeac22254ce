"""The plot of the frontier: a row per set; bits per sub-pixel against MACs per pixel, and against speed of decoding.

Profiles are a connected line, in the panel of speeds one for each device. Peers have no number of MACs: there they are
levels, and points among the speeds. A peer that is far above all others stands at the upper edge with its rate.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilc_stream.errors import UsageError
from pilc_stream.reports.hull import lower_hull
from pilc_stream.reports.labels import Box, best_place, points_between, spread
from pilc_stream.reports.report import Report, SetReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[str, float, float]
"""A codec, where it stands on the horizontal axis, its bits per sub-pixel."""

WIDTH_INCHES = 13.0
ROW_INCHES = 3.7
LEGEND_INCHES = 0.9
LABEL_POINTS = 8.5
RESOLUTION = 110
PEER_COLOURS = {"PNG": "#8c8c8c", "WebP": "#3a9d6e"}
EFFORT_STEPS = (4, 7, 9)
EFFORT_COLOURS = ("#e8a33d", "#d97a1f", "#b4540a", "#7d3504")
"""Below the first step, and from each of them on."""
DEVICE_COLOURS = ("#1f5fb4", "#b3205e", "#5b3fa8", "#0d7d86", "#6b6b00")
HULL_COLOUR = "#555555"
MARGIN_FRACTION = 0.08
"""Of the range of rates, left free above and below."""

FAR_FRACTION = 0.05
CROWDED_RANGE = 3000
"""An axis of that range has room for the powers of ten alone."""

DESCRIBED = "Figures: "
"""What the description in the files begins with; the digest of what was drawn follows."""


@dataclass(frozen=True)
class Row:
    """What is drawn about one set. `levels`: bits by peer. `line`: profiles by kMAC per pixel. `speeds`: profiles by
    MB/s, for each device; `peer_speeds`: peers likewise."""

    title: str
    levels: Mapping[str, float]
    line: Sequence[Point]
    speeds: Mapping[str, Sequence[Point]]
    peer_speeds: Mapping[str, Sequence[Point]]


def rows_of(report: Report) -> list[Row]:
    """The rows of the plot."""
    kmac = {cost.profile: cost.kmac("decode") for cost in report.costs}
    return [_row(each, kmac) for each in report.sets]


def digest_of(report: Report) -> str:
    """The digest of what is drawn, hex: the same for the same plot, whatever library drew it."""
    values = [[row.title, row.levels, row.line, row.speeds, row.peer_speeds] for row in rows_of(report)]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def require_matplotlib() -> None:
    """Raise UsageError where there is no matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("plots need matplotlib: pip install 'pilc-stream[bench]'")


def draw(report: Report, paths: Sequence[Path]) -> None:
    """Draw the plot into files, their formats being those of the suffixes. Raises UsageError without matplotlib."""
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = rows_of(report)
    # A salt of our own, and no date: the same figures give the same file.
    with rc_context({"svg.hashsalt": "pilc", "svg.fonttype": "none", "font.size": 9.5}):
        figure = Figure(figsize=(WIDTH_INCHES, ROW_INCHES * len(rows) + LEGEND_INCHES), facecolor="white")
        FigureCanvasAgg(figure)
        _draw_rows(figure, rows)
        for path in paths:
            about: dict[str, Any] = {"Description": DESCRIBED + digest_of(report)}
            if path.suffix == ".svg":
                about["Date"] = None
            figure.savefig(path, dpi=RESOLUTION, metadata=about)


def _row(each: SetReport, kmac: Mapping[str, float]) -> Row:
    speeds: dict[str, list[Point]] = {}
    peer_speeds: dict[str, list[Point]] = {}
    for timing in each.timings:
        group = (peer_speeds if timing.is_peer else speeds).setdefault(timing.device, [])
        group.append((timing.codec, timing.decode_mb_per_s, timing.bpsp))
    return Row(
        title=f"{each.name} ({each.images} image{'s' if each.images > 1 else ''})",
        levels={codec: bits for codec, bits in each.bpsp.items() if codec not in kmac},
        line=[(profile, kmac[profile], bits) for profile, bits in each.bpsp.items() if profile in kmac],
        speeds=speeds,
        peer_speeds=peer_speeds,
    )


def visible_rates(rates: Sequence[float]) -> tuple[float, float]:
    """The range of rates to show, smallest and largest.

    A rate that is farther above the next than all below it are from each other, and more than `FAR_FRACTION` above the
    next, is left out: it would press the others together.
    """
    shown = sorted(rates)
    while len(shown) > 2 and shown[-1] - shown[-2] > max(shown[-2] - shown[0], FAR_FRACTION * shown[-2]):
        shown.pop()
    return shown[0], shown[-1]


def _draw_rows(figure: Figure, rows: Sequence[Row]) -> None:
    height = figure.get_size_inches()[1]
    bottom = (LEGEND_INCHES + 0.45) / height
    grid = figure.add_gridspec(
        max(len(rows), 1), 2, left=0.055, right=0.985, top=1 - 0.4 / height, bottom=bottom, wspace=0.36, hspace=0.38
    )
    devices = list(dict.fromkeys(device for row in rows for device in row.speeds))
    colours = {device: DEVICE_COLOURS[index % len(DEVICE_COLOURS)] for index, device in enumerate(devices)}
    peer_devices = list(dict.fromkeys(device for row in rows for device in row.peer_speeds))
    pairs = [(figure.add_subplot(grid[i, 0]), figure.add_subplot(grid[i, 1]), row) for i, row in enumerate(rows)]
    for left, right, row in pairs:
        low, high = visible_rates([*row.levels.values(), *(bits for _, _, bits in row.line)])
        margin = MARGIN_FRACTION * ((high - low) or low)
        for axes in (left, right):
            axes.set_ylim(low - margin, high + 2 * margin)
            axes.set_xscale("log")
            axes.grid(True, which="major", color="#e4e4e4", linewidth=0.7)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(axis="x", which="both", length=3, pad=3)
        left.set_title(row.title, loc="left", fontweight="bold", fontsize=11)
        left.set_ylabel("bits per sub-pixel")
        left.set_xlabel("kMAC per pixel to decode")
        right.set_xlabel("MB/s of raw pixels, decoding")
    _limit_together([left for left, _, _ in pairs], [value for row in rows for _, value, _ in row.line])
    every_speed = [
        value for row in rows for group in (*row.speeds.values(), *row.peer_speeds.values()) for _, value, _ in group
    ]
    _limit_together([right for _, right, _ in pairs], every_speed)
    figure.align_ylabels()
    figure.draw_without_rendering()
    for left, right, row in pairs:
        _draw_computation(left, figure.dpi, row)
        _draw_speeds(right, figure.dpi, row, colours, peer_devices)
    _draw_legend(figure, colours, peer_devices)


def _limit_together(panels: Sequence[Axes], values: Sequence[float]) -> None:
    """The same logarithmic axis for all panels, with a third of a decade to spare on both sides."""
    low, high = min(values, default=1) / 2.2, max(values, default=1) * 2.2
    for axes in panels:
        axes.set_xlim(low, high)
        axes.xaxis.set_major_formatter(_tick)
        if high / low < CROWDED_RANGE:
            axes.xaxis.set_minor_formatter(_minor_tick)
        else:
            axes.xaxis.set_minor_formatter("")


def _tick(value: float, position: float = 0) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _minor_tick(value: float, position: float = 0) -> str:
    """Labels 2 and 5 between the powers of ten."""
    digit = round(value / 10 ** math.floor(math.log10(value)))
    return _tick(value) if digit in (2, 5) else ""


def _draw_computation(axes: Axes, dpi: float, row: Row) -> None:
    low, high = axes.get_ylim()
    gap = (high - low) * 1.25 * LABEL_POINTS / 72 / (axes.get_window_extent().height / dpi)
    levels = sorted(row.levels.items(), key=lambda item: item[1])
    places = spread([min(bits, high) for _, bits in levels], gap, low, high)
    for (peer, bits), place in zip(levels, places, strict=True):
        colour = _peer_colour(peer)
        if bits <= high:
            axes.axhline(bits, color=colour, linewidth=1.1, linestyle=(0, (5, 2)))
        axes.annotate(
            f"{peer}  {bits:.3f}" + ("" if bits <= high else " ↑"),
            xy=(1.0, min(bits, high)),
            xytext=(1.03, place),
            xycoords=axes.get_yaxis_transform(),
            textcoords=axes.get_yaxis_transform(),
            color=colour,
            fontsize=LABEL_POINTS,
            verticalalignment="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0},
        )
    line = sorted(row.line, key=lambda point: point[1])
    colour = DEVICE_COLOURS[0]
    _draw_line(axes, line, colour)
    label_points(axes, dpi, [(f"{name}  {y:.3f}", x, y, colour) for name, x, y in line], [line])


def _draw_speeds(axes: Axes, dpi: float, row: Row, colours: Mapping[str, str], peer_devices: Sequence[str]) -> None:
    top = axes.get_ylim()[1]
    labels = []
    lines: list[Sequence[Point]] = []
    for device, group in row.peer_speeds.items():
        hull = lower_hull((math.log(speed), bits) for _, speed, bits in group)
        # Slower than its slowest vertex, the hull is level.
        outline = [("", axes.get_xlim()[0], hull[0][1]), *(("", math.exp(x), bits) for x, bits in hull)]
        axes.plot([x for _, x, _ in outline], [y for _, _, y in outline], ":", color=HULL_COLOUR, linewidth=1.2)
        lines.append([point for point in outline if point[2] <= top])
        # The peers of a second machine lie close to those of the first: the same names again would be in the way.
        is_first = device == peer_devices[0]
        for peer, speed, bits in group:
            colour = _peer_colour(peer)
            is_far = bits > top
            axes.plot(
                [speed],
                [min(bits, top)],
                "^" if is_far else "s",
                color=colour,
                markerfacecolor=colour if is_first else "white",
                markersize=6.5 if is_far else 5.5,
                clip_on=False,
            )
            text = f"{peer}  {bits:.3f}" if is_far else peer
            labels.append((text if is_first else "", speed, min(bits, top), colour))
    for device, group in row.speeds.items():
        line = sorted(group, key=lambda point: point[1])
        _draw_line(axes, line, colours[device])
        lines.append(line)
        labels += [(name, x, y, colours[device]) for name, x, y in line]
    label_points(axes, dpi, labels, lines)


def _draw_line(axes: Axes, line: Sequence[Point], colour: str) -> None:
    axes.plot([x for _, x, _ in line], [y for _, _, y in line], "o-", color=colour, linewidth=1.8, markersize=6)


def label_points(
    axes: Axes,
    dpi: float,
    labels: Sequence[tuple[str, float, float, str]],
    lines: Sequence[Sequence[Point]],
) -> None:
    """Write each label beside its point, where it covers least of the points, of the lines and of other labels.

    Points whose label is empty get none, and are not covered either.
    """
    per_point = dpi / 72

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = axes.transData.transform((x, y))
        return float(across), float(up)

    left, bottom, right, top = axes.get_window_extent().extents
    frame: Box = (left, bottom, right, top)
    centres = [place(x, y) for _, x, y, _ in labels]
    taken = [_box_around(centre, 4 * per_point) for centre in centres]
    for line in lines:
        corners = [place(x, y) for _, x, y in line]
        taken += [_box_around(point, per_point) for point in points_between(corners, 3 * per_point)]
    for (text, x, y, colour), (at_x, at_y) in zip(labels, centres, strict=True):
        if not text:
            continue
        label = axes.annotate(
            text,
            xy=(x, y),
            textcoords="offset points",
            xytext=(0, 0),
            color=colour,
            fontsize=LABEL_POINTS,
            annotation_clip=False,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.3, "alpha": 0.7},
        )
        extent = label.get_window_extent()
        width, height = extent.width / per_point, extent.height / per_point
        # Offsets in points of the label's lower left corner from its point: right, left, above, below, corners.
        offsets = [
            (7, -height / 2), (-7 - width, -height / 2), (-width / 2, 6), (-width / 2, -6 - height),
            (5, 4), (5, -4 - height), (-5 - width, 4), (-5 - width, -4 - height),
        ]  # fmt: skip
        lower_left = [(at_x + dx * per_point, at_y + dy * per_point) for dx, dy in offsets]
        boxes = [(across, up, across + extent.width, up + extent.height) for across, up in lower_left]
        chosen = best_place(boxes, taken, frame)
        label.set_position(offsets[chosen])
        taken.append(boxes[chosen])


def _box_around(centre: tuple[float, float], reach: float) -> Box:
    return centre[0] - reach, centre[1] - reach, centre[0] + reach, centre[1] + reach


def _draw_legend(figure: Figure, colours: Mapping[str, str], peer_devices: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    entries = [
        Line2D([], [], color=colour, marker="o", linewidth=1.8, label=f"profiles on {device}")
        for device, colour in colours.items()
    ]
    for device in peer_devices:
        face = HULL_COLOUR if device == peer_devices[0] else "white"
        about = f"peers and their hull on {device}"
        entries.append(Line2D([], [], color=HULL_COLOUR, linestyle=":", marker="s", markerfacecolor=face, label=about))
    figure.legend(handles=entries, loc="lower center", ncols=2, frameon=False, fontsize=9.5)


def _peer_colour(peer: str) -> str:
    if peer in PEER_COLOURS:
        return PEER_COLOURS[peer]
    effort = int(peer.rsplit("e", 1)[1])
    return EFFORT_COLOURS[bisect(EFFORT_STEPS, effort)]

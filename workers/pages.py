"""The report of a job as Markdown and as HTML with plots, from what its commits say: of all runs, wherever they ran."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from pilc_stream.pipeline.again import MISFIT_STAGE
from pilc_stream.pipeline.statistics import BITS_PER_STEP
from pilc_stream.records import layout
from pilc_stream.records.commit import Commit, each_commit, read_errors
from pilc_stream.records.quarantine import Quarantined, list_quarantined
from pilc_stream.storage import Store
from workers import svg
from workers.occupancy import Slots, busy, sentence
from workers.progress import Totals

_POINTS: Final = 60
_REASONS: Final = 20
_REASON_LETTERS: Final = 160
_BAR_LETTERS: Final = 30
_MOST_BITS: Final = 16
"""Bits per sub-pixel from which on one row counts all: the metadata of a tiny image may be thousands."""


@dataclass(frozen=True)
class Section:
    """A part of a report: a table, and a plot of it for HTML ("" for none). `bar`: the column that Markdown draws."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    plot: str = ""
    bar: tuple[float, ...] = ()


def write_pages(store: Store, *, slots: Slots, seconds: float, stages: dict[str, float]) -> None:
    """Put `report.md` and `report.html` into the data set. `slots`, `seconds`, `stages`: of the run that ends."""
    sections = _sections(store, slots, seconds, stages)
    store.put(layout.REPORT_MARKDOWN_PATH, markdown(store.url, sections).encode("utf-8", "replace"))
    store.put(layout.REPORT_HTML_PATH, html(store.url, sections).encode("utf-8", "replace"))


def markdown(url: str, sections: Sequence[Section]) -> str:
    """The report as Markdown; bars are drawn with letters."""
    lines = [f"# Compression of {_cell(url)}", ""]
    for section in sections:
        head = (*section.head, "") if section.bar else section.head
        lines += [f"## {section.title}", "", _row(head), "|" + "---|" * len(head)]
        top = max(section.bar, default=0.0)
        for position, row in enumerate(section.rows):
            drawn = ("█" * round(_BAR_LETTERS * section.bar[position] / top),) if section.bar and top else ()
            lines.append(_row((*row, *drawn)))
        lines.append("")
    return "\n".join(lines)


def html(url: str, sections: Sequence[Section]) -> str:
    """The report as one HTML file that needs nothing else. All that comes from data is escaped."""
    parts = [
        "<!doctype html><meta charset='utf-8'>",
        f"<title>{escape(url)}</title>",
        "<style>body{font:15px sans-serif;max-width:60em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
        "td,th{text-align:left;padding:.2em 1em .2em 0;vertical-align:top}</style>",
        f"<h1>Compression of {escape(url)}</h1>",
    ]
    for section in sections:
        head = "".join(f"<th>{escape(cell)}</th>" for cell in section.head)
        rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in section.rows)
        parts.append(f"<h2>{escape(section.title)}</h2>{section.plot}<table><tr>{head}</tr>{rows}</table>")
    return "\n".join(parts) + "\n"


def _sections(store: Store, slots: Slots, seconds: float, stages: dict[str, float]) -> list[Section]:
    commits = list(each_commit(store))
    found = [
        _totals(Totals.of(commit.entry for commit in commits), commits),
        _ratios(commits),
        _throughput(commits),
        _stages(busy(stages, slots, seconds), stages, slots),
        _failures(store, commits),
        _given_up(list_quarantined(store)),
    ]
    return [section for section in found if section.rows]


def _totals(totals: Totals, commits: Sequence[Commit]) -> Section:
    hosts = {str(commit.statistics.get("host", "-")) for commit in commits}
    facts = [
        ("images", f"{totals.images:,}"),
        ("failed, kept as they came", f"{totals.failed:,}"),
        ("sound, kept as they came", f"{totals.fallback:,}"),
        ("shards", f"{totals.shards:,}"),
        ("pixels", f"{totals.raw_bytes:,} bytes"),
        ("sources", f"{totals.source_bytes:,} bytes"),
        ("payloads", f"{totals.payload_bytes:,} bytes"),
        ("shard files", f"{totals.shard_bytes:,} bytes"),
        ("bits per sub-pixel", "-" if totals.bpsp is None else f"{totals.bpsp:.3f}"),
        ("machines", ", ".join(sorted(hosts)) or "-"),
    ]
    return Section("Totals", ("what", "how much"), tuple(facts))


def _ratios(commits: Sequence[Commit]) -> Section:
    """How far images were compressed: pixels over payload, by steps of bits per sub-pixel."""
    counts: Counter[int] = Counter()
    for commit in commits:
        for name, count in _mapping(commit.statistics.get("bits")).items():
            counts[min(int(name), round(_MOST_BITS / BITS_PER_STEP))] += int(count)
    if not counts:
        return Section("Ratios", (), ())
    steps = range(min(counts), max(counts) + 1)
    lines, values = [], []
    for step in steps:
        low, high = step * BITS_PER_STEP, (step + 1) * BITS_PER_STEP
        ratio = f"{8 / high:.2f} to {8 / low:.2f}" if low else f"above {8 / high:.2f}"
        if low == _MOST_BITS:
            lines.append((f"{low:g} and more", f"up to {8 / low:.2f}", f"{counts[step]:,}"))
        else:
            lines.append((f"{low:g} to {high:g}", ratio, f"{counts[step]:,}"))
        values.append((f"{low:g}", float(counts[step])))
    head = ("bits per sub-pixel", "ratio of pixels to payload", "images")
    plot = svg.bars(values, "images")
    return Section(
        "Ratios of the images that were coded", head, tuple(lines), plot, tuple(count for _, count in values)
    )


def _throughput(commits: Sequence[Commit]) -> Section:
    """Raw megabytes a second over time, as shards were committed."""
    ends = sorted(
        (float(ended), commit.entry.raw_bytes, commit.entry.rows)
        for commit in commits
        if isinstance(ended := commit.statistics.get("ended"), int | float)
    )
    if len(ends) < 2 or ends[-1][0] <= ends[0][0]:
        return Section("Throughput", (), ())
    start, span = ends[0][0], ends[-1][0] - ends[0][0]
    count = min(_POINTS, len(ends))
    raw, images = [0] * count, [0] * count
    # The first commit's work was done before the clock of this section starts.
    for ended, raw_bytes, rows in ends[1:]:
        position = min(count - 1, int((ended - start) / span * count))
        raw[position] += raw_bytes
        images[position] += rows
    step = span / count
    points = [((position + 0.5) * step, value / step / 1e6) for position, value in enumerate(raw)]
    rows_of = tuple(
        (f"{x:,.0f}", f"{y:.1f}", f"{images[position] / step:.1f}") for position, (x, y) in enumerate(points)
    )
    head = ("seconds after the first shard", "raw MB/s", "images/s")
    return Section("Throughput over time", head, rows_of, svg.line(points, "MB/s", "s"), tuple(y for _, y in points))


def _stages(shares: dict[str, float], seconds: dict[str, float], slots: Slots) -> Section:
    """How busy each stage was in the last run, and which one held it up."""
    if not shares:
        return Section("Stages", (), ())
    worked = {**seconds, "code": seconds.get("code", 0.0) + seconds.get("verify", 0.0)}
    rows = tuple(
        (stage, f"{worked.get(stage, 0.0):.1f}", f"{slots.of(stage)}", f"{100 * share:.0f} %")
        for stage, share in shares.items()
    )
    said = sentence(shares).rpartition(": ")[2]
    title = f"Stages of the last run{f': {said}' if said else ''}"
    plot = svg.bars([(stage, 100 * share) for stage, share in shares.items()], "% busy")
    return Section(title, ("stage", "seconds of work", "at once", "busy"), rows, plot, tuple(shares.values()))


def _failures(store: Store, commits: Sequence[Commit]) -> Section:
    """What failed or fell back, by stage and reason; figures in reasons are one and the same."""
    counts: Counter[tuple[str, str]] = Counter()
    for commit in commits:
        for reason, count in _mapping(commit.statistics.get("fallback")).items():
            counts["kept", str(reason)] += int(count)
        if commit.errors is not None:
            for error in read_errors(store, commit.entry.index):
                stage = "column" if error.stage == MISFIT_STAGE else error.stage
                counts[stage, _general(error.reason, error.key)] += 1
    rows = tuple((stage, reason, f"{count:,}") for (stage, reason), count in counts.most_common(_REASONS))
    left_out = sum(counts.values()) - sum(count for _, count in counts.most_common(_REASONS))
    if left_out:
        rows += (("others", "", f"{left_out:,}"),)
    plot = svg.bars([(f"{row[0]}: {row[1]}", counts[row[0], row[1]]) for row in rows], "images") if rows else ""
    return Section("Failures and fallbacks by reason", ("stage", "reason", "images"), rows, plot)


def _given_up(shards: Sequence[Quarantined]) -> Section:
    rows = tuple((f"{shard.index:06d}", shard.first_key, shard.last_key, shard.reason) for shard in shards)
    return Section("Shards that were given up", ("shard", "first image", "last image", "reason"), rows)


def _general(reason: str, key: str) -> str:
    """A reason without what is of one image only: its key and its numbers."""
    text = re.sub(r"\d[\d,.]*", "N", reason.replace(key, "...")).strip()
    return text if len(text) <= _REASON_LETTERS else text[: _REASON_LETTERS - 3] + "..."


def _mapping(value: object) -> dict[str, Any]:
    """Statistics are for people: what is none of ours is passed over."""
    return value if isinstance(value, dict) and all(isinstance(count, int) for count in value.values()) else {}


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    """Text as Markdown shows it: keys and reasons come from anywhere, and must not become markup."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(text.split()))

"""The rate-computation report as files: Markdown, JSON, and the plot as PNG and SVG."""

from __future__ import annotations

import json
from pathlib import Path

from pilc_stream.reports.markdown import PLOT, whole_report
from pilc_stream.reports.plot import draw
from pilc_stream.reports.report import Report

NAMES = (f"{PLOT}.md", f"{PLOT}.json", f"{PLOT}.png", f"{PLOT}.svg")


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write the files of `NAMES` into `folder`, which is made where it is missing; their paths.

    Raises UsageError without matplotlib.
    """
    folder.mkdir(parents=True, exist_ok=True)
    markdown, document, *pictures = paths = [folder / name for name in NAMES]
    markdown.write_text(whole_report(report))
    document.write_text(json_text(report))
    draw(report, pictures)
    return paths


def json_text(report: Report) -> str:
    """The report as a JSON file."""
    return json.dumps(report.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

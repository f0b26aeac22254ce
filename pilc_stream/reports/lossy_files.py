"""The lossy report from the recorded runs, and as files: Markdown, JSON, and the plot as PNG and SVG."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pilc_stream.reports.lossy_markdown import PLOT, whole_lossy_report
from pilc_stream.reports.lossy_measure import recorded_lossy
from pilc_stream.reports.lossy_plot import draw_lossy
from pilc_stream.reports.lossy_report import LossyReport, build_lossy_report

LOSSY_NAMES = (f"{PLOT}.md", f"{PLOT}.json", f"{PLOT}.png", f"{PLOT}.svg")


def lossy_report(measured: list[dict[str, Any]] | None = None) -> LossyReport:
    """The report on what was measured just now, if anything, and on the recorded runs."""
    recorded = recorded_lossy("curves")
    return build_lossy_report([*(measured or []), *recorded], recorded_lossy("course"))


def write_lossy_report(report: LossyReport, folder: Path) -> list[Path]:
    """Write the files of `LOSSY_NAMES` into `folder`, which is made where it is missing; their paths.

    Raises UsageError without matplotlib.
    """
    folder.mkdir(parents=True, exist_ok=True)
    markdown, document, *pictures = paths = [folder / name for name in LOSSY_NAMES]
    markdown.write_text(whole_lossy_report(report))
    document.write_text(lossy_json_text(report))
    draw_lossy(report, pictures)
    return paths


def lossy_json_text(report: LossyReport) -> str:
    """The report as a JSON file."""
    return json.dumps(report.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

"""The recorded contest of loaders as a Markdown table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pilc_stream.reports.machine import device_name

RECORD = Path(__file__).parent / "measured" / "loaders.json"
"""Where `pilc bench --loaders --record` puts what the package says of loaders."""


def loaders_table(record: Path = RECORD) -> str:
    """Images per second and stored bytes of each loader on each set; a sentence where nothing is recorded."""
    if not record.exists():
        return "Not recorded on any machine yet.\n"
    document: Mapping[str, Any] = json.loads(record.read_text())
    reports = document["loaders"]
    cores = f"On {device_name(document['machine'], 'cpu', reports[0]['workers'])}, as many workers"
    lines = [f"{cores}, measured {document['machine']['date']}:", ""]
    heads = [f"{each['images']} (batches of {each['batch']}), images/s, share of raw bytes" for each in reports]
    lines += [_row(["loader", *heads]), _row(["---"] * (1 + len(heads)))]
    names = list(dict.fromkeys(figures["loader"] for each in reports for figures in each["loaders"]))
    lines += [_row([f"`{name}`", *(_cell(each, name) for each in reports)]) for name in names]
    return "\n".join(lines) + "\n"


def _cell(report: Mapping[str, Any], name: str) -> str:
    found = [figures for figures in report["loaders"] if figures["loader"] == name and not figures["skipped"]]
    if not found:
        return ""
    rate = found[0]["samples_per_s"]
    return f"{rate:,.{0 if rate >= 1000 else 1}f}, {found[0]['stored_bytes'] / report['raw_bytes']:.1%}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"

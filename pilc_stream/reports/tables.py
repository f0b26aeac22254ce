"""Tables in Markdown files, written from recorded runs: ``python -m pilc_stream.reports.tables README.md``.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end of table -->``; nobody types a figure there. The report
beside the records, with its plot, is written along with them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from pilc_stream.reports.loader_tables import loaders_table
from pilc_stream.reports.lossy_files import lossy_report
from pilc_stream.reports.lossy_markdown import lossy_models_table, lossy_rates_table, lossy_savings_table
from pilc_stream.reports.markdown import costs_table, rates_table, savings_table, speeds_table
from pilc_stream.reports.records import recorded
from pilc_stream.reports.report import Report, build_report, shipped_costs

MEASURED = Path(__file__).parent / "measured"
"""Where the records of the package lie, and the report on them."""

_PLACE = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)

TABLES: dict[str, Callable[[Report], str]] = {
    "frontier-costs": costs_table,
    "frontier-rates": rates_table,
    "frontier-savings": savings_table,
    "frontier-speeds": speeds_table,
    "loaders": lambda _: loaders_table(),
    "lossy-models": lambda _: lossy_models_table(lossy_report()),
    "lossy-rates": lambda _: lossy_rates_table(lossy_report()),
    "lossy-savings": lambda _: lossy_savings_table(lossy_report()),
}


def recorded_report() -> Report:
    """The report on all recorded runs."""
    return build_report(shipped_costs(), [], recorded())


def with_tables(text: str, report: Report) -> str:
    """`text` with every table written anew."""
    return _PLACE.sub(lambda place: place[1] + TABLES[place[2]](report) + place[3], text)


def main() -> None:
    """Rewrite the tables of the Markdown files that are named, and the recorded report."""
    from pilc_stream.reports.files import write_report
    from pilc_stream.reports.lossy_files import write_lossy_report

    report = recorded_report()
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(with_tables(path.read_text(), report))
    write_report(report, MEASURED)
    write_lossy_report(lossy_report(), MEASURED)


if __name__ == "__main__":
    main()

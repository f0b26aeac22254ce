"""Tables in Markdown files, written from recorded runs: ``python -m pilc_stream.reports.tables README.md``.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end of table -->``; nobody types a figure there.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

_PLACE = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def recorded(prefix: str) -> list[dict[str, Any]]:
    """The recorded runs whose file begins with `prefix`, by file name."""
    folder = resources.files("pilc_stream.reports") / "measured"
    names = sorted(file.name for file in folder.iterdir() if file.name.startswith(prefix))
    return [json.loads((folder / name).read_text()) for name in names if name.endswith(".json")]


def profiles_table() -> str:
    """Rate and speed of the shipped profiles on each set."""
    lines = [
        "| profile | images | kMAC/pixel | bits per sub-pixel | MB/s in | MB/s out | measured on |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in recorded("bench-"):
        machine = run["machine"]
        for figure in run["profiles"]:
            macs = sum(figure["macs_per_pixel"].values()) / 1000
            lines.append(
                f"| `{figure['profile']}` | {run['images']} ({figure['images']}) | {macs:.1f} | {figure['bpsp']:.3f} "
                f"| {figure['encode_mb_per_s']:.0f} | {figure['decode_mb_per_s']:.0f} "
                f"| {figure['threads']} of {machine['cores']} cores, {machine['cpu']}, {machine['date']} |"
            )
    return "\n".join(lines) + "\n"


TABLES: dict[str, Callable[[], str]] = {"profiles": profiles_table}


def with_tables(text: str) -> str:
    """`text` with every table written anew."""
    return _PLACE.sub(lambda place: place[1] + TABLES[place[2]]() + place[3], text)


def main() -> None:
    """Rewrite the tables of the Markdown files that are named."""
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(with_tables(path.read_text()))


if __name__ == "__main__":
    main()

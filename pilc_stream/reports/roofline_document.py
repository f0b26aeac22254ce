"""The recorded roofline and its table in `backends/cuda/ROOFLINE.md`.

``python -m pilc_stream.reports.roofline_document`` compiles the kernels of every shipped profile for every card of
`ceilings.json`, for some minutes, and writes both files; with names of profiles, those alone anew.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from pilc_stream.reports.roofline import Roofline, table

RECORD = Path(__file__).with_name("roofline.json")
DOCUMENT = Path(__file__).parents[1] / "backends" / "cuda" / "ROOFLINE.md"

_PLACE = re.compile(r"(<!-- table: roofline -->\n).*(<!-- end of table -->)", re.DOTALL)


def recorded() -> list[Roofline]:
    """The rooflines of the record."""
    return [Roofline.from_json(values) for values in json.loads(RECORD.read_text())["rooflines"]]


def with_table(text: str) -> str:
    """The document with its table written anew from the record."""
    return _PLACE.sub(lambda place: place[1] + table(recorded()) + "\n" + place[2], text)


def main() -> None:
    """Write the record, or that of the profiles named on the command line anew, and the table."""
    from pilc_stream.models.shipped import lossless_preset_names, preset_bytes
    from pilc_stream.reports.machine import machine_facts
    from pilc_stream.reports.roofline import ceilings, roofline

    named = sys.argv[1:]
    lines = [line for line in recorded() if line.profile not in named] if named else []
    for name in named or lossless_preset_names():
        lines += [roofline(card, name, preset_bytes(name)) for card in ceilings()]
    lines.sort(key=lambda line: line.profile)
    record = {"machine": machine_facts(), "rooflines": [line.to_json() for line in lines]}
    RECORD.write_text(json.dumps(record, indent=2) + "\n")
    DOCUMENT.write_text(with_table(DOCUMENT.read_text()))


if __name__ == "__main__":
    main()

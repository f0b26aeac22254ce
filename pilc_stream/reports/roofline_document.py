"""The recorded roofline and its table in `backends/cuda/ROOFLINE.md`.

``python -m pilc_stream.reports.roofline_document`` compiles the kernels of every shipped profile for every card of
`ceilings.json`, for some minutes, and writes both files.
"""

from __future__ import annotations

import json
import re
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
    """Write the record and the table."""
    from pilc_stream.models.model import load_model
    from pilc_stream.models.shipped import preset_bytes, wave_preset_names
    from pilc_stream.reports.machine import machine_facts
    from pilc_stream.reports.roofline import ceilings, roofline

    lines = []
    for name in wave_preset_names():
        spec = load_model(preset_bytes(name)).spec
        lines += [roofline(card, name, spec) for card in ceilings()]
    record = {"machine": machine_facts(), "rooflines": [line.to_json() for line in lines]}
    RECORD.write_text(json.dumps(record, indent=2) + "\n")
    DOCUMENT.write_text(with_table(DOCUMENT.read_text()))


if __name__ == "__main__":
    main()

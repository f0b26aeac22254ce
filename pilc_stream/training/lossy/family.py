"""The family's tables, ours beside the paper's: ``python -m pilc_stream.training.lossy.family`` writes them anew.

They stand in `FAMILY.md` between marks, with the assumptions behind them and the record of a training.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from pilc_stream.training.lossy.configurations import FAMILY, PUBLISHED, Published
from pilc_stream.training.lossy.counter import Count, count
from pilc_stream.training.lossy.family_course import RECORD, course_table
from pilc_stream.training.lossy.network import DECODER_PARTS

DOCUMENT = Path(__file__).with_name("FAMILY.md")
_PLACE = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)

PART_NAMES = {"synthesis": "synthesis", "hyper_synthesis": "hyper synthesis", "entropy_model": "channel-wise steps"}


@dataclass(frozen=True)
class Member:
    """A model of the family: its count, and what the paper says of it, if anything."""

    name: str
    parts: tuple[str, str, str]
    count: Count
    published: Published | None

    def differences(self) -> tuple[float, float] | None:
        """How far parameters and decoder operations are from the paper's, as shares of these."""
        if self.published is None:
            return None
        parameters = self.count.all_parameters / (1e6 * self.published.parameters_m)
        return parameters - 1, self.count.decoder_kflop / self.published.decoder_kflop - 1


def members() -> list[Member]:
    """All models, counted."""
    return [
        Member(
            name,
            (configuration.transforms, configuration.entropy_model, configuration.hyper_transforms),
            count(configuration),
            PUBLISHED.get(name),
        )
        for name, configuration in FAMILY.items()
    ]


def family_table(family: list[Member]) -> str:
    """Markdown: parameters and decoder operations, ours, the paper's and the difference, and ours by part."""
    heads = ["model", "transforms, entropy model, hyper transforms", "M parameters", "paper", "difference"]
    heads += ["decoder kFLOP/px", "paper", "difference", *PART_NAMES.values(), "encoder kFLOP/px"]
    rows = [heads, ["---"] * len(heads)]
    for member in family:
        kflop, counted = member.count.kflop_per_pixel, member.count
        published, apart = member.published, member.differences()
        rows.append(
            [
                f"`lossy-{member.name}`",
                ", ".join(member.parts),
                f"{counted.all_parameters / 1e6:.2f}",
                f"{published.parameters_m:.1f}" if published else "",
                f"{100 * apart[0]:+.1f} %" if apart else "",
                f"{counted.decoder_kflop:.1f}",
                f"{published.decoder_kflop:.1f}" if published else "",
                f"{100 * apart[1]:+.1f} %" if apart else "",
                *(f"{kflop[part]:.1f}" for part in DECODER_PARTS),
                f"{sum(kflop.values()) - kflop['synthesis']:.1f}",
            ]
        )
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def with_family_tables(text: str, family: list[Member]) -> str:
    """`text` with the tables between their marks written anew."""
    tables = {"family": family_table(family), "family-course": course_table(json.loads(RECORD.read_text()))}
    return _PLACE.sub(lambda place: place[1] + tables[place[2]] + place[3], text)


def main() -> None:
    """Write the tables into the document anew."""
    DOCUMENT.write_text(with_family_tables(DOCUMENT.read_text(), members()))


if __name__ == "__main__":
    main()

"""Table 1 of the PILC paper, for our profiles: what holds at 100 MB/s or more on which device.

The paper asks of a codec that it decodes a single image, of any size, with inference, entropy coder and transfer at 100
MB/s or more each. Figures of the CPU are measured, on one thread; those of cards are the roofline's predictions until
a card has been measured (``pilc bench --card --record``, kept as `measured/card.json`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pilc_stream.reports.roofline import Roofline, ceilings
from pilc_stream.reports.roofline_document import recorded

GOAL = 100.0
CARD = Path(__file__).with_name("measured") / "card.json"
CODER_KERNELS = frozenset({"blocks", "residuals", "block_intervals", "residual_intervals", "lanes"})
"""Of the codec `pilc`; all others infer. The wave codec decodes in one kernel, and encodes with the lanes beside."""


class Row(NamedTuple):
    """A profile on a device; MB/s of raw samples in and out. `coder` is None where it is one with the inference,
    `transfer` where nothing is transferred, `measured` where it has not been."""

    profile: str
    device: str
    kind: str
    inference: tuple[float, float]
    coder: tuple[float, float] | None
    transfer: float | None
    measured: tuple[float, float] | None


def cpu_row(profile: str, device: str, seconds: Mapping[str, float], raw_bytes: int) -> Row:
    """The codec `pilc` on the CPU: seconds for `choices`, `network`, `encode` and `decode`."""

    def rate(spent: float) -> float:
        return raw_bytes / spent / 1e6

    infer = seconds["choices"] + seconds["network"], seconds["network"]
    rest = seconds["encode"] - infer[0], seconds["decode"] - infer[1]
    return Row(
        profile,
        device,
        "measured",
        (rate(infer[0]), rate(infer[1])),
        (rate(rest[0]), rate(rest[1])),
        None,
        (rate(seconds["encode"]), rate(seconds["decode"])),
    )


def fused_cpu_row(profile: str, device: str, rates: tuple[float, float]) -> Row:
    """The wave codec on the CPU, from its MB/s in and out."""
    return Row(profile, device, "measured", rates, None, None, rates)


def card_row(line: Roofline, measured: tuple[float, float] | None) -> Row:
    """A profile on a card, as predicted."""
    parts = []
    for coder in (False, True):
        names = [[name for name in way if (name in CODER_KERNELS) is coder] for way in (line.encoding, line.decoding)]
        parts.append((line.mb_per_s(names[0]), line.mb_per_s(names[1])) if all(names) else None)
    inference, coding = parts
    assert inference is not None
    transfer = ceilings()[line.card].host_bytes_per_s / 1e6
    return Row(line.profile, line.card, "predicted", inference, coding, transfer, measured)


def card_rates(path: Path = CARD) -> dict[tuple[str, str], tuple[float, float]]:
    """(card, profile) -> MB/s in and out, host to host, of the batch that does best; empty without a record."""
    if not path.exists():
        return {}
    document = json.loads(path.read_text())
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for figures in document["figures"]:
        stages = {stage["stage"]: stage["mb_per_s"] for stage in figures["stages"]}
        both = tuple(stages.get(f"{way} tiles, host to host", 0.0) for way in ("encode", "decode"))
        for name in document["machine"]["gpus"]:
            card = next((card for card in ceilings() if card in name), name)
            best = found.get((card, figures["profile"]), (0.0, 0.0))
            found[card, figures["profile"]] = max(best[0], both[0]), max(best[1], both[1])
    return found


def card_rows(profiles: Sequence[str]) -> list[Row]:
    """The profiles on every card of the recorded roofline."""
    rates = card_rates()
    lines = {(line.card, line.profile): line for line in recorded()}
    return [
        card_row(lines[card, profile], rates.get((card, profile)))
        for card in ceilings()
        for profile in profiles
        if (card, profile) in lines
    ]


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown: rates in / out, and whether the slower reaches `GOAL`."""
    lines = [
        "| device | profile | figures | single image | any size | inference | coder | transfer | measured in all |",
        "|" + "---|" * 9,
    ]
    for row in rows:
        cells = [row.device, row.profile, row.kind, "yes", "yes", _judged(row.inference)]
        cells.append(_judged(row.coder) if row.coder else "with the inference")
        cells.append(f"yes: {row.transfer:,.0f}" if row.transfer else "none needed")
        cells.append(_both(row.measured) if row.measured else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def time_table(profile: str) -> str:
    """Where a card's time is predicted to go with the codec `pilc`, in Markdown."""
    lines = ["| card | direction | network | coder | prediction | one picture |", "|" + "---|" * 6]
    for line in recorded():
        if line.profile != profile:
            continue
        for direction, way in (("in", line.encoding), ("out", line.decoding)):
            own = {"choose", "undo"} & set(way)
            groups = [set(way) - own - CODER_KERNELS, set(way) & CODER_KERNELS, own]
            times = [1 / line.mb_per_s([name for name in way if name in group]) for group in groups]
            picture = line.picture_seconds if direction == "out" else None
            cells = [line.card, direction, *(f"{100 * time / sum(times):.0f} %" for time in times)]
            cells.append(f"{1e3 * picture[0]:.1f} to {1e3 * picture[1]:.1f} ms" if picture else "")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _judged(rates: tuple[float, float]) -> str:
    if not min(rates):
        return f"no: {_both(rates)}"
    return f"{'yes' if min(rates) >= GOAL else 'no'}: {_both(rates)}"


def _both(rates: tuple[float, float]) -> str:
    return " / ".join(f"{rate:,.0f}" if rate else "does not fit" for rate in rates)

"""The rate-computation report as Markdown: its tables one by one, and the whole of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from pilc_stream.reports.machine import machine_name
from pilc_stream.reports.report import FLOP_PER_MAC, Cost, Report, SetReport, Timing

PLOT = "frontier"
"""The plot's file name without suffix; it lies beside the Markdown file."""


def costs_table(report: Report) -> str:
    """Parameters, MACs and operations per pixel of every profile, to encode and to decode, by part."""
    parts = list(dict.fromkeys(part for cost in report.costs for part in (*cost.encode_macs, *cost.decode_macs)))
    rows = [
        row for cost in report.costs for row in (_cost_row(cost, "encode", parts), _cost_row(cost, "decode", parts))
    ]
    heads = [f"{part}, kMAC/pixel" for part in parts]
    return _table(["profile", "parameters", "to", *heads, "in all, kMAC/pixel", "kFLOP/pixel"], rows)


def rates_table(report: Report) -> str:
    """Bits per sub-pixel of peers and profiles on every set."""
    codecs = _codecs(report)
    rows = [
        [f"{each.name} ({each.images})", *(f"{each.bpsp[codec]:.3f}" if codec in each.bpsp else "" for codec in codecs)]
        for each in report.sets
    ]
    return _table(["images", *codecs.values()], rows)


def savings_table(report: Report) -> str:
    """How much smaller than each peer every profile is, in per cent."""
    rows = []
    for each in report.sets:
        for profile, against in each.savings.items():
            cells = [f"{against[peer]:.1f} %" if peer in against else "" for peer in report.peers]
            rows.append([each.name, f"`{profile}`", *cells])
    return _table(["images", "profile", *(f"against {peer}" for peer in report.peers)], rows)


def speeds_table(report: Report) -> str:
    """Megabytes of raw pixels per second in and out: a table per device, with a column per set."""
    heads = ["codec", *(f"{each.name}, in / out" for each in report.sets), "measured"]
    return _by_device(report, lambda device: _table(heads, _speed_rows(report, device)))


def standings_table(report: Report) -> str:
    """Rate and time of everything that was measured, and where it stands to the hulls: a table per device."""
    heads = ["images", "codec", "bits per sub-pixel", "MB/s in", "MB/s out", "megapixels/s in", "megapixels/s out"]
    heads += ["rounds", "measured", "on the hull", "bits below the hull of the peers"]

    def rows(device: str) -> list[list[str]]:
        return [_standing(each, timing) for each in report.sets for timing in each.timings if timing.device == device]

    return _by_device(report, lambda device: _table(heads, rows(device)))


def whole_report(report: Report) -> str:
    """The Markdown file."""
    peers = [f"- {name}: {settings}." for name, settings in report.peers.items()]
    blocks = [
        "# The rate-computation frontier",
        "Lossless; every codec gave all pixels back. Sets are named with their number of images.",
        f"![Rate against computation and against time]({PLOT}.png)",
        "## Computation",
        f"Per RGB pixel. One multiply-accumulate (MAC) counts as {FLOP_PER_MAC} operations (FLOP). Parameters are "
        "weights and biases.",
        costs_table(report),
        "## Rate",
        "Bits per sub-pixel: whole payloads with all overhead. An empty cell was not measured.",
        rates_table(report),
        "How much smaller than the peers' files the payloads are:" if report.peers else "",
        savings_table(report) if report.peers else "",
        "\n".join(["The peers:", "", *peers]) if peers else "",
        "## Time",
        "Megabytes of raw pixels per second, one megabyte being 1,000,000 bytes, medians of the rounds. All codecs of "
        "a run take turns on the same images; a peer encodes only once.",
        speeds_table(report),
        "The hull is that of a machine's points in the plane of log speed of decoding and bits per sub-pixel: what "
        "lies on it is beaten by no codec, and no mix of codecs, of at least its speed.",
        standings_table(report),
        "## Machines",
        "\n".join(_machine_lines(report)),
    ]
    return "\n\n".join(block.strip("\n") for block in blocks if block) + "\n"


def _cost_row(cost: Cost, direction: str, parts: Sequence[str]) -> list[str]:
    macs = cost.encode_macs if direction == "encode" else cost.decode_macs
    split = [f"{macs[part] / 1000:.3f}" if part in macs else "" for part in parts]
    total = [f"{cost.kmac(direction):.2f}", f"{cost.kflop(direction):.2f}"]
    return [f"`{cost.profile}`", f"{cost.parameters:,}", direction, *split, *total]


def _by_device(report: Report, table: Callable[[str], str]) -> str:
    devices = dict.fromkeys(timing.device for each in report.sets for timing in each.timings)
    return "\n".join(f"On {device}:\n\n{table(device)}" for device in devices)


def _speed_rows(report: Report, device: str) -> list[list[str]]:
    cells: dict[str, dict[str, str]] = {}
    dates: dict[str, list[str]] = {}
    for each in report.sets:
        for timing in (timing for timing in each.timings if timing.device == device):
            speeds = f"{_short(timing.encode_mb_per_s)} / {_short(timing.decode_mb_per_s)}"
            cells.setdefault(timing.codec, {})[each.name] = speeds
            dates.setdefault(timing.codec, []).append(timing.date)
    return [
        [heading, *(cells[codec].get(each.name, "") for each in report.sets), _days(dates[codec])]
        for codec, heading in _codecs(report).items()
        if codec in cells
    ]


def _standing(each: SetReport, timing: Timing) -> list[str]:
    on_hull = {True: "yes", False: "no", None: ""}[timing.on_hull]
    if timing.is_peer or timing.on_hull is None:
        below = ""
    elif timing.below_peers is None:
        below = "faster than all"
    else:
        below = f"{timing.below_peers:+.3f}"
    speeds = (timing.encode_mb_per_s, timing.decode_mb_per_s, timing.encode_mp_per_s, timing.decode_mp_per_s)
    heading = timing.codec if timing.is_peer else f"`{timing.codec}`"
    measured = [f"{timing.bpsp:.3f}", *map(_short, speeds), str(timing.rounds), timing.date]
    return [each.name, heading, *measured, on_hull, below]


def _machine_lines(report: Report) -> list[str]:
    """Each machine with its libraries, and below it the commands that ran on it."""
    commands: dict[str, list[str]] = {}
    for facts in report.machines:
        versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        machine = f"{machine_name(facts)}, {facts['cores']} cores, {facts['system']}"
        line = f"- {machine}, Python {facts['python']}, {versions}:"
        commands.setdefault(line, []).append(f"  - {facts['date']}: `{facts['command']}`")
    return [line for machine, below in commands.items() for line in (machine, *below)]


def _codecs(report: Report) -> dict[str, str]:
    """The codecs that were measured, peers first, each with its heading."""
    measured = {codec for each in report.sets for codec in each.bpsp}
    headings = {peer: peer for peer in report.peers} | {cost.profile: f"`{cost.profile}`" for cost in report.costs}
    return {codec: heading for codec, heading in headings.items() if codec in measured}


def _short(value: float) -> str:
    """Three digits, as many as a timing is worth."""
    decimals = 0 if value >= 99.5 else 1 if value >= 9.95 else 2
    return f"{value:.{decimals}f}" if value >= 0.1 else f"{value:.2g}"


def _days(dates: Collection[str]) -> str:
    first, last = min(dates), max(dates)
    return first if first == last else f"{first} to {last}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)

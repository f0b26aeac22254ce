"""The rate-computation report: what every profile costs, what it saves, how fast it is, where it stands among peers.

It is put together from records, those of this run and those that came with the package: computation and time side by
side, per device, as Minnen and Johnston (2023) ask for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pilc_stream.codecs.view_search import search_for
from pilc_stream.models.model import load_model
from pilc_stream.models.shipped import preset_bytes, wave_preset_names
from pilc_stream.reports.figures import PeerFigures
from pilc_stream.reports.hull import Point, height_at, lies_on, lower_hull
from pilc_stream.reports.machine import device_name, machine_name
from pilc_stream.reports.peers import PEER_NAMES
from pilc_stream.reports.records import Observation, Record, observations

FLOP_PER_MAC = 2
"""A multiply-accumulate is a multiplication and an addition."""


@dataclass(frozen=True)
class Cost:
    """What a profile computes: `encode_macs` and `decode_macs` are multiply-accumulates per pixel, by part."""

    profile: str
    model_sha256: str
    parameters: int
    encode_macs: Mapping[str, int]
    decode_macs: Mapping[str, int]

    def kmac(self, direction: str) -> float:
        """Thousands of multiply-accumulates per pixel to "encode" or to "decode"."""
        return sum((self.encode_macs if direction == "encode" else self.decode_macs).values()) / 1000

    def kflop(self, direction: str) -> float:
        """Thousands of operations per pixel to "encode" or to "decode"."""
        return FLOP_PER_MAC * self.kmac(direction)


@dataclass(frozen=True)
class Timing:
    """How fast one codec is on one device. `machine` stands where it was measured, `device` is the part that worked.

    `on_hull`: whether it lies on the hull of all codecs of this machine; None where no peer was measured there.
    `below_peers`: how many bits per sub-pixel a profile lies below the hull of the peers of this machine, at its own
    speed; negative above; None for peers, without peers, and for what is faster than all of them.
    """

    codec: str
    is_peer: bool
    machine: str
    device: str
    date: str
    rounds: int
    bpsp: float
    encode_mb_per_s: float
    decode_mb_per_s: float
    encode_mp_per_s: float
    decode_mp_per_s: float
    on_hull: bool | None = None
    below_peers: float | None = None


@dataclass(frozen=True)
class SetReport:
    """One set: bits per sub-pixel by codec, saving of each profile against each peer in per cent, timings."""

    name: str
    images: int
    pixels: int
    raw_bytes: int
    bpsp: Mapping[str, float]
    savings: Mapping[str, Mapping[str, float]]
    timings: Sequence[Timing]


@dataclass(frozen=True)
class Report:
    """The whole report. `peers`: their settings by name, in order. `machines`: facts of every run, by name and date."""

    costs: Sequence[Cost]
    peers: Mapping[str, str]
    sets: Sequence[SetReport]
    machines: Sequence[Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        costs = [
            {
                **asdict(cost),
                **{f"{way}_kmac_per_pixel": cost.kmac(way) for way in ("encode", "decode")},
                **{f"{way}_kflop_per_pixel": cost.kflop(way) for way in ("encode", "decode")},
            }
            for cost in self.costs
        ]
        return {"flop_per_mac": FLOP_PER_MAC, **asdict(self), "costs": costs}


def shipped_costs() -> list[Cost]:
    """What the shipped profiles cost, counted from their models."""
    return sorted(map(_cost, wave_preset_names()), key=lambda cost: cost.kmac("decode"))


def build_report(costs: Sequence[Cost], measured: Sequence[Record], recorded: Sequence[Record]) -> Report:
    """The report on the profiles of `costs`: what was `measured` now, and was `recorded` earlier of the same images.

    What was measured decides which sets and images the report is about; without it, of each set the most that were
    recorded. A figure of another model than those of `costs` is left out. Of the same codec on the same device the
    newest counts.
    """
    shipped = {cost.profile: cost.model_sha256 for cost in costs}

    def known(records: Sequence[Record]) -> list[Observation]:
        found = [observed for record in records for observed in observations(record)]
        return [each for each in found if each.figures.key.codec in PEER_NAMES or _is_current(each, shipped)]

    fresh, earlier = known(measured), known(recorded)
    chosen: dict[str, tuple[int, int]] = {}
    for observed in fresh or earlier:
        chosen[observed.set_name] = max(_size(observed), chosen.get(observed.set_name, (0, 0)))
    kept = [
        [each for each in (*earlier, *fresh) if (each.set_name, _size(each)) == (name, size)]
        for name, size in chosen.items()
    ]
    order = [*PEER_NAMES, *shipped]
    sets = sorted((_set_report(each, order) for each in kept), key=lambda each: -each.pixels / each.images)
    return Report(costs, _peers(kept), sets, _machines(kept))


def _is_current(observed: Observation, shipped: Mapping[str, str]) -> bool:
    key = observed.figures.key
    return shipped.get(key.codec) == key.version


def _size(observed: Observation) -> tuple[int, int]:
    return observed.figures.images, observed.figures.raw_bytes


def _cost(profile: str) -> Cost:
    model = load_model(preset_bytes(profile))
    # One and the same network runs both ways; only an encoder searches.
    macs, search = model.spec.macs_per_pixel(), search_for(model.spec)
    searching = search.macs_per_pixel(model.spec) if search else {}
    return Cost(profile, model.sha256, model.spec.parameters(), encode_macs={**macs, **searching}, decode_macs=macs)


def _peers(kept: Iterable[Iterable[Observation]]) -> dict[str, str]:
    settings = {
        observed.figures.peer: observed.figures.settings
        for group in kept
        for observed in group
        if isinstance(observed.figures, PeerFigures)
    }
    return {name: settings[name] for name in PEER_NAMES if name in settings}


def _machines(kept: Iterable[Iterable[Observation]]) -> list[Mapping[str, Any]]:
    runs = {
        (machine_name(observed.machine), observed.machine["date"], observed.machine["command"]): observed.machine
        for group in kept
        for observed in group
    }
    return [runs[key] for key in sorted(runs)]


def _set_report(group: Sequence[Observation], order: Sequence[str]) -> SetReport:
    newest: dict[tuple[str, str], Observation] = {}
    for observed in sorted(group, key=lambda each: str(each.machine["date"])):
        figures = observed.figures
        newest[figures.key.codec, device_name(observed.machine, figures.device, figures.threads)] = observed
    ranked = sorted(newest.values(), key=lambda each: order.index(each.figures.key.codec))
    bpsp = {each.figures.key.codec: each.figures.bpsp for each in ranked}
    peers = [name for name in bpsp if name in PEER_NAMES]
    first = group[0]
    return SetReport(
        name=first.set_name,
        images=first.figures.images,
        pixels=first.figures.pixels,
        raw_bytes=first.figures.raw_bytes,
        bpsp=bpsp,
        savings={
            name: {peer: round(100 * (1 - bits / bpsp[peer]), 2) for peer in peers}
            for name, bits in bpsp.items()
            if name not in peers
        },
        timings=_timings(ranked),
    )


def _timings(ranked: Sequence[Observation]) -> list[Timing]:
    points: dict[str, list[Point]] = {}
    peer_points: dict[str, list[Point]] = {}
    for observed in ranked:
        machine = machine_name(observed.machine)
        points.setdefault(machine, []).append(_point(observed))
        if isinstance(observed.figures, PeerFigures):
            peer_points.setdefault(machine, []).append(_point(observed))
    hulls = {machine: lower_hull(points[machine]) for machine in peer_points}
    peer_hulls = {machine: lower_hull(group) for machine, group in peer_points.items()}
    return [_timing(observed, hulls, peer_hulls) for observed in ranked]


def _point(observed: Observation) -> Point:
    return math.log(observed.figures.decode_mb_per_s), observed.figures.bpsp


def _timing(
    observed: Observation, hulls: Mapping[str, Sequence[Point]], peer_hulls: Mapping[str, Sequence[Point]]
) -> Timing:
    figures, machine = observed.figures, machine_name(observed.machine)
    is_peer = isinstance(figures, PeerFigures)
    point = _point(observed)
    height = None if is_peer else height_at(peer_hulls.get(machine, ()), point[0])
    return Timing(
        codec=figures.key.codec,
        is_peer=is_peer,
        machine=machine,
        device=device_name(observed.machine, figures.device, figures.threads),
        date=observed.machine["date"],
        rounds=figures.rounds,
        bpsp=figures.bpsp,
        encode_mb_per_s=figures.encode_mb_per_s,
        decode_mb_per_s=figures.decode_mb_per_s,
        encode_mp_per_s=float(f"{figures.encode_mp_per_s:.4g}"),
        decode_mp_per_s=float(f"{figures.decode_mp_per_s:.4g}"),
        on_hull=lies_on(hulls[machine], point) if machine in hulls else None,
        below_peers=None if height is None else round(height - figures.bpsp, 4),
    )

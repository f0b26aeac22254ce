"""The rate-distortion-computation report: curves and savings of each set, cost and time of the models by part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pilc_stream.reports.lossy_curves import Curve, anchors, curve_of, rate_saving
from pilc_stream.reports.machine import device_name, machine_name

RATES = (0.2, 1.0)
"""Bits per pixel between which lossy profiles are asked to save."""

KODAK = ("kodak", 24)
"""The set, whole, that published curves are about."""

DECODER_PARTS = {"synthesis": "synthesis", "hyper_synthesis": "hyper", "entropy_model": "channel-wise steps"}
CODER = "coder"


@dataclass(frozen=True)
class SetCurves:
    """A set's curves: `profiles` ours, `peers` measured, `published` from the literature.

    `savings` and `savings_in_range`: of each measured codec against each other curve, over all the PSNR they share and
    where the other takes 0.2 to 1 bits per pixel, as shares; None where they share too little.
    """

    name: str
    images: int
    profiles: Sequence[Curve]
    peers: Sequence[Curve]
    published: Sequence[Curve]
    savings: Mapping[str, Mapping[str, float | None]]
    savings_in_range: Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True)
class ModelTime:
    """A model's decoder on a device. `kflop` per pixel and `seconds_per_mp` by part; the coder has no operations.

    `latents_per_pixel` are what the coder gives. `published`: the paper's row.
    """

    name: str
    parts: Sequence[str]
    parameters: int
    kflop: Mapping[str, float]
    seconds_per_mp: Mapping[str, float]
    latents_per_pixel: float
    published: Mapping[str, Any] | None

    @property
    def decoder_kflop(self) -> float:
        """Thousands of operations per pixel."""
        return sum(self.kflop.values())

    def mp_per_s(self, with_coder: bool) -> float | None:
        """Megapixels per second; None where the coder is asked for and was not timed."""
        seconds = dict(self.seconds_per_mp)
        if with_coder and CODER not in seconds:
            return None
        if not with_coder:
            seconds.pop(CODER, None)
        return 1 / sum(seconds.values())


@dataclass(frozen=True)
class DeviceTimes:
    """The models on one device of one machine, `date` and `command` of the measurement."""

    device: str
    date: str
    command: str
    models: Sequence[ModelTime]


@dataclass(frozen=True)
class LossyReport:
    """What is reported. `settings`: of profiles and peers; `machines`: the facts of each; `courses`: of trainings."""

    sets: Sequence[SetCurves]
    devices: Sequence[DeviceTimes]
    settings: Mapping[str, str]
    machines: Sequence[Mapping[str, Any]]
    anchors_source: str
    courses: Sequence[Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "rates": list(RATES),
            "anchors": self.anchors_source,
            "settings": dict(self.settings),
            "machines": list(self.machines),
            "sets": [
                {
                    "name": each.name,
                    "images": each.images,
                    "curves": {
                        curve.name: [list(point) for point in curve.points]
                        for curve in (*each.profiles, *each.peers, *each.published)
                    },
                    "savings": each.savings,
                    "savings_in_range": each.savings_in_range,
                }
                for each in self.sets
            ],
            "devices": [
                {
                    "device": each.device,
                    "date": each.date,
                    "command": each.command,
                    "models": [
                        {
                            "name": model.name,
                            "parameters": model.parameters,
                            "kflop": model.kflop,
                            "seconds_per_mp": model.seconds_per_mp,
                            "mp_per_s": model.mp_per_s(False),
                            "mp_per_s_with_coder": model.mp_per_s(True),
                        }
                        for model in each.models
                    ],
                }
                for each in self.devices
            ],
            "courses": list(self.courses),
        }


def build_lossy_report(records: Iterable[Mapping[str, Any]], courses: Sequence[Mapping[str, Any]]) -> LossyReport:
    """The report on records of `measure_lossy`: of each set, and of each device, the first."""
    sets: dict[str, SetCurves] = {}
    devices: list[DeviceTimes] = []
    settings: dict[str, str] = {}
    machines: list[Mapping[str, Any]] = []
    source, published = anchors()
    for record in records:
        if record["codecs"]:
            sets.setdefault(record["set"], _set_curves(record, published))
        settings = {name: codec["version"] for name, codec in record["codecs"].items()} | settings
        if all(machine_name(record["machine"]) != machine_name(known) for known in machines):
            machines.append(record["machine"])
        for name, times in record.get("times", {}).items():
            models = [ModelTime(**model) for model in times["models"]]
            device = device_name(times["machine"], name, 1)
            if any(device == known.device for known in devices):
                continue
            devices.append(DeviceTimes(device, times["machine"]["date"], times["machine"]["command"], models))
    return LossyReport(list(sets.values()), devices, settings, machines, source, courses)


def _set_curves(record: Mapping[str, Any], published: Sequence[Curve]) -> SetCurves:
    curves: dict[bool, list[Curve]] = {False: [], True: []}
    for name, codec in record["codecs"].items():
        points = [(point["bpp"], point["psnr"]) for point in codec["points"]]
        curves[codec["is_peer"]].append(curve_of(name, points))
    known = list(published) if (record["set"], record["images"]) == KODAK else []
    every = [*curves[False], *curves[True], *known]
    measured = [*curves[False], *curves[True]]

    def savings(rates: tuple[float, float] | None) -> dict[str, dict[str, float | None]]:
        return {
            curve.name: {other.name: _rounded(rate_saving(curve, other, rates)) for other in every if other != curve}
            for curve in measured
        }

    return SetCurves(record["set"], record["images"], curves[False], curves[True], known, savings(None), savings(RATES))


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)

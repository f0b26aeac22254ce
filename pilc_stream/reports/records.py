"""Recorded runs: JSON files that say what was measured, on what machine, when, by which command.

A run holds the facts of its machine, and the figures of profiles and of peers. A record of `pilc frontier` is about one
set on one machine and holds the runs that its figures come from; a record of `pilc bench` is one run.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pilc_stream.errors import UsageError
from pilc_stream.reports.figures import Figures, PeerFigures, ProfileFigures
from pilc_stream.reports.machine import machine_name
from pilc_stream.reports.sets import ImageSet

Record = Mapping[str, Any]

KINDS = ("bench", "frontier")
"""The commands that record; their records' files begin with the name."""


@dataclass(frozen=True)
class Observation:
    """Some figures, the set they are about, and the facts of the machine they were taken on."""

    set_name: str
    machine: Mapping[str, Any]
    figures: ProfileFigures | PeerFigures


def recorded(*kinds: str) -> list[Record]:
    """The recorded runs that come with the package, by file name; of the commands `kinds`, or of all."""
    folder = resources.files("pilc_stream.reports") / "measured"
    prefixes = tuple(f"{kind}-" for kind in kinds or KINDS)
    names = sorted(file.name for file in folder.iterdir() if file.name.startswith(prefixes))
    return [json.loads((folder / name).read_text()) for name in names if name.endswith(".json")]


def observations(record: Record) -> list[Observation]:
    """The figures in a record of either kind."""
    set_name = record.get("set") or record["images"]
    found = []
    for run in record.get("runs", [record]):
        figures: list[ProfileFigures | PeerFigures] = [ProfileFigures(**values) for values in run["profiles"]]
        figures += [PeerFigures(**values) for values in run.get("peers", ())]
        found += [Observation(set_name, run["machine"], each) for each in figures]
    return found


def record_path(folder: Path, set_name: str, machine: Mapping[str, Any]) -> Path:
    """Where in `folder` the record of a set on a machine lies."""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{set_name} {machine_name(machine)}".lower()).strip("-")
    return folder / f"frontier-{slug}.json"


def read_record(path: Path | None, image_set: ImageSet) -> Record:
    """The record at `path`, or an empty one where there is no path, no record, or one about other images.

    Raises UsageError where something else lies there.
    """
    empty = {
        "set": image_set.name,
        "left_out": image_set.left_out,
        "sha256": image_set.sha256(),
        "runs": [],
    }
    if path is None or not path.exists():
        return empty
    try:
        record = json.loads(path.read_text())
        observations(record)
        return record if record["sha256"] == empty["sha256"] else empty
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: this is no record of pilc frontier ({error!r}); move it away") from error


def with_run(record: Record, machine: Mapping[str, Any], figures: Sequence[Figures], processes: int) -> Record:
    """The record with a run more; what it measured anew is taken out of the older runs."""
    slots = {measured.key.slot for measured in figures}
    runs = [_without(run, slots) for run in record["runs"]]
    runs.append(
        {
            "machine": machine,
            "processes": processes,
            "profiles": [measured.to_json() for measured in figures if isinstance(measured, ProfileFigures)],
            "peers": [measured.to_json() for measured in figures if isinstance(measured, PeerFigures)],
        }
    )
    return {**record, "runs": [run for run in runs if run["profiles"] or run["peers"]]}


def write_record(path: Path, record: Record) -> None:
    """Write the record whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(json.dumps(record, indent=2) + "\n")
    os.replace(temporary, path)


def _without(run: Mapping[str, Any], slots: Iterable[tuple[str, str, int]]) -> dict[str, Any]:
    return {
        **run,
        "profiles": [values for values in run["profiles"] if ProfileFigures(**values).key.slot not in slots],
        "peers": [values for values in run["peers"] if PeerFigures(**values).key.slot not in slots],
    }

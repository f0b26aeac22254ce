"""Times of the models' decoders in a record: once for each device, with the models that they are about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pilc_stream.reports.lossy_measure import record_path, write_json
from pilc_stream.reports.lossy_report import CODER
from pilc_stream.reports.machine import machine_facts

Row = dict[str, Any]


def add_times(record: Row, device: str, measure: Callable[[], Sequence[Row]], folder: Path | None) -> None:
    """Put the rows of `measure` into the record, and the record into `folder`, unless the device has been timed for
    the profiles that the record knows."""
    versions = {name: codec["version"] for name, codec in record["codecs"].items() if not codec["is_peer"]}
    known = record["times"].get(device)
    if known and known["versions"] == versions:
        return
    machine = machine_facts()
    record["times"][device] = {"machine": machine, "versions": versions, "models": with_coders(measure())}
    if folder:
        write_json(record_path(folder, record["set"], machine), record)


def with_coders(rows: Sequence[Row]) -> list[Row]:
    """Rows that have no coder are given the time that the first row with one takes for as many latents."""
    timed = next((row for row in rows if CODER in row["seconds_per_mp"]), None)
    if timed is None:
        return list(rows)
    per_latent = timed["seconds_per_mp"][CODER] / timed["latents_per_pixel"]
    return [
        {**row, "seconds_per_mp": {CODER: round(per_latent * row["latents_per_pixel"], 5), **row["seconds_per_mp"]}}
        for row in rows
    ]

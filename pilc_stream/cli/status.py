"""`pilc status`: how far a job is, from storage alone."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from pilc_stream.cli.console import bits, duration, output, per_cent, print_facts, print_failures, print_json, size
from pilc_stream.cli.options import debug_option, json_option, storage_option

if TYPE_CHECKING:
    from workers.watch import JobState


@click.command()
@click.argument("dataset")
@storage_option
@json_option
@debug_option
def status(dataset: str, storage_options: dict[str, Any], as_json: bool) -> None:
    """Say how far the job of a data set is.

    It may be running, stopped or finished. Only what is committed counts, and only storage is asked, so this works from
    anywhere.
    """
    from pilc_stream.storage import Store
    from workers.watch import JobState

    state = JobState.of(Store.open(dataset, storage_options))
    if as_json:
        print_json(_document(state))
    else:
        _print(state)


def _document(state: JobState) -> dict[str, Any]:
    totals, info = state.totals, state.job.get("info") or {}
    return {
        "dataset": state.url,
        "finished": state.finished,
        "seems_running": state.seems_running,
        "images": totals.images,
        "images_total": state.images,
        "shards": totals.shards,
        "shards_total": state.shards,
        "failed": totals.failed,
        "fallback": totals.fallback,
        "raw_bytes": totals.raw_bytes,
        "source_bytes": totals.source_bytes,
        "payload_bytes": totals.payload_bytes,
        "stored_bytes": totals.shard_bytes,
        "bpsp": totals.bpsp,
        "last_commit_seconds": state.last_commit_s,
        "left_seconds": state.left_s,
        "stage_seconds": state.stages.to_json(),
        "hosts": list(state.hosts),
        "quarantined": [asdict(shard) for shard in state.quarantined],
        "profile": state.job.get("profile"),
        "started": info.get("started"),
        "host": info.get("host"),
    }


def _print(state: JobState) -> None:
    totals, info = state.totals, state.job.get("info") or {}
    known = f"{_of(totals.images, state.images)} ({per_cent(totals.images, state.images)})" if state.images else None
    facts = [
        ("data set", state.url),
        ("state", _state(state)),
        ("images", known or f"{totals.images:,}"),
        ("shards", _of(totals.shards, state.shards)),
        ("failed", f"{totals.failed:,}"),
        ("kept as source", f"{totals.failed + totals.fallback:,}"),
        ("sources", size(totals.source_bytes)),
        ("stored", size(totals.shard_bytes)),
        ("bits/sub-pixel", bits(totals.bpsp)),
        ("profile", str(state.job.get("profile", "-"))),
        ("started", f"{info.get('started', '-')} on {info.get('host', '-')}"),
    ]
    if state.last_commit_s is not None:
        hosts = ", ".join(state.hosts[:4]) + (", ..." if len(state.hosts) > 4 else "")
        facts.append(("last shard", f"{duration(state.last_commit_s)} ago; made on {hosts}"))
    seconds = state.stages.to_json()
    if sum(seconds.values()):
        facts.append(("work", ", ".join(f"{stage} {duration(spent)}" for stage, spent in seconds.items())))
    print_facts(facts)
    if state.quarantined:
        output().print("\nThese shards failed again and again; the next run of the command tries them once more:")
        lines = [
            (f"{shard.index:06d} ({shard.first_key} to {shard.last_key})", shard.reason) for shard in state.quarantined
        ]
        print_failures(lines, len(lines), "")


def _state(state: JobState) -> str:
    if state.finished:
        return "finished"
    left = f", about {duration(state.left_s)} left" if state.left_s is not None else ""
    # Storage cannot tell a job that is slow from one that has just been killed.
    note = f" (it may be running still{left})" if state.seems_running else ""
    return f"not finished; the same compress command goes on with it{note}"


def _of(count: int, total: int | None) -> str:
    return f"{count:,}" if total is None else f"{count:,} of {total:,}"

"""`pilc status`: how far a job is, from storage alone."""

from __future__ import annotations

from typing import Any

import click

from pilc_stream.cli.console import bits, per_cent, print_facts, print_json, size
from pilc_stream.cli.options import debug_option, json_option, storage_option


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
    from pilc_stream.records.commit import JOB_INFO
    from pilc_stream.records.manifest import Manifest
    from workers.progress import Totals

    manifest = Manifest.load(dataset, storage_options, allow_partial=True)
    totals = Totals.of(manifest.shards)
    job = manifest.job
    info = job.get(JOB_INFO) or {}
    images, shards = job.get("images"), info.get("shards")
    if as_json:
        print_json(
            {
                "dataset": manifest.url,
                "finished": manifest.finished,
                "images": totals.images,
                "images_total": images,
                "shards": totals.shards,
                "shards_total": shards,
                "failed": totals.failed,
                "fallback": totals.fallback,
                "raw_bytes": totals.raw_bytes,
                "source_bytes": totals.source_bytes,
                "payload_bytes": totals.payload_bytes,
                "stored_bytes": totals.shard_bytes,
                "bpsp": totals.bpsp,
                "profile": job.get("profile"),
                "started": info.get("started"),
                "host": info.get("host"),
            }
        )
        return
    state = "finished" if manifest.finished else "not finished; the same compress command goes on with it"
    print_facts(
        [
            ("data set", manifest.url),
            ("state", state),
            (
                "images",
                f"{_of(totals.images, images)} ({per_cent(totals.images, images)})" if images else f"{totals.images:,}",
            ),
            ("shards", _of(totals.shards, shards)),
            ("failed", f"{totals.failed:,}"),
            ("kept as source", f"{totals.failed + totals.fallback:,}"),
            ("sources", size(totals.source_bytes)),
            ("stored", size(totals.shard_bytes)),
            ("bits/sub-pixel", bits(totals.bpsp)),
            ("profile", str(job.get("profile", "-"))),
            ("started", f"{info.get('started', '-')} on {info.get('host', '-')}"),
        ]
    )


def _of(count: int, total: object) -> str:
    return f"{count:,} of {total:,}" if isinstance(total, int) else f"{count:,}"

"""`pilc gc`: files of a data set that nothing refers to."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from pilc_stream.cli.console import output, print_failures, print_json, sentence, size
from pilc_stream.cli.options import debug_option, json_option, storage_option


@click.command()
@click.argument("dataset")
@click.option("--delete", is_flag=True, help="Delete what is listed.")
@click.option(
    "--no-job-is-running",
    is_flag=True,
    help="Allow --delete in an unfinished data set, where a running job's newest files look like orphans.",
)
@storage_option
@json_option
@debug_option
def gc(dataset: str, delete: bool, no_job_is_running: bool, storage_options: dict[str, Any], as_json: bool) -> None:
    """List files of a data set that nothing refers to, and delete them if asked to.

    Jobs that are killed leave some: shards that were never committed, or that another job committed first. No reader
    looks at them; they only cost space.
    """
    from pilc_stream.records.orphans import delete_orphans, find_orphans
    from pilc_stream.storage import Store

    store = Store.open(dataset, storage_options)
    orphans = find_orphans(store)
    if delete and orphans:
        delete_orphans(store, orphans, is_idle=no_job_is_running)
    total = sum(orphan.bytes for orphan in orphans)
    if as_json:
        print_json(
            {
                "dataset": store.url,
                "orphans": [asdict(orphan) for orphan in orphans],
                "bytes": total,
                "deleted": delete and bool(orphans),
            }
        )
        return
    if not orphans:
        sentence("There are no orphans.")
        return
    lines = [(orphan.path, f"{size(orphan.bytes)}, {orphan.reason}") for orphan in orphans]
    print_failures(lines, len(lines), "")
    output().print(f"{len(orphans):,} orphans, {size(total)}{': deleted.' if delete else '.'}")
    if not delete:
        sentence("This was a dry run; --delete deletes them.")

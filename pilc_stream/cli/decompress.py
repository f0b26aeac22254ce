"""`pilc decompress`: a data set back to files."""

from __future__ import annotations

from typing import Any, Literal

import click

from pilc_stream.cli.console import duration, output, print_failures, print_json, size
from pilc_stream.cli.options import debug_option, device_option, json_option, storage_option, threads_option


@click.command()
@click.argument("dataset")
@click.argument("destination")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["png", "npy", "source"]),
    default="png",
    show_default=True,
    help="PNG, NumPy arrays, or only the files that were kept as they came.",
)
@device_option
@threads_option("CPU threads.  [default: all cores]")
@storage_option
@json_option
@debug_option
def decompress(
    dataset: str,
    destination: str,
    format_: Literal["png", "npy", "source"],
    device: str,
    threads: int | None,
    storage_options: dict[str, Any],
    as_json: bool,
) -> None:
    """Write the images of DATASET as files below DESTINATION.

    Each file is named by its key and has exactly the pixels of its source, which are checked before it is written.
    Records that cannot be written are listed; then the exit code is 1.
    """
    from pilc_stream.cli.progress import counting
    from pilc_stream.pipeline.decompress import export
    from pilc_stream.records.manifest import Manifest
    from workers.placement import usable_cpus

    manifest = Manifest.load(dataset, storage_options)
    with counting("decompressing", manifest.rows) as progress:
        report = export(
            manifest,
            destination,
            format_,
            storage_options=storage_options,
            device=device,
            threads=threads or usable_cpus(),
            progress=progress,
        )
    if as_json:
        print_json({"dataset": manifest.url, "destination": destination, "format": format_, **report.to_json()})
    else:
        came = f", {report.as_they_came:,} of them as they came" if report.as_they_came else ""
        output().print(
            f"{report.files:,} files ({size(report.file_bytes)}) in {destination}{came}; {duration(report.seconds)}."
        )
        if report.unavailable:
            output().print(f"{report.unavailable:,} images were coded from their pixels and have no source file.")
        if report.renamed:
            output().print(f"{len(report.renamed):,} files have a longer name, because two would have met.")
        if report.failed:
            output().print(f"{len(report.failed):,} could not be written:")
            lines = [(finding.key or finding.shard, finding.reason) for finding in report.failed]
            print_failures(lines, len(report.failed), "--json lists them all." if len(lines) > 10 else "")
    if report.failed:
        click.get_current_context().exit(1)

"""`pilc verify`: is every image there, to the last pixel?"""

from __future__ import annotations

from typing import Any

import click

from pilc_stream.cli.console import counted, duration, output, print_failures, print_json, size
from pilc_stream.cli.options import debug_option, device_option, json_option, storage_option, threads_option


@click.command()
@click.argument("dataset")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Decode only about one image in N.")
@device_option
@threads_option("CPU threads.  [default: all cores]")
@storage_option
@json_option
@debug_option
def verify(
    dataset: str,
    sample: int | None,
    device: str,
    threads: int | None,
    storage_options: dict[str, Any],
    as_json: bool,
) -> None:
    """Check that DATASET is what its commits say.

    Every file is read and compared with its digest, every payload decoded and compared with the digest of its pixels,
    and no key may be missing or doubled. Whatever is wrong is listed; then the exit code is 1.
    """
    from pilc_stream.cli.progress import counting
    from pilc_stream.pipeline.verify import verify_dataset
    from pilc_stream.records.manifest import Manifest
    from workers.placement import usable_cpus

    manifest = Manifest.load(dataset, storage_options)
    with counting("verifying", manifest.rows) as progress:
        report = verify_dataset(
            manifest, device=device, threads=threads or usable_cpus(), sample=sample, progress=progress
        )
    if as_json:
        print_json({"dataset": manifest.url, "ok": report.ok, **report.to_json()})
    elif report.ok:
        output().print(
            f"{manifest.url} is sound: {counted(report.images, 'image')} in {counted(report.shards, 'shard')}, "
            f"{report.decoded:,} decoded and compared ({size(report.raw_bytes)} of pixels, {duration(report.seconds)})."
        )
    else:
        output().print(f"{manifest.url} is damaged: {counted(len(report.failed), 'finding')}.")
        lines = [(finding.key or finding.shard or "data set", finding.reason) for finding in report.failed]
        print_failures(lines, len(report.failed), "--json lists them all." if len(lines) > 10 else "")
    if not report.ok:
        click.get_current_context().exit(1)

"""`pilc bench`: how fast and how small, on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pilc_stream.cli.console import messages, output, print_json
from pilc_stream.cli.options import debug_option, device_option, json_option


@click.command()
@click.argument("source", required=False, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--profile", "profiles", multiple=True, help="A profile to time; may be repeated.  [default: all shipped]"
)
@device_option
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Rounds; medians are shown.")
@click.option("--limit", type=click.IntRange(min=1), help="Take only the first so many images.")
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the figures with the machine's facts here.",
)
@json_option
@debug_option
def bench(
    source: Path | None,
    profiles: tuple[str, ...],
    device: str,
    threads: int,
    rounds: int,
    limit: int | None,
    record: Path | None,
    as_json: bool,
) -> None:
    """Time the profiles on the images in SOURCE, or on the pictures that come along.

    SOURCE is a folder, or a Parquet file with a column `image`.

    Every profile runs in every round, so that drift of the machine hits all alike. Rates are raw pixels: 1 MB is
    1,000,000 bytes of them. What does not decode, or is not 8-bit grey or RGB, is left out and counted.
    """
    from pilc_stream.codecs import profiles as known_profiles
    from pilc_stream.reports.bench import bench_profiles
    from pilc_stream.reports.machine import machine_facts
    from pilc_stream.reports.sets import load_set

    image_set = load_set(source, limit)
    names = profiles or [name for name in known_profiles() if name != "raw"]
    figures = bench_profiles(image_set, names, device, threads, rounds, _say_beginning)
    report = {
        "machine": machine_facts(),
        "images": image_set.name,
        "left_out": image_set.left_out,
        "profiles": [figure.to_json() for figure in figures],
    }
    if record:
        record.write_text(json.dumps(report, indent=2) + "\n")
    if as_json:
        print_json(report)
        return
    for figure in figures:
        output().print(
            f"{figure.profile}: {figure.bpsp:.4f} bits per sub-pixel, {figure.encode_mb_per_s:.1f} MB/s in, "
            f"{figure.decode_mb_per_s:.1f} MB/s out ({figure.images} images, {figure.threads} thread)"
        )


def _say_beginning(label: str, done: int, total: int) -> None:
    if not done:
        messages().print(label)

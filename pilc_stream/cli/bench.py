"""`pilc bench`: how fast and how small, on this machine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pilc_stream.cli.console import messages, output, print_json
from pilc_stream.cli.options import debug_option, device_option, json_option
from pilc_stream.errors import UsageError


@click.command()
@click.argument("sources", metavar="[SOURCE]...", nargs=-1, type=click.Path(exists=True, path_type=Path))
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
@click.option(
    "--roofline",
    is_flag=True,
    help="Time nothing: say what the CUDA kernels take and could reach on a V100 and an H200. Needs no card.",
)
@click.option(
    "--card",
    is_flag=True,
    help="Time every stage on this machine's CUDA card, on batches of small, middle and large pictures, for five "
    "minutes at most. `--device cuda` without SOURCE does the same.",
)
@click.option(
    "--loaders",
    is_flag=True,
    help="Time loaders: ours, and ImageFolder, WebDataset and MosaicML Streaming on the same images.",
)
@click.option(
    "--peers",
    is_flag=True,
    help="Time other lossless codecs too, on one core and on all, and print ratios against PNG last. Takes several "
    "SOURCEs, at most 24 MB of each.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Of each loader, and cores that it has."
)
@click.option(
    "--peers-python",
    metavar="PYTHON",
    help="An interpreter that has torchvision, webdataset and mosaicml-streaming.  [default: this one]",
)
@json_option
@debug_option
def bench(
    sources: tuple[Path, ...],
    profiles: tuple[str, ...],
    device: str,
    threads: int,
    rounds: int,
    limit: int | None,
    record: Path | None,
    roofline: bool,
    card: bool,
    loaders: bool,
    peers: bool,
    workers: int,
    peers_python: str | None,
    as_json: bool,
) -> None:
    """Time the profiles on the images in SOURCE, or on the pictures that come along.

    SOURCE is a folder, or a Parquet file with a column `image`; only --loaders and --peers take several.

    Every profile runs in every round, so that drift of the machine hits all alike. Rates are raw pixels: 1 MB is
    1,000,000 bytes of them. What does not decode, or is not 8-bit grey or RGB, is left out and counted.
    """
    from pilc_stream.models.shipped import lossless_preset_names

    names = profiles or lossless_preset_names()
    card = card or (device == "cuda" and not (sources or roofline or loaders))
    if roofline or card:
        if sources or loaders or (roofline and card):
            raise UsageError("--roofline and --card take neither SOURCE nor each other, nor --loaders.")
        _show(_roofline(names) if roofline else _card(names, rounds), record, as_json)
        return
    if loaders:
        _show(_loaders(sources, profiles, workers, rounds, limit, peers_python), record, as_json)
        return
    if peers:
        if device not in ("auto", "cpu"):
            raise UsageError("--peers is for the CPU.")
        _show(_peers(sources, profiles, rounds, limit), record, as_json)
        return
    if len(sources) > 1:
        raise UsageError(f"{len(sources)} sources were given; the profiles are timed on one.")
    from pilc_stream.reports.bench import bench_profiles
    from pilc_stream.reports.machine import machine_facts
    from pilc_stream.reports.sets import load_set

    image_set = load_set(sources[0] if sources else None, limit)
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


def _roofline(profiles: Sequence[str]) -> tuple[dict[str, Any], str]:
    from pilc_stream.models.shipped import preset_bytes
    from pilc_stream.reports.roofline import ceilings, roofline, table

    lines = []
    for name in profiles:
        messages().print(f"compiling {name}")
        lines += [roofline(card, name, preset_bytes(name)) for card in ceilings()]
    return {"rooflines": [line.to_json() for line in lines]}, table(lines)


def _card(profiles: Sequence[str], rounds: int) -> tuple[dict[str, Any], str]:
    from pilc_stream.reports.card import bench_card, card_table

    figures = bench_card(profiles, rounds=rounds, progress=messages().print)
    return {"figures": [one.to_json() for one in figures]}, card_table(figures)


def _peers(
    sources: Sequence[Path], profiles: Sequence[str], rounds: int, limit: int | None
) -> tuple[dict[str, Any], str]:
    from pilc_stream.reports.race import PROFILES, race_peers
    from pilc_stream.reports.sets import load_set

    sets = [load_set(source, limit) for source in sources] or [load_set(None, limit)]
    return race_peers(sets, profiles or PROFILES, os.cpu_count() or 1, rounds, messages().print)


def _loaders(
    sources: Sequence[Path], profiles: Sequence[str], workers: int, rounds: int, limit: int | None, python: str | None
) -> tuple[dict[str, Any], str]:
    from pilc_stream.codecs import DEFAULT_PROFILE
    from pilc_stream.reports.loaders import Loader, bench_loaders, loader_table, peer_loaders
    from pilc_stream.reports.sets import load_set

    command = (sys.executable, "-m", "pilc_stream.cli.own_loader")
    own = [Loader(f"pilc-{name}", (*command, name)) for name in profiles or [DEFAULT_PROFILE]]
    contestants = [*own, *peer_loaders(python or sys.executable)]
    sets = [load_set(source, limit) for source in sources] or [load_set(None, limit)]
    reports = [bench_loaders(each, contestants, workers, rounds, messages().print) for each in sets]
    return {"loaders": [report.to_json() for report in reports]}, "\n".join(map(loader_table, reports))


def _show(found: tuple[dict[str, Any], str], record: Path | None, as_json: bool) -> None:
    from pilc_stream.reports.machine import machine_facts

    values, text = found
    report = {"machine": machine_facts(), **values}
    if record:
        record.write_text(json.dumps(report, indent=2) + "\n")
    if as_json:
        print_json(report)
    else:
        output().print(text, markup=False, soft_wrap=True)


def _say_beginning(label: str, done: int, total: int) -> None:
    if not done:
        messages().print(label)

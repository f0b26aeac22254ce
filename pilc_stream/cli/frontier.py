"""`pilc frontier`: computation, rate and time of the profiles, among peers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pilc_stream.cli.console import duration, messages, output, print_json, quiet_libraries
from pilc_stream.cli.options import debug_option, device_option, json_option
from pilc_stream.errors import UsageError

if TYPE_CHECKING:
    from pilc_stream.cli.progress import Display


def _names(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _numbers(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in _names(ctx, param, value))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of numbers such as 3,7,9.", ctx, param) from None


def _pairs(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> frozenset[tuple[str, int]]:
    pairs = set()
    for text in value:
        name, _, effort = text.rpartition(":")
        if not name or not effort.isdecimal():
            raise click.BadParameter(f"{text!r} is not SET:EFFORT, such as highres:9.", ctx, param)
        pairs.add((name, int(effort)))
    return frozenset(pairs)


@click.command()
@click.argument("data", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Write the report's four files here.")
@click.option("--sets", "names", default="", callback=_names, help="Sets of DATA, with commas.  [default: all]")
@click.option("--profiles", default="", callback=_names, help="Profiles, with commas.  [default: all shipped]")
@click.option(
    "--efforts", default="3,7,9", show_default=True, callback=_numbers, help="Efforts of JPEG XL, with commas."
)
@click.option(
    "--skip",
    "skipped",
    multiple=True,
    metavar="SET:EFFORT",
    callback=_pairs,
    help="Leave out this effort of JPEG XL on this set; may be repeated.",
)
@click.option("--peers/--no-peers", default=True, help="Measure PNG, WebP and JPEG XL too.  [default: peers]")
@click.option("--limit", type=click.IntRange(min=1), help="Take only the first so many images of a set.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Rounds; medians count.")
@device_option
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads of profiles.")
@click.option(
    "--processes", type=click.IntRange(min=1), default=1, show_default=True, help="Peers encode in so many processes."
)
@click.option(
    "--record",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep a record of each set in this folder, and do not measure again what is recorded there.",
)
@click.option("--lossy", is_flag=True, help="Report the lossy profiles and the lossy family; takes the set kodak.")
@json_option
@debug_option
def frontier(
    data: Path | None,
    out: Path | None,
    names: tuple[str, ...],
    profiles: tuple[str, ...],
    efforts: tuple[int, ...],
    skipped: frozenset[tuple[str, int]],
    peers: bool,
    limit: int | None,
    rounds: int,
    device: str,
    threads: int,
    processes: int,
    record: Path | None,
    lossy: bool,
    as_json: bool,
) -> None:
    """Report computation, rate and speed of the profiles, among peers.

    The sets of images in DATA (its sub-folders, and Parquet files with a column `image`) are measured: bits per
    sub-pixel of whole payloads, and megabytes of raw pixels per second, of the profiles and of PNG, WebP and JPEG XL,
    all on the same images and checked to be lossless. What was recorded earlier of the same images, on this or other
    devices, is shown along with it, with its date. Without DATA the report is about the recorded runs alone.

    With --out, the report is written as frontier.md, .json, .png and .svg; otherwise it is printed.

    Run again with the same --record, a run that was stopped goes on with the set at which it was; to measure anew,
    delete the record.

    With --lossy, the report is about bits per pixel and PSNR of the lossy profiles among JPEG, WebP, AVIF, JPEG XL and
    published curves, what they save for the same PSNR, and about computation and time of the lossy family's decoders;
    its files are lossy.md, .json, .png and .svg. --efforts, --skip and --processes have no meaning then.
    """
    if data is None and (names or record or limit):
        raise UsageError("nothing is measured without DATA; name the folder of the sets")
    if out:
        # Before hours of measuring, not after them.
        from pilc_stream.reports.plot import require_matplotlib

        require_matplotlib()
    if lossy:
        from pilc_stream.cli.frontier_lossy import measure_lossy_sets, report_lossy

        curves = []
        if data:
            from pilc_stream.cli.progress import Display

            with quiet_libraries(), Display(messages()) as display:
                show = _shown_on(display)
                curves = measure_lossy_sets(data, names, profiles, peers, limit, rounds, device, threads, record, show)
        report_lossy(curves, out, as_json)
        return
    from pilc_stream.reports.frontier import Contest, measure_sets
    from pilc_stream.reports.records import recorded
    from pilc_stream.reports.report import build_report, shipped_costs

    measured = []
    if data:
        contest = Contest(profiles, peers, efforts, skipped, device, threads, rounds, limit, processes)
        from pilc_stream.cli.progress import Display

        with quiet_libraries(), Display(messages()) as display:
            measured = measure_sets(data, names, contest, record, _shown_on(display))
    report = build_report(shipped_costs(), measured, recorded())
    if out:
        from pilc_stream.reports.files import write_report

        for path in write_report(report, out):
            messages().print(f"pilc: wrote {path}", soft_wrap=True)
    if as_json:
        print_json(report.to_json())
    elif not out:
        from pilc_stream.reports.markdown import whole_report

        output().print(whole_report(report), end="")


def _shown_on(display: Display) -> Callable[[str, int, int], None]:
    """Progress of the measurement: what is done now, and how long that will take."""
    state: dict[str, Any] = {"label": None, "since": 0.0}

    def show(label: str, done: int, total: int) -> None:
        now = time.monotonic()
        if label != state["label"]:
            state.update(label=label, since=now)
        if display.is_due():
            line = f"{done:,}/{total:,} images"
            if 0 < done < total:
                line += f", ETA {duration((now - state['since']) / done * (total - done))}"
            display.update(label, done, total, line)

    return show

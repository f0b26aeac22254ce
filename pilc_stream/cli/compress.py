"""`pilc compress`: images in, a data set out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pilc_stream.cli.console import (
    bits,
    duration,
    messages,
    output,
    per_cent,
    print_facts,
    print_failures,
    print_json,
    quiet_libraries,
    sentence,
    size,
)
from pilc_stream.cli.options import (
    Size,
    debug_option,
    device_option,
    json_option,
    settings_option,
    storage_option,
    threads_option,
)

if TYPE_CHECKING:
    from workers.job import DryRun
    from workers.report import JobReport
    from workers.settings import JobSettings


@click.command()
@settings_option
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.argument("destination")
@click.option(
    "--source-kind",
    default="auto",
    show_default=True,
    help="What the sources are: files, tar, parquet, list (of URLs) or arrays; auto goes by their names.",
)
@click.option(
    "--image-column",
    metavar="NAME",
    help="Column of the images or of their URLs, in Parquet, CSV and .npz.  [default: found by type and name]",
)
@click.option("--profile", default="fast", show_default=True, help="What codes the pixels; an unknown name lists all.")
@click.option("--model", "model_path", metavar="FILE", help="A model file, such as one of `pilc fit`, not a profile.")
@click.option(
    "--quality",
    type=click.IntRange(1, 100),
    help="Of a lossy profile: 1 gives the smallest images, 100 the best.  [default: 50]",
)
@click.option(
    "--psnr",
    type=click.FloatRange(min=0, min_open=True),
    metavar="DB",
    help="Of a lossy profile, instead: the least quality that comes so near to each image.",
)
@device_option
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Ray actors; 0 works in this process, without Ray.  [default: one per GPU or CPU core]",
)
@click.option(
    "--gpus-per-worker",
    type=float,
    metavar="N",
    help="GPUs that Ray must find or start for each worker.  [default: those that are there, shared out]",
)
@click.option(
    "--ray-address",
    envvar="RAY_ADDRESS",
    show_envvar=True,
    help="A running Ray cluster, such as auto or ray://head:10001.  [default: a local Ray for this command]",
)
@threads_option("CPU threads of each worker.  [default: the cores, shared out]")
@click.option("--shard-size", type=Size(), default="128MiB", show_default=True, help="Source bytes in a shard at most.")
@click.option(
    "--on-existing",
    type=click.Choice(["resume", "fail", "overwrite"]),
    default="resume",
    show_default=True,
    help="Where DESTINATION holds a data set: go on with it if it is this job, stop, or delete it first.",
)
@click.option("--retry-failed", is_flag=True, help="Also redo shards with records that failed, from repaired files.")
@click.option(
    "--verify",
    type=click.Choice(["all", "sample", "none"]),
    default="all",
    show_default=True,
    help="Which payloads are decoded again and compared before they are written; sample is 1 in 16.",
)
@click.option(
    "--keep",
    type=click.Choice(["display", "pixels", "source"]),
    default="display",
    show_default=True,
    help="What comes along with the pixels: all that affects display, nothing, or the file byte for byte.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Take only so many images, the first by name.")
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    help="Largest image that is decoded whole; larger ones are coded from bands of rows.  [default: 134217728]",
)
@click.option(
    "--max-streamed-pixels",
    type=click.IntRange(min=0),
    help="Keep images above both limits as they came, as failed: they may be decompression bombs. Between the two, so "
    "are those whose rows cannot be read in bands, such as JPEG.  [default: 1073741824]",
)
@storage_option
@click.option("--failed-ok", is_flag=True, help="End with code 0 even where records failed and were kept as they came.")
@click.option("--dry-run", is_flag=True, help="List, say what would be done, and write nothing.")
@json_option
@debug_option
def compress(failed_ok: bool, dry_run: bool, as_json: bool, **flags: Any) -> None:
    """Compress images into a data set that loses no pixel, unless a lossy profile is named.

    SOURCE is a folder, a glob or an image file; folders are searched below for names that end as those of images do.
    Or it is a glob of WebDataset shards (.tar), of Parquet files with an image column, of CSV or Parquet lists of
    URLs, or of NumPy arrays (.npy, .npz); what they say of each image becomes columns of the data set.
    DESTINATION is a new or empty folder for the data set. Either may be a URL.

    A command that was stopped or killed is simply run again: it goes on with what is not committed yet. Files that
    are broken are kept byte for byte and listed with the reason; then the exit code is 1.

    \b
      pilc compress photos dataset
      pilc compress 's3://bucket/raw/**/*.png' s3://bucket/dataset --workers 8
      pilc compress 's3://bucket/shards/*.tar' s3://bucket/dataset --storage-option profile=research
      pilc compress --settings job.toml
    """
    from pilc_stream.images import DEFAULT_MAX_PIXELS, DEFAULT_MAX_STREAMED_PIXELS
    from workers.job import plan_job
    from workers.settings import JobSettings

    context = click.get_current_context()
    if flags["workers"] == 0 and context.get_parameter_source("ray_address") is ParameterSource.ENVIRONMENT:
        flags["ray_address"] = None
    flags["max_pixels"] = flags["max_pixels"] or DEFAULT_MAX_PIXELS
    if flags["max_streamed_pixels"] is None:
        flags["max_streamed_pixels"] = DEFAULT_MAX_STREAMED_PIXELS
    settings = JobSettings(**flags)
    if dry_run:
        plan = plan_job(settings)
        print_json(plan.to_json()) if as_json else _print_plan(plan, settings.on_existing)
        return
    report = run_shown(settings)
    print_json(report.to_json()) if as_json else print_report(report)
    if report.totals.failed and not failed_ok:
        context.exit(1)


def run_shown(settings: JobSettings) -> JobReport:
    """Run a job with its progress on standard error. What is said of an interrupt is said here."""
    from pilc_stream.cli.progress import Display, JobDisplay
    from workers.job import run_job

    with quiet_libraries(), Display(messages()) as display:
        shown = JobDisplay(display)
        try:
            return run_job(settings, shown)
        except KeyboardInterrupt:
            there = shown.last.skipped.shards + shown.last.made.shards
            shards = f"{there:,} of {shown.last.shards:,} shards are committed and stay. " if shown.last.shards else ""
            shown.say(f"Stopped. {shards}Run the same command again to go on.")
            raise


def print_report(report: JobReport) -> None:
    """Print what became of a job, with the first records that failed."""
    from pilc_stream.records.record import SOURCE_CODEC

    totals, made, statistics = report.totals, report.made, report.statistics
    kept = f"{totals.failed + totals.fallback:,}"
    reasons = [f"{reason}: {count:,}" for reason, count in statistics.fallback.most_common()]
    reasons += [f"failed: {totals.failed:,}"] if totals.failed else []
    if reasons:
        kept += f" ({', '.join(reasons)})"
    coded = ", ".join(
        f"{name} {count:,}" + (f" (saved {size(statistics.saved[name])})" if statistics.saved[name] else "")
        for name, count in statistics.codecs.most_common()
        if name != SOURCE_CODEC
    )
    shards = f"{totals.shards:,}"
    if report.skipped_shards:
        shards += f", {report.skipped_shards:,} of them committed before"
    measure = bits(totals.bpsp)
    if report.coded_bpsp is not None and bits(report.coded_bpsp) != measure:
        measure += f"; {bits(report.coded_bpsp)} for what was coded in this run"
    rate = ""
    if made.images and report.seconds:
        rate = f"{made.images / report.seconds:.3g} images/s, {size(made.raw_bytes / report.seconds)}/s raw"
    fidelity = statistics.fidelity()
    loss = (
        f"lossy: the pixels of {fidelity['images']:,} images are not those of their sources; "
        f"PSNR {fidelity['mean_psnr']:.2f} dB on average, {fidelity['least_psnr']:.2f} dB at least"
        if fidelity
        else ""
    )
    facts = [
        ("data set", report.destination),
        ("profile", report.profile),
        *([("fidelity", loss)] if loss else []),
        ("images", f"{totals.images:,}"),
        ("failed", f"{totals.failed:,}"),
        ("coded by", coded or "nothing in this run"),
        ("kept as source", kept),
        ("shards", shards),
        ("pixels", size(totals.raw_bytes)),
        ("sources", size(totals.source_bytes)),
        ("stored", size(totals.shard_bytes)),
        ("saving", f"{per_cent(totals.source_bytes - totals.shard_bytes, totals.source_bytes)} of the sources"),
        ("bits/sub-pixel", measure),
        ("time", duration(report.seconds)),
        ("rate", rate or "nothing was left to do"),
    ]
    print_facts(facts)
    if report.failures:
        output().print("\nThese records failed and were kept as they came:")
        lines = [(failure.key, f"{failure.reason} ({failure.stage})") for failure in report.failures]
        print_failures(lines, totals.failed, f"All are listed in {report.errors_url}/.")


def _print_plan(plan: DryRun, on_existing: str) -> None:
    then = {"fail": "the job would stop", "overwrite": "it would be deleted first", "resume": "the job would stop"}
    existing: str = plan.existing
    if existing != "nothing":
        goes_on = existing == "this job" and on_existing == "resume"
        existing += "; the job would go on" if goes_on else f"; {then[on_existing]}"
    facts = [
        ("data set", plan.destination),
        ("holds", existing),
        ("profile", plan.profile),
        ("model", plan.model_sha256 or "none"),
        ("images", "only reading tells" if plan.images is None else f"{plan.images:,}"),
        ("sources", size(plan.source_bytes)),
        ("shards", f"{plan.shards:,}, {plan.committed_shards:,} of them committed"),
        ("runs", "on Ray" if plan.ray else "in this process"),
    ]
    print_facts(facts)
    sentence("This was a dry run: nothing was written.")

"""`pilc overhead`: what the pipeline costs beside its stages, on this machine."""

from __future__ import annotations

import click

from pilc_stream.cli.console import messages, output, print_json
from pilc_stream.cli.options import Size, debug_option, json_option


@click.command()
@click.argument("source")
@click.option("--profile", default="fast", show_default=True, help="As for `pilc compress`.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of job and stages.  [default: the cores]")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Rounds; medians are shown.")
@click.option("--shard-size", type=Size(), default="128MiB", show_default=True, help="As for `pilc compress`.")
@click.option("--actors", is_flag=True, help="Also compare two Ray actors on two cores with one on one core.")
@json_option
@debug_option
def overhead(
    source: str, profile: str, threads: int | None, rounds: int, shard_size: int, actors: bool, as_json: bool
) -> None:
    """Compare a job on the images in SOURCE, a local folder, with its bare stages.

    The stages (read files, decode them with Pillow, code the pixels; decode the payloads again) run one after the
    other, each alone on all threads; then the job runs on the same images, in turns with them. A ratio of 1 is a
    pipeline that costs nothing; one below 1 hides some stages behind others. Data sets go to the temporary folder.
    """
    from workers.overhead import measure_overhead
    from workers.placement import usable_cpus

    found = measure_overhead(
        source, profile, threads or usable_cpus(), rounds, shard_size, actors=actors, say=messages().print
    )
    if as_json:
        print_json(found.to_json())
        return
    megabytes = f"{found.source_bytes / 1e6:.1f} MB of files, {found.raw_bytes / 1e6:.1f} MB of pixels"
    output().print(
        f"{found.images:,} images, {megabytes}, {found.threads} threads, {found.rounds} rounds.", markup=False
    )
    sentences = [comparison.sentence() for comparison in found.comparisons]
    if found.scaling:
        sentences.append(found.scaling.sentence())
    for each in sentences:
        output().print(each, markup=False, soft_wrap=True)

"""`pilc plan`: how long a job will take, before anything is rented for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pilc_stream.cli.console import duration, per_cent, print_facts, print_json, sentence, size
from pilc_stream.cli.options import debug_option, device_option, json_option, storage_option

if TYPE_CHECKING:
    from workers.forecast import Cluster, Forecast, Measured


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--gpus", type=click.IntRange(min=0), default=0, show_default=True, help="GPUs of the cluster.")
@click.option("--cores", type=click.IntRange(min=1), required=True, help="CPU cores of the cluster.")
@click.option(
    "--network-gbps", type=float, default=10.0, show_default=True, help="To and from storage, both together, in Gbit/s."
)
@click.option(
    "--gpu-mb-per-second",
    "gpu_mb_s",
    type=float,
    help="Raw MB/s of one GPU, verification included.  [default: measured here with --device cuda]",
)
@click.option("--profile", default="fast", show_default=True, help="As for `pilc compress`.")
@click.option("--source-kind", default="auto", show_default=True, help="As for `pilc compress`.")
@click.option("--image-column", metavar="NAME", help="As for `pilc compress`.")
@click.option("--verify", type=click.Choice(["all", "sample", "none"]), default="all", show_default=True)
@click.option(
    "--sample", "images", type=click.IntRange(min=1), default=64, show_default=True, help="Images to measure."
)
@device_option
@storage_option
@json_option
@debug_option
def plan(sources: tuple[str, ...], as_json: bool, images: int, **flags: Any) -> None:
    """Predict what compressing SOURCE on a cluster takes: time, bottleneck, size.

    The sources are listed, some of their images are compressed here, in one thread for each stage, and the rest is
    arithmetic: stages overlap, so a job takes as long as the busiest of network, cores and GPUs. Nothing is written.

    \b
      pilc plan s3://bucket/photos --gpus 8 --cores 96 --network-gbps 25
    """
    from pilc_stream.codecs import Decoder, open_codec
    from pilc_stream.errors import UsageError
    from pilc_stream.pipeline.plan import survey
    from pilc_stream.pipeline.sources import Request, open_source
    from workers.forecast import Cluster, forecast, measure, spread

    cluster = Cluster(flags["cores"], flags["gpus"], flags["network_gbps"], flags["gpu_mb_s"])
    codec = open_codec(flags["profile"], flags["device"], 1)
    decoder = Decoder(device=flags["device"], threads=1, models=lambda _: codec.model_bytes)
    request = Request(sources, flags["storage_options"], image_column=flags["image_column"])
    source = open_source(request, flags["source_kind"])
    listing = survey(source.parts())
    if not listing.source_bytes:
        raise UsageError(f"{', '.join(sources)}: no image was found there. Check the source.")
    count = sum(1 for _ in source.parts())
    sample = measure(
        spread(source.parts(), count, images), codec, decoder, verify=flags["verify"], on_gpu=flags["device"] == "cuda"
    )
    predicted = forecast(listing.source_bytes, sample, cluster)
    if as_json:
        print_json({"images": listing.images, "sample_images": sample.images, **predicted.to_json()})
    else:
        _print(predicted, sample, cluster, listing.images)


def _print(predicted: Forecast, sample: Measured, cluster: Cluster, images: int | None) -> None:
    facts = [
        ("images", "only reading tells" if images is None else f"{images:,}"),
        ("measured", f"{sample.images:,} of them, {size(sample.source_bytes)}"),
        ("cluster", f"{cluster.cores} cores, {cluster.gpus} GPUs, {cluster.network_gbps:g} Gbit/s"),
        ("time", f"{duration(predicted.seconds)}; {predicted.bottleneck}-bound"),
        ("busy", ", ".join(f"{name} {duration(seconds)}" for name, seconds in predicted.busy_s.items())),
        ("sources", size(predicted.source_bytes)),
        ("pixels", size(predicted.raw_bytes)),
        ("stored", size(predicted.stored_bytes)),
        ("saved", f"{size(predicted.saved_bytes)} ({per_cent(predicted.saved_bytes, predicted.source_bytes)})"),
    ]
    print_facts(facts)
    sentence("This is a forecast from a sample: starting up and the last shards come on top.")

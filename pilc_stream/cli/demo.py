"""`pilc demo`: the whole way on the pictures that come with the package."""

from __future__ import annotations

import importlib.util
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pilc_stream.cli.compress import run_shown
from pilc_stream.cli.console import counted, duration, output, per_cent, print_json, sentence, size
from pilc_stream.cli.options import debug_option, json_option

if TYPE_CHECKING:
    from pilc_stream.records.manifest import Manifest

SHARD_BYTES = 200_000
"""Small, so that eight pictures become several shards and every worker gets some."""
BATCH_IMAGES = 4
_COLUMNS = ("key", "codec", "width", "height", "channels", "raw_bytes", "source_bytes")


@dataclass(frozen=True)
class Picture:
    """One picture before and after. `png_bytes`: the bundled file, a PNG written by Pillow with `optimize=True`.

    `codec` is "source" where that file was kept, because its payload would have been larger.
    """

    key: str
    codec: str
    width: int
    height: int
    channels: int
    raw_bytes: int
    png_bytes: int
    payload_bytes: int


@click.command()
@click.option("--profile", default="fast", show_default=True, help="What codes the pixels.")
@click.option("--workers", type=click.IntRange(min=0), default=2, show_default=True, help="Ray actors; 0: no Ray.")
@click.option("--keep", metavar="FOLDER", help="Write the data set there, and keep it.")
@json_option
@debug_option
def demo(profile: str, workers: int, keep: str | None, as_json: bool) -> None:
    """Try it all on the bundled pictures.

    Compresses them, verifies the data set, reads it through a torch DataLoader, and compares the sizes with
    PNG. Works on a local Ray and in a temporary folder, and leaves nothing behind.
    """
    from pilc_stream.errors import VerifyError
    from pilc_stream.pipeline.verify import verify_dataset
    from pilc_stream.records.manifest import Manifest
    from workers.settings import JobSettings

    if workers and importlib.util.find_spec("ray") is None:
        sentence("Ray is not installed, so this works without; pip install 'pilc-stream[ray]' brings it.")
        workers = 0
    say = partial(click.echo, err=as_json)
    with tempfile.TemporaryDirectory(prefix="pilc-demo-") as temporary:
        destination = keep or str(Path(temporary) / "dataset")
        say(f"Compressing the pictures of {pictures_folder()} into {destination} ...")
        settings = JobSettings(
            sources=(str(pictures_folder()),),
            destination=destination,
            profile=profile,
            workers=workers,
            shard_size=SHARD_BYTES,
        )
        report = run_shown(settings)
        where = f"by {report.workers} Ray actors" if report.workers else "in this process"
        shards = counted(report.totals.shards, "shard")
        say(f"  {report.totals.images} images in {shards}, {where}, {duration(report.seconds)}.")
        manifest = Manifest.load(destination)
        checked = verify_dataset(manifest)
        if not checked.ok:
            raise VerifyError(f"{destination}: {checked.failed[0].key}: {checked.failed[0].reason}.")
        say(f"Verified: {checked.images} images, {checked.decoded} of them decoded to exactly the pixels they had.")
        batches, read = _read(destination)
        if batches:
            say(f"Read {read} images in {batches} batches through a torch DataLoader, shuffled.")
        else:
            say("torch is not installed, so nothing was read into it; pip install 'pilc-stream[torch]' brings it.")
        pictures = _pictures(manifest)
    if as_json:
        print_json(_document(pictures, report.seconds, report.workers, checked.images, batches))
    else:
        _print(pictures, profile)


def pictures_folder() -> Path:
    """The bundled pictures, in an installed package or in a checkout. Raises UsageError where they are missing."""
    from pilc_stream.errors import UsageError

    package = Path(__file__).resolve().parents[1]
    # A checkout without symbolic links has them in `examples` only.
    for folder in (package / "demo_pictures", package.parent / "examples" / "pictures"):
        if folder.is_dir():
            return folder
    raise UsageError(f"{package}: the pictures of the demo are missing. Install the package again.")


def _read(destination: str) -> tuple[int, int]:
    """Read the data set through a DataLoader; return the numbers of batches and of images, 0 without torch."""
    if importlib.util.find_spec("torch") is None:
        return 0, 0
    from pilc_stream.readers.torch import StreamingImages
    from pilc_stream.readers.torch_loader import ImageLoader

    batches = [len(batch["image"]) for batch in ImageLoader(StreamingImages(destination, batch_size=BATCH_IMAGES))]
    return len(batches), sum(batches)


def _pictures(manifest: Manifest) -> list[Picture]:
    pictures = []
    for position in range(len(manifest.shards)):
        columns = manifest.reader(position).columns(_COLUMNS)
        for row, (_, length) in zip(columns.to_pylist(), manifest.byte_ranges(position), strict=True):
            png_bytes = row.pop("source_bytes")
            pictures.append(Picture(**row, png_bytes=png_bytes, payload_bytes=length))
    return pictures


def _sum(pictures: list[Picture]) -> Picture:
    raw, png, payload = (
        sum(getattr(picture, name) for picture in pictures) for name in ("raw_bytes", "png_bytes", "payload_bytes")
    )
    return Picture("all", "", 0, 0, 0, raw, png, payload)


def _document(pictures: list[Picture], seconds: float, workers: int, verified: int, batches: int) -> dict[str, Any]:
    total = _sum(pictures)
    return {
        "images": len(pictures),
        "verified": verified,
        "batches": batches,
        "workers": workers,
        "seconds": round(seconds, 3),
        "raw_bytes": total.raw_bytes,
        "png_bytes": total.png_bytes,
        "payload_bytes": total.payload_bytes,
        "pictures": [asdict(picture) for picture in pictures],
    }


def _print(pictures: list[Picture], profile: str) -> None:
    from rich.table import Table

    from pilc_stream.records.record import SOURCE_CODEC

    table = Table(box=None, pad_edge=False)
    for name in ("picture", "pixels", "raw", "PNG", f"pilc {profile}", "saved"):
        table.add_column(name, justify="left" if name == "picture" else "right")
    for picture in [*pictures, _sum(pictures)]:
        kept = picture.codec == SOURCE_CODEC
        shape = f"{picture.width} x {picture.height} x {picture.channels}" if picture.width else ""
        table.add_row(
            picture.key,
            shape,
            size(picture.raw_bytes),
            size(picture.png_bytes),
            size(picture.payload_bytes),
            "kept as PNG" if kept else per_cent(picture.png_bytes - picture.payload_bytes, picture.png_bytes),
        )
    output().print(table)
    output().print("PNG is what Pillow writes with optimize=True.")

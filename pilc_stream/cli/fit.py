"""`pilc fit`: a profile tuned to one data set, in minutes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pilc_stream.cli.console import messages, output, per_cent, print_json
from pilc_stream.cli.options import debug_option, json_option
from pilc_stream.errors import UsageError

if TYPE_CHECKING:
    from pilc_stream.training.fit import FitProgress


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "-o", "--output", "model", type=click.Path(path_type=Path), required=True, help="The model file to write."
)
@click.option("--profile", default="fast", show_default=True, help="The shipped profile to begin with.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=5.0, show_default=True)
@click.option("--images", type=click.IntRange(min=2), help="Use a random sample of so many images.  [default: 4000]")
@click.option("--seed", type=int, default=0, show_default=True, help="Which sample is drawn.")
@json_option
@debug_option
def fit(data: Path, model: Path, profile: str, minutes: float, images: int | None, seed: int, as_json: bool) -> None:
    """Tune a profile to your own images.

    DATA is a folder of images, or of Parquet files with a column `image`; a random sample of it is used, and one image
    in ten is held out to measure what is gained. `pilc compress --model MODEL` then compresses with the fitted model,
    which is as large and as fast as the profile and is stored in the data set: readers need nothing else.

    \b
      pilc fit scans -o scans.safetensors --profile default
      pilc compress scans dataset --model scans.safetensors
    """
    try:
        from pilc_stream.training.fit import SAMPLE_IMAGES
        from pilc_stream.training.fit import fit as run
    except ModuleNotFoundError as error:
        raise UsageError("fitting needs torch: pip install 'pilc-stream[torch]'") from error
    from pilc_stream.models.model import load_model
    from pilc_stream.models.shipped import preset_bytes

    if model.exists():
        raise UsageError(f"{model} exists; a model is never edited: give another name")
    start = load_model(preset_bytes(profile))
    fitted = run(data, start, minutes=minutes, seed=seed, images=images or SAMPLE_IMAGES, progress=_report)
    if fitted.gain <= 0:
        raise UsageError(
            f"fitting {profile!r} gained nothing on {fitted.held_out_images} images held out "
            f"({fitted.bits_before:.4f} bits per sub-pixel before, {fitted.bits_after:.4f} after); "
            "nothing was written: use the profile as it is, or give more --minutes"
        )
    temporary = model.with_name(model.name + ".partial")
    temporary.write_bytes(fitted.model.file_bytes)
    os.replace(temporary, model)
    if as_json:
        print_json(
            {
                "model": str(model),
                "sha256": fitted.model.sha256,
                "profile": fitted.model.profile,
                "gain": fitted.gain,
                **fitted.model.recipe,
            }
        )
    else:
        saved = per_cent(fitted.bits_before - fitted.bits_after, fitted.bits_before)
        output().print(
            f"{model}: {saved} smaller than with {profile} on {fitted.held_out_images} images it was not fitted on "
            f"({fitted.bits_before:.4f} -> {fitted.bits_after:.4f} bits per sub-pixel), sha256 {fitted.model.sha256}"
        )


def _report(progress: FitProgress) -> None:
    messages().print(
        f"{progress.share:.0%} of the time, {progress.steps:,} steps: {progress.train_bits:.4f} bits per sub-pixel"
    )

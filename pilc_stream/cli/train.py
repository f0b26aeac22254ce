"""`pilc train`: a profile from images, by a recipe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pilc_stream.cli.console import duration, messages, output, print_json
from pilc_stream.cli.options import debug_option, json_option
from pilc_stream.errors import UsageError

if TYPE_CHECKING:
    from pilc_stream.models.family import FamilyModel
    from pilc_stream.models.lossy import LossyModel
    from pilc_stream.models.model import WaveModel
    from pilc_stream.models.pilc import PilcModel
    from pilc_stream.training.lossy.family_train import FamilyProgress
    from pilc_stream.training.lossy.light_train import LightProgress
    from pilc_stream.training.train import TrainProgress


@click.command()
@click.option("--profile", "recipe", default="fast", show_default=True, help="A shipped recipe, or a recipe's file.")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder of images, or of Parquet files with a column `image`.",
)
@click.option(
    "-o", "--output", "model", type=click.Path(path_type=Path), required=True, help="The model file to write."
)
@click.option(
    "--checkpoint",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the run's state here, and go on from it.",
)
@click.option(
    "--start",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take over the state and the steps done from the checkpoint of another recipe.",
)
@click.option(
    "--tradeoff",
    type=click.FloatRange(min=0, min_open=True),
    help="Of a member of the lossy family: what a squared grey level costs, in bits per pixel.",
)
@json_option
@debug_option
def train(
    recipe: str,
    data: Path,
    model: Path,
    checkpoint: Path | None,
    start: Path | None,
    tradeoff: float | None,
    as_json: bool,
) -> None:
    """Train a model, round it to integers, and prove that rounding changed nothing.

    One image in fifty is held out; its bits per sub-pixel are shown along the way. A run that was stopped goes on from
    its checkpoint exactly as if it had not been. The model holds its recipe, data size, time and versions.
    """
    try:
        from pilc_stream.training.lossy.family_recipe import find_family_recipe
        from pilc_stream.training.lossy.family_train import train_family
        from pilc_stream.training.lossy.light_recipe import find_light_recipe
        from pilc_stream.training.lossy.light_train import train_light
        from pilc_stream.training.recipe import load_recipe
        from pilc_stream.training.train import train as run
        from pilc_stream.training.vq.recipe import find_pilc_recipe
        from pilc_stream.training.vq.train import train_pilc
    except ModuleNotFoundError as error:
        raise UsageError("training needs torch: pip install 'pilc-stream[torch]'") from error

    if model.exists():
        raise UsageError(f"{model} exists; a model is never edited: give another name")
    trained: WaveModel | PilcModel | FamilyModel | LossyModel
    of_light = find_light_recipe(recipe)
    of_pilc, of_family = find_pilc_recipe(recipe), find_family_recipe(recipe, tradeoff)
    if of_family is None and tradeoff is not None:
        raise UsageError("--tradeoff: only members of the lossy family, lossy-a to lossy-g and lossy-final, have one")
    if of_family is not None and start is not None:
        raise UsageError("--start: a member of the lossy family takes over no other run; use --checkpoint")
    if of_light is not None and start is not None:
        raise UsageError("--start: a light lossy profile takes over no other run; use --checkpoint")
    if of_light is not None:
        trained = train_light(of_light, data, checkpoint=checkpoint, progress=_report_light)
    elif of_family is not None:
        trained = train_family(of_family, data, checkpoint=checkpoint, progress=_report_family)
    elif of_pilc is None:
        trained = run(load_recipe(recipe), data, checkpoint=checkpoint, start=start, progress=_report)
    elif start is not None:
        raise UsageError("--start: a profile of the codec 'pilc' takes over no other run; use --checkpoint")
    else:
        trained = train_pilc(of_pilc, data, checkpoint=checkpoint, progress=_report)
    temporary = model.with_name(model.name + ".partial")
    temporary.write_bytes(trained.file_bytes)
    os.replace(temporary, model)
    if as_json:
        print_json({"model": str(model), "sha256": trained.sha256, "profile": trained.profile, **trained.recipe})
        return
    if of_light is not None:
        held_out = ", ".join(
            f"{each['bpp']} bits per pixel at {each['psnr']} dB" for each in trained.recipe["validation"]
        )
    elif of_family is not None:
        held_out = f"{trained.recipe['validation_bpp']} bits per pixel, {trained.recipe['validation_psnr']} dB"
    else:
        held_out = f"{trained.recipe['validation_bits']} bits per sub-pixel"
    output().print(f"{model}: profile {trained.profile}, {held_out} held out, sha256 {trained.sha256}")


def _report(progress: TrainProgress) -> None:
    if progress.step == 0:
        # Only `pilc` has a first part without steps.
        messages().print(f"predictors and code book: {progress.train_bits:.4f} bits per sub-pixel, as a guide")
        return
    left = progress.seconds / progress.step * (progress.steps - progress.step)
    messages().print(
        f"step {progress.step:,} of {progress.steps:,}: {progress.train_bits:.4f} bits per sub-pixel, "
        f"held out {progress.validation_bits:.4f}, {duration(left)} left"
    )


def _report_light(progress: LightProgress) -> None:
    left = progress.seconds / progress.step * (progress.steps - progress.step)
    found = ", ".join(f"{bits:.3f} bits per pixel at {psnr:.2f} dB" for bits, psnr in progress.held_out)
    messages().print(
        f"step {progress.step:,} of {progress.steps:,}: loss {progress.loss:.4f}, held out {found}, "
        f"{duration(left)} left"
    )


def _report_family(progress: FamilyProgress) -> None:
    left = progress.seconds / progress.step * (progress.steps - progress.step)
    messages().print(
        f"step {progress.step:,} of {progress.steps:,}: loss {progress.loss:.4f}, held out {progress.bpp:.4f} bits per "
        f"pixel at {progress.psnr:.2f} dB, {duration(left)} left"
    )

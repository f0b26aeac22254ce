"""The training loop: shuffled rows, stages of learning rates, checkpoints that resume exactly; then rounding."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pilc_stream._version import __version__
from pilc_stream.errors import UsageError
from pilc_stream.models.model import WaveModel
from pilc_stream.training.data import PixelRows, held_out_rows, training_rows
from pilc_stream.training.export import check_parity, export_model
from pilc_stream.training.network import PixelBatch, WaveNet, training_dtype
from pilc_stream.training.optimiser import Optimisers
from pilc_stream.training.recipe import Recipe, stage_at
from pilc_stream.training.rounding import round_weights

WARM_UP_STEPS = 200
LEAST_LEARNING_RATE = 1e-6
PARITY_ROWS = 20_000


@dataclass(frozen=True)
class TrainProgress:
    """Where a run stands; `validation_bits` are bits per sub-pixel on the held-out images."""

    step: int
    steps: int
    learning_rate: float
    train_bits: float
    validation_bits: float
    seconds: float


@dataclass
class RunState:
    """What a checkpoint keeps beside the tensors; `taken_over`: the recipe and steps of the run that it began with."""

    step: int = 0
    seconds: float = 0.0
    taken_over: dict[str, Any] | None = None


def batch_bits(net: WaveNet, batch: PixelBatch) -> Tensor:
    """Bits per sub-pixel of a batch, a scalar that can be differentiated."""
    prediction = net(batch)
    bits = net.shape.bits(batch.pixels - prediction.mean / 16, prediction.scale)
    return (bits * batch.coded).sum() / batch.coded.sum()


def mean_bits(net: WaveNet, rows: PixelRows, batch: int = 16384) -> float:
    """Bits per sub-pixel over all rows."""
    net.eval()
    with torch.no_grad():
        sums = [
            float(batch_bits(net, rows.batch(i, min(i + batch, len(rows))))) * (min(i + batch, len(rows)) - i)
            for i in range(0, len(rows), batch)
        ]
    net.train()
    return math.fsum(sums) / len(rows)


def train(
    recipe: Recipe,
    data: Path,
    *,
    checkpoint: Path | None = None,
    start: Path | None = None,
    report_every: float = 30.0,
    progress: Callable[[TrainProgress], None] = lambda _: None,
) -> WaveModel:
    """Train by the recipe on the images below `data` and return the integer model, its parity checked.

    One image in fifty is held out for validation. With `checkpoint`, the run's state is kept there (whole or not at
    all) about every `report_every` seconds, and a run of the same recipe goes on from it. With `start`, the checkpoint
    of another recipe of the same architecture, the run takes over that state and the steps done. Raises UsageError
    where a checkpoint does not fit or the data holds no image.
    """
    started = time.monotonic()
    held_out, rows = held_out_rows(data, recipe), training_rows(data, recipe)
    torch.manual_seed(recipe.seed)
    net = WaveNet(recipe.spec)
    optimiser = Optimisers(net)
    if checkpoint is not None and checkpoint.exists():
        state = _load(checkpoint, net, optimiser, recipe)[0]
    elif start is not None:
        state, other = _load(start, net, optimiser, None)
        state.taken_over = {"recipe": other, "steps": state.step, "before": state.taken_over}
    else:
        state = RunState()
    bits_sum, bits_count, reported = 0.0, 0, time.monotonic()
    draw = 0
    while state.step < recipe.steps:
        if draw != (draw := _draw_at(recipe, len(rows), state.step)):
            del rows
            rows = training_rows(data, recipe, draw)
        stage, share = stage_at(recipe.stages, state.step)
        rate = max(stage.rate(share) * min(1.0, (state.step + 1) / WARM_UP_STEPS), LEAST_LEARNING_RATE)
        net.set_weight_noise(stage.weight_noise)
        loss = batch_bits(net, _batch(rows, recipe, state.step))
        optimiser.step(loss, rate)
        state.step += 1
        bits_sum, bits_count = bits_sum + loss.item(), bits_count + 1
        if time.monotonic() - reported > report_every or state.step == recipe.steps:
            now = time.monotonic()
            state.seconds, started = state.seconds + now - started, now
            validation = mean_bits(net, held_out)
            progress(TrainProgress(state.step, recipe.steps, rate, bits_sum / bits_count, validation, state.seconds))
            if checkpoint is not None:
                _save(checkpoint, recipe, net, optimiser, state)
            bits_sum, bits_count, reported = 0.0, 0, time.monotonic()

    float_bits = mean_bits(net, held_out)
    round_weights(net, rows, batch_bits)
    run = {
        "recipe": recipe.to_json(),
        "taken_over": state.taken_over,
        "training_pixels": len(rows),
        "validation_bits": round(mean_bits(net, held_out), 4),
        "float_validation_bits": round(float_bits, 4),
        "seconds": round(state.seconds + time.monotonic() - started),
        "device": f"cpu ({platform.machine()}, {torch.get_num_threads()} thread, {training_dtype()})",
        "versions": {"pilc-stream": __version__, "torch": torch.__version__, "numpy": np.__version__},
        "date": datetime.now(UTC).date().isoformat(),
    }
    model = export_model(net, recipe.profile, run, recipe.tile_log2)
    check_parity(net, model, held_out.part(0, PARITY_ROWS))
    return model


def _draw_at(recipe: Recipe, row_count: int, step: int) -> int:
    """Which draw of the pixels a step sees; all draws are of one size."""
    steps_per_draw = recipe.epochs_per_draw * max(1, row_count // recipe.batch)
    return step // steps_per_draw if steps_per_draw else 0


def _batch(rows: PixelRows, recipe: Recipe, step: int) -> PixelBatch:
    """The batch of a step: a function of the seed and the step alone, so that a resumed run sees what it would have."""
    size = min(recipe.batch, len(rows))
    per_epoch = len(rows) // size
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng((recipe.seed, epoch)).permutation(per_epoch)
    start = int(order[place]) * size
    return rows.batch(start, start + size)


def _save(path: Path, recipe: Recipe, net: WaveNet, optimiser: Optimisers, state: RunState) -> None:
    content: dict[str, Any] = {
        "recipe": recipe.to_json(),
        "net": net.state_dict(),
        "optimiser": optimiser.state_dict(),
        "generator": torch.get_rng_state(),
        **asdict(state),
    }
    temporary = path.with_name(path.name + ".partial")
    torch.save(content, temporary)
    os.replace(temporary, path)


def _load(path: Path, net: WaveNet, optimiser: Optimisers, recipe: Recipe | None) -> tuple[RunState, dict[str, Any]]:
    """Take over the state of a checkpoint, which must be of `recipe` if one is given; its state and recipe."""
    content = torch.load(path, weights_only=True)
    if recipe is not None and Recipe.from_json(content["recipe"]) != recipe:
        raise UsageError(f"checkpoint {path}: it belongs to another recipe; remove it or give another path")
    try:
        net.load_state_dict(content["net"])
        optimiser.load_state_dict(content["optimiser"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise UsageError(f"checkpoint {path}: it is of another architecture ({error})") from error
    torch.set_rng_state(content["generator"])
    return RunState(int(content["step"]), float(content["seconds"]), content.get("taken_over")), content["recipe"]

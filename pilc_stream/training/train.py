"""The training loop: shuffled rows, Adam on a cosine, rounding in the last part, checkpoints that resume exactly."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pilc_stream._version import __version__
from pilc_stream.errors import UsageError
from pilc_stream.models.model import WaveModel
from pilc_stream.training.data import PixelRows, collect_rows
from pilc_stream.training.export import check_parity, export_model
from pilc_stream.training.network import PixelBatch, WaveNet
from pilc_stream.training.recipe import Recipe

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
    quantised: bool
    seconds: float


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
    report_every: float = 30.0,
    progress: Callable[[TrainProgress], None] = lambda _: None,
) -> WaveModel:
    """Train by the recipe on the images below `data` and return the integer model, its parity checked.

    One image in fifty is held out for validation. With `checkpoint`, the run's state is kept there (whole or not at
    all) about every `report_every` seconds, and a run of the same recipe goes on from it. Raises UsageError where the
    checkpoint is of another recipe or the data holds no image.
    """
    started = time.monotonic()
    rows, held_out = collect_rows(data, recipe)
    torch.manual_seed(recipe.seed)
    net = WaveNet(recipe.spec)
    optimiser = torch.optim.Adam(net.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99))
    step, earlier_seconds, float_bits = _resume(recipe, net, optimiser, checkpoint)
    quantise_at = quantised_from(recipe)
    bits_sum, bits_count, reported = 0.0, 0, time.monotonic()
    while step < recipe.steps:
        if step == quantise_at:
            float_bits = mean_bits(net, held_out)
        net.quantise(step >= quantise_at)
        rate = learning_rate(recipe, step)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = batch_bits(net, _batch(rows, recipe, step))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        step += 1
        bits_sum, bits_count = bits_sum + loss.item(), bits_count + 1
        if time.monotonic() - reported > report_every or step == recipe.steps:
            seconds = earlier_seconds + time.monotonic() - started
            validation = mean_bits(net, held_out)
            progress(TrainProgress(step, recipe.steps, rate, bits_sum / bits_count, validation, net.quantised, seconds))
            _save(recipe, net, optimiser, step, seconds, float_bits, checkpoint)
            bits_sum, bits_count, reported = 0.0, 0, time.monotonic()

    net.quantise()
    run = {
        "recipe": recipe.to_json(),
        "training_pixels": len(rows),
        "validation_bits": round(mean_bits(net, held_out), 4),
        "float_validation_bits": round(float_bits, 4),
        "seconds": round(earlier_seconds + time.monotonic() - started),
        "device": f"cpu ({platform.machine()}, {torch.get_num_threads()} thread)",
        "versions": {"pilc-stream": __version__, "torch": torch.__version__, "numpy": np.__version__},
        "date": datetime.now(UTC).date().isoformat(),
    }
    model = export_model(net, recipe.profile, run)
    check_parity(net, model, held_out.part(0, PARITY_ROWS))
    return model


def learning_rate(recipe: Recipe, step: int) -> float:
    """Warm-up and half a cosine down to a tenth; once the network rounds, another from a tenth to nearly 0.

    Rounded weights jump from step to step while the rate is high, so that a high rate then undoes what was learned.
    """
    quantise_at = quantised_from(recipe)
    if step < quantise_at:
        return recipe.learning_rate * min(1.0, (step + 1) / WARM_UP_STEPS) * float_rate(step / quantise_at)
    rest = (step - quantise_at) / max(1, recipe.steps - quantise_at)
    return recipe.learning_rate * rounded_rate(rest) + LEAST_LEARNING_RATE


def float_rate(share: float) -> float:
    """The learning rate over its peak, when `share` of the steps before rounding are done."""
    return 0.1 + 0.9 * _half_cosine(share)


def rounded_rate(share: float) -> float:
    """The learning rate over its peak, when `share` of the steps with rounding are done."""
    return 0.1 * _half_cosine(share)


def quantised_from(recipe: Recipe) -> int:
    """The step from which on the network rounds."""
    return math.ceil(recipe.quantise_from * recipe.steps)


def _half_cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))


def _batch(rows: PixelRows, recipe: Recipe, step: int) -> PixelBatch:
    """The batch of a step: a function of the seed and the step alone, so that a resumed run sees what it would have."""
    size = min(recipe.batch, len(rows))
    per_epoch = len(rows) // size
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng((recipe.seed, epoch)).permutation(per_epoch)
    start = int(order[place]) * size
    return rows.batch(start, start + size)


def _save(
    recipe: Recipe,
    net: WaveNet,
    optimiser: torch.optim.Optimizer,
    step: int,
    seconds: float,
    float_bits: float,
    path: Path | None,
) -> None:
    if path is None:
        return
    state: dict[str, Any] = {
        "recipe": recipe.to_json(),
        "net": net.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": step,
        "seconds": seconds,
        "float_bits": float_bits,
        "generator": torch.get_rng_state(),
    }
    temporary = path.with_name(path.name + ".partial")
    torch.save(state, temporary)
    os.replace(temporary, path)


def _resume(
    recipe: Recipe, net: WaveNet, optimiser: torch.optim.Optimizer, path: Path | None
) -> tuple[int, float, float]:
    """Steps done, seconds they took, bits per sub-pixel of the float network (known once it rounds)."""
    if path is None or not path.exists():
        return 0, 0.0, math.nan
    state = torch.load(path, weights_only=True)
    if state["recipe"] != recipe.to_json():
        raise UsageError(f"checkpoint {path}: it belongs to another recipe; remove it or give another path")
    net.load_state_dict(state["net"])
    optimiser.load_state_dict(state["optimiser"])
    torch.set_rng_state(state["generator"])
    return int(state["step"]), float(state["seconds"]), float(state["float_bits"])

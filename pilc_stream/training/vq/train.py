"""Training of a `pilc` profile: clusters first, then the decoder network, with checkpoints that resume exactly."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pilc_stream._version import __version__
from pilc_stream.backends.pilc.cpu import PilcCpuEngine, TileCoding
from pilc_stream.errors import UsageError
from pilc_stream.models.pilc import PilcModel
from pilc_stream.training.augment import Pixels
from pilc_stream.training.network import training_dtype
from pilc_stream.training.train import TrainProgress
from pilc_stream.training.vq.codebook import Codebook, fit_codebook, gather_blocks, integer_tensors
from pilc_stream.training.vq.data import collect_tiles
from pilc_stream.training.vq.export import export_pilc_model
from pilc_stream.training.vq.network import PilcNet
from pilc_stream.training.vq.recipe import PilcRecipe

WARM_UP_STEPS = 50
LEAST_SHARE = 0.01
"""Of the first learning rate, at the end."""

BETAS = (0.9, 0.99)


class Rows:
    """Codings of tiles, by shape: codes and predictors `(n, rows, columns)`, residuals int16 `(n, 3, h, w)`."""

    def __init__(self, codings: Sequence[TileCoding]) -> None:
        by_shape: dict[tuple[int, ...], list[TileCoding]] = {}
        for coding in codings:
            by_shape.setdefault(coding.residuals.shape, []).append(coding)
        self.groups = [
            (
                torch.from_numpy(np.stack([each.choices.codes for each in members]).astype(np.int64)),
                torch.from_numpy(np.stack([each.choices.predictors for each in members]).astype(np.int64)),
                torch.from_numpy(np.stack([each.residuals for each in members])),
            )
            for members in by_shape.values()
        ]
        # Between equally many tiles and equally many pixels of each shape.
        shares = np.sqrt([float(group[2].numel()) for group in self.groups])
        self._shares = shares / shares.sum()

    def sample(self, generator: np.random.Generator, pixels: int) -> tuple[Tensor, Tensor, Tensor]:
        """About `pixels` pixels of tiles of one shape."""
        group = self.groups[generator.choice(len(self.groups), p=self._shares)]
        height, width = group[2].shape[2:]
        rows = generator.integers(0, len(group[0]), max(1, pixels // (height * width)))
        codes, predictors, residuals = (values[torch.from_numpy(rows)] for values in group)
        return codes, predictors, residuals


def batch_bits(net: PilcNet, codes: Tensor, predictors: Tensor, residuals: Tensor) -> Tensor:
    """Bits per sub-pixel of the residuals, a scalar that can be differentiated."""
    prediction = net(codes, predictors)
    return net.shape.bits(residuals.float() - prediction.mean / 16, prediction.scale).mean()


def mean_bits(net: PilcNet, rows: Rows, batch: int = 8) -> float:
    """Bits per sub-pixel of all residuals."""
    net.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for group in rows.groups:
            for start in range(0, len(group[0]), batch):
                part = [values[start : start + batch] for values in group]
                total += float(batch_bits(net, *part)) * part[2].numel()
                count += part[2].numel()
    net.train()
    return total / count


def train_pilc(
    recipe: PilcRecipe,
    data: Path,
    *,
    checkpoint: Path | None = None,
    report_every: float = 30.0,
    progress: Callable[[TrainProgress], None] = lambda _: None,
) -> PilcModel:
    """Train by the recipe on the images below `data` and return the integer model.

    One image in fifty is held out: the model's recipe says how many bits a sub-pixel of theirs takes, payloads' heads
    aside, as the integer model codes them. With `checkpoint`, the run's state is kept there, and a run of the same
    recipe goes on from it. Raises UsageError where a checkpoint does not fit or the data holds too few images.
    """
    started = time.monotonic()
    spec = recipe.architecture()
    tiles, held_out_tiles = collect_tiles(data, recipe)
    state = _load(checkpoint, recipe) if checkpoint is not None and checkpoint.exists() else {}
    if not state:
        blocks = gather_blocks(tiles, spec, recipe.cluster_blocks)
        codebook = fit_codebook(
            blocks,
            spec,
            recipe.cluster_rounds,
            recipe.seed,
            lambda number, bits: progress(TrainProgress(0, recipe.steps, 0.0, bits, bits, time.monotonic() - started)),
        )
        del blocks
        state = {"codebook": list(codebook), "step": 0, "seconds": 0.0}
        _save(checkpoint, recipe, state)
    codebook = Codebook(*state["codebook"])
    fixed = integer_tensors(codebook)
    torch.manual_seed(recipe.seed)
    net = PilcNet(spec, codebook.sizes, means=recipe.means)
    optimiser = torch.optim.Adam(net.parameters(), recipe.rate, betas=BETAS)
    engine = PilcCpuEngine()
    first = export_pilc_model(net, fixed, [], recipe.profile, {})
    tiles = tiles[: recipe.network_tiles]
    codings = engine.codings(first, tiles)
    choices = [coding.choices for coding in codings]
    rows, held_out = Rows(codings), Rows(engine.codings(first, held_out_tiles))
    del codings
    net.quantise(False)
    if "net" in state:
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
    step, seconds = state["step"], state["seconds"]
    sums, counted, reported = 0.0, 0, time.monotonic()
    while step < recipe.steps:
        net.quantise(step >= recipe.steps - recipe.rounded_steps)
        for group in optimiser.param_groups:
            group["lr"] = _rate(recipe, step)
        batch = rows.sample(np.random.default_rng((recipe.seed, step)), recipe.batch_pixels)
        loss = batch_bits(net, *batch)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        step += 1
        sums, counted = sums + loss.item(), counted + 1
        if time.monotonic() - reported > report_every or step == recipe.steps:
            now = time.monotonic()
            seconds, started = seconds + now - started, now
            progress(
                TrainProgress(
                    step, recipe.steps, _rate(recipe, step), sums / counted, mean_bits(net, held_out), seconds
                )
            )
            state |= {
                "net": net.state_dict(), "optimiser": optimiser.state_dict(), "step": step, "seconds": seconds
            }  # fmt: skip
            _save(checkpoint, recipe, state)
            sums, counted, reported = 0.0, 0, time.monotonic()

    net.quantise()
    run = {
        "recipe": recipe.to_json(),
        "training_pixels": sum(tile.shape[0] * tile.shape[1] for tile in tiles),
        "residual_validation_bits": round(mean_bits(net, held_out), 4),
        "seconds": round(seconds),
        "device": f"cpu ({platform.machine()}, {torch.get_num_threads()} thread, {training_dtype()})",
        "versions": {"pilc-stream": __version__, "torch": torch.__version__, "numpy": np.__version__},
        "date": datetime.now(UTC).date().isoformat(),
    }
    model = export_pilc_model(net, fixed, choices, recipe.profile, run)
    run["validation_bits"] = round(stream_bits(model, held_out_tiles), 4)
    return export_pilc_model(net, fixed, choices, recipe.profile, run)


def stream_bits(model: PilcModel, tiles: Sequence[Pixels]) -> float:
    """Bits per sub-pixel of the tiles' streams, one lane each."""
    streams = PilcCpuEngine().encode_tiles(model, tiles, [0] * len(tiles))
    return 8 * sum(len(stream) for stream in streams) / sum(tile.size for tile in tiles)


def _rate(recipe: PilcRecipe, step: int) -> float:
    cosine = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    return recipe.rate * min(1.0, (step + 1) / WARM_UP_STEPS) * (cosine * (1 - LEAST_SHARE) + LEAST_SHARE)


def _save(path: Path | None, recipe: PilcRecipe, state: dict[str, Any]) -> None:
    if path is None:
        return
    temporary = path.with_name(path.name + ".partial")
    torch.save({"recipe": recipe.to_json(), **state}, temporary)
    os.replace(temporary, path)


def _load(path: Path, recipe: PilcRecipe) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    if content.pop("recipe") != recipe.to_json():
        raise UsageError(f"checkpoint {path}: it belongs to another recipe; remove it or give another path")
    return content

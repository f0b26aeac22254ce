"""Training of the light lossy model for all trade-offs at once, with checkpoints that resume exactly."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pilc_stream._version import __version__
from pilc_stream.errors import UsageError
from pilc_stream.models.lossy import LossyModel
from pilc_stream.models.lossy_spec import HYPER_STRIDE, UNIT
from pilc_stream.training.augment import Pixels, oriented, with_halved_colour
from pilc_stream.training.data import HELD_OUT_EVERY, images_below
from pilc_stream.training.lossy.export import export_lossy_model
from pilc_stream.training.lossy.light import KNOTS, LightNet
from pilc_stream.training.lossy.light_recipe import LightRecipe
from pilc_stream.training.network import training_dtype
from pilc_stream.training.optimiser import ADAM_BETAS, Muon

WARM_UP_STEPS = 100
LEAST_SHARE = 0.005
"""Of the first learning rate, at the end."""

ENTROPY_SHARE = 0.5
"""Muon's learning rate for the entropy nets, as a share of that for the transforms."""

LINEAR_SHARE, OTHER_SHARE = 0.02, 0.2
"""Adam's learning rates, likewise: of the matrices that begin as principal components and the entropy nets' outputs,
and of the rest."""

BALANCE = 0.4
"""A picture weighs as its trade-off to the power of minus this, so that low rates are not drowned by high ones."""

GRADIENT_LIMIT = 2.0
STEP_PER_TRADEOFF = 26.0
"""The step of a uniform quantiser, squared, times the trade-off at which it is best (at high rates)."""

FIRST_PICTURES = 160
CHECKED = (0.1, 0.4, 0.7)
"""Trade-offs, as positions between the first and the last, at which held-out pictures are measured."""


class LightProgress(NamedTuple):
    """Where a run stands: `loss`, the mean since the last report; `held_out`, bits per pixel and dB at `CHECKED`."""

    step: int
    steps: int
    loss: float
    held_out: tuple[tuple[float, float], ...]
    seconds: float


class Optimisers:
    """Muon for the weight matrices of hidden layers, Adam for the rest."""

    def __init__(self, net: LightNet) -> None:
        hidden, entropy = list(net.matrices()), list(net.entropy_matrices())
        linear, outputs = list(net.linear_matrices()), list(net.output_matrices())
        known = {id(each) for each in (*hidden, *entropy, *linear, *outputs)}
        others = [each for each in net.parameters() if id(each) not in known]
        self.net = net
        self.parts: list[tuple[torch.optim.Optimizer, float]] = [
            (Muon(hidden, lr=0.0), 1.0),
            (Muon(entropy, lr=0.0), ENTROPY_SHARE),
            (torch.optim.Adam(linear, lr=0.0, betas=ADAM_BETAS), LINEAR_SHARE),
            (torch.optim.Adam(outputs, lr=0.0, betas=ADAM_BETAS), LINEAR_SHARE),
            (torch.optim.Adam(others, lr=0.0, betas=ADAM_BETAS), OTHER_SHARE),
        ]

    def step(self, loss: Tensor, rate: float) -> None:
        """One step down the gradient of `loss` at this learning rate."""
        for optimiser, share in self.parts:
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                group["lr"] = rate * share
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), GRADIENT_LIMIT)
        for optimiser, _ in self.parts:
            if any(each.grad is not None for group in optimiser.param_groups for each in group["params"]):
                optimiser.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """The states of all; `load_state_dict` is the inverse."""
        return [optimiser.state_dict() for optimiser, _ in self.parts]

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Take over a state."""
        for (optimiser, _), state in zip(self.parts, states, strict=True):
            optimiser.load_state_dict(state)


def tradeoff(recipe: LightRecipe, position: Tensor) -> Tensor:
    """The trade-offs at positions in `[0, 1]` between the least and the largest."""
    return recipe.least_tradeoff * (recipe.largest_tradeoff / recipe.least_tradeoff) ** position


def collect_pictures(data: Path, recipe: LightRecipe) -> tuple[list[Pixels], list[Pixels]]:
    """Pictures to train on, at least `recipe.crop` a side, and those held out, edges multiples of 64; uint8.

    Raises UsageError where there are too few.
    """
    parts: tuple[list[Pixels], list[Pixels]] = ([], [])
    large = (image for _, image in images_below(data) if min(image.shape[:2]) >= recipe.crop)
    for number, image in enumerate(large):
        parts[number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1].append(image)
    if not parts[1]:
        raise UsageError(
            f"training data {data}: fewer than {HELD_OUT_EVERY} images of {recipe.crop} x {recipe.crop} pixels"
        )
    return parts[0], [_whole_strides(picture) for picture in parts[1]]


def drawn(pictures: Sequence[Pixels], recipe: LightRecipe, step: int) -> tuple[Tensor, Tensor]:
    """The batch of a step: pixels in `UNIT`, `(batch, 3, crop, crop)`, and positions of the trade-offs `(batch,)`."""
    generator = np.random.default_rng((recipe.seed, step))
    squares = []
    for number in generator.integers(0, len(pictures), recipe.batch):
        image = pictures[number]
        y, x = (int(generator.integers(0, size - recipe.crop + 1)) for size in image.shape[:2])
        square = oriented(image[y : y + recipe.crop, x : x + recipe.crop], generator)
        if generator.random() < recipe.halved_colour_share:
            square = with_halved_colour(square, generator)
        squares.append(square)
    # One trade-off out of each stretch of the range: batches are alike.
    positions = (np.arange(recipe.batch) + generator.random(recipe.batch)) / recipe.batch
    return in_units(np.stack(squares)), torch.from_numpy(positions.astype(np.float32))


def in_units(pixels: Pixels) -> Tensor:
    """uint8 `(n, h, w, 3)` -> float `(n, 3, h, w)` in `UNIT` about mid grey."""
    return (torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2) - 128) / UNIT


def batch_loss(net: LightNet, recipe: LightRecipe, step: int, pixels: Tensor, positions: Tensor) -> Tensor:
    """Rate plus weighted distortion, a scalar; in the first steps the rate alone."""
    weight = tradeoff(recipe, positions)
    area = pixels.shape[2] * pixels.shape[3]
    if step < recipe.entropy_steps:
        bits: Tensor = net.entropy_bits(pixels, positions)
        return bits.mean() / area
    coded = net(pixels, positions)
    error = (coded.pixels - pixels).square().mean((1, 2, 3)) * UNIT**2
    loss = (coded.latent_bits + coded.hyper_bits) / area + weight * error
    middle = (recipe.least_tradeoff * recipe.largest_tradeoff) ** 0.5
    result: Tensor = (loss * (weight / middle) ** -BALANCE).mean()
    return result


def measured(net: LightNet, pictures: Sequence[Pixels], position: float) -> tuple[float, float]:
    """Mean bits per pixel and mean PSNR in dB of pictures whose edges are multiples of 64, by themselves."""
    net.eval()
    bits, decibels = [], []
    with torch.no_grad():
        for picture in pictures:
            pixels = in_units(picture[None])
            coded = net(pixels, torch.tensor([position]))
            levels = torch.clamp(torch.round(coded.pixels * UNIT + 128), 0, 255)
            error = float((levels - torch.from_numpy(picture.copy()).permute(2, 0, 1)).square().mean())
            bits.append(float(coded.latent_bits + coded.hyper_bits) / (pixels.shape[2] * pixels.shape[3]))
            decibels.append(10 * math.log10(255**2 / max(error, 1e-3)))
    net.train()
    return float(np.mean(bits)), float(np.mean(decibels))


def train_light(
    recipe: LightRecipe,
    data: Path,
    *,
    checkpoint: Path | None = None,
    report_every: float = 60.0,
    progress: Callable[[LightProgress], None] = lambda _: None,
) -> LossyModel:
    """Train by the recipe on the images below `data` and return the model that ships.

    One image in fifty is held out: the model's recipe says what bits a pixel of theirs takes and how near it comes, at
    the positions `CHECKED` between the least and the largest trade-off. With `checkpoint`, the run's state is kept
    there, and a run of the same recipe goes on from it. Raises UsageError where a checkpoint does not fit or the data
    holds too few images.
    """
    started = time.monotonic()
    pictures, held_out = collect_pictures(data, recipe)
    torch.manual_seed(recipe.seed)
    net = LightNet(recipe.architecture())
    first = [oriented(each[: recipe.crop, : recipe.crop], np.random.default_rng(0)) for each in pictures]
    ends = tradeoff(recipe, torch.linspace(0, 1, KNOTS))
    seen = in_units(np.stack(first[:: max(1, len(first) // FIRST_PICTURES)]))
    net.begin(seen, UNIT * (ends / STEP_PER_TRADEOFF) ** 0.5)
    optimisers = Optimisers(net)
    net.train()
    state = _load(checkpoint, recipe)
    step, seconds = 0, 0.0
    if state:
        net.load_state_dict(state["net"])
        optimisers.load_state_dict(state["optimisers"])
        step, seconds = state["step"], state["seconds"]
    total, counted, reported = 0.0, 0, time.monotonic()
    while step < recipe.steps:
        cycle, left = recipe.cycle_at(step)
        net.quantise(left <= cycle.rounded_steps)
        torch.manual_seed(recipe.seed + step)
        loss = batch_loss(net, recipe, step, *drawn(pictures, recipe, step))
        optimisers.step(loss, rate_at(recipe, step))
        step += 1
        total, counted = total + float(loss.detach()), counted + 1
        if time.monotonic() - reported > report_every or step == recipe.steps:
            now = time.monotonic()
            seconds, started = seconds + now - started, now
            found = [measured(net, held_out, position) for position in CHECKED]
            progress(LightProgress(step, recipe.steps, total / counted, tuple(found), seconds))
            _save(
                checkpoint,
                recipe,
                {"net": net.state_dict(), "optimisers": optimisers.state_dict(), "step": step, "seconds": seconds},
            )
            total, counted, reported = 0.0, 0, time.monotonic()
    net.quantise()
    run = {
        "recipe": recipe.to_json(),
        "training_pictures": len(pictures),
        "validation": [
            {"position": position, "bpp": round(bits, 4), "psnr": round(psnr, 3)}
            for position in CHECKED
            for bits, psnr in [measured(net, held_out, position)]
        ],
        "seconds": round(seconds),
        "device": f"cpu ({platform.machine()}, {torch.get_num_threads()} thread, {training_dtype()})",
        "versions": {"pilc-stream": __version__, "torch": torch.__version__, "numpy": np.__version__},
        "date": datetime.now(UTC).date().isoformat(),
    }
    return export_lossy_model(net, recipe.profile, run)


def rate_at(recipe: LightRecipe, step: int) -> float:
    """The learning rate of a step."""
    cycle, left = recipe.cycle_at(step)
    share = min(1.0, left / cycle.falling_steps)
    return cycle.rate * min(1.0, (step + 1) / WARM_UP_STEPS) * (share * (1 - LEAST_SHARE) + LEAST_SHARE)


def _whole_strides(picture: Pixels) -> Pixels:
    height, width = (length // HYPER_STRIDE * HYPER_STRIDE for length in picture.shape[:2])
    return np.ascontiguousarray(picture[:height, :width])


def _save(path: Path | None, recipe: LightRecipe, state: dict[str, Any]) -> None:
    if path is not None:
        temporary = path.with_name(path.name + ".partial")
        torch.save({"recipe": recipe.to_json(), **state}, temporary)
        os.replace(temporary, path)


def _load(path: Path | None, recipe: LightRecipe) -> dict[str, Any]:
    if path is None or not path.exists():
        return {}
    content: dict[str, Any] = torch.load(path, weights_only=True)
    if LightRecipe.from_json(content.pop("recipe")) != recipe:
        raise UsageError(f"checkpoint {path}: it belongs to another recipe; remove it or give another path")
    return content

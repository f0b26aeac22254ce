"""Training of a member of the lossy family for one trade-off, with checkpoints that resume exactly."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pilc_stream._version import __version__
from pilc_stream.errors import UsageError
from pilc_stream.models.family import FamilyModel
from pilc_stream.training.augment import Pixels, oriented
from pilc_stream.training.data import HELD_OUT_EVERY, images_below
from pilc_stream.training.lossy.family_export import export_net
from pilc_stream.training.lossy.family_recipe import FamilyRecipe
from pilc_stream.training.lossy.network import LossyNet

WARM_UP_STEPS = 100
LEAST_SHARE = 0.01
"""Of the learning rate, at the end."""

DENSITY_SHARE = 10.0
"""Of the learning rate, for the density of the side information: few numbers that see every gradient."""

GRADIENT_LIMIT = 1.0
LARGEST_HELD_OUT = 16
PEAK = 255.0


@dataclass(frozen=True)
class FamilyProgress:
    """Where a run stands: the mean `loss` since the last report, and bits per pixel and PSNR (dB) of held-out images,
    whose bits are the model's estimate."""

    step: int
    steps: int
    loss: float
    bpp: float
    psnr: float
    seconds: float


def collect_pictures(data: Path, crop: int) -> tuple[list[Pixels], list[Pixels]]:
    """Pictures below `data` with edges of at least `crop`, uint8 `(h, w, 3)`: those to train on, and held-out ones.

    Raises UsageError where there is none.
    """
    parts: tuple[list[Pixels], list[Pixels]] = ([], [])
    large = (image for _, image in images_below(data) if min(image.shape[:2]) >= crop)
    for number, image in enumerate(large):
        parts[number % HELD_OUT_EVERY == 0].append(image)
    if not parts[1]:
        raise UsageError(f"training data {data}: there is no image of at least {crop} x {crop} pixels")
    return parts[0] or parts[1], parts[1][:LARGEST_HELD_OUT]


def batch_at(pictures: Sequence[Pixels], recipe: FamilyRecipe, step: int) -> Tensor:
    """The batch of a step, float `(batch, 3, crop, crop)` in [0, 1]: a function of the seed and the step alone."""
    generator = np.random.default_rng((recipe.seed, step))
    squares = []
    for number in generator.integers(0, len(pictures), recipe.batch):
        image = pictures[number]
        y, x = (int(generator.integers(0, size - recipe.crop + 1)) for size in image.shape[:2])
        squares.append(oriented(image[y : y + recipe.crop, x : x + recipe.crop], generator))
    return in_unit(np.stack(squares))


def in_unit(pixels: Pixels) -> Tensor:
    """uint8 `(n, h, w, 3)` to float `(n, 3, h, w)` in [0, 1]."""
    return torch.from_numpy(pixels.astype(np.float32) / PEAK).permute(0, 3, 1, 2).contiguous()


def batch_loss(net: LossyNet, pictures: Tensor, tradeoff: float) -> Tensor:
    """Rate plus weighted distortion, a scalar."""
    coded = net(pictures)
    pixels = pictures.shape[0] * pictures.shape[2] * pictures.shape[3]
    error = (coded.pictures - pictures).square().mean() * PEAK**2
    loss: Tensor = coded.bits / pixels + tradeoff * error
    return loss


def measured(net: LossyNet, pictures: Sequence[Pixels], device: torch.device) -> tuple[float, float]:
    """Mean bits per pixel, as the model estimates them, and mean PSNR in dB of the rounded pictures."""
    net.eval()
    rates, decibels = [], []
    with torch.no_grad():
        for picture in pictures:
            coded = net(in_unit(picture[None]).to(device))
            levels = (coded.pictures.cpu() * PEAK).round().clamp(0, PEAK)
            error = float((levels - torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)).square().mean())
            rates.append(float(coded.bits) / (picture.shape[0] * picture.shape[1]))
            decibels.append(10 * math.log10(PEAK**2 / max(error, 1e-3)))
    net.train()
    return float(np.mean(rates)), float(np.mean(decibels))


def train_family(
    recipe: FamilyRecipe,
    data: Path,
    *,
    checkpoint: Path | None = None,
    report_every: float = 60.0,
    progress: Callable[[FamilyProgress], None] = lambda _: None,
) -> FamilyModel:
    """Train by the recipe on the images below `data`, on a CUDA card where there is one; the model that ships.

    One image in fifty is held out. With `checkpoint`, the run's state is kept there, and a run of the same recipe goes
    on from it. Raises UsageError where a checkpoint does not fit or no image is large enough.
    """
    started = time.monotonic()
    pictures, held_out = collect_pictures(data, recipe.crop)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(recipe.seed)
    net = LossyNet(recipe.configuration).to(device)
    density = list(net.side_density.parameters())
    others = [each for each in net.parameters() if all(each is not known for known in density)]
    optimiser = torch.optim.Adam([{"params": others, "share": 1.0}, {"params": density, "share": DENSITY_SHARE}])
    state: dict[str, Any] = {"step": 0, "seconds": 0.0, "course": []}
    if checkpoint is not None and checkpoint.exists():
        state = _load(checkpoint, recipe)
        net.load_state_dict(state.pop("net"))
        optimiser.load_state_dict(state.pop("optimiser"))
    # bfloat16 needs no scaling of the loss. Cards without it compute in float32.
    mixed = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    net.train()
    total, counted, reported = 0.0, 0, time.monotonic()
    while state["step"] < recipe.steps:
        step = state["step"]
        torch.manual_seed(recipe.seed + step)
        for group in optimiser.param_groups:
            group["lr"] = rate_at(recipe, step) * group["share"]
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss = batch_loss(net, batch_at(pictures, recipe, step).to(device), recipe.tradeoff)
        optimiser.zero_grad()
        # The medians move by a loss of their own, which moves nothing else.
        (loss + net.side_density.median_loss()).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), GRADIENT_LIMIT)
        optimiser.step()
        state["step"] += 1
        total, counted = total + float(loss.detach()), counted + 1
        if time.monotonic() - reported > report_every or state["step"] == recipe.steps:
            now = time.monotonic()
            state["seconds"], started = state["seconds"] + now - started, now
            bpp, psnr = measured(net, held_out, device)
            seen = FamilyProgress(state["step"], recipe.steps, total / counted, bpp, psnr, state["seconds"])
            progress(seen)
            state["course"].append({name: round(value, 4) for name, value in asdict(seen).items() if name != "steps"})
            if checkpoint is not None:
                _save(checkpoint, recipe, {**state, "net": net.state_dict(), "optimiser": optimiser.state_dict()})
            total, counted, reported = 0.0, 0, time.monotonic()
    bpp, psnr = measured(net, held_out, device)
    run = {
        "recipe": recipe.to_json(),
        "training_pictures": len(pictures),
        "validation_bpp": round(bpp, 4),
        "validation_psnr": round(psnr, 3),
        "course": state["course"],
        "seconds": round(state["seconds"]),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu ({platform.machine()})",
        "computed_in": "bfloat16 and float32" if mixed else "float32",
        "versions": {"pilc-stream": __version__, "torch": torch.__version__, "numpy": np.__version__},
        "date": datetime.now(UTC).date().isoformat(),
    }
    return export_net(net, recipe.profile, recipe.tradeoff, run)


def rate_at(recipe: FamilyRecipe, step: int) -> float:
    """The learning rate of a step."""
    left = min(1.0, (recipe.steps - step) / recipe.falling_steps)
    return recipe.rate * min(1.0, (step + 1) / WARM_UP_STEPS) * (left * (1 - LEAST_SHARE) + LEAST_SHARE)


def _save(path: Path, recipe: FamilyRecipe, state: dict[str, Any]) -> None:
    temporary = path.with_name(path.name + ".partial")
    torch.save({"recipe": recipe.to_json(), **state}, temporary)
    os.replace(temporary, path)


def _load(path: Path, recipe: FamilyRecipe) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    if content.pop("recipe") != recipe.to_json():
        raise UsageError(f"checkpoint {path}: it belongs to another recipe; remove it or give another path")
    return content

"""Fitting: a profile's model goes on learning on a sample of one data set, for some minutes."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pilc_stream._version import __version__
from pilc_stream.errors import UsageError
from pilc_stream.models.model import WaveModel
from pilc_stream.training.augment import Pixels, oriented
from pilc_stream.training.data import GANG_TILES, PixelRows, RowSource, concatenated, cut_tiles, sampled_images
from pilc_stream.training.export import check_parity, export_model, import_model
from pilc_stream.training.network import WaveNet
from pilc_stream.training.optimiser import Optimisers
from pilc_stream.training.recipe import Stage
from pilc_stream.training.rounding import round_weights
from pilc_stream.training.train import (
    LEAST_LEARNING_RATE,
    PARITY_ROWS,
    WARM_UP_STEPS,
    batch_bits,
    mean_bits,
)

TILE_EDGE = 256
SAMPLE_IMAGES = 4000
SAMPLE_PIXELS = 6_000_000
PIXELS_PER_TILE = 16384
"""Of a large tile only so many pixels are used: more tiles are worth more."""

ORIENTATIONS = 8
HELD_OUT_SHARE = 0.1
STAGE = Stage(100, 0.01, 0.0001)
"""As in a recipe, but in per cent of the time."""

BATCH = 8192


@dataclass(frozen=True)
class FitProgress:
    """Where a fit stands: share of its time done, steps, bits per sub-pixel of the last steps."""

    share: float
    steps: int
    train_bits: float


@dataclass(frozen=True)
class Fitted:
    """A fitted model, and bits per sub-pixel on images of the data set that it was not fitted on."""

    model: WaveModel
    images: int
    held_out_images: int
    bits_before: float
    bits_after: float

    @property
    def gain(self) -> float:
        """Share of the bits saved."""
        return 1 - self.bits_after / self.bits_before


def fit(
    data: Path,
    start: WaveModel,
    *,
    minutes: float = 5.0,
    steps: int | None = None,
    seed: int = 0,
    images: int = SAMPLE_IMAGES,
    report_every: float = 5.0,
    progress: Callable[[FitProgress], None] = lambda _: None,
) -> Fitted:
    """Tune `start` to the images below `data` for so many minutes, reading them included; or for so many steps, which
    gives the same model each time.

    A random sample of at most `images` images is taken, and of these so many pixels as can be used. One image in ten is
    held out to measure the gain. Raises UsageError where there are fewer than two images.
    """
    if not minutes > 0:
        raise UsageError(f"fit: minutes must be positive, found {minutes}")
    started = time.monotonic()
    sample = list(sampled_images(data, images, seed))
    if len(sample) < 2:
        raise UsageError(
            f"fit: {data} holds {len(sample)} readable images; at least 2 are needed, one of them to measure the gain"
        )
    held_out_count = max(1, round(HELD_OUT_SHARE * len(sample)))
    generator = np.random.default_rng(seed)
    source = RowSource(start.spec)
    # The sample comes in random order, so its first images are as good as any.
    held_out = _rows(source, _tiles(sample[:held_out_count]), generator)
    rows = _rows(source, _variants(sample[held_out_count:], generator), generator)

    torch.manual_seed(seed)
    net = import_model(start)
    net.quantise()
    before = mean_bits(net, held_out)
    net.quantise(False)
    seconds = max(60 * minutes - (time.monotonic() - started), 1e-3)
    done = _optimise(net, rows, seconds, steps, generator, report_every, progress)
    round_weights(net, rows, batch_bits)
    after = mean_bits(net, held_out)
    run = {
        "fitted_from": {"profile": start.profile, "sha256": start.sha256},
        "images": len(sample) - held_out_count,
        "held_out_images": held_out_count,
        "training_pixels": len(rows),
        "validation_bits": round(after, 4),
        "validation_bits_before": round(before, 4),
        "steps": done,
        "seconds": round(time.monotonic() - started),
        "device": f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)",
        "versions": {"pilc-stream": __version__, "torch": torch.__version__, "numpy": np.__version__},
        "date": datetime.now(UTC).date().isoformat(),
    }
    model = export_model(net, f"{start.profile}-fitted", run, start.tile_log2)
    check_parity(net, model, held_out.part(0, PARITY_ROWS))
    return Fitted(model, len(sample), held_out_count, before, after)


def _optimise(
    net: WaveNet,
    rows: PixelRows,
    seconds: float,
    steps: int | None,
    generator: np.random.Generator,
    report_every: float,
    progress: Callable[[FitProgress], None],
) -> int:
    """Train by the clock or by steps: the schedule of `train` over either; returns the steps done."""
    optimiser = Optimisers(net)
    net.set_weight_noise(STAGE.weight_noise)
    begin, step, bits, count, reported = time.monotonic(), 0, 0.0, 0, time.monotonic()
    while True:
        share = step / steps if steps is not None else (time.monotonic() - begin) / seconds
        if share >= 1 and step:
            return step
        rate = STAGE.rate(min(share, 1.0)) * min(1.0, (step + 1) / WARM_UP_STEPS)
        size = min(BATCH, len(rows))
        first = int(generator.integers(len(rows) - size + 1))
        loss = batch_bits(net, rows.batch(first, first + size))
        optimiser.step(loss, max(rate, LEAST_LEARNING_RATE))
        step, bits, count = step + 1, bits + loss.item(), count + 1
        if time.monotonic() - reported >= report_every:
            progress(FitProgress(min(share, 1.0), step, bits / count))
            bits, count, reported = 0.0, 0, time.monotonic()


def _tiles(images: Sequence[Pixels]) -> Iterator[Pixels]:
    for image in images:
        yield from cut_tiles(image, TILE_EDGE)


def _variants(images: Sequence[Pixels], generator: np.random.Generator) -> Iterator[Pixels]:
    """The images' tiles, then again in other orientations, as often as there are orientations."""
    yield from _tiles(images)
    for _ in range(ORIENTATIONS - 1):
        for tile in _tiles(images):
            yield oriented(tile, generator)


def _rows(source: RowSource, tiles: Iterator[Pixels], generator: np.random.Generator) -> PixelRows:
    """Shuffled rows, `SAMPLE_PIXELS` at most, from the first of the tiles."""
    parts: list[PixelRows] = []
    count, gang, keep = 0, list[Pixels](), list[NDArray[np.int64]]()
    for tile in tiles:
        gang.append(tile)
        keep.append(generator.permutation(tile.shape[0] * tile.shape[1])[:PIXELS_PER_TILE])
        count += len(keep[-1])
        if len(gang) == GANG_TILES or count >= SAMPLE_PIXELS:
            parts += source.rows(gang, keep)
            gang, keep = [], []
        if count >= SAMPLE_PIXELS:
            break
    if gang:
        parts += source.rows(gang, keep)
    rows = concatenated(parts)
    rows.shuffle(generator)
    return rows

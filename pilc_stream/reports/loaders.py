"""A contest of loaders: the same images, as many workers, one pass each in every round, so that drift hits all alike.

Each loader runs in a process of its own on as many cores as it has workers, waits while others run, and keeps its
workers from pass to pass. The first pass warms up, and its pixels are compared with what was put in.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pilc_stream.errors import UsageError, VerifyError
from pilc_stream.reports import loader_peers
from pilc_stream.reports.sets import ImageSet

BATCH_BYTES = 1 << 23
"""About the raw bytes of a batch, of which there are at most `MAX_BATCH` images and at least `MIN_BATCH`."""
MIN_BATCH, MAX_BATCH = 8, 64

PASS_IMAGES, PASS_BYTES = 8192, 24_000_000
"""What a pass has at least, whichever is less; small sets are repeated."""
MIN_BATCHES = 8
"""Batches that each worker reads in a pass at least."""
_CLASSES = 10
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Loader:
    """A contestant. `command` runs it, as `loader_peers` says, given the PNG folder, its own, batch and workers."""

    name: str
    command: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class LoaderFigures:
    """What one loader did on one set: medians over passes. `cpu_us_per_sample` counts all processes of the loader.

    Where `skipped` says why there are no figures, the others are empty.
    """

    loader: str
    skipped: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    stored_bytes: int = 0
    samples_per_s: float = 0.0
    cpu_us_per_sample: float | None = None
    seconds: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LoaderReport:
    """One set's contest. A pass has `samples` images, the set's `images` repeated as often as need be."""

    images: str
    samples: int
    raw_bytes: int
    batch: int
    workers: int
    rounds: int
    loaders: tuple[LoaderFigures, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def peer_loaders(python: str) -> list[Loader]:
    """The loaders of other projects, run by an interpreter that has them."""
    return [Loader(name, (python, loader_peers.__file__, name)) for name in loader_peers.PEERS]


def bench_loaders(
    image_set: ImageSet,
    loaders: Sequence[Loader],
    workers: int,
    rounds: int,
    progress: Callable[[str], None] = lambda _: None,
    pass_images: int = PASS_IMAGES,
) -> LoaderReport:
    """Let the loaders read the set, turn by turn. One that cannot run is skipped, its reason told.

    Raises VerifyError where a loader gives other pixels, UsageError where the set has no image.
    """
    batch, order = _plan(image_set, workers, pass_images)
    with tempfile.TemporaryDirectory(prefix="pilc-bench-") as temporary, ExitStack() as running:
        checksum = _write_pngs(image_set, order, Path(temporary) / "png")
        programs: list[_Program] = []
        for loader in loaders:
            progress(f"{image_set.name}: {loader.name}: makes its data set and warms up")
            program = running.enter_context(_Program(loader, Path(temporary), batch, workers))
            program.begin(len(order), checksum)
            programs.append(program)
        for turn in range(rounds):
            for program in programs:
                if not program.skipped:
                    progress(f"{image_set.name}: {program.loader.name}: round {turn + 1} of {rounds}")
                    program.read()
        figures = tuple(program.figures(len(order)) for program in programs)
    raw_bytes = sum(image_set.images[number].nbytes for number in order)
    return LoaderReport(
        images=image_set.name, samples=len(order), raw_bytes=raw_bytes, batch=batch, workers=workers, rounds=rounds,
        loaders=figures
    )  # fmt: skip


def loader_table(report: LoaderReport) -> str:
    """The figures as lines of text."""
    lines = [
        f"{report.images}: {report.samples:,} images a pass, batches of {report.batch}, {report.workers} workers on as "
        f"many cores, medians of {report.rounds} rounds"
    ]
    for figures in report.loaders:
        if figures.skipped:
            lines.append(f"  {figures.loader:16} skipped: {figures.skipped}")
            continue
        share = figures.stored_bytes / report.raw_bytes
        cpu = "" if figures.cpu_us_per_sample is None else f", {figures.cpu_us_per_sample:,.0f} us of CPU each"
        lines.append(f"  {figures.loader:16} {figures.samples_per_s:9,.1f} images/s, {share:.1%} of raw{cpu}")
    return "\n".join(lines)


class _Program:
    """The process of one loader."""

    def __init__(self, loader: Loader, folder: Path, batch: int, workers: int) -> None:
        self.loader = loader
        self.skipped = ""
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [*loader.command, str(folder / "png"), str(folder / loader.name), str(batch), str(workers)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._complaints, text=True
        )  # fmt: skip
        self._about: dict[str, Any] = {}
        self._passes: list[dict[str, Any]] = []

    def __enter__(self) -> _Program:
        return self

    def __exit__(self, *_: object) -> None:
        # The end of its input ends it.
        try:
            self._process.communicate(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._complaints.close()

    def begin(self, samples: int, checksum: int) -> None:
        """Wait for its data set and let it read it once. Raises VerifyError."""
        about = self._answer()
        warm = self._ask() if about else None
        if about is None or warm is None:
            return
        if (warm["samples"], warm["checksum"]) != (samples, checksum):
            raise VerifyError(f"{self.loader.name} does not give the pixels back: {warm['samples']} of {samples} came.")
        self._about = about

    def read(self) -> None:
        """One timed pass."""
        taken = self._ask()
        if taken is not None:
            self._passes.append(taken)

    def figures(self, samples: int) -> LoaderFigures:
        """What was measured."""
        if self.skipped:
            return LoaderFigures(loader=self.loader.name, skipped=self.skipped)
        seconds = tuple(round(taken["seconds"], 4) for taken in self._passes)
        cpu = [taken["cpu_seconds"] for taken in self._passes]
        return LoaderFigures(
            loader=self.loader.name,
            versions=self._about["versions"],
            stored_bytes=self._about["stored_bytes"],
            samples_per_s=float(f"{samples / statistics.median(seconds):.4g}"),
            cpu_us_per_sample=None if None in cpu else float(f"{1e6 * statistics.median(cpu) / samples:.4g}"),
            seconds=seconds,
        )

    def _ask(self) -> dict[str, Any] | None:
        if self._process.stdin is None:
            raise UsageError(f"{self.loader.name}: the program takes no input.")
        try:
            self._process.stdin.write("pass\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        return self._answer()

    def _answer(self) -> dict[str, Any] | None:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self._complaints.seek(0)
        said = self._complaints.read().strip().splitlines()
        self.skipped = said[-1] if said else f"it ended with code {self._process.wait()} and said nothing"
        return None


def _plan(image_set: ImageSet, workers: int, pass_images: int) -> tuple[int, list[int]]:
    """Images of a batch, and the numbers of the images of a pass: whole batches, equally many for each worker."""
    if not image_set.images:
        raise UsageError(f"{image_set.name}: no image was found; give a folder of images or a Parquet file of them")
    mean_bytes = image_set.raw_bytes / len(image_set.images)
    batch = int(min(MAX_BATCH, max(MIN_BATCH, BATCH_BYTES // mean_bytes)))
    step = batch * workers
    wanted = max(len(image_set.images), min(pass_images, PASS_BYTES / mean_bytes), MIN_BATCHES * step)
    return batch, [number % len(image_set.images) for number in range(-(-int(wanted) // step) * step)]


def _write_pngs(image_set: ImageSet, order: Sequence[int], folder: Path) -> int:
    """Write the images of a pass as `CLASS/NUMBER.png`; the sum of the CRC-32 of each as `loader_peers` counts it."""
    first: dict[int, Path] = {}
    checksum = 0
    for at, number in enumerate(order):
        path = folder / f"{at % _CLASSES:02}" / f"{at:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = _rgb(image_set.images[number])
        checksum += zlib.crc32(np.ascontiguousarray(pixels.transpose(2, 0, 1)).tobytes())
        if number in first:
            path.write_bytes(first[number].read_bytes())
        else:
            Image.fromarray(pixels).save(path)
            first[number] = path
    return checksum


def _rgb(image: NDArray[Any]) -> NDArray[Any]:
    return (
        image if image.ndim == 3 and image.shape[2] == 3 else np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    )

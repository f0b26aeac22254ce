"""Progress on standard error: a bar on a terminal, a line every few seconds anywhere else."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from pilc_stream.cli.console import counted, duration, messages, quiet_libraries, size
from workers.occupancy import Occupancy, sentence
from workers.progress import Snapshot

LINE_EVERY_S = 10.0
BAR_EVERY_S = 0.1
WINDOW_S = 30.0

_PHASES = {"listing": "listing", "starting": "starting Ray", "working": "compressing", "finishing": "finishing"}


class Meter:
    """Rates over the last `WINDOW_S` seconds, so that an estimate follows what happens now."""

    def __init__(self, start: float) -> None:
        self._points: deque[tuple[float, int, int]] = deque([(start, 0, 0)])

    def add(self, now: float, images: int, raw_bytes: int) -> None:
        """Note how much is done in all, at `now` seconds."""
        # A lost worker takes its part back; from there it counts anew.
        if images < self._points[-1][1]:
            self._points.clear()
        self._points.append((now, images, raw_bytes))
        while len(self._points) > 2 and self._points[1][0] <= now - WINDOW_S:
            self._points.popleft()

    def rates(self) -> tuple[float, float]:
        """Images and raw bytes a second; 0 while nothing is known."""
        (then, images_then, bytes_then), (now, images, raw_bytes) = self._points[0], self._points[-1]
        if now <= then:
            return 0.0, 0.0
        return (images - images_then) / (now - then), (raw_bytes - bytes_then) / (now - then)


def describe(done: int, total: int, rates: tuple[float, float], *notes: str) -> str:
    """One line: how much is done, how fast, how long it will take, and `notes` (empty ones are left out).

    `total` is 0 where nobody knows.
    """
    images_per_second, bytes_per_second = rates
    parts = [f"{done:,}/{total:,} images" if total else f"{done:,} images"]
    if images_per_second > 0:
        parts += [f"{images_per_second:.3g} images/s", f"{size(bytes_per_second)}/s raw"]
    parts += [note for note in notes if note]
    if images_per_second > 0 and done < total:
        parts.append(f"ETA {duration((total - done) / images_per_second)}")
    return ", ".join(parts)


class Display:
    """Shows one line of text and a bar, at most every so often. A context manager."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._is_bar = console.is_terminal
        self._due = clock() + (0.0 if self._is_bar else LINE_EVERY_S)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[line]}"),
            console=console,
            transient=True,
            disable=not self._is_bar,
        )
        self._task = self._progress.add_task("", total=None, line="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def is_due(self) -> bool:
        """Whether an update would be shown now; asking spares making the text of the others."""
        return self._clock() >= self._due

    def update(self, label: str, done: int, total: int, line: str) -> None:
        """Show where things stand."""
        if self._is_bar:
            self._due = self._clock() + BAR_EVERY_S
            self._progress.update(self._task, description=label, completed=done, total=total or None, line=line)
        else:
            self._due = self._clock() + LINE_EVERY_S
            self._console.print(f"pilc: {label}: {line}", soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a sentence above the bar."""
        self._progress.console.print(f"pilc: {text}", soft_wrap=True)


class JobDisplay:
    """The Reporter of the command line."""

    def __init__(self, display: Display, clock: Callable[[], float] = time.monotonic) -> None:
        self._display = display
        self._clock = clock
        self._meter = Meter(clock())
        self._occupancy = Occupancy()
        self.last = Snapshot()

    def show(self, snapshot: Snapshot) -> None:
        """Show a snapshot if it is time to; a new plan or phase at once where there is a bar."""
        if snapshot.phase == "working" and self.last.phase != "working":
            # Time begins when work does: neither listing nor starting Ray says how long the rest takes.
            self._meter = Meter(self._clock())
        if snapshot.shards and not self.last.shards:
            done = f", {snapshot.skipped.shards:,} of them committed already" if snapshot.skipped.shards else ""
            images = counted(snapshot.images, "image") if snapshot.images else "Images"
            self._display.say(f"{images} in {counted(snapshot.shards, 'shard')}{done}.")
        coded = snapshot.coded
        self._meter.add(self._clock(), coded.images, coded.raw_bytes)
        self._occupancy.add(self._clock(), snapshot.seconds)
        self.last = snapshot
        if self._display.is_due():
            label = _PHASES.get(snapshot.phase, snapshot.phase)
            self._display.update(label, snapshot.images_done, snapshot.images, self._line(snapshot))

    def say(self, sentence: str) -> None:
        """Pass a sentence on."""
        self._display.say(sentence)

    def _line(self, snapshot: Snapshot) -> str:
        coded = snapshot.coded
        ratio = ""
        if coded.payload_bytes:
            of_pixels, of_source = coded.raw_bytes / coded.payload_bytes, coded.source_bytes / coded.payload_bytes
            ratio = f"ratio {of_pixels:.2f} ({of_source:.2f} to the source)"
        failed = f"{snapshot.failed:,} failed" if snapshot.failed else ""
        stages = sentence(self._occupancy.shares(snapshot.slots))
        return describe(snapshot.images_done, snapshot.images, self._meter.rates(), ratio, failed, stages)


@contextmanager
def counting(label: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """Show how many of `total` images are done; yields what to call with further numbers of images and raw bytes."""
    with quiet_libraries(), Display(messages()) as display:
        meter, images, raw_bytes = Meter(time.monotonic()), 0, 0

        def count(more_images: int, more_bytes: int) -> None:
            nonlocal images, raw_bytes
            images, raw_bytes = images + more_images, raw_bytes + more_bytes
            meter.add(time.monotonic(), images, raw_bytes)
            if display.is_due():
                display.update(label, images, total, describe(images, total, meter.rates()))

        yield count

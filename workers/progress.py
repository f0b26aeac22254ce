"""What a job tells while it runs: a snapshot of counts, and now and then a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, Protocol, Self

from pilc_stream.records.record import Record, ShardEntry

Phase = Literal["listing", "starting", "working", "finishing", "done"]


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over committed shards, as their entries have them; `images` are rows."""

    shards: int = 0
    images: int = 0
    failed: int = 0
    fallback: int = 0
    raw_bytes: int = 0
    source_bytes: int = 0
    payload_bytes: int = 0
    shard_bytes: int = 0
    sub_pixels: int = 0

    @classmethod
    def of(cls, entries: Iterable[ShardEntry]) -> Self:
        """The sums over `entries`."""
        totals = cls()
        for entry in entries:
            totals += cls(
                shards=1,
                images=entry.rows,
                failed=entry.failed,
                fallback=entry.fallback,
                raw_bytes=entry.raw_bytes,
                source_bytes=entry.source_bytes,
                payload_bytes=entry.payload_bytes,
                shard_bytes=entry.shard_bytes,
                sub_pixels=entry.sub_pixels,
            )
        return totals

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    @property
    def bpsp(self) -> float | None:
        """Bits per sub-pixel: 8 * `payload_bytes` over `sub_pixels`; None without pixels.

        The payloads are those of all records, kept sources and undecodable files included; the sub-pixels are the
        samples of all records whose pixels could be decoded, kept or coded.
        """
        return 8 * self.payload_bytes / self.sub_pixels if self.sub_pixels else None


@dataclass(frozen=True, slots=True)
class Tally:
    """What a worker has made of the shard it is at: records that will be stored once the shard is committed."""

    images: int = 0
    raw_bytes: int = 0
    source_bytes: int = 0
    payload_bytes: int = 0

    @classmethod
    def of(cls, records: Sequence[Record]) -> Self:
        """The sums over `records`."""
        return cls(
            images=len(records),
            raw_bytes=sum(record.raw_bytes for record in records),
            source_bytes=sum(record.source_bytes for record in records),
            payload_bytes=sum(len(record.payload) for record in records),
        )

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a job stands.

    `images`, `shards`: of the whole job; `images` is 0 where only reading tells how many there are. `skipped`: shards
    committed before this run, `made`: those that it committed, `running`: what its workers have made beyond those; it
    shrinks when a worker is lost.
    """

    phase: Phase = "listing"
    images: int = 0
    shards: int = 0
    skipped: Totals = Totals()
    made: Totals = Totals()
    running: Tally = Tally()

    @property
    def coded(self) -> Tally:
        """What this run has made so far, committed or not."""
        made = self.made
        return Tally(made.images, made.raw_bytes, made.source_bytes, made.payload_bytes) + self.running

    @property
    def images_done(self) -> int:
        """Images of the job that are committed or coded."""
        return self.skipped.images + self.coded.images

    @property
    def failed(self) -> int:
        """Records that failed, in all committed shards."""
        return self.skipped.failed + self.made.failed


class Reporter(Protocol):
    """Shows a job to somebody. Called often, from one thread; must be quick."""

    def show(self, snapshot: Snapshot) -> None:
        """Take note of where the job stands."""

    def say(self, sentence: str) -> None:
        """Pass on what a person should know: a retry, a lost worker, a wait."""


class Silent:
    """A Reporter that tells nobody."""

    def show(self, snapshot: Snapshot) -> None:
        """Do nothing."""

    def say(self, sentence: str) -> None:
        """Do nothing."""


class Board:
    """Keeps the snapshot of a running job and shows every change to a Reporter. Workers have numbers of their own."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._tallies: dict[int, Tally] = {}
        self.snapshot = Snapshot()

    def say(self, sentence: str) -> None:
        """Pass a sentence on."""
        self._reporter.say(sentence)

    def phase(self, phase: Phase) -> None:
        """Enter a phase."""
        self._show(replace(self.snapshot, phase=phase))

    def plan(self, images: int | None, shards: int, skipped: Totals) -> None:
        """Say how large the job is and what of it is committed."""
        self._show(replace(self.snapshot, images=images or 0, shards=shards, skipped=skipped))

    def tally(self, worker: int, tally: Tally) -> None:
        """Replace what `worker` has made of its current shard; an empty tally when it begins or is lost."""
        self._tallies[worker] = tally
        self._show(replace(self.snapshot, running=self._running()))

    def commit(self, worker: int, entry: ShardEntry) -> None:
        """Count a shard that `worker` has committed."""
        self._tallies.pop(worker, None)
        self._show(replace(self.snapshot, made=self.snapshot.made + Totals.of([entry]), running=self._running()))

    def _running(self) -> Tally:
        return sum(self._tallies.values(), Tally())

    def _show(self, snapshot: Snapshot) -> None:
        if snapshot != self.snapshot:
            self.snapshot = snapshot
            self._reporter.show(snapshot)

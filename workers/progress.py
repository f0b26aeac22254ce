"""What a job tells while it runs: a snapshot of counts, and now and then a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal, Protocol, Self

from pilc_stream.pipeline.statistics import StageTimes
from pilc_stream.records.record import Record, ShardEntry
from workers.occupancy import Slots

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
    """What a worker has made of a shard it is at: records that will be stored once the shard is committed.

    The seconds are those of `StageTimes`.
    """

    images: int = 0
    raw_bytes: int = 0
    source_bytes: int = 0
    payload_bytes: int = 0
    read_s: float = 0.0
    decode_s: float = 0.0
    code_s: float = 0.0
    verify_s: float = 0.0
    write_s: float = 0.0

    @classmethod
    def of_times(cls, times: StageTimes) -> Self:
        """The seconds of `times`, and nothing else."""
        return cls(
            read_s=times.read, decode_s=times.decode, code_s=times.code, verify_s=times.verify, write_s=times.write
        )

    @property
    def seconds(self) -> dict[str, float]:
        """Stage to seconds."""
        return {name.removesuffix("_s"): getattr(self, name) for name in self.__slots__ if name.endswith("_s")}

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
    shrinks when a worker is lost. `worked`: the seconds that went into `made`. `slots`: how much goes on at once.
    """

    phase: Phase = "listing"
    images: int = 0
    shards: int = 0
    skipped: Totals = Totals()
    made: Totals = Totals()
    running: Tally = Tally()
    worked: Tally = Tally()
    slots: Slots = field(default_factory=Slots)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of work so far in this run, by stage."""
        return (self.worked + self.running).seconds

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
        self._tallies: dict[tuple[int, int], Tally] = {}
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

    def slots(self, slots: Slots) -> None:
        """Say how much can go on at once."""
        self._show(replace(self.snapshot, slots=slots))

    def tally(self, worker: int, shard: int, tally: Tally) -> None:
        """Replace what `worker` has made of a shard that it is at; an empty tally when it begins or has failed."""
        self._tallies[worker, shard] = tally
        self._show(replace(self.snapshot, running=self._running()))

    def lose(self, worker: int) -> None:
        """Forget what `worker` has made of the shards that it was at."""
        for place in [place for place in self._tallies if place[0] == worker]:
            del self._tallies[place]
        self._show(replace(self.snapshot, running=self._running()))

    def commit(self, worker: int, entry: ShardEntry, times: StageTimes | None = None) -> None:
        """Count a shard that `worker` has committed; `times` went into it."""
        self._tallies.pop((worker, entry.index), None)
        worked = self.snapshot.worked + Tally.of_times(times) if times else self.snapshot.worked
        made = self.snapshot.made + Totals.of([entry])
        self._show(replace(self.snapshot, made=made, worked=worked, running=self._running()))

    def _running(self) -> Tally:
        return sum(self._tallies.values(), Tally())

    def _show(self, snapshot: Snapshot) -> None:
        if snapshot != self.snapshot:
            self.snapshot = snapshot
            self._reporter.show(snapshot)

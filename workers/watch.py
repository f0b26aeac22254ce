"""A job seen from storage alone: what is committed, how fast, where the time went, and whether it is still at it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pilc_stream.pipeline.statistics import StageTimes
from pilc_stream.records.commit import JOB_INFO, Commit, each_commit
from pilc_stream.records.manifest import Manifest
from pilc_stream.records.quarantine import Quarantined, list_quarantined
from pilc_stream.storage import Store
from workers.progress import Totals

_RECENT_SHARDS = 20
"""Shards whose pace tells how long the rest takes."""


@dataclass(frozen=True)
class JobState:
    """Where a job stands.

    `images`, `shards`: of the whole job, None where nobody has counted. `totals`: what is committed. `last_commit_s`:
    how long ago the last shard was, in seconds, None before the first. `pace`: shards a second over the last ones, None
    where too few tell. `stages`: seconds of work in all shards. `hosts`: the machines that made them.
    """

    url: str
    finished: bool
    job: dict[str, Any]
    images: int | None
    shards: int | None
    totals: Totals
    last_commit_s: float | None
    pace: float | None
    stages: StageTimes
    hosts: tuple[str, ...]
    quarantined: tuple[Quarantined, ...]

    @classmethod
    def of(cls, store: Store) -> JobState:
        """Look at a data set. Raises ManifestError where there is none, or a file of it is damaged."""
        manifest = Manifest.of(store, allow_partial=True)
        commits = list(each_commit(store))
        info = manifest.job.get(JOB_INFO) or {}
        ends = sorted(_number(commit.statistics.get("ended")) for commit in commits if "ended" in commit.statistics)
        stages = StageTimes()
        for commit in commits:
            stages.add(_stages(commit))
        images, shards = manifest.job.get("images"), info.get("shards")
        return cls(
            url=manifest.url,
            finished=manifest.finished,
            job=dict(manifest.job),
            images=images if isinstance(images, int) else None,
            shards=shards if isinstance(shards, int) else None,
            totals=Totals.of(manifest.shards),
            last_commit_s=max(0.0, time.time() - ends[-1]) if ends else None,
            pace=_pace(ends),
            stages=stages,
            hosts=tuple(sorted({str(commit.statistics["host"]) for commit in commits if "host" in commit.statistics})),
            quarantined=tuple(list_quarantined(store)),
        )

    @property
    def left_s(self) -> float | None:
        """How long the rest takes at the pace of the last shards, in seconds; None where nobody can tell."""
        if self.finished or not self.pace or self.shards is None:
            return None
        return max(0, self.shards - self.totals.shards) / self.pace

    @property
    def seems_running(self) -> bool:
        """Whether a shard was committed so lately that the next is not overdue. Storage cannot know more."""
        if self.finished or self.last_commit_s is None or not self.pace:
            return False
        return self.last_commit_s < 60 + 3 / self.pace


def _pace(ends: Sequence[float]) -> float | None:
    recent = ends[-_RECENT_SHARDS:]
    return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else None


def _stages(commit: Commit) -> StageTimes:
    seconds = commit.statistics.get("seconds")
    known = StageTimes().to_json()
    return (
        StageTimes(**{name: _number(seconds.get(name)) for name in known})
        if isinstance(seconds, dict)
        else StageTimes()
    )


def _number(value: object) -> float:
    """What a statistic says; they are for people, so a strange one is no error."""
    return float(value) if isinstance(value, int | float) else 0.0

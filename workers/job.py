"""The job: plan, find out what is committed, make the rest, finish. Every part of it can be killed and run again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from pilc_stream.errors import JobError, ManifestError, PilcError, StorageError
from pilc_stream.pipeline.again import MISFIT_STAGE
from pilc_stream.records import layout
from pilc_stream.records.commit import (
    Commit,
    committed_indices,
    list_commits,
    put_model,
    read_commit,
    read_errors,
    read_job,
)
from pilc_stream.records.manifest import Manifest, finish
from pilc_stream.records.quarantine import Quarantined, quarantine, release
from pilc_stream.records.record import RecordError, ShardEntry
from pilc_stream.storage import Store
from workers.again import reopen, tidy, works_of_repaired
from workers.claim import Existing, SourceChanged, claim, look
from workers.inline import run_inline
from workers.ledger import Ledger, Patience
from workers.maker import WorkerSpec
from workers.pages import write_pages
from workers.placement import Placement, needs_ray, place, place_here
from workers.planning import JobPlan, Work, list_parts
from workers.progress import Board, Reporter, Silent, Totals
from workers.report import FAILURES_KEPT, JobReport
from workers.settings import JobSettings


@dataclass(frozen=True)
class DryRun:
    """What a job would do; `images` is None where only reading tells.

    `existing` is what the destination holds, `ray` whether the job would run on Ray.
    """

    destination: str
    existing: Existing
    images: int | None
    source_bytes: int
    shards: int
    committed_shards: int
    profile: str
    codec: str
    model_sha256: str
    ray: bool

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def plan_job(settings: JobSettings) -> DryRun:
    """Say what `run_job` would do, and write nothing. Raises UsageError as that does."""
    plan = JobPlan.make(settings)
    existing = look(plan)
    goes_on = existing == "this job" and settings.on_existing == "resume"
    committed = len(list_commits(plan.store)) if goes_on else 0
    return DryRun(
        destination=plan.store.url,
        existing=existing,
        images=plan.listing.images,
        source_bytes=plan.listing.source_bytes,
        shards=len(plan.shards),
        committed_shards=committed,
        profile=plan.profile,
        codec=plan.codec,
        model_sha256=plan.model_sha256,
        ray=needs_ray(settings, len(plan.shards) - committed),
    )


def run_job(settings: JobSettings, reporter: Reporter | None = None, patience: Patience | None = None) -> JobReport:
    """Compress what `settings` name and return the report of the finished data set.

    Shards that are committed are not made again. Raises UsageError where nothing can be done, JobMismatchError where
    the destination holds another job, JobError where shards could not be made (the others are committed and stay),
    and what a codec, device or storage that does not work at all raises.
    KeyboardInterrupt passes through: the workers are stopped, what is committed stays.
    """
    start = time.monotonic()
    board = Board(reporter or Silent())
    patience = patience or Patience()
    plan = JobPlan.make(settings)
    todo = _todo(plan)
    board.plan(plan.listing.images, len(plan.shards), Totals.of(todo.skipped))

    ledger = Ledger(board, patience, partial(_quarantine, plan.store))
    workers, stopped = 0, None
    if todo.count:
        try:
            workers = _make(plan, todo, board, ledger, patience)
        except PilcError as error:
            stopped = error
    _finish(plan.store, todo, board)
    if todo.count:
        _report(plan.store, board, time.monotonic() - start)
    if stopped:
        raise stopped
    ledger.check(len(plan.shards))

    entries = list_commits(plan.store)
    _check_all_there(plan.store, entries, todo.shards)
    board.phase("done")
    return JobReport(
        destination=plan.store.url,
        profile=plan.profile,
        codec=plan.codec,
        model_sha256=plan.model_sha256,
        totals=Totals.of(entries),
        made=board.snapshot.made,
        skipped_shards=len(todo.skipped),
        statistics=ledger.statistics,
        failures=_failures(plan.store, entries),
        errors_url=f"{plan.store.url}/{layout.ERRORS_FOLDER}",
        workers=workers,
        seconds=time.monotonic() - start,
    )


@dataclass(frozen=True)
class _Todo:
    """What a run has to do.

    `works`: `count` of them; `shards`: how many the finished data set has; `skipped`: those that stay as they are;
    `replaced`: commits that are to be replaced.
    """

    works: Iterable[Work]
    count: int
    shards: int
    skipped: Sequence[ShardEntry]
    replaced: Sequence[Commit] = ()


def _todo(plan: JobPlan) -> _Todo:
    """Claim the destination and compare its commits with the plan. Raises as `claim`."""
    store, changed = plan.store, None
    try:
        claim(plan)
    except SourceChanged as error:
        # Repaired files do not stand in the way of making the shards that hold them again; a missing shard would.
        stored = read_job(store) or {}
        images = sum(entry.rows for entry in list_commits(store))
        same_images = stored.get("images") == images == plan.listing.images
        if not (plan.settings.retry_failed and same_images and plan.source.kind == "files"):
            raise
        changed = error
    committed = list_commits(store)
    again = [entry for entry in committed if entry.failed] if plan.settings.retry_failed else []
    indices = {entry.index for entry in committed}
    works: Iterable[Work]
    if changed:
        # Before anything is touched: a file may be missing.
        works = works_of_repaired(store, again, list_parts(plan.settings, plan.source))
    else:
        works = plan.works(indices, {entry.index for entry in again})
    shards = len(committed) if changed else len(plan.shards)
    fresh = shards - len(committed)
    if not again:
        return _Todo(works, fresh, shards, committed)
    return _Todo(
        works=works,
        count=fresh + len(again),
        shards=shards,
        skipped=[entry for entry in committed if not entry.failed],
        replaced=[read_commit(store, entry.index) for entry in again],
    )


def _make(plan: JobPlan, todo: _Todo, board: Board, ledger: Ledger, patience: Patience) -> int:
    """Make what is to be made, here or on Ray; return the number of Ray actors."""
    settings = plan.settings
    if settings.model_path is not None:
        # Before any worker starts: they read it from the data set.
        put_model(plan.store, plan.model)
    if todo.replaced:
        reopen(plan.store)
    if not needs_ray(settings, todo.count):
        placement = place_here(settings)
        board.slots(placement.slots)
        run_inline(_spec(plan, placement), todo.works, board, ledger)
        return 0
    from workers.fleet import Fleet
    from workers.session import ray_session

    board.phase("starting")
    with ray_session(settings.ray_address, settings.workers) as machine:
        placement = place(settings, todo.count, machine)
        board.slots(placement.slots)
        with Fleet(_spec(plan, placement), placement, board, ledger, patience) as fleet:
            fleet.run(todo.works, todo.count)
    return placement.workers


def _spec(plan: JobPlan, placement: Placement) -> WorkerSpec:
    settings = plan.settings
    return WorkerSpec(
        store=plan.store,
        profile=settings.profile,
        quality=settings.quality,
        psnr=settings.psnr,
        model_sha256=plan.model_sha256,
        own_model=settings.model_path is not None,
        device=settings.device,
        threads=placement.threads,
        verify=settings.verify,
        max_pixels=settings.max_pixels,
        max_streamed_pixels=settings.max_streamed_pixels,
        keep=settings.keep,
        columns=plan.columns,
    )


def _quarantine(store: Store, work: Work, attempts: int, reason: str) -> None:
    keys = [part.key for part in work.task.items]
    # A note about a failure must not become one.
    with suppress(StorageError):
        quarantine(store, Quarantined(work.task.index, attempts, reason, keys[0], keys[-1]))


def _report(store: Store, board: Board, seconds: float) -> None:
    snapshot = board.snapshot
    try:
        write_pages(store, slots=snapshot.slots, seconds=seconds, stages=snapshot.seconds)
    except StorageError as error:
        # The data set is there; only what is said of it is not.
        board.say(f"The report of the job could not be written: {error}")


def _finish(store: Store, todo: _Todo, board: Board) -> None:
    """Declare the data set finished if every shard is committed and nobody has said so yet.

    Also where a run has failed: the shards that it was to replace are there, in their old or their new form. Another
    driver may be replacing commits, or be finishing as well: what is declared must be what is committed after it was
    declared. Whoever replaces a commit looks again afterwards, so the last of them to look sees the last commit.
    """
    release(store, committed_indices(store))
    while len(entries := list_commits(store)) >= todo.shards and _declared(store) != entries:
        board.phase("finishing")
        finish(store, shards=todo.shards)
    tidy(store, todo.replaced)


def _declared(store: Store) -> list[ShardEntry] | None:
    """The shards that the data set is said to have; None where it is not finished, or says nothing sound."""
    try:
        return list(Manifest.of(store).shards)
    except ManifestError:
        return None


def _check_all_there(store: Store, entries: Sequence[ShardEntry], shards: int) -> None:
    """Raise JobError where commits are gone that this run or an earlier one has made."""
    if len(entries) < shards:
        raise JobError(
            f"{store.url}: {shards - len(entries)} of {shards} shards are gone that had been committed, so the data "
            "set is not finished. Somebody deletes there, perhaps another job with --on-existing overwrite. Run the "
            "same command again when that is over."
        )


def _failures(store: Store, entries: Sequence[ShardEntry]) -> tuple[RecordError, ...]:
    """The first records that failed, in the order of the shards."""
    found: list[RecordError] = []
    for entry in entries:
        if len(found) >= FAILURES_KEPT:
            break
        if entry.failed:
            found += [error for error in read_errors(store, entry.index) if error.stage != MISFIT_STAGE]
    return tuple(found[:FAILURES_KEPT])

"""A run on Ray: actors that make shards, kept busy with a bounded number of tasks, replaced when they are lost.

Every task can be repeated by anybody at any time (see `pipeline.compress`), so the rules are simple: what a lost actor
was at is tried again, after a while and not for ever. An actor is at a few shards at a time; where it is lost with
several, none is blamed, but each is tried alone from then on, so that one that kills its workers is found out.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

import ray
from ray.exceptions import RayActorError, RayError

from pilc_stream.errors import JobError
from pilc_stream.pipeline.compress import ShardResult
from workers.actor import Failure, start_actor
from workers.ledger import Ledger, Patience
from workers.maker import SHARDS_IN_FLIGHT, WorkerSpec
from workers.placement import Placement
from workers.planning import Work
from workers.progress import Board, Tally

TASKS_PER_ACTOR = SHARDS_IN_FLIGHT
LOOK_EVERY_S = 0.5
WAITING_NOTE_S = 30.0
LOST = "its worker was lost: killed, out of memory, or gone with its machine"


@dataclass
class _Member:
    """A place in the fleet: its actor, whether that has come up, and its tasks.

    `is_closed`: it is at a shard that is tried alone, and gets no other.
    """

    number: int
    actor: Any = None
    start_at: float = 0.0
    hello: Any = None
    look: Any = None
    tasks: dict[Any, Work] = field(default_factory=dict)
    is_closed: bool = False

    @property
    def ready(self) -> bool:
        """Whether the actor has answered. Until then it gets no task: it may wait for a machine of its own."""
        return self.actor is not None and self.hello is None


class Fleet:
    """Runs works on actors, once. A context manager: at its end the actors are gone."""

    def __init__(
        self, spec: WorkerSpec, placement: Placement, board: Board, ledger: Ledger, patience: Patience
    ) -> None:
        self._spec = spec
        self._placement = placement
        self._board = board
        self._ledger = ledger
        self._patience = patience
        self._members = [_Member(number) for number in range(placement.workers)]
        self._source: Iterator[Work] | None = None
        self._left = 0
        self._waiting: list[tuple[float, Work]] = []
        self._later: list[tuple[float, Work]] = []
        self._suspects: set[int] = set()
        self._losses = 0
        self._looked_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for member in self._members:
            _end(member)

    def run(self, works: Iterable[Work], count: int) -> None:
        """Make all `works`, about `count` of them. Raises what the ledger and the listing raise.

        Raises JobError where actors are lost again and again and no shard gets made in between.
        """
        self._source, self._left = iter(works), count
        self._board.phase("starting")
        note_at = time.monotonic() + WAITING_NOTE_S
        while True:
            self._start()
            self._assign()
            if not self._has_work():
                return
            self._settle()
            self._look()
            if time.monotonic() > note_at and not any(member.ready for member in self._members):
                note_at = float("inf")
                self._board.say("Still waiting for Ray to start the first worker. The cluster may have no room.")

    def _has_work(self) -> bool:
        expected = self._source is not None or self._waiting or self._later
        return bool(expected) or any(member.tasks for member in self._members)

    def _start(self) -> None:
        """Start the actors that are missing, each when its time has come."""
        for member in self._members:
            if member.actor is None and member.start_at <= time.monotonic():
                member.actor = start_actor(self._spec, self._placement)
                member.hello = member.actor.tally.remote()

    def _assign(self) -> None:
        """Give tasks to the members that have fewest, up to the bound; near the end one each, so that none idles."""
        while ready := [member for member in self._members if member.ready and not member.is_closed]:
            member = min(ready, key=lambda each: len(each.tasks))
            bound = TASKS_PER_ACTOR if self._left + len(self._waiting) >= len(self._members) else 1
            work = self._next(may_be_suspect=not member.tasks) if len(member.tasks) < bound else None
            if work is None:
                return
            member.is_closed = work.task.index in self._suspects
            member.tasks[member.actor.make.remote(work)] = work

    def _next(self, *, may_be_suspect: bool) -> Work | None:
        """The next work: one that lost its place, one whose time to be tried again has come, or a new one."""
        now = time.monotonic()
        for queue in (self._waiting, self._later):
            for position, (due, work) in enumerate(queue):
                if due <= now and (may_be_suspect or work.task.index not in self._suspects):
                    del queue[position]
                    return work
        if self._source is not None:
            new = next(self._source, None)
            if new is not None:
                self._left -= 1
                return new
            self._source, self._left = None, 0
        return None

    def _settle(self) -> None:
        """Wait a while for something to happen, and deal with it."""
        hellos = {member.hello: member for member in self._members if member.hello is not None}
        tasks = {reference: member for member in self._members for reference in member.tasks}
        if not hellos and not tasks:
            time.sleep(LOOK_EVERY_S / 5)
            return
        done, _ = ray.wait([*hellos, *tasks], num_returns=1, timeout=LOOK_EVERY_S)
        for reference in done:
            if reference in tasks:
                self._take(tasks[reference], reference)
            else:
                self._greet(hellos[reference])

    def _greet(self, member: _Member) -> None:
        try:
            ray.get(member.hello)
        except RayError as error:
            self._lose(member, f"it did not start: {_line(error)}")
            return
        member.hello = None
        self._board.phase("working")

    def _take(self, member: _Member, reference: Any) -> None:
        """Take the outcome of one of a member's tasks."""
        try:
            outcome: ShardResult | Failure = ray.get(reference)
        except RayActorError as error:
            self._lose(member, _line(error))
            return
        except RayError as error:
            outcome = Failure(_line(error), broken=False)
        work = member.tasks.pop(reference)
        member.is_closed = False
        # What was asked before tells of the shard that is done.
        member.look = None
        if isinstance(outcome, Failure):
            self._board.tally(member.number, work.task.index, Tally())
            self._postpone(work, outcome.reason)
            if outcome.broken:
                self._replace(member, self._patience.delay_s(1))
        else:
            self._losses = 0
            self._ledger.done(member.number, outcome)

    def _lose(self, member: _Member, why: str) -> None:
        """A member's actor is gone: find out which task is to blame, and start another actor after a while."""
        self._losses += 1
        if self._losses > self._patience.lost_in_a_row * len(self._members):
            raise JobError(
                f"{self._losses} workers were lost one after the other and no shard was made in between, so the job "
                f"stops. The last one: {why}. What is committed stays. Check memory, logs and machines, then run the "
                "same command again, perhaps with fewer --workers or a smaller --shard-size."
            )
        if len(member.tasks) == 1:
            self._postpone(member.tasks.popitem()[1], LOST)
        elif member.tasks:
            indices = sorted(work.task.index for work in member.tasks.values())
            self._suspects.update(indices)
            named = " and ".join(str(index) for index in indices)
            self._board.say(f"A worker was lost while it was at the shards {named}; each will be tried again alone.")
        self._replace(member, self._patience.delay_s(self._losses))

    def _postpone(self, work: Work, reason: str) -> None:
        delay = self._ledger.failed(work, reason)
        if delay is not None:
            self._later.append((time.monotonic() + delay, work))

    def _replace(self, member: _Member, delay: float) -> None:
        self._waiting += [(0.0, work) for work in member.tasks.values()]
        _end(member)
        self._board.lose(member.number)
        self._members[member.number] = _Member(member.number, start_at=time.monotonic() + delay)

    def _look(self) -> None:
        """Ask the members at work how far they are, now and then, without ever waiting for an answer."""
        if time.monotonic() - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = time.monotonic()
        for member in self._members:
            if member.look is not None and ray.wait([member.look], timeout=0)[0]:
                # A lost actor shows in its task soon enough.
                with suppress(RayError):
                    for index, tally in ray.get(member.look).items():
                        self._board.tally(member.number, index, tally)
                member.look = None
            if member.look is None and member.ready and member.tasks:
                member.look = member.actor.tally.remote()


def _end(member: _Member) -> None:
    if member.actor is not None:
        with suppress(Exception):
            ray.kill(member.actor, no_restart=True)


def _line(error: BaseException) -> str:
    """The first line of what Ray says: the others are addresses and advice for Ray's own users."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")

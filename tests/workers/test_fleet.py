"""The fleet's rules, with actors that do what a script says: no Ray runs, no time passes."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from small_jobs import Remembering

pytest.importorskip("ray")

from ray.exceptions import RayActorError, RayTaskError

from pilc_stream.errors import JobError
from pilc_stream.pipeline.compress import ShardResult
from pilc_stream.pipeline.plan import ShardTask
from pilc_stream.records.record import ShardEntry
from workers import fleet as fleets
from workers.actor import Failure
from workers.fleet import LOST, TASKS_PER_ACTOR, Fleet
from workers.ledger import Ledger, Patience
from workers.placement import Placement
from workers.planning import Work
from workers.progress import Board, Tally

PATIENCE = Patience(attempts=3, first_delay_s=0.0, given_up_in_a_row=3, lost_in_a_row=2)


def result(index: int) -> ShardResult:
    return ShardResult(ShardEntry(index, "p", "a" * 64, 10, 2, 0, 0, 100, 60, 50, 100, 1.0), None, ())


@dataclass(eq=False)
class Reference:
    actor: FakeActor
    value: Callable[[], Any]


@dataclass(eq=False)
class Method:
    call: Callable[..., Reference]

    def remote(self, *arguments: Any) -> Reference:
        return self.call(*arguments)


@dataclass(eq=False)
class FakeActor:
    number: int
    ray: FakeRay
    queue: deque[Reference] = field(default_factory=deque)
    alive: bool = True

    @property
    def make(self) -> Method:
        return Method(self._make)

    @property
    def tally(self) -> Method:
        return Method(lambda: Reference(self, lambda: self.ray.tallies.get(self.number, {})))

    def _make(self, work: Work) -> Reference:
        reference = Reference(self, lambda: self.ray.outcome(work))
        self.queue.append(reference)
        self.ray.most_queued = max(self.ray.most_queued, len(self.queue))
        return reference


@dataclass(eq=False)
class FakeRay:
    """What `workers.fleet` uses of Ray. `script`: for each shard what its attempts come to; "die" kills the actor."""

    script: dict[int, list[Any]] = field(default_factory=dict)
    tallies: dict[int, dict[int, Tally]] = field(default_factory=dict)
    actors: list[FakeActor] = field(default_factory=list)
    made: list[int] = field(default_factory=list)
    most_queued: int = 0
    starts: Iterator[bool] = field(default_factory=lambda: itertools.repeat(True))

    def start_actor(self, spec: Any, placement: Placement) -> FakeActor:
        actor = FakeActor(len(self.actors), self, alive=next(self.starts))
        self.actors.append(actor)
        return actor

    def wait(
        self, references: list[Reference], num_returns: int = 1, timeout: float = 0
    ) -> tuple[list[Any], list[Any]]:
        return references[:num_returns], references[num_returns:]

    def get(self, reference: Reference) -> Any:
        actor = reference.actor
        if not actor.alive:
            raise RayActorError
        if reference in actor.queue:
            outcome = reference.value()
            if outcome == "die":
                actor.alive = False
                raise RayActorError
            actor.queue.remove(reference)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        return reference.value()

    def kill(self, actor: FakeActor, no_restart: bool) -> None:
        actor.alive = False

    def outcome(self, work: Work) -> Any:
        index = work.task.index
        planned = self.script.get(index)
        if planned:
            return planned.pop(0)
        self.made.append(index)
        return result(index)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setattr(fleets, "ray", fake)
    monkeypatch.setattr(fleets, "start_actor", fake.start_actor)
    monkeypatch.setattr(fleets, "LOOK_EVERY_S", 0.0)
    return fake


@pytest.fixture
def run(ray: FakeRay, reporter: Remembering) -> Callable[..., Ledger]:
    def go(shards: int, workers: int = 2) -> Ledger:
        board = Board(reporter)
        ledger = Ledger(board, PATIENCE)
        works = (Work(ShardTask(index, ())) for index in range(shards))
        with Fleet(None, Placement(workers, 1), board, ledger, PATIENCE) as fleet:  # type: ignore[arg-type]
            fleet.run(works, shards)
        return ledger

    return go


def test_every_shard_is_made_once_and_all_actors_are_gone_afterwards(ray: FakeRay, run: Callable[..., Ledger]) -> None:
    run(9)

    assert sorted(ray.made) == list(range(9))
    assert len(ray.actors) == 2
    assert not any(actor.alive for actor in ray.actors)


def test_an_actor_never_has_more_tasks_than_allowed(ray: FakeRay, run: Callable[..., Ledger]) -> None:
    run(20, workers=3)

    assert ray.most_queued == TASKS_PER_ACTOR


def test_the_last_shards_go_to_actors_that_are_free(ray: FakeRay, run: Callable[..., Ledger]) -> None:
    run(2, workers=2)

    assert ray.most_queued == 1


def test_a_lost_actor_is_replaced_and_its_shard_made_by_another(
    ray: FakeRay, run: Callable[..., Ledger], reporter: Remembering
) -> None:
    ray.script = {1: ["die"]}

    ledger = run(2)

    assert sorted(ray.made) == [0, 1]
    assert len(ray.actors) == 3
    assert ledger.given_up == {}
    assert any(f"Shard 1 failed and will be tried again in 0 s: {LOST}" in text for text in reporter.sentences)


def test_of_several_shards_that_an_actor_is_lost_with_none_is_blamed_before_it_was_tried_alone(
    ray: FakeRay, run: Callable[..., Ledger], reporter: Remembering
) -> None:
    ray.script = {0: ["die"] * 4}

    ledger = run(8, workers=1)

    assert sorted(ray.made) == list(range(1, 8))
    assert ledger.given_up == {0: LOST}
    assert any("lost while it was at the shards 0 and 1; each will be tried" in text for text in reporter.sentences)
    assert not any(text.startswith("Shard 1 failed") for text in reporter.sentences)


def test_a_shard_that_is_tried_alone_has_its_actor_for_itself(ray: FakeRay, run: Callable[..., Ledger]) -> None:
    ray.script = {0: ["die"]}
    beside: list[int] = []
    made = ray.outcome

    def outcome(work: Work) -> Any:
        if work.task.index == 0:
            beside.extend(len(actor.queue) for actor in ray.actors if actor.alive)
        return made(work)

    ray.outcome = outcome  # type: ignore[method-assign]
    run(8, workers=1)

    # With another at first, alone when it is tried again.
    assert beside == [2, 1]


def test_a_shard_that_kills_every_actor_is_given_up_and_the_others_are_made(
    ray: FakeRay, run: Callable[..., Ledger]
) -> None:
    ray.script = {2: ["die"] * 4}

    ledger = run(12, workers=4)

    assert ledger.given_up == {2: LOST}
    assert sorted(ray.made) == [index for index in range(12) if index != 2]


def test_a_failure_is_tried_again_by_the_same_actor(ray: FakeRay, run: Callable[..., Ledger]) -> None:
    ray.script = {0: [Failure("no network", broken=False)]}

    run(3, workers=1)

    assert sorted(ray.made) == [0, 1, 2]
    assert len(ray.actors) == 1


def test_an_actor_whose_device_is_broken_is_replaced(ray: FakeRay, run: Callable[..., Ledger]) -> None:
    ray.script = {0: [Failure("CUDA error", broken=True)]}

    run(5, workers=1)

    assert sorted(ray.made) == list(range(5))
    assert len(ray.actors) == 2


def test_what_ray_says_of_a_task_is_a_failure_of_it(ray: FakeRay, run: Callable[..., Ledger]) -> None:
    ray.script = {1: [RayTaskError("make", "cannot unpickle", ValueError("old release"))] * 3}

    ledger = run(4)

    assert list(ledger.given_up) == [1]
    assert sorted(ray.made) == [0, 2, 3]


def test_actors_that_die_again_and_again_end_the_job(ray: FakeRay, run: Callable[..., Ledger]) -> None:
    ray.starts = itertools.repeat(False)

    with pytest.raises(JobError, match=r"5 workers were lost one after the other and no shard was made"):
        run(6)

    assert not any(actor.alive for actor in ray.actors)


def test_an_actor_that_does_not_come_up_gets_no_task(ray: FakeRay, run: Callable[..., Ledger]) -> None:
    ray.starts = iter([False, *[True] * 10])

    run(6)

    assert sorted(ray.made) == list(range(6))
    assert not ray.actors[0].queue


def test_tallies_of_actors_at_work_reach_the_board(
    ray: FakeRay, run: Callable[..., Ledger], reporter: Remembering
) -> None:
    ray.tallies = {1: {5: Tally(3, 900, 600, 500)}}

    run(6)

    assert any(snapshot.running == Tally(3, 900, 600, 500) for snapshot in reporter.snapshots)
    assert reporter.snapshots[-1].made.shards == 6


def test_what_the_source_of_works_raises_ends_the_run_and_the_actors(ray: FakeRay, reporter: Remembering) -> None:
    def works() -> Iterator[Work]:
        yield Work(ShardTask(0, ()))
        raise JobError("The files changed.")

    board = Board(reporter)
    fleet = Fleet(None, Placement(2, 1), board, Ledger(board, PATIENCE), PATIENCE)  # type: ignore[arg-type]
    with pytest.raises(JobError, match="The files changed"), fleet:
        fleet.run(works(), 2)

    assert not any(actor.alive for actor in ray.actors)

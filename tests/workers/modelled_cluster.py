"""A cluster and its object store as a model: the real fleet schedules on it, in time that does not pass.

    python tests/workers/modelled_cluster.py

prints the assumptions and how throughput grows with the number of actors. The model takes the place of Ray in
`workers.fleet`; everything that the fleet decides (who gets which shard, retries, waits, lost actors) is the real code.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import RayActorError

from pilc_stream.pipeline.compress import ShardResult
from pilc_stream.pipeline.plan import ShardTask
from pilc_stream.records.record import ShardEntry
from workers import fleet as fleets
from workers.actor import Failure
from workers.fleet import Fleet
from workers.ledger import Ledger, Patience
from workers.placement import Placement
from workers.planning import Work
from workers.progress import Board, Silent


@dataclass(frozen=True)
class Assumptions:
    """What the model takes for granted. Rates are bytes a second; a shard has `shard_bytes` of source."""

    shard_bytes: float = 128e6
    stored_share: float = 0.7
    network: float = 100e9 / 8
    actor_network: float = 1.25e9
    latency_s: float = 0.03
    request_bytes: float = 8e6
    requests_at_once: int = 8
    request_fault: float = 0.01
    retry_delay_s: float = 0.25
    code: float = 150e6
    shard_failure: float = 0.002
    actor_death: float = 0.001
    start_s: float = 10.0

    def sentences(self) -> str:
        """The assumptions, for whoever reads the result."""
        return "\n".join(
            (
                f"Shards of {self.shard_bytes / 1e6:g} MB of sources, stored in {self.stored_share:.0%} of that.",
                f"All actors share {self.network * 8 / 1e9:g} Gbit/s, both ways together; one alone gets "
                f"{self.actor_network * 8 / 1e9:g}.",
                f"A request takes {self.latency_s * 1000:g} ms before its bytes come, {self.request_bytes / 1e6:g} MB, "
                f"{self.requests_at_once} at once; {self.request_fault:.1%} fail and are repeated after "
                f"{self.retry_delay_s:g} s.",
                f"An actor decodes and codes {self.code / 1e6:g} MB of sources a second, one shard at a time.",
                f"{self.shard_failure:.1%} of the attempts at a shard fail, {self.actor_death:.1%} kill the actor; "
                f"a new one is up after {self.start_s:g} s.",
            )
        )


@dataclass(eq=False)
class Transfer:
    """Bytes on their way for one task."""

    left: float
    done: Callable[[], None]


@dataclass(eq=False)
class Task:
    """A shard that an actor makes; `outcome` is set when it is done."""

    actor: Actor
    work: Work | None
    outcome: Any = None
    is_done: bool = False


@dataclass(eq=False)
class Actor:
    """An actor of the model: its codec serves one shard after the other."""

    ray: ModelRay
    is_alive: bool = True
    code_free_at: float = 0.0
    tasks: list[Task] = field(default_factory=list)

    @property
    def make(self) -> Any:
        return Remote(lambda work: self.ray.begin(self, work))

    @property
    def tally(self) -> Any:
        return Remote(lambda: self.ray.hello(self))


@dataclass(frozen=True)
class Remote:
    remote: Callable[..., Task]


class ModelRay:
    """What `workers.fleet` uses of Ray and of time, as a simulation of events."""

    def __init__(self, assumptions: Assumptions, seed: int = 0) -> None:
        self.assume = assumptions
        self.random = random.Random(seed)
        self.now = 0.0
        self.deaths = self.failures = self.requests = self.faults = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._transfers: list[Transfer] = []

    # What the fleet calls.

    def start_actor(self, spec: Any, placement: Placement) -> Actor:
        return Actor(self)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self._advance(self.now + seconds, lambda: False)

    def wait(self, tasks: list[Task], num_returns: int = 1, timeout: float = 0.0) -> tuple[list[Task], list[Task]]:
        def is_one_done() -> bool:
            return any(task.is_done or not task.actor.is_alive for task in tasks)

        if not is_one_done() and timeout:
            self._advance(self.now + timeout, is_one_done)
        done = [task for task in tasks if task.is_done or not task.actor.is_alive][:num_returns]
        return done, [task for task in tasks if task not in done]

    def get(self, task: Task) -> Any:
        if not task.actor.is_alive:
            raise RayActorError
        return task.outcome

    def kill(self, actor: Actor, no_restart: bool) -> None:
        actor.is_alive = False

    # What happens in an actor.

    def hello(self, actor: Actor) -> Task:
        task = Task(actor, None, outcome={})
        self._later(0.0 if actor.tasks else self.assume.start_s, lambda: setattr(task, "is_done", True))
        return task

    def begin(self, actor: Actor, work: Work) -> Task:
        task = Task(actor, work)
        actor.tasks.append(task)
        self._move(self.assume.shard_bytes, lambda: self._code(task))
        return task

    def _code(self, task: Task) -> None:
        begin = max(self.now, task.actor.code_free_at)
        task.actor.code_free_at = begin + self.assume.shard_bytes / self.assume.code
        stored = self.assume.shard_bytes * self.assume.stored_share
        self._later(task.actor.code_free_at - self.now, lambda: self._move(stored, lambda: self._end(task)))

    def _end(self, task: Task) -> None:
        chance = self.random.random()
        if chance < self.assume.actor_death:
            self.deaths += 1
            task.actor.is_alive = False
            return
        if chance < self.assume.actor_death + self.assume.shard_failure:
            self.failures += 1
            task.outcome = Failure("the store said no", broken=False)
        else:
            size = int(self.assume.shard_bytes)
            index = task.work.task.index if task.work else 0
            entry = ShardEntry(index, "p", "a" * 64, size, 1, 0, 0, size, size, size, size, 1.0)
            task.outcome = ShardResult(entry, None, ())
        task.is_done = True

    # The store.

    def _move(self, count: float, done: Callable[[], None]) -> None:
        """Requests in rounds: each waits for the latency, and for its repeated requests; the bytes share a line."""
        requests = max(1, round(count / self.assume.request_bytes))
        faults = sum(self.random.random() < self.assume.request_fault for _ in range(requests))
        self.requests += requests + faults
        self.faults += faults
        rounds = -(-requests // self.assume.requests_at_once)
        waits = rounds * self.assume.latency_s + faults * (self.assume.latency_s + self.assume.retry_delay_s)
        self._later(waits, lambda: self._transfers.append(Transfer(count, done)))

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), action))

    def _rate(self) -> float:
        return min(self.assume.actor_network, self.assume.network / max(1, len(self._transfers)))

    def _advance(self, end: float, is_enough: Callable[[], bool]) -> None:
        """Let time pass up to `end`, or until it is enough."""
        while self.now < end and not is_enough():
            due = min(end, self._events[0][0] if self._events else end)
            if self._transfers:
                due = min(due, self.now + min(transfer.left for transfer in self._transfers) / self._rate())
            moved = (due - self.now) * self._rate()
            self.now = due
            for transfer in self._transfers:
                transfer.left -= moved
            arrived = [transfer for transfer in self._transfers if transfer.left <= 1.0]
            self._transfers = [transfer for transfer in self._transfers if transfer.left > 1.0]
            for transfer in arrived:
                transfer.done()
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()


def run(actors: int, shards: int, assumptions: Assumptions, seed: int = 0) -> tuple[ModelRay, Ledger]:
    """Make `shards` with `actors` in the model; return the model, at the time of the end, and the books."""
    model = ModelRay(assumptions, seed)
    kept = fleets.ray, fleets.start_actor, fleets.time
    fleets.ray, fleets.start_actor, fleets.time = model, model.start_actor, model  # type: ignore[assignment]
    try:
        board, patience = Board(Silent()), Patience()
        ledger = Ledger(board, patience)
        works = (Work(ShardTask(index, ())) for index in range(shards))
        with Fleet(None, Placement(actors, 1), board, ledger, patience) as fleet:  # type: ignore[arg-type]
            fleet.run(works, shards)
        assert board.snapshot.made.shards + len(ledger.given_up) == shards
    finally:
        fleets.ray, fleets.start_actor, fleets.time = kept  # type: ignore[assignment]
    return model, ledger


def throughput(actors: int, assumptions: Assumptions, shards_each: int = 100) -> float:
    """Source bytes a second of a job with so many shards for each actor, starting up included."""
    shards = actors * shards_each
    return shards * assumptions.shard_bytes / run(actors, shards, assumptions)[0].now


def network_limit(assumptions: Assumptions) -> float:
    """Source bytes a second that the shared line allows: they come in, and what is stored goes out."""
    return assumptions.network / (1 + assumptions.stored_share)


if __name__ == "__main__":
    taken = Assumptions()
    print(taken.sentences())
    print(f"So one actor can do {taken.code / 1e6:g} MB/s, the line allows {network_limit(taken) / 1e6:.0f} MB/s.\n")
    single = throughput(1, taken)
    for number in (1, 2, 4, 8, 16, 32, 64):
        rate = throughput(number, taken)
        print(f"{number:3} actors: {rate / 1e6:7.0f} MB/s of sources, {rate / single:5.1f} times one")

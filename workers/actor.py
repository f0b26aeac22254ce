"""The Ray actor: a thin shell around `ShardMaker`, and the way to look at its work from outside."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import ray

from pilc_stream.errors import DeviceError, ModelError
from pilc_stream.pipeline.compress import ShardResult
from workers.maker import SHARDS_IN_FLIGHT, ShardMaker, WorkerSpec, reason_of
from workers.metrics import Gauges
from workers.placement import Placement
from workers.planning import Work
from workers.progress import Tally

_WATCH = "watch"
_MAKE = "make"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a shard could not be made. `broken`: nor will any other be, by this actor."""

    reason: str
    broken: bool


class ShardActor:
    """Owns a codec. A few shards are made at a time, in threads; `tally` answers meanwhile.

    Ray restarts nothing by itself: the fleet replaces a lost actor, because it knows which shard it was at.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._maker: ShardMaker | None = None
        self._starting = threading.Lock()
        self._tallies: dict[int, Tally] = {}
        self._gauges = Gauges()

    @ray.method(concurrency_group=_MAKE)
    def make(self, work: Work) -> ShardResult | Failure:
        """Make and commit one shard."""
        try:
            with self._starting:
                if self._maker is None:
                    # Here rather than in the constructor, whose exceptions Ray reports as the actor's death.
                    self._maker = ShardMaker(self._spec, self._tallies.__setitem__)
            result = self._maker.make(work)
        except Exception as error:
            # Values, not exceptions: what Ray makes of those needs their classes and is no sentence.
            self._gauges.failed()
            return Failure(reason_of(error), isinstance(error, DeviceError | ModelError))
        else:
            self._gauges.made(result)
            return result
        finally:
            self._tallies.pop(work.task.index, None)

    @ray.method(concurrency_group=_WATCH)
    def tally(self) -> dict[int, Tally]:
        """What has been coded of each shard that is being made, by its number."""
        return dict(self._tallies)


def start_actor(spec: WorkerSpec, placement: Placement) -> Any:
    """Start an actor and return its handle; it may take until later to come up."""
    threads = str(spec.threads)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    # Ray's types do not know of concurrency groups.
    remote: Any = ray.remote
    actor = remote(
        concurrency_groups={_WATCH: 1, _MAKE: SHARDS_IN_FLIGHT},
        max_restarts=0,
        max_task_retries=0,
        num_cpus=placement.cpus,
        num_gpus=placement.gpus,
        scheduling_strategy="SPREAD",
        runtime_env={"env_vars": dict.fromkeys(names, threads)},
    )
    return actor(ShardActor).remote(spec)

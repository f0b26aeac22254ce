"""How many workers a job gets, and how much of the machine each of them.

One worker per GPU, or one per CPU core where no GPU is used, and never more than there are shards. A job of one shard
gets one worker with all cores, in this process: Ray would cost seconds and win nothing.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass

from pilc_stream.errors import UsageError
from pilc_stream.pipeline.compress import CompressSettings
from workers.maker import SHARDS_IN_FLIGHT, decode_threads
from workers.occupancy import Slots
from workers.settings import JobSettings


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to work on, this machine or a whole cluster; `node_cpus` is what its smallest machine has."""

    cpus: int
    gpus: int = 0
    node_cpus: int = 0


@dataclass(frozen=True, slots=True)
class Placement:
    """`workers` (0: in this process), each with `threads` CPU threads and `gpus` GPUs; a fraction shares one.

    `cpus`: cores that Ray sets aside for each; one where the threads are a share of what there is anyway.
    """

    workers: int
    threads: int
    gpus: float = 0.0
    cpus: int = 1

    @property
    def slots(self) -> Slots:
        """How much goes on at once in all workers."""
        each = CompressSettings(decode_threads=decode_threads(self.threads))
        workers = max(1, self.workers)
        return Slots(
            read=workers * SHARDS_IN_FLIGHT * each.read_threads,
            decode=workers * SHARDS_IN_FLIGHT * each.decode_threads,
            code=workers,
            write=workers * SHARDS_IN_FLIGHT,
        )


def needs_ray(settings: JobSettings, shards: int) -> bool:
    """Whether a job with so many shards to make runs on Ray. Raises UsageError where it must and Ray is missing."""
    asked = bool(settings.workers) or settings.ray_address is not None
    if settings.workers == 0 or (not asked and shards <= 1):
        return False
    if importlib.util.find_spec("ray") is not None:
        return True
    if asked:
        raise UsageError(
            "Ray is not installed, and --workers and --ray-address need it. Run `pip install 'pilc-stream[ray]'`, or "
            "use --workers 0 to work in this process."
        )
    return False


def place_here(settings: JobSettings) -> Placement:
    """The placement of a run in this process."""
    return Placement(workers=0, threads=settings.threads or usable_cpus())


def place(settings: JobSettings, shards: int, machine: Machine) -> Placement:
    """The placement of a run on Ray. Raises UsageError where a GPU is asked for and none is there."""
    each = settings.gpus_per_worker
    gpus = machine.gpus if settings.device in ("auto", "cuda") else 0
    if each is not None:
        # The cluster may start machines for what is asked of it, so what it has now is no bound.
        gpus = max(gpus, int((settings.workers or 1) * each), 1)
    if settings.device == "cuda" and not gpus:
        raise UsageError(
            "--device cuda: Ray sees no GPU here. Use --device cpu, whose data sets are the same, or another machine."
        )
    workers = settings.workers or (int(gpus / each) if each else gpus) or machine.cpus
    workers = max(1, min(workers, shards))
    share = 0.0
    if each is not None:
        share = each
    elif gpus:
        share = 1.0 if workers <= gpus else int(10_000 * gpus / workers) / 10_000
    threads = min(machine.cpus // workers, machine.node_cpus or machine.cpus)
    cpus = settings.threads if settings.threads and settings.ray_address else 1
    return Placement(workers, settings.threads or max(1, threads), share, cpus)


def usable_cpus() -> int:
    """The CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)

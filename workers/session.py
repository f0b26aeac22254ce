"""Ray itself: joined where it runs, started and stopped where it does not, and quiet on standard error."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray

from pilc_stream.errors import JobError
from workers.placement import Machine, usable_cpus

OBJECT_STORE_BYTES = 100 << 20
"""Of a local Ray. Tasks and results pass through it, pixels never do."""

LOCAL_STARTS = 3
"""So often a local Ray is tried: it gives up where it is not up within 30 seconds, which a busy machine may need."""


@contextmanager
def ray_session(address: str | None, workers: int | None) -> Iterator[Machine]:
    """Ray for the length of a block, with what it offers.

    Where this process is connected already, that connection is used and left alone. Otherwise the cluster at `address`
    is joined, or a local Ray started, for at least `workers` workers, and stopped again whatever happens.
    Raises JobError where that fails.
    """
    if ray.is_initialized():
        yield _machine()
        return
    folder = None if address else tempfile.mkdtemp(prefix="pilc-ray-", dir=_short_folder())
    try:
        with _quiet():
            _connect(address, workers, folder)
        yield _machine()
    finally:
        with _quiet():
            ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _connect(address: str | None, workers: int | None, folder: str | None) -> None:
    # Nothing is sent to anybody, unless the user has said so in the environment.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray replaces the handler of SIGTERM by one that exits at once; the command has its own.
    handler = signal.getsignal(signal.SIGTERM) if threading.current_thread() is threading.main_thread() else None
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            _start(max(usable_cpus(), workers or 0), folder)
    except Exception as error:
        what = f"the Ray cluster at {address} cannot be joined" if address else "a local Ray cannot be started"
        hint = "Check the address and that its Ray has the same version" if address else "Use --workers 0 to do without"
        raise JobError(f"Ray: {what}: {_line(error)}. {hint}.") from error
    finally:
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)


def _start(cpus: int, folder: str | None) -> None:
    """Start a local Ray, again where that fails. Raises what Ray raises at last."""
    for attempt in range(1, LOCAL_STARTS + 1):
        try:
            ray.init(
                # Not the default, which would join any Ray that happens to run on this machine.
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=folder,
            )
        except Exception as error:
            _stop_half_started(error)
            ray.shutdown()
            if attempt == LOCAL_STARTS:
                raise
        else:
            return


def _stop_half_started(error: BaseException) -> None:
    """End the processes of a node that did not come up; Ray would leave them until this process ends."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        stop = getattr(frame.f_locals.get("self"), "kill_all_processes", None)
        if stop is not None:
            # It is a courtesy to the next attempt; what it cannot end, ends with this process.
            with suppress(Exception):
                stop(check_alive=False, allow_graceful=False)


def _short_folder() -> str | None:
    """Where Ray's folder goes: its sockets' paths may have little more than 100 characters, 85 of which Ray takes."""
    return "/tmp" if len(tempfile.gettempdir()) > 20 and os.path.isdir("/tmp") else None


def _machine() -> Machine:
    # Untyped in Ray, which mypy would not let pass.
    api: Any = ray
    resources = api.cluster_resources()
    nodes = [int(node["Resources"].get("CPU", 0)) for node in api.nodes() if node["Alive"]]
    return Machine(
        cpus=max(1, int(resources.get("CPU", 1))),
        gpus=int(resources.get("GPU", 0)),
        node_cpus=min((cpus for cpus in nodes if cpus), default=1),
    )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

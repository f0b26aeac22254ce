"""Faults in every Python process of a job, Ray's workers included: deaths at chosen steps, storage that fails at times.

`environment` gives what a process needs to have them; each of its children inherits it. The modules of the project are
changed when they are imported, so that nothing is imported for it and processes without them stay as they are.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEPS = ("before the put", "after the put", "after the commit")
_FOLDER, _RATE = "PILC_TEST_FAULTS", "PILC_TEST_FAULT_RATE"


def environment(folder: Path, *, storage_fault_rate: float = 0.0, deaths: bool = False) -> dict[str, str]:
    """The environment of a process with faults. `deaths`: once at each of `STEPS`, a process that makes shards dies."""
    hook = folder / "hook"
    hook.mkdir(parents=True)
    here = str(Path(__file__).parent)
    (hook / "sitecustomize.py").write_text(f"import sys; sys.path.append({here!r}); import faults; faults.install()\n")
    found = {**os.environ, "PYTHONPATH": os.pathsep.join([str(hook), str(Path(__file__).resolve().parents[2])])}
    return {**found, _FOLDER: str(folder) if deaths else "", _RATE: str(storage_fault_rate)}


def died(folder: Path) -> set[str]:
    """The steps at which a process has died."""
    return {path.name.removeprefix("died ") for path in folder.glob("died *")}


def install() -> None:
    """Change modules of the project as they are imported."""
    changes: dict[str, Callable[[Any], None]] = {}
    if os.environ.get(_FOLDER):
        changes["pilc_stream.pipeline.compress"] = _with_deaths
    if float(os.environ.get(_RATE) or 0):
        changes["pilc_stream.storage.local"] = _with_faults
    sys.meta_path.insert(0, _Finder(changes))


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, changes: dict[str, Callable[[Any], None]]) -> None:
        self._changes = changes

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        change = self._changes.pop(name, None)
        spec = importlib.util.find_spec(name) if change else None
        if change is None or spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def changed(module: Any) -> None:
            execute(module)
            change(module)

        spec.loader.exec_module = changed  # type: ignore[method-assign]
        return spec


def _with_deaths(compress: Any) -> None:
    put_shard, commit_shard = compress.put_shard, compress.commit_shard

    @functools.wraps(put_shard)
    def put(*arguments: Any, **named: Any) -> Any:
        _die_once(STEPS[0])
        result = put_shard(*arguments, **named)
        _die_once(STEPS[1])
        return result

    @functools.wraps(commit_shard)
    def commit(*arguments: Any, **named: Any) -> Any:
        result = commit_shard(*arguments, **named)
        _die_once(STEPS[2])
        return result

    compress.put_shard, compress.commit_shard = put, commit


def _die_once(step: str) -> None:
    try:
        os.close(os.open(Path(os.environ[_FOLDER]) / f"died {step}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _with_faults(local: Any) -> None:
    chance, rate = random.Random(os.getpid()), float(os.environ[_RATE])

    def failing(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def sometimes(*arguments: Any) -> Any:
            if chance.random() < rate:
                raise ConnectionError("a fault of the test")
            return call(*arguments)

        return sometimes

    for name in ("read", "read_many", "read_ranges", "put", "create"):
        setattr(local.LocalDisk, name, failing(getattr(local.LocalDisk, name)))

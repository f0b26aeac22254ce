"""Processes as Linux shows them, for tests that kill some."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path


def descendants(pid: int) -> dict[int, str]:
    """The command line of every process below `pid`."""
    children: dict[int, list[int]] = {}
    lines: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                parent = int(folder.joinpath("stat").read_text().rpartition(")")[2].split()[1])
                lines[int(folder.name)] = folder.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            except OSError:
                continue
            children.setdefault(parent, []).append(int(folder.name))
    found, pending = {}, [pid]
    while pending:
        for child in children.get(pending.pop(), []):
            found[child] = lines[child]
            pending.append(child)
    return found


def actors(pid: int) -> list[int]:
    """The Ray actors of the job that `pid` drives."""
    return sorted(child for child, line in descendants(pid).items() if line.startswith("ray::ShardActor"))


def kill(pid: int) -> None:
    """Kill -9."""
    os.kill(pid, signal.SIGKILL)


def is_running(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Look often; fail where it takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(0.002)

"""Starting a local Ray on a machine that is slow to start it."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("ray")

from pilc_stream.errors import JobError
from workers import session


class Node:
    """What Ray has started so far when it gives up."""

    stopped = 0

    def __init__(self) -> None:
        raise RuntimeError("The current node timed out during startup.\nMore of it")

    def kill_all_processes(self, **_: Any) -> None:
        Node.stopped += 1
        raise OSError("one of them is gone already")


class SlowRay:
    """Fails to start so many times."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.starts = 0
        self.addresses: list[str] = []

    def is_initialized(self) -> bool:
        return False

    def init(self, address: str, **_: Any) -> None:
        self.starts += 1
        self.addresses.append(address)
        if self.starts <= self.failures:
            Node()

    def shutdown(self) -> None: ...

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 3.0}

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 3.0}}]


@pytest.fixture(autouse=True)
def _count_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Node, "stopped", 0)


def test_a_local_ray_that_is_slow_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = SlowRay(failures=session.LOCAL_STARTS - 1)
    monkeypatch.setattr(session, "ray", ray)

    with session.ray_session(None, 1) as machine:
        assert (machine.cpus, machine.gpus) == (3, 0)

    assert ray.addresses == ["local"] * session.LOCAL_STARTS
    assert Node.stopped == session.LOCAL_STARTS - 1


@pytest.mark.parametrize(("address", "starts"), [(None, session.LOCAL_STARTS), ("10.0.0.1:6379", 1)])
def test_a_ray_that_never_starts_is_said(monkeypatch: pytest.MonkeyPatch, address: str | None, starts: int) -> None:
    ray = SlowRay(failures=100)
    monkeypatch.setattr(session, "ray", ray)

    with pytest.raises(JobError, match="timed out during startup") as caught, session.ray_session(address, 1):
        pytest.fail("there is no Ray")

    assert ray.starts == starts
    assert "--workers 0" in str(caught.value) or "Check the address" in str(caught.value)

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from pilc_stream.errors import UsageError
from workers.placement import Machine, Placement, needs_ray, place, place_here, usable_cpus
from workers.settings import JobSettings


def settings(**fields: Any) -> JobSettings:
    return JobSettings(sources=("a",), destination="b", **fields)


@pytest.mark.parametrize(
    ("fields", "shards", "machine", "expected"),
    [
        ({}, 100, Machine(cpus=8), Placement(8, 1)),
        ({}, 3, Machine(cpus=8), Placement(3, 2)),
        ({"workers": 4}, 100, Machine(cpus=8), Placement(4, 2)),
        ({"workers": 16}, 100, Machine(cpus=8), Placement(16, 1)),
        ({"workers": 4}, 2, Machine(cpus=8), Placement(2, 4)),
        ({"threads": 3}, 100, Machine(cpus=8), Placement(8, 3)),
        ({}, 100, Machine(cpus=32, gpus=4), Placement(4, 8, 1.0)),
        ({"device": "cpu"}, 100, Machine(cpus=32, gpus=4), Placement(32, 1)),
        ({"device": "cuda", "workers": 3}, 100, Machine(cpus=8, gpus=1), Placement(3, 2, 0.3333)),
        # Two machines: no worker may be given more threads than the smaller one has.
        ({"workers": 2}, 100, Machine(cpus=24, node_cpus=8), Placement(2, 8)),
        # A cluster that has yet to grow: what is asked for, not what is there.
        (
            {"workers": 16, "gpus_per_worker": 1, "threads": 6, "ray_address": "auto", "device": "cuda"},
            100,
            Machine(cpus=2),
            Placement(16, 6, 1.0, 6),
        ),
        ({"gpus_per_worker": 0.5}, 100, Machine(cpus=32, gpus=4), Placement(8, 4, 0.5)),
        ({"gpus_per_worker": 2, "threads": 3}, 100, Machine(cpus=32, gpus=5), Placement(2, 3, 2)),
        ({"gpus_per_worker": 1}, 100, Machine(cpus=4), Placement(1, 4, 1)),
    ],
)
def test_workers_follow_the_machine_the_shards_and_the_flags(
    fields: dict[str, Any], shards: int, machine: Machine, expected: Placement
) -> None:
    assert place(settings(**fields), shards, machine) == expected


def test_a_missing_gpu_is_said() -> None:
    with pytest.raises(UsageError, match="Ray sees no GPU"):
        place(settings(device="cuda"), 10, Machine(cpus=8))


def test_a_run_in_this_process_uses_all_cores() -> None:
    assert place_here(settings()) == Placement(0, usable_cpus())
    assert place_here(settings(threads=1)).threads == 1


@pytest.mark.parametrize(
    ("fields", "shards", "expected"),
    [
        ({}, 10, True),
        ({}, 1, False),
        ({"workers": 0}, 10, False),
        ({"workers": 1}, 1, True),
        ({"ray_address": "auto"}, 1, True),
    ],
)
def test_ray_is_used_where_it_helps_or_is_asked_for(fields: dict[str, Any], shards: int, expected: bool) -> None:
    pytest.importorskip("ray")
    assert needs_ray(settings(**fields), shards) is expected


def test_without_ray_the_job_runs_here_unless_ray_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    assert not needs_ray(settings(), 10)
    for fields in ({"workers": 2}, {"ray_address": "auto"}):
        with pytest.raises(UsageError, match=r"pip install 'pilc-stream\[ray\]'"):
            needs_ray(settings(**fields), 10)

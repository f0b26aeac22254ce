"""The record of a fuzzing run, from what libFuzzer prints; and the one that is kept."""

from __future__ import annotations

import argparse
import json
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import fuzz
import pytest
from fuzz_targets import TARGETS

RUN_TO_COME = {"lossy"}
"""Targets whose first long run is still to be recorded."""

LOG = """\
fuzz: seeds executed after 3 s of CPU time
#64	INITED cov: 20 ft: 30 corp: 4/9b exec/s: 0 rss: 99Mb
#9000	REDUCE cov: 25 ft: 41 corp: 7/18Kb lim: 16384 exec/s: 35718 rss: 311Mb L: 3301/5457 MS: 1 EraseBytes-
== 7 == INFO: libFuzzer: exiting as requested
stat::number_of_executed_units: 9123
stat::average_exec_per_sec:     35000
"""


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    monkeypatch.setattr("sys.argv", ["fuzz.py", "shard", "--minutes", "3", "--record", str(tmp_path / "runs.json")])
    version = metadata.version
    # The extra `fuzz` need not be installed.
    monkeypatch.setattr(metadata, "version", lambda name: "3.0" if name == "atheris" else version(name))
    return argparse.Namespace(target="shard", record=tmp_path / "runs.json")


def run_instead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    path = tmp_path / "run.py"
    path.write_text(script)
    monkeypatch.setattr(fuzz, "__file__", str(path))


def test_runs_are_added_with_their_figures(
    arguments: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments.record.write_text('[{"target": "payload"}]')
    run_instead(monkeypatch, tmp_path, f"import sys; sys.stderr.write({LOG!r}); assert '--record' not in sys.argv")

    assert fuzz.record(arguments) == 0

    first, run = json.loads(arguments.record.read_text())
    assert first == {"target": "payload"}
    figures = {"target": "shard", "executions": 9123, "coverage": 25, "features": 41, "corpus": 7}
    assert run.items() >= figures.items()
    assert run["machine"]["command"] == "python tests/fuzz/fuzz.py shard --minutes 3"
    assert run["machine"]["versions"]["atheris"] == "3.0"


def test_a_finding_is_no_record(arguments: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_instead(monkeypatch, tmp_path, f"import sys; sys.stderr.write({LOG!r}); sys.exit(77)")

    assert fuzz.record(arguments) == 77

    assert not arguments.record.exists()


def test_each_target_was_fuzzed() -> None:
    text = (resources.files("pilc_stream.reports") / "measured" / "fuzz.json").read_text()
    runs: list[dict[str, Any]] = json.loads(text)
    assert {run["target"] for run in runs} ^ set(TARGETS) <= RUN_TO_COME
    for run in runs:
        assert run["executions"] > 10_000
        assert run["coverage"] > 100
        assert run["machine"]["command"].startswith(f"python tests/fuzz/fuzz.py {run['target']} ")
        assert "atheris" in run["machine"]["versions"]

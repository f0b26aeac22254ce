"""The CUDA backend in Numba's simulator: the bytes of the reference, without a card."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba_cuda", reason="Numba-CUDA is not installed")

CASES = [
    "shapes",
    "batches",
    "architectures",
    "architectures at the bound",
    "tensor cores",
    "tensor cores at the bound",
    "tensor cores, wide",
    "states in shared memory",
    "local memory",
    "without room for tensor cores",
    "no block fits",
    "wide",
    "long",
    "damage",
    "after damage",
    "on the device",
    "out of memory",
    "a failing card",
    "within the budget",
    "front door",
    "batches of a loader",
    "figures of a card",
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_in_the_simulator(case: str) -> None:
    program = Path(__file__).with_name("simulated_cuda.py")
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(program.parents[1] / "codecs")}
    command = [sys.executable, str(program), case]
    done = subprocess.run(command, capture_output=True, text=True, timeout=550, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


def test_every_case_is_run() -> None:
    source = Path(__file__).with_name("simulated_cuda.py").read_text()
    listed = source.split("CASES: dict")[1].split("}")[0]
    assert [line.split('"')[1] for line in listed.splitlines() if '": ' in line] == CASES

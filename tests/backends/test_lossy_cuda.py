"""The CUDA backend of the codec `lossy`: in the simulator the streams of the reference, and through ptxas for cards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba_cuda", reason="Numba-CUDA is not installed")

from pilc_stream.backends.cuda.proof import CAPABILITIES, assembled
from pilc_stream.backends.cuda.shim import cuda
from pilc_stream.backends.lossy import cuda_coder
from pilc_stream.backends.lossy.cuda_program import SIGNATURES

CASES = [
    "shapes",
    "one pixel",
    "batches",
    "escapes",
    "damage",
    "checksums",
    "on the device",
    "out of memory",
    "front door",
    "several tiles",
    "batches of a loader",
    "figures of a card",
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_in_the_simulator(case: str) -> None:
    pytest.importorskip("torch")
    program = Path(__file__).with_name("simulated_lossy.py")
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(program.parents[1] / "codecs")}
    command = [sys.executable, str(program), case]
    done = subprocess.run(command, capture_output=True, text=True, timeout=550, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


def test_every_case_is_run() -> None:
    source = Path(__file__).with_name("simulated_lossy.py").read_text()
    listed = source.split("CASES: dict")[1].split("}")[0]
    assert [line.split('"')[1] for line in listed.splitlines() if '": ' in line] == CASES


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("kernel", cuda_coder.__all__)
def test_kernels_take_no_more_than_they_may(kernel: str, capability: tuple[int, int]) -> None:
    text, _ = cuda.compile_ptx(getattr(cuda_coder, kernel), SIGNATURES[kernel], cc=capability)
    found = assembled(str(text), kernel, capability, 0)
    print(found)
    assert found.spill_bytes == found.stack_bytes == 0
    # Eight blocks of 128 threads fit a multiprocessor.
    assert found.registers <= 64
    # The integer law: no float anywhere.
    assert ".f64" not in text
    assert ".f32" not in text
    # Entries of the tables are read 16 bytes at a time.
    assert ("ld.global.v4.u32" in text) == (kernel == "values")

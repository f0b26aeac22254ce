"""Machine code from many threads at once: LLVM is one for the whole process."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from llvmlite import ir

from pilc_stream.backends import objects
from pilc_stream.backends.lanes import I32, I64, POINTER
from pilc_stream.backends.machine import CompiledModule, kept_code, object_code
from pilc_stream.backends.vector import VectorBuilder

THREADS = 8
WIDTH = 4


def module_adding(number: int) -> ir.Module:
    """A function that adds a number to four others."""
    module = ir.Module(f"add{number}")
    builder = VectorBuilder(module, "body", (POINTER,), WIDTH)
    memory = builder.arguments[0]
    builder.store(builder.load(memory, I64(0), I32) + number, memory, I64(0), I32)
    builder.ir.ret_void()
    return module


def test_threads_compile_load_and_run_at_once() -> None:
    together = Barrier(THREADS)

    def turns(thread: int) -> list[int]:
        together.wait()
        out = []
        for turn in range(4):
            code = CompiledModule(object_code(module_adding(100 * thread + turn)))
            values = np.arange(WIDTH, dtype=np.int32)
            code.function("body", (ctypes.c_void_p,))(values.ctypes.data)
            out += values.tolist()
        return out

    with ThreadPoolExecutor(THREADS) as pool:
        for thread, out in enumerate(pool.map(turns, range(THREADS))):
            assert out == [100 * thread + turn + k for turn in range(4) for k in range(WIDTH)]


def test_threads_that_want_the_same_code_compile_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(objects.FOLDER_VARIABLE, str(tmp_path))
    together, emitted = Barrier(THREADS), []

    def emit() -> ir.Module:
        emitted.append(1)
        return module_adding(7)

    def wanted(_: int) -> bytes:
        together.wait()
        return kept_code(emit, "the same")

    with ThreadPoolExecutor(THREADS) as pool:
        codes = set(pool.map(wanted, range(THREADS)))
    assert len(codes) == len(emitted) == 1

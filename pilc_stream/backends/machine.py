"""This machine: what its vectors can do, and machine code for it."""

from __future__ import annotations

import ctypes
import hashlib
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from pilc_stream.backends import objects

_LLVM = threading.RLock()
"""Held by whoever compiles or loads code. LLVM's context is one for the whole process, which llvmlite guards call
by call only; and who waits here for the same code finds it on disk."""


def host_width() -> int:
    """Lanes per vector on this machine: 16 with AVX-512, 8 with AVX2, else 4."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512bw"):
        return 16
    return 8 if features.get("avx2") else 4


def host_has_byte_dots(width: int) -> bool:
    """Whether this machine multiplies unsigned with signed bytes and adds four products in one instruction."""
    features = llvm.get_host_cpu_features()
    if width == 16:
        return bool(features.get("avx512vnni"))
    return width == 8 and bool(features.get("avx512vnni") and features.get("avx512vl"))


@cache
def host_permutes_bytes() -> bool:
    """Whether this machine looks up 64 bytes in two registers with one instruction."""
    return bool(llvm.get_host_cpu_features().get("avx512vbmi"))


def _target_machine() -> llvm.TargetMachine:
    # A new one each time: an execution engine takes the one that it is given with it when it goes.
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    features = llvm.get_host_cpu_features().flatten()
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=2, jit=True)


def object_code(module: ir.Module) -> bytes:
    """The machine code of a module."""
    with _LLVM:
        machine = _target_machine()
        module.triple = llvm.get_default_triple()
        parsed = llvm.parse_assembly(str(module))
        parsed.verify()
        # What is worth vectors is written with vectors.
        options = llvm.create_pipeline_tuning_options(speed_level=2)
        options.loop_vectorization = options.slp_vectorization = False
        passes = llvm.create_pass_builder(machine, options)
        passes.getModulePassManager().run(parsed, passes)
        return bytes(machine.emit_object(parsed))


def kept_code(emit: Callable[[], ir.Module], about: str) -> bytes:
    """The machine code of the module that `emit` gives, or what was kept of it on disk.

    `about`: what the module follows from beside the sources of this package.
    """
    host = f"{llvm.get_default_triple()} {llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"
    text = f"{objects.sources_digest()} {llvmlite.__version__} {llvm.llvm_version_info} {host} {about}"
    name = f"{hashlib.sha256(text.encode()).hexdigest()[:40]}.o"
    code = objects.load(name)
    if code is not None:
        return code
    with _LLVM:
        code = objects.load(name)
        if code is None:
            code = object_code(emit())
            objects.keep(name, code)
    return code


class CompiledModule:
    """Machine code for this machine; functions are known by address and live as long as this object."""

    def __init__(self, code: bytes) -> None:
        with _LLVM:
            self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
            self._engine.finalize_object()

    def address(self, name: str) -> int:
        """Where the function's code begins."""
        return int(self._engine.get_function_address(name))

    def run(self, name: str, arguments: NDArray[np.int64]) -> None:
        """Call a function that takes the address of its arguments; it runs without the GIL."""
        self.function(name, [ctypes.c_void_p])(arguments.ctypes.data)

    def function(self, name: str, argument_types: Sequence[Any]) -> Callable[..., None]:
        """The function as a ctypes callable; it runs without the GIL."""
        return ctypes.CFUNCTYPE(None, *argument_types)(self.address(name))

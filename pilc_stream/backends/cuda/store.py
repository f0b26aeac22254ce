"""Compiled kernels on disk, so that a process begins with them in milliseconds, not in seconds of compiling.

A file holds what Numba-CUDA keeps of a kernel in its own caches, which do not take closures such as these kernels. Its
name is a digest of everything that the machine code follows from. Files that cannot be read or written cost nothing but
the time to compile. As with every cache of compiled code, whoever can write to the folder can run code as its owner: it
is the user's own, and closed to others when it is made.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pilc_stream.backends.cuda.shim import cuda

FOLDER_VARIABLE = "PILC_KERNEL_CACHE"
"""Names another folder in the environment; an empty one means none."""

SOURCES = ("backends/*.py", "backends/*/*.py", "arith/*.py", "models/*.py")
"""What kernels are made from, in the package."""


def kernel_folder() -> Path | None:
    """Where compiled kernels are kept; None where they are not to be."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named is not None:
        return Path(named) if named else None
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        # A user without a home, as containers have them.
        return None
    return base / "pilc-stream" / "kernels"


@cache
def _made_from() -> str:
    digest = hashlib.sha256()
    package = Path(__file__).parents[2]
    for pattern in SOURCES:
        for source in sorted(package.glob(pattern)):
            digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    versions = [f"{name} {metadata.version(name)}" for name in ("numba-cuda", "llvmlite", "numba")]
    return f"{digest.hexdigest()} {versions} {sys.version}"


class KernelStore:
    """One kernel's place on disk, as Numba-CUDA's dispatchers ask for it."""

    def __init__(self, name: str, about: str) -> None:
        """`about`: what the kernel follows from beside the sources: its architecture, its limits."""
        self._name, self._about = name, about

    def path(self, signature: object) -> Path | None:
        """The file, for the current device."""
        folder = kernel_folder()
        if folder is None:
            return None
        first, second = cuda.get_current_device().compute_capability
        text = f"{_made_from()} {self._name} {self._about} {signature} {first}.{second}"
        return folder / f"{self._name}-sm{first}{second}-{hashlib.sha256(text.encode()).hexdigest()[:32]}.kernel"

    def load_overload(self, signature: object, target_context: Any) -> Any:
        """The kernel; None where it is to be compiled."""
        path = self.path(signature)
        if path is None or not path.exists():
            return None
        from numba.cuda import utils  # type: ignore[attr-defined]
        from numba.cuda.dispatcher import _Kernel

        try:
            target_context.refresh()
            with utils.numba_target_override():
                return _Kernel._rebuild(**pickle.loads(path.read_bytes()))
        except Exception:
            # Whatever is wrong with a file that somebody cut short or another release wrote: compiling mends it.
            return None

    def save_overload(self, signature: object, kernel: Any) -> None:
        """Keep a compiled kernel."""
        path = self.path(signature)
        if path is None:
            return
        from numba.cuda import serialize  # type: ignore[attr-defined]

        try:
            data = serialize.dumps(kernel._reduce_states())
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                file.write(data)
            # Whole or not at all: other processes may look for it at this moment.
            os.replace(file.name, path)
        except Exception:
            return

    def flush(self) -> None:
        """Nothing is held back."""


def with_store(dispatcher: Any, signature: object, *, name: str, about: str) -> Any:
    """Compile a dispatcher for one signature, or take the kernel from its store."""
    dispatcher._cache = KernelStore(name, about)
    dispatcher.compile(signature)
    # As `cuda.jit` with a signature leaves it: no looking at the types of arguments.
    dispatcher._specialized = True
    dispatcher.disable_compile()
    return dispatcher

"""Backends: the same bytes from NumPy, from compiled vector code and from CUDA. `open_engine` picks one."""

from __future__ import annotations

from pilc_stream.backends.base import DeviceEngine, Engine, Tile, TileJob
from pilc_stream.errors import DeviceError, UsageError

DEVICES = ("auto", "cpu", "cuda", "reference")


def open_engine(device: str = "auto", threads: int = 1) -> Engine:
    """The backend for a device: "auto", "cpu", "cuda" (the current card; "cuda:1" is the second) or "reference" (slow,
    the specification in code).

    Raises UsageError for another name, DeviceError where the device cannot be used.
    """
    kind, _, number = device.partition(":")
    if kind not in DEVICES or (number and not (kind == "cuda" and number.isdecimal())) or device.endswith(":"):
        raise UsageError(f"device {device!r} is unknown; known: {', '.join(DEVICES)}")
    if threads < 1:
        raise UsageError(f"threads: {threads}; give 1 or more")
    if device == "reference":
        from pilc_stream.backends.reference import ReferenceEngine

        return ReferenceEngine()
    if kind == "cuda":
        return _open_cuda(int(number) if number else None)
    from pilc_stream.backends.cpu import CpuEngine

    return CpuEngine(threads)


def _open_cuda(number: int | None) -> Engine:
    try:
        from pilc_stream.backends.cuda.engine import CudaEngine
    except ImportError as error:
        raise DeviceError(
            f"device 'cuda': Numba-CUDA is not installed ({error}); pip install 'pilc-stream[cuda12]' "
            "(cards from Volta on) or 'pilc-stream[cuda13]' (from Turing on), or use 'cpu', whose payloads are the same"
        ) from error

    return CudaEngine(device=number)


__all__ = ["DEVICES", "DeviceEngine", "Engine", "Tile", "TileJob", "open_engine"]

"""Backends of the codec `pilc`: the same bytes from NumPy, from Numba and from CUDA. `open_pilc_engine` picks one."""

from __future__ import annotations

from pilc_stream.backends import DEVICES
from pilc_stream.backends.pilc.base import PilcEngine
from pilc_stream.errors import DeviceError, UsageError


def open_pilc_engine(device: str = "auto", threads: int = 1) -> PilcEngine:
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
        from pilc_stream.backends.pilc.reference import PilcReferenceEngine

        return PilcReferenceEngine()
    if kind == "cuda":
        return _open_cuda(int(number) if number else None)
    from pilc_stream.backends.pilc.cpu import PilcCpuEngine

    return PilcCpuEngine(threads)


def _open_cuda(number: int | None) -> PilcEngine:
    try:
        from pilc_stream.backends.pilc.cuda import PilcCudaEngine
    except ImportError as error:
        raise DeviceError(
            f"device 'cuda': Numba-CUDA is not installed ({error}); pip install 'pilc-stream[cuda12]' "
            "(cards from Volta on) or 'pilc-stream[cuda13]' (from Turing on), or use 'cpu', whose payloads are the same"
        ) from error

    return PilcCudaEngine(device=number)


__all__ = ["PilcEngine", "open_pilc_engine"]

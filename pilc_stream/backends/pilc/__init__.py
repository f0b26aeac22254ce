"""Backends of the codec `pilc`: the same bytes from NumPy, from Numba and from CUDA. `open_pilc_engine` picks one."""

from __future__ import annotations

from pilc_stream.backends import checked_device, open_card
from pilc_stream.backends.pilc.base import PilcEngine


def open_pilc_engine(device: str = "auto", threads: int = 1) -> PilcEngine:
    """The backend for a device, as `backends.open_engine` for the wave codec."""
    place = checked_device(device, threads)
    if place.kind == "reference":
        from pilc_stream.backends.pilc.reference import PilcReferenceEngine

        return PilcReferenceEngine()
    if place.kind == "cuda":
        return open_card(_card, place.number)
    from pilc_stream.backends.pilc.cpu import PilcCpuEngine

    return PilcCpuEngine(threads)


def _card(number: int | None) -> PilcEngine:
    from pilc_stream.backends.pilc.cuda import PilcCudaEngine

    return PilcCudaEngine(device=number)


__all__ = ["PilcEngine", "open_pilc_engine"]

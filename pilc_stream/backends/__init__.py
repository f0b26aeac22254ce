"""Backends: the same bytes from NumPy, from compiled vector code and from CUDA. `open_engine` picks one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from pilc_stream.backends.base import DeviceEngine, Engine, Tile, TileEngine, TileJob
from pilc_stream.errors import DeviceError, UsageError
from pilc_stream.models.model import CodecModel

DEVICES = ("auto", "cpu", "cuda", "reference")

AnyModel = TypeVar("AnyModel", bound=CodecModel)


def open_engine(device: str = "auto", threads: int = 1) -> Engine:
    """The backend for a device: "auto", "cpu", "cuda" (the current card; "cuda:1" is the second) or "reference" (slow,
    the specification in code).

    Raises UsageError for another name, DeviceError where the device cannot be used.
    """
    place = checked_device(device, threads)
    if place.kind == "reference":
        from pilc_stream.backends.reference import ReferenceEngine

        return ReferenceEngine()
    if place.kind == "cuda":
        return open_card(_card, place.number)
    from pilc_stream.backends.cpu import CpuEngine

    return CpuEngine(threads)


def _card(number: int | None) -> Engine:
    from pilc_stream.backends.cuda.engine import CudaEngine

    return CudaEngine(device=number)


class Place(NamedTuple):
    """What a device's name says: one of `DEVICES`, and a card's number."""

    kind: str
    number: int | None


def checked_device(device: str, threads: int) -> Place:
    """A device by its name; UsageError for an unknown one, and for fewer than one of `threads`."""
    kind, _, number = device.partition(":")
    if kind not in DEVICES or (number and not (kind == "cuda" and number.isdecimal())) or device.endswith(":"):
        raise UsageError(f"device {device!r} is unknown; known: {', '.join(DEVICES)}")
    if threads < 1:
        raise UsageError(f"threads: {threads}; give 1 or more")
    return Place(kind, int(number) if number else None)


def open_card(engine: Callable[[int | None], TileEngine[AnyModel]], number: int | None) -> TileEngine[AnyModel]:
    """A codec's engine on a card; DeviceError where it cannot be used, or what it needs cannot be imported."""
    try:
        return engine(number)
    except ImportError as error:
        raise DeviceError(
            f"device 'cuda': Numba-CUDA is not installed ({error}); pip install 'pilc-stream[cuda12]' "
            "(cards from Volta on) or 'pilc-stream[cuda13]' (from Turing on), or use 'cpu', whose payloads are the same"
        ) from error


__all__ = [
    "DEVICES",
    "DeviceEngine",
    "Engine",
    "Tile",
    "TileEngine",
    "TileJob",
    "checked_device",
    "open_card",
    "open_engine",
]

"""Backends of the codec `lossy`: equal latents from each; `open_lossy_engine` picks one."""

from __future__ import annotations

from pilc_stream.backends import checked_device
from pilc_stream.backends.lossy.base import LossyDeviceEngine, LossyEngine
from pilc_stream.errors import DeviceError
from pilc_stream.models.lossy import LossyModel


def open_lossy_engine(device: str = "auto", threads: int = 1) -> LossyEngine[LossyModel]:
    """The backend for a device: "auto", "cpu", "cuda" (the current card; "cuda:1" is the second) or "reference" (slow,
    the specification in code).

    Raises UsageError for another name, DeviceError where the device cannot be used.
    """
    place = checked_device(device, threads)
    if place.kind == "reference":
        from pilc_stream.backends.lossy.reference import LossyReferenceEngine

        return LossyReferenceEngine()
    if place.kind == "cuda":
        try:
            from pilc_stream.backends.lossy.cuda import LossyCudaEngine
        except ImportError as error:
            raise DeviceError(
                f"device 'cuda': torch or Numba-CUDA is not installed ({error}); pip install "
                "'pilc-stream[torch,cuda12]' (cards from Volta on) or 'pilc-stream[torch,cuda13]' (from Turing on), or "
                "use 'cpu', whose payloads are the same"
            ) from error
        return LossyCudaEngine(place.number)
    from pilc_stream.backends.lossy.cpu import LossyCpuEngine

    return LossyCpuEngine(threads)


__all__ = ["LossyDeviceEngine", "LossyEngine", "open_lossy_engine"]

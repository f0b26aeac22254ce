"""Backends of the codec `lossy`: equal latents from each; `open_lossy_engine` picks one."""

from __future__ import annotations

from pilc_stream.backends import checked_device
from pilc_stream.backends.lossy.base import LossyEngine
from pilc_stream.errors import DeviceError
from pilc_stream.models.lossy import LossyModel


def open_lossy_engine(device: str = "auto", threads: int = 1) -> LossyEngine[LossyModel]:
    """The backend for a device: "auto", "cpu", "cuda" (the current card; "cuda:1" is the second; the networks run
    there, the entropy coder on the host) or "reference" (slow, the specification in code).

    Raises UsageError for another name, DeviceError where the device cannot be used.
    """
    place = checked_device(device, threads)
    if place.kind == "reference":
        from pilc_stream.backends.lossy.reference import LossyReferenceEngine

        return LossyReferenceEngine()
    from pilc_stream.backends.lossy.cpu import LossyCpuEngine

    if place.kind != "cuda":
        return LossyCpuEngine(threads)
    try:
        from pilc_stream.backends.lossy.card import card_arithmetic
    except ImportError as error:
        raise DeviceError(
            f"device 'cuda': torch is not installed ({error}); pip install 'pilc-stream[torch]', or use 'cpu', whose "
            "payloads are the same"
        ) from error
    return LossyCpuEngine(threads, "cuda", card_arithmetic(place.number))


__all__ = ["LossyEngine", "open_lossy_engine"]

"""Backends of the codec `lossy`: equal latents from each; `open_lossy_engine` picks one."""

from __future__ import annotations

from pilc_stream.backends import DEVICES
from pilc_stream.backends.lossy.base import LossyEngine
from pilc_stream.errors import DeviceError, UsageError


def open_lossy_engine(device: str = "auto", threads: int = 1) -> LossyEngine:
    """The backend for a device: "auto", "cpu", "cuda" (the current card; "cuda:1" is the second; the networks run
    there, the entropy coder on the host) or "reference" (slow, the specification in code).

    Raises UsageError for another name, DeviceError where the device cannot be used.
    """
    kind, _, number = device.partition(":")
    if kind not in DEVICES or (number and not (kind == "cuda" and number.isdecimal())) or device.endswith(":"):
        raise UsageError(f"device {device!r} is unknown; known: {', '.join(DEVICES)}")
    if threads < 1:
        raise UsageError(f"threads: {threads}; give 1 or more")
    if device == "reference":
        from pilc_stream.backends.lossy.reference import LossyReferenceEngine

        return LossyReferenceEngine()
    from pilc_stream.backends.lossy.cpu import LossyCpuEngine

    if kind != "cuda":
        return LossyCpuEngine(threads)
    try:
        from pilc_stream.backends.lossy.card import card_arithmetic
    except ImportError as error:
        raise DeviceError(
            f"device 'cuda': torch is not installed ({error}); pip install 'pilc-stream[torch]', or use 'cpu', whose "
            "payloads are the same"
        ) from error
    return LossyCpuEngine(threads, "cuda", card_arithmetic(int(number) if number else None))


__all__ = ["LossyEngine", "open_lossy_engine"]

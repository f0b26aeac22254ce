"""Backends of the lossy family's models, the second kind of the codec `lossy`; `open_family_engine` picks one."""

from __future__ import annotations

from pilc_stream.backends import checked_device
from pilc_stream.backends.lossy.base import LossyEngine
from pilc_stream.errors import DeviceError
from pilc_stream.models.family import FamilyModel


def open_family_engine(device: str = "auto", threads: int = 1) -> LossyEngine[FamilyModel]:
    """The backend for a device, as `open_lossy_engine`."""
    from pilc_stream.backends.lossy.family.engine import FamilyEngine
    from pilc_stream.backends.lossy.family.machine import HostMachine

    place = checked_device(device, threads)
    if place.kind == "reference":
        from pilc_stream.backends.lossy import reference

        return FamilyEngine("reference", HostMachine("int64"), reference.TileWriter, reference.TileReader)
    from pilc_stream.backends.lossy import cpu

    if place.kind != "cuda":
        return FamilyEngine("cpu", HostMachine("float64"), cpu.TileWriter, cpu.TileReader, threads)
    try:
        from pilc_stream.backends.lossy.family.card import card_machine
    except ImportError as error:
        raise DeviceError(
            f"device 'cuda': torch is not installed ({error}); pip install 'pilc-stream[torch]', or use 'cpu', whose "
            "payloads are the same"
        ) from error
    return FamilyEngine("cuda", card_machine(place.number), cpu.TileWriter, cpu.TileReader, threads)


__all__ = ["open_family_engine"]

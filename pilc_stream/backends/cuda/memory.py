"""What a batch in flight holds: a stream, a piece of device memory and one of pinned host memory, kept and reused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pilc_stream.backends.cuda.shim import cuda, give_back, new_stream

Sizes = Mapping[str, tuple[int, DTypeLike]]
"""Name -> number of elements and their type."""

PART_BYTES = 256
"""Parts begin at multiples of so many bytes."""

_HEADROOM = 1.25
"""Memory is taken with this much to spare where the limit allows, so that slightly larger batches need no new one."""


def part_bytes(count: int, dtype: DTypeLike) -> int:
    """What a part of so many elements takes; an empty one as much as one element."""
    return -(-max(1, count) * np.dtype(dtype).itemsize // PART_BYTES) * PART_BYTES


class Slot:
    """One of the batches in flight. What it gave to a batch is void when the next one is laid out."""

    def __init__(self) -> None:
        self.stream = new_stream()
        self._landing: Callable[[], None] | None = None
        self._memory: dict[str, Any] = {}
        self._parts: dict[str, Any] = {}

    def lay_out(self, device: Sizes, pinned: Sizes, limit_bytes: int) -> None:
        """Give a batch its parts. `limit_bytes`: more device memory is taken only for what the batch needs.

        The slot's last batch must have landed.
        """
        self._parts = {}
        self._cut("device", device, limit_bytes, cuda.device_array)
        self._cut("pinned", pinned, limit_bytes, cuda.pinned_array)

    def _cut(self, kind: str, sizes: Sizes, limit_bytes: int, allocate: Callable[..., Any]) -> None:
        needed = sum(part_bytes(*size) for size in sizes.values())
        if kind not in self._memory or self._memory[kind].size < needed:
            # The old piece goes first: both together may be more than there is.
            self._memory.pop(kind, None)
            give_back()
            self._memory[kind] = allocate(max(needed, min(int(needed * _HEADROOM), limit_bytes)), np.uint8)
        at = 0
        for name, (count, dtype) in sizes.items():
            end = at + max(1, count) * np.dtype(dtype).itemsize
            self._parts[f"{kind} {name}"] = self._memory[kind][at:end].view(dtype)
            at += part_bytes(count, dtype)

    @property
    def device_bytes(self) -> int:
        """Device memory that the slot holds."""
        return self._memory["device"].size if "device" in self._memory else 0

    def device(self, name: str) -> Any:
        """A part of the device's memory, at least one element long."""
        return self._parts[f"device {name}"]

    def pinned(self, name: str) -> NDArray[Any]:
        """A part of host memory that the card reads and writes by itself, at least one element long."""
        part: NDArray[Any] = self._parts[f"pinned {name}"]
        return part

    def upload(self, name: str) -> None:
        """Copy the pinned part of that name to the device's, in the order of the stream."""
        self.device(name).copy_to_device(self.pinned(name), stream=self.stream)

    def download(self, name: str, count: int | None = None) -> NDArray[Any]:
        """Copy the device's part (its first `count` elements) to the pinned one; there once the stream is done."""
        host = self.pinned(name)[:count]
        if host.size:
            self.device(name)[: host.size].copy_to_host(host, stream=self.stream)
        return host

    def launch(self, landing: Callable[[], None]) -> None:
        """Say what to do with the batch that has been queued, once it is done."""
        self._landing = landing

    def land(self) -> None:
        """Wait for the slot's batch, if there is one, and see it through."""
        landing, self._landing = self._landing, None
        if landing is not None:
            self.stream.synchronize()
            landing()

    def drop(self) -> None:
        """Forget the slot's batch, but not before the card is done with its memory."""
        self._landing = None
        self.stream.synchronize()

    def free(self) -> None:
        """Give the memory back."""
        self._parts, self._memory = {}, {}
        give_back()

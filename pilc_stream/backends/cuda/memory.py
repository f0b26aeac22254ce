"""What a batch in flight holds: a stream, device memory and pinned host memory, kept from batch to batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pilc_stream.backends.cuda.shim import cuda

_HEADROOM = 1.25
"""Memory is taken with this much to spare, so that slightly larger batches need no new one."""


class Slot:
    """One of the batches in flight. Arrays are valid until the next request of the same name."""

    def __init__(self) -> None:
        self.stream = cuda.stream()
        self._device: dict[str, Any] = {}
        self._pinned: dict[str, NDArray[np.uint8]] = {}

    def device(self, name: str, count: int, dtype: DTypeLike) -> Any:
        """`count` elements of device memory (at least one)."""
        size = max(1, count) * np.dtype(dtype).itemsize
        if name not in self._device or self._device[name].size < size:
            self._device.pop(name, None)
            self._device[name] = cuda.device_array(_rounded(size), np.uint8)
        return self._device[name][:size].view(dtype)

    def pinned(self, name: str, count: int, dtype: DTypeLike) -> NDArray[Any]:
        """`count` elements of host memory that the card reads and writes by itself."""
        size = max(1, count) * np.dtype(dtype).itemsize
        if name not in self._pinned or self._pinned[name].size < size:
            self._pinned.pop(name, None)
            self._pinned[name] = cuda.pinned_array(_rounded(size), np.uint8)
        return self._pinned[name][:size].view(dtype)[:count]

    def upload(self, name: str, host: NDArray[Any]) -> Any:
        """Copy pinned memory to device memory of that name, in the order of the stream."""
        device = self.device(name, host.size, host.dtype)
        if host.size:
            device[: host.size].copy_to_device(host, stream=self.stream)
        return device

    def download(self, device: Any, name: str, count: int) -> NDArray[Any]:
        """Copy the first `count` elements to pinned memory; they are there once the stream is done."""
        host = self.pinned(name, count, device.dtype)
        if count:
            device[:count].copy_to_host(host, stream=self.stream)
        return host


def _rounded(size: int) -> int:
    return -(-int(size * _HEADROOM) // 256) * 256

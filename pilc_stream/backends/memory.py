"""Memory that the CPU backend's walks use again."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

CACHE_LINE = 64


def aligned(size: int, kind: type) -> NDArray[Any]:
    """An array from the beginning of a cache line, with whatever was there: a vector in two lines costs twice."""
    spare = np.empty(size * np.dtype(kind).itemsize + CACHE_LINE, np.uint8)
    start = -spare.ctypes.data % CACHE_LINE
    return spare[start : start + size * np.dtype(kind).itemsize].view(kind)


class Memory:
    """Arrays that walks use again, since new memory from the system has to be cleared page by page."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def array(self, name: str, size: int, kind: type) -> NDArray[Any]:
        """At least `size` elements, with whatever was in them."""
        if name not in self._arrays or len(self._arrays[name]) < size:
            self._arrays[name] = aligned(size, kind)
        return self._arrays[name]

"""A first look at an image that comes in bands: what its samples are, and some cuttings to try codecs on."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.codecs.choice import WORTHWHILE_VALUES
from pilc_stream.codecs.traits import GAP_SAMPLES, GAP_SHARE

CUTTING = 512
"""Rows and columns of a cutting."""

CUTTINGS = 3
"""So many from top to bottom and as many from left to right."""


class Survey:
    """What all rows together tell.

    `grey`: three colours are equal everywhere. `alpha`: the one number that all alpha is, else None. `values`: the
    colours' samples that occur, rising, where they leave gaps that a table would close, else None. `cuttings`: parts of
    the image `(h, w, c)`. `pixel_sha256`: as that of the whole.
    """

    def __init__(self, height: int, width: int, channels: int, dtype: np.dtype[Any]) -> None:
        self._channels, self._dtype = channels, dtype
        self._colours = channels - (channels in (2, 4))
        self._digest = hashlib.sha256()
        self._y = self._seen = 0
        self._used: NDArray[np.bool_] | None = np.zeros(1 << 8 * dtype.itemsize, np.bool_)
        self._alphas: tuple[int, int] | None = None
        self.grey = self._colours == 3
        self._corners = [
            (y, x, np.empty((min(CUTTING, height), min(CUTTING, width), channels), dtype))
            for y in _spread(height)
            for x in _spread(width)
        ]

    def push(self, band: NDArray[Any]) -> None:
        """The next rows, `(rows, w, c)`."""
        self._digest.update(np.ascontiguousarray(band, self._dtype.newbyteorder("<")).view(np.uint8).data)
        colours = band[:, :, : self._colours]
        if self.grey:
            self.grey = all(np.array_equal(colours[:, :, 0], colours[:, :, k]) for k in (1, 2))
        if self._used is not None:
            self._count(colours)
        if self._channels > self._colours:
            alpha = band[:, :, -1]
            low, high = int(alpha.min()), int(alpha.max())
            known = self._alphas or (low, high)
            self._alphas = min(known[0], low), max(known[1], high)
        for y, x, cutting in self._corners:
            first, last = max(y, self._y), min(y + len(cutting), self._y + len(band))
            if first < last:
                rows = band[first - self._y : last - self._y]
                cutting[first - y : last - y] = rows[:, x : x + cutting.shape[1]]
        self._y += len(band)

    def _count(self, colours: NDArray[Any]) -> None:
        assert self._used is not None
        self._used[colours] = True
        self._seen += colours.size
        if self._seen < GAP_SAMPLES:
            return
        used = np.flatnonzero(self._used)
        if self._dtype == np.uint8:
            is_dense = len(used) >= GAP_SHARE * (int(used[-1]) - int(used[0]) + 1)
        else:
            is_dense = len(used) > WORTHWHILE_VALUES
        if is_dense:
            self._used = None

    @property
    def values(self) -> NDArray[Any] | None:
        """The samples of the colours that occur, where they are worth a table."""
        return None if self._used is None else np.flatnonzero(self._used).astype(self._dtype)

    @property
    def alpha(self) -> int | None:
        """The one number that all alpha is."""
        return self._alphas[0] if self._alphas and self._alphas[0] == self._alphas[1] else None

    @property
    def cuttings(self) -> list[NDArray[Any]]:
        """Parts of the image."""
        return [cutting for _, _, cutting in self._corners]

    @property
    def pixel_sha256(self) -> bytes:
        """The digest of the rows so far."""
        return self._digest.digest()


def _spread(edge: int) -> list[int]:
    """Where cuttings begin on an edge so long, evenly and without doubles."""
    room = max(0, edge - CUTTING)
    return sorted({room * k // (CUTTINGS - 1) for k in range(CUTTINGS)})

"""What to read: stretches of stored objects, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Pieces:
    """Piece i is `length[i]` bytes from `offset[i]` of the object `paths[path[i]]`. int64 arrays `(n,)`.

    Pieces of one object are equal or do not overlap, as payloads in a shard. `row[i]`: the row in its shard of a piece
    that is a whole payload, by which a cache knows it; -1 for other pieces.
    """

    paths: Sequence[str]
    path: NDArray[np.int64]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    row: NDArray[np.int64]

    @property
    def total_bytes(self) -> int:
        """Bytes of all pieces together."""
        return int(self.length.sum())

    def take(self, numbers: NDArray[np.int64] | slice) -> Pieces:
        """Some of the pieces, by number."""
        parts = (values[numbers] for values in (self.path, self.offset, self.length, self.row))
        return Pieces(self.paths, *parts)

"""A file of which only some stretches are at hand: what PyArrow reads columns from after ranged reads."""

from __future__ import annotations

import bisect
import io
from collections.abc import Sequence


class SparseFile(io.RawIOBase):
    """A read-only file of `size` bytes that holds `pieces` (offset and bytes, ascending, apart) and nothing else.

    Reading outside them raises OSError: it means that too little was fetched, never that bytes are invented.
    """

    def __init__(self, size: int, pieces: Sequence[tuple[int, bytes]]) -> None:
        super().__init__()
        self._size = size
        self._pieces = pieces
        self._starts = [offset for offset, _ in pieces]
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position; return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Return up to `size` bytes, fewer only at the end of the file. Raises OSError outside the pieces."""
        rest = max(0, self._size - self._position)
        length = rest if size is None or size < 0 else min(size, rest)
        if length == 0:
            return b""
        index = bisect.bisect_right(self._starts, self._position) - 1
        start, piece = self._pieces[index] if index >= 0 else (0, b"")
        inside = self._position - start
        if inside + length > len(piece):
            raise OSError(f"bytes {self._position} to {self._position + length} were not fetched")
        self._position += length
        return piece[inside : inside + length]

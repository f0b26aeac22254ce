"""An object as a file: what libraries read that want a file, with large ranged reads only."""

from __future__ import annotations

import io
from collections import OrderedDict
from typing import Final

from pilc_stream.storage.store import Store

BLOCK_BYTES: Final = 1 << 20
_BLOCKS_AHEAD: Final = 8
_BLOCKS_KEPT: Final = 16


class RangedFile(io.RawIOBase):
    """A read-only, seekable file over one object of `size_bytes`; memory holds at most 16 MB of it.

    Read in order, it fetches 8 MB at a time, as several requests where the storage can; elsewhere a block of 1 MB.
    For one thread. Reading raises StorageError.
    """

    def __init__(self, store: Store, path: str, size_bytes: int) -> None:
        super().__init__()
        self._store = store
        self._path = path
        self._size = size_bytes
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

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
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Return up to `size` bytes, fewer only at the end of the object."""
        rest = max(0, self._size - self._position)
        length = rest if size is None or size < 0 else min(size, rest)
        pieces = []
        while length:
            number, start = divmod(self._position, BLOCK_BYTES)
            piece = self._block(number)[start : start + length]
            pieces.append(piece)
            self._position += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            last = -(-self._size // BLOCK_BYTES)
            is_next = number - 1 in self._blocks
            wanted = range(number, min(last, number + (_BLOCKS_AHEAD if is_next else 1)))
            spans = [(each * BLOCK_BYTES, min(BLOCK_BYTES, self._size - each * BLOCK_BYTES)) for each in wanted]
            for each, data in zip(wanted, self._store.read_ranges(self._path, spans), strict=True):
                self._blocks[each] = data
            while len(self._blocks) > _BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        return self._blocks[number]

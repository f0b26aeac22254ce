"""What `Store` asks of a kind of storage. A backend raises what its library raises; `Store` retries and explains."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Literal, NamedTuple, Protocol

Kind = Literal["file", "folder"]


class Entry(NamedTuple):
    """One name in a folder. `size` is in bytes, 0 for folders and for links that lead nowhere."""

    name: str
    is_folder: bool
    size: int


class Backend(Protocol):
    """One folder on one kind of storage. Every `path` is relative to it and '/'-separated; "" is the folder itself."""

    def read(self, path: str) -> bytes:
        """Return the whole object. Raises FileNotFoundError."""

    def read_many(self, paths: Sequence[str]) -> list[bytes]:
        """Return whole objects, in order; concurrently where that pays. Raises FileNotFoundError."""

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of each `(offset, length)`; fewer where the object ends before."""

    def size(self, path: str) -> int:
        """Return the size in bytes of a file. Raises FileNotFoundError."""

    def kind(self, path: str) -> Kind | None:
        """Tell what is at `path`, None where nothing is."""

    def entries(self, folder: str) -> Iterator[Entry]:
        """Yield what is in a folder, unsorted, temporary files left out. Raises FileNotFoundError."""

    def identity(self, folder: str) -> Hashable:
        """Return what two paths to the same folder have in common, to notice circles of links."""

    def files(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield path and size of every file below the folder `prefix`, unsorted; none where it does not exist."""

    def put(self, path: str, data: bytes) -> None:
        """Write the whole object, replacing what is there."""

    def put_file(self, path: str, file: str) -> None:
        """Write a local file's bytes as the whole object, with few of them in memory."""

    def create(self, path: str, data: bytes) -> None:
        """Write the whole object only where nothing is. Raises FileExistsError."""

    def delete(self, path: str) -> None:
        """Delete a file; nothing happens where none is."""

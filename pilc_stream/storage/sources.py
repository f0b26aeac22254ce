"""From the sources that a user names to a sorted stream of files with stable keys.

A source is a folder, a glob or a file, local or behind any fsspec URL. What exists under the literal name wins
over its reading as a glob, so that names with brackets work.

Keys. With one source, a key is the path below that folder, below the glob's fixed part, or the file's name.
With several, it is the path below the deepest folder that holds all of them (`a/cats a/dogs` gives `cats/...`
and `dogs/...`; across protocols that is the path from the bucket or the root), so that keys cannot meet; a file
that several sources reach is taken once. Names that are not UTF-8 show their odd bytes as `\\xNN`.

Order is by key, as code points, whatever the order of the sources. Folders are listed one at a time, and a large
listing is sorted on disk: memory grows with neither the data set nor its largest folder.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pilc_stream.errors import StorageError, UsageError
from pilc_stream.storage.backend import Entry
from pilc_stream.storage.store import Store
from pilc_stream.storage.urls import is_root, join, normal, parent_and_name, place
from pilc_stream.storage.walk import IMAGE_SUFFIXES, readable, walk


@dataclass(frozen=True, slots=True)
class Sample:
    """One image as a source gives it.

    `data`: the bytes of an image file, b"" where there are none. `columns`: what else the source says of it, by name.
    `fault`: why `data` could not be had; such a sample is listed and kept without a picture. `misfits`: sentences on
    what the source says of it that no column could take.
    """

    key: str
    data: bytes
    columns: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""
    misfits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to be compressed: its `key`, its `path` inside `store`, its `size` in bytes. Picklable.

    A link that leads nowhere has size 0 and fails when it is read.
    """

    key: str
    path: str
    size: int
    store: Store

    @property
    def url(self) -> str:
        """Where the file is, for messages."""
        return join(self.store.url, self.path)

    @property
    def images(self) -> int:
        """One."""
        return 1

    def read(self) -> bytes:
        """Return the file's bytes. Raises StorageError."""
        return self.store.read(self.path)

    def samples(self) -> Iterator[Sample]:
        """Yield the one sample of the file. Raises StorageError."""
        yield Sample(self.key, self.read())

    def head(self, images: int) -> SourceFile:
        """Return itself: one image is the least there can be."""
        return self


def read_together(files: Sequence[SourceFile]) -> Iterator[Sample]:
    """Yield the samples of some files of one store, in order; they are read at once where the storage can.

    Raises StorageError.
    """
    read = files[0].store.read_many([file.path for file in files])
    for file, data in zip(files, read, strict=True):
        yield Sample(file.key, data)


@dataclass(frozen=True, slots=True)
class _Root:
    """One source, found: the folder to start at, and what to take below it."""

    store: Store
    pattern: tuple[str, ...]
    file: Entry | None
    named: str


def expand(
    sources: Sequence[str] | str,
    storage_options: Mapping[str, Any] | None = None,
    suffixes: tuple[str, ...] = IMAGE_SUFFIXES,
) -> Iterator[SourceFile]:
    """Yield every file that `sources` name, sorted by key, each once.

    Folders are walked recursively for names with one of `suffixes`, passing over names that begin with `.`
    or `_`. Globs know `*`, `?`, `[...]` and `**` (any number of folders), never match a leading dot unless it is
    written, take files of any suffix, and treat folders that they match like folders that are named.

    Sources are looked up at once. Raises UsageError where none is given, StorageError where one does not exist;
    while iterating, UsageError where two files get one key, StorageError where a glob matches nothing or a folder
    cannot be listed.
    """
    named = [sources] if isinstance(sources, str) else list(sources)
    if not named:
        raise UsageError("No source was given. Name a folder, a glob or image files.")
    stores: dict[str, Store] = {}
    roots = [_find(source, storage_options, stores) for source in named]
    places = [place(root.store.url) for root in roots]
    shared = _common(places)
    streams = [_files(root, own[len(shared) :], suffixes) for root, own in zip(roots, places, strict=True)]
    return _unique(heapq.merge(*streams, key=lambda file: file.key))


def _find(source: str, options: Mapping[str, Any] | None, stores: dict[str, Store]) -> _Root:
    """Look up one source; `stores` shares the Store of a folder between the files in it."""

    def store_at(url: str) -> Store:
        if url not in stores:
            stores[url] = Store.open(url, options)
        return stores[url]

    if not source:
        raise UsageError("An empty source names nothing. Name a folder, a glob or image files.")
    url = normal(source)
    if is_root(url):
        parent, name, kind = url, "", store_at(url).kind("")
    else:
        # Looked up from its parent, so that thousands of files of one folder share one Store.
        parent, name = parent_and_name(url)
        kind = store_at(parent).kind(name)
    if kind == "folder":
        return _Root(store_at(url), (), None, source)
    if kind == "file":
        return _Root(store_at(parent), (), Entry(name, False, store_at(parent).size(name)), source)
    for fixed, pattern in _splits(url):
        if store_at(fixed).kind("") == "folder":
            return _Root(store_at(fixed), pattern, None, source)
    raise StorageError(f"{url}: there is nothing at this place. Check the spelling of the source.")


def _splits(url: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the ways to read `url` as folder and glob, the deepest folder first.

    `/a/b*/[c].png` -> `("/a/b*", ("[c].png",))`, then `("/a", ("b*", "[c].png"))`: a folder whose name has
    brackets is taken literally where it exists.
    """
    parts: tuple[str, ...] = ()
    while not is_root(url):
        url, name = parent_and_name(url)
        parts = (name, *parts)
        if any(mark in name for mark in "*?["):
            yield url, parts


def _common(places: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the components that all places begin with."""
    first, last = min(places), max(places)
    length = 0
    while length < min(len(first), len(last)) and first[length] == last[length]:
        length += 1
    return first[:length]


def _files(root: _Root, prefix: tuple[str, ...], suffixes: tuple[str, ...]) -> Iterator[SourceFile]:
    """Yield the files of one source, sorted by key."""
    above = "".join(f"{readable(part)}/" for part in prefix)
    if root.file is not None:
        yield SourceFile(above + readable(root.file.name), root.file.name, root.file.size, root.store)
        return
    found = False
    for path, key, size in walk(root.store, root.pattern, suffixes):
        found = True
        yield SourceFile(above + key, path, size, root.store)
    if root.pattern and not found:
        raise StorageError(f"{root.named}: the glob matches no file. Check its spelling.")


def _unique(files: Iterator[SourceFile]) -> Iterator[SourceFile]:
    """Pass each file on once. Raises UsageError where two files have one key; `files` is sorted by key."""
    previous: SourceFile | None = None
    for file in files:
        if previous is not None and file.key == previous.key:
            if file.url == previous.url:
                continue
            raise UsageError(
                f"Two files have the key {file.key!r}: {previous.url} and {file.url}. "
                "Keys must be unique in a data set: compress them into two, or rename one."
            )
        previous = file
        yield file

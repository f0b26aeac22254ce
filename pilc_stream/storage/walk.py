"""Walking folders in key order, with or without a glob; a bounded part of a listing in memory per level.

A folder's names are sorted with a slash behind those of folders: then the files come out in the order of their
whole keys, as code points, without the whole tree ever being known.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Hashable, Iterator
from typing import NamedTuple

from pilc_stream.storage.backend import Entry
from pilc_stream.storage.spill import sorted_stream
from pilc_stream.storage.store import Store

IMAGE_SUFFIXES = (
    ".apng",
    ".avif",
    ".bmp",
    ".dds",
    ".dib",
    ".gif",
    ".heic",
    ".heif",
    ".ico",
    ".j2k",
    ".jfif",
    ".jp2",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".jpx",
    ".jxl",
    ".pbm",
    ".pcx",
    ".pfm",
    ".pgm",
    ".png",
    ".pnm",
    ".ppm",
    ".psd",
    ".qoi",
    ".sgi",
    ".tga",
    ".tif",
    ".tiff",
    ".webp",
)
"""What counts as an image inside a folder, in lower case; upper case counts too. Globs and files are taken as named."""

_ANY_DEPTH = "**"


class Found(NamedTuple):
    """A file to take: its path in the store, its readable path, its size in bytes."""

    path: str
    key: str
    size: int


class _Step(NamedTuple):
    """A name in a folder that is taken or entered; the last three say what may be taken below it."""

    path: str
    key: str
    entry: Entry
    positions: frozenset[int]
    taken: bool
    above: frozenset[Hashable]


def readable(name: str) -> str:
    r"""Return `name` as text that UTF-8 can hold: bytes of a file name that are not UTF-8 become `\xNN`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def walk(store: Store, pattern: tuple[str, ...], suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> Iterator[Found]:
    """Yield the files of `store` to take, sorted by key: those that match `pattern`, or all images where it is ().

    `suffixes`, in lower case, are what counts as an image inside a folder.

    `pattern` holds one glob per path component; `**` stands for any number of folders. What of it may still
    match below a folder is a set of positions in it, so each folder is listed once and no file comes twice.
    """
    start = _Step("", "", Entry("", True, 0), _closure(pattern, frozenset({0})), not pattern, frozenset())
    stack = [_level(store, pattern, suffixes, start)]
    while stack:
        step = next(stack[-1], None)
        if step is None:
            stack.pop()
        elif step.entry.is_folder:
            stack.append(_level(store, pattern, suffixes, step))
        else:
            yield Found(step.path, step.key, step.entry.size)


def _level(store: Store, pattern: tuple[str, ...], suffixes: tuple[str, ...], folder: _Step) -> Iterator[_Step]:
    """Yield what to take or enter in one folder; nothing where it is its own ancestor (a circle of links)."""
    identity = store.identity(folder.path)
    if identity in folder.above:
        return
    above = folder.above | {identity}
    slash = "/" if folder.path else ""
    named = ((readable(entry.name) + "/" * entry.is_folder, entry) for entry in store.entries(folder.path))
    for label, entry in sorted_stream(named):
        positions = _advance(pattern, folder.positions, entry.name)
        matched = len(pattern) in positions
        visible = folder.taken and not entry.name.startswith((".", "_"))
        if entry.is_folder:
            wanted = matched or visible or bool(positions)
        else:
            wanted = matched or (visible and entry.name.lower().endswith(suffixes))
        if wanted:
            key = folder.key + slash + label.rstrip("/")
            yield _Step(folder.path + slash + entry.name, key, entry, positions, matched or visible, above)


def _advance(pattern: tuple[str, ...], positions: frozenset[int], name: str) -> frozenset[int]:
    """Return the positions in `pattern` that can come next once `name` has been read at one of `positions`."""
    hidden = name.startswith(".")
    reached = set()
    for position in positions:
        if position == len(pattern):
            continue
        part = pattern[position]
        if part == _ANY_DEPTH:
            if not hidden:
                reached.add(position)
        elif fnmatch.fnmatchcase(name, part) and (not hidden or part.startswith(".")):
            reached.add(position + 1)
    return _closure(pattern, frozenset(reached))


def _closure(pattern: tuple[str, ...], positions: frozenset[int]) -> frozenset[int]:
    """Add what `**` may pass over: it also stands for no folder at all."""
    reached = set(positions)
    for position in range(len(pattern)):
        if position in reached and pattern[position] == _ANY_DEPTH:
            reached.add(position + 1)
    return frozenset(reached)

"""Which file name a key gets when a data set is written out as files.

An exported image gets its key with the format's suffix in place of its own: `a/cat.bmp` becomes `a/cat.png`. Where
two keys would meet (`a/cat.bmp` and `a/cat.jpg`), a key that has the suffix already keeps its name and the others
get the suffix behind their own: `a/cat.bmp.png`. Names depend on the set of keys alone, not on their order.
"""

from __future__ import annotations

import os
import posixpath
from itertools import pairwise

from pilc_stream.errors import FormatError
from pilc_stream.pipeline.keys import KeySource, digest, doubled_digests


class Names:
    """Maps keys to names with `suffix` (such as ".png"), without two keys sharing one.

    `keys` is read through once, again only where names meet; `renamed` then holds the keys with a longer name.
    Raises FormatError where a key is there twice.
    """

    def __init__(self, keys: KeySource, suffix: str) -> None:
        self._suffix = suffix
        self.renamed: dict[str, str] = {}
        collisions = doubled_digests(self.proposal(key) for key in keys())
        if collisions:
            self._resolve(keys, collisions)

    def __getitem__(self, key: str) -> str:
        return self.renamed.get(key) or self.proposal(key)

    def proposal(self, key: str) -> str:
        """The name of a key that meets no other."""
        if key.lower().endswith(self._suffix):
            return key
        return posixpath.splitext(key)[0] + self._suffix

    def _resolve(self, keys: KeySource, collisions: set[bytes]) -> None:
        # Sorted, so that names do not depend on the order of the shards.
        meeting = sorted(key for key in keys() if digest(self.proposal(key)) in collisions)
        for first, second in pairwise(meeting):
            if first == second:
                raise FormatError(f"The key {first!r} is in the data set more than once. Verify the data set.")
        pending = [key for key in meeting if self.proposal(key) != key]
        given: set[str] = set()
        attempt = 0
        while pending:
            attempt += 1
            names = {key: self._longer(key, attempt) for key in pending}
            wanted = {digest(name) for name in names.values()}
            taken = {found for found in (digest(self.proposal(key)) for key in keys()) if found in wanted}
            for key, name in names.items():
                if digest(name) not in taken and name not in given:
                    self.renamed[key] = name
                    given.add(name)
            pending = [key for key in pending if key not in self.renamed]

    def _longer(self, key: str, attempt: int) -> str:
        return key + self._suffix if attempt == 1 else f"{key}.{attempt}{self._suffix}"


def unsafe(key: str) -> str | None:
    """Why a key must not become a path below a destination folder; None where it may.

    A key is text from a file that somebody else may have written: it must not lead out of the folder.
    """
    parts = key.split("/")
    if "\0" in key:
        return "it contains a zero byte"
    if key.startswith("/"):
        return "it is an absolute path"
    if ".." in parts:
        return "it leads out of its folder"
    if "" in parts or "." in parts:
        return "it has an empty part"
    if os.sep != "/" and ("\\" in key or ":" in key):
        return "it is an absolute path or leads out of its folder on this system"
    return None

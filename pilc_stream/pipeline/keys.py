"""Keys of a whole data set: which texts occur twice, found with 16 bytes of memory each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np

KeySource = Callable[[], Iterable[str]]
"""Gives all keys anew at each call."""


def doubled(keys: KeySource) -> set[str]:
    """The texts that `keys` yields more than once."""
    suspects = doubled_digests(keys())
    if not suspects:
        return set()
    seen, twice = set[str](), set[str]()
    for key in keys():
        if digest(key) in suspects:
            (twice if key in seen else seen).add(key)
    return twice


def doubled_digests(texts: Iterable[str]) -> set[bytes]:
    """The digests that occur more than once among those of `texts`."""
    digests = np.frombuffer(b"".join(_joined(texts)), dtype="V16")
    ordered = np.sort(digests.view([("high", ">u8"), ("low", ">u8")]), order=("high", "low"))
    equal = ordered[1:] == ordered[:-1]
    return {repeated.tobytes() for repeated in ordered[1:][equal]}


def digest(text: str) -> bytes:
    """16 bytes that stand for a text: two texts share them by accident never, by the size of any data set."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _joined(texts: Iterable[str]) -> Iterator[bytes]:
    """Digests in pieces, so that joining them does not hold an object a key."""
    piece = bytearray()
    for text in texts:
        piece += digest(text)
        if len(piece) >= 1 << 16:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)

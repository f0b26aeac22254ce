"""Storage: the only room that knows URLs.

`Store` is a folder on any storage that fsspec reaches, with whole-object reads, ranged reads, and two ways to
write: `put` (replaces) and `create` (only where nothing is). Both are whole or not at all. `expand` turns the
sources that a user names (folders, globs, files) into a sorted stream of `SourceFile`.

Every failure is a `StorageError` whose message names the URL, what happened and what to do; transient ones
are retried first.
"""

from __future__ import annotations

from pilc_stream.storage.local import is_temporary
from pilc_stream.storage.ranged import RangedFile
from pilc_stream.storage.retry import RetryPolicy
from pilc_stream.storage.sentences import is_missing
from pilc_stream.storage.sources import Sample, SourceFile, expand, read_together
from pilc_stream.storage.store import Store
from pilc_stream.storage.walk import IMAGE_SUFFIXES

__all__ = [
    "IMAGE_SUFFIXES",
    "RangedFile",
    "RetryPolicy",
    "Sample",
    "SourceFile",
    "Store",
    "expand",
    "is_missing",
    "is_temporary",
    "read_together",
]

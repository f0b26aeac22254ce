"""What a source is: a stream of parts in rising order of their keys, and the types of what it says of each image.

A part is what is planned: an image file, a tar file, a row group. It is small and picklable, and gives its samples
when a worker asks for them. A listing of parts is made anew at each call and never held: planning ten million entries
takes the memory of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import pyarrow as pa

from pilc_stream.records.schema import COLUMN_NAMES
from pilc_stream.storage import IMAGE_SUFFIXES, Sample, SourceFile, expand


class Part(Protocol):
    """Some images that are read together, in one order."""

    @property
    def key(self) -> str:
        """The part's name, unique in its source. Parts come sorted by it, as code points."""

    @property
    def size(self) -> int:
        """Bytes of the images, as far as a listing tells: what shards are cut by."""

    @property
    def images(self) -> int | None:
        """How many images there are; None where only reading would tell."""

    def samples(self) -> Iterator[Sample]:
        """Read the images. Raises StorageError; whatever is wrong with a single image is its sample's fault.

        Every key is the part's own or begins with the key of the file that the part is of, and never comes twice in a
        source.
        """

    def head(self, images: int) -> Self:
        """The part without all but its first `images`, at least 1. Only called where `self.images` is known."""


class Source(Protocol):
    """A kind of source, opened."""

    @property
    def kind(self) -> str:
        """The name of the kind."""

    @property
    def columns(self) -> pa.Schema:
        """The user's own columns, which the data set will have."""

    def parts(self) -> Iterator[Part]:
        """List the parts, sorted by key. Raises UsageError, StorageError."""


@dataclass(frozen=True)
class Request:
    """What a user asks for.

    `names`: folders, globs and files. `options`: of their storage. `avoid`: a URL below which nothing is taken, that of
    the data set. `image_column`: where the image or its URL is, for sources that have columns.
    """

    names: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    avoid: str = ""
    image_column: str | None = None

    def files(self, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> Iterator[SourceFile]:
        """The files that the names stand for, sorted by key; in folders, those with one of `suffixes`."""
        found = expand(self.names, self.options, suffixes)
        # A glob such as `photos/**` reaches into a destination below `photos`.
        own = f"{self.avoid.rstrip('/')}/" if self.avoid else None
        return found if own is None else (file for file in found if not file.url.startswith(own))


def own_names(names: Sequence[str]) -> dict[str, str]:
    """Map the names of a source's columns to those in a data set: `source_` is put before a name that shards use."""
    taken = {*COLUMN_NAMES, *names}
    renamed: dict[str, str] = {}
    for name in names:
        own = name
        while own in COLUMN_NAMES or (own != name and own in taken):
            own = f"source_{own}"
        renamed[name] = own
        taken.add(own)
    return renamed

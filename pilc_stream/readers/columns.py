"""Which columns a data set has besides its images."""

from __future__ import annotations

from collections.abc import Sequence

from pilc_stream.errors import FormatError, UsageError
from pilc_stream.records.manifest import Manifest
from pilc_stream.records.schema import COLUMN_NAMES


def own_columns(manifest: Manifest) -> tuple[str, ...]:
    """The user's own columns. Raises as `known_columns`."""
    return tuple(name for name in known_columns(manifest) if name not in COLUMN_NAMES)


def known_columns(manifest: Manifest) -> tuple[str, ...]:
    """All columns but the image, from the first sound shard: all shards of a data set have the same.

    Raises FormatError where no shard is sound, StorageError.
    """
    names = list(COLUMN_NAMES)
    damage: FormatError | None = None
    for position in range(len(manifest.shards)):
        try:
            names = manifest.reader(position).schema.names
            break
        except FormatError as error:
            damage = damage or error
    else:
        if damage is not None:
            raise damage
    return tuple(name for name in names if name != "image")


def check_columns(manifest: Manifest, columns: Sequence[str]) -> tuple[str, ...]:
    """`columns` if the data set has them. Raises UsageError otherwise, and as `known_columns`."""
    if isinstance(columns, str):
        raise UsageError(f"columns is {columns!r}, a single text; give a list of names.")
    known = known_columns(manifest)
    for name in columns:
        if name not in known:
            raise UsageError(f"{manifest.url}: there is no column {name!r}. It has {', '.join(known)}.")
    return tuple(columns)

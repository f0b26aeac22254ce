"""The kinds of sources by name, and which of them a user means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pilc_stream.errors import UsageError
from pilc_stream.pipeline.sources.arrays import ARRAY_SUFFIXES, Arrays
from pilc_stream.pipeline.sources.base import Request, Source
from pilc_stream.pipeline.sources.files import Files
from pilc_stream.pipeline.sources.lists import LIST_SUFFIXES, UrlLists
from pilc_stream.pipeline.sources.parquet import PARQUET_SUFFIXES, ParquetImages, holds_images
from pilc_stream.pipeline.sources.tar import TAR_SUFFIXES, TarShards

KINDS: Final[dict[str, Callable[[Request], Source]]] = {
    "files": Files,
    "tar": TarShards,
    "parquet": ParquetImages,
    "list": UrlLists,
    "arrays": Arrays,
}
AUTO: Final = "auto"

_BY_SUFFIX: Final = (
    (TAR_SUFFIXES, "tar"),
    (PARQUET_SUFFIXES, "parquet"),
    (LIST_SUFFIXES, "list"),
    (ARRAY_SUFFIXES, "arrays"),
)


def open_source(request: Request, kind: str = AUTO) -> Source:
    """Open a source. Raises UsageError where it cannot be what `kind` says, StorageError where it cannot be read.

    "auto" goes by how the names end, `.tar`, `.parquet`, `.csv`, `.npz` and the like; anything else is image files.
    Parquet files without a column that could hold images are taken for lists of URLs.
    """
    if kind == AUTO:
        kinds = {_kind_of(name) for name in request.names}
        if len(kinds) > 1:
            raise UsageError(
                f"{', '.join(request.names)}: the sources are of different kinds ({', '.join(sorted(kinds))}). "
                "Compress them into data sets of their own, or say with --source-kind what they are."
            )
        kind = kinds.pop()
        if kind == "parquet" and not holds_images(request):
            kind = "list"
    if kind not in KINDS:
        raise UsageError(f"--source-kind: {kind!r} is unknown; choose one of {AUTO}, {', '.join(KINDS)}.")
    return KINDS[kind](request)


def _kind_of(name: str) -> str:
    ending = name.partition("::")[0].lower()
    return next((kind for suffixes, kind in _BY_SUFFIX if ending.endswith(suffixes)), "files")

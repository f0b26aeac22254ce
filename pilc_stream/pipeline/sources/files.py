"""Folders, globs and image files: one image each, no columns."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from pilc_stream.pipeline.sources.base import Request
from pilc_stream.storage import SourceFile


class Files:
    """Image files, keyed by their path; a part is a file."""

    kind = "files"
    columns = pa.schema([])

    def __init__(self, request: Request) -> None:
        self._request = request

    def parts(self) -> Iterator[SourceFile]:
        """List the files."""
        return self._request.files()

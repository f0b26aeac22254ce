"""Where images come from: one small interface, a file for each kind of source.

`base` says what a source is; `files`, `tar`, `parquet`, `lists` and `arrays` are the kinds, and `registry` names them.
A new kind is a new file and a line in the registry.
"""

from pilc_stream.pipeline.sources.base import Part, Request, Source
from pilc_stream.pipeline.sources.registry import AUTO, KINDS, open_source

__all__ = ["AUTO", "KINDS", "Part", "Request", "Source", "open_source"]

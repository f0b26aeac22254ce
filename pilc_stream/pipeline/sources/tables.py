"""Parquet and CSV files as sources see them: schemas, columns to keep, values that travel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pilc_stream.errors import PilcError, UsageError
from pilc_stream.pipeline.sources.base import own_names
from pilc_stream.storage import RangedFile, SourceFile


@contextmanager
def reading(file: SourceFile, what: str) -> Iterator[None]:
    """Turn what PyArrow raises over a file that is no `what`, or a damaged one, into a sentence."""
    try:
        yield
    except PilcError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        said = " ".join(str(error).split())[:300].rstrip(".")
        raise UsageError(
            f"{file.url}: the file cannot be read as {what}: {said}. Restore it, or leave it out."
        ) from error


def open_parquet(file: SourceFile) -> pq.ParquetFile:
    """Open a Parquet file with ranged reads; what is not needed is not fetched."""
    return pq.ParquetFile(pa.PythonFile(RangedFile(file.store, file.path, file.size), mode="r"), pre_buffer=False)


def kept_columns(schema: pa.Schema, image: str) -> tuple[pa.Schema, tuple[str, ...]]:
    """The columns of a data set that a source's `schema` gives, all but `image`, and their names in the source.

    What Hugging Face says of them (class names, for instance) goes with them.
    """
    names = tuple(name for name in schema.names if name != image)
    renamed = own_names(names)
    # Dictionaries differ from file to file; their values are what counts.
    fields = [pa.field(renamed[name], _plain(schema.field(name).type)) for name in names]
    return pa.schema(fields, metadata=schema.metadata if schema.metadata else None), names


def same_columns(file: SourceFile, schema: pa.Schema, expected: pa.Schema, first: str) -> None:
    """Raise UsageError, naming what differs, where a file's columns are not those of the `first` file."""
    found, wanted = ({field.name: _plain(field.type) for field in each} for each in (schema, expected))
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise UsageError(
                f"{file.url}: its column {name!r} is {found.get(name) or 'missing'}, in {first} it is "
                f"{wanted.get(name) or 'missing'}. Files of one source must have the same columns."
            )


def values_of(column: pa.ChunkedArray | pa.Array) -> Sequence[Any]:
    """The values of a column one by one, in a form that PyArrow takes back without loss, and that pickles."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    is_plain = (
        pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_binary(kind)
    )
    if is_plain or pa.types.is_float64(kind):
        plain: list[Any] = column.to_pylist()
        return plain
    # As scalars: Python has no nanoseconds, for one.
    return [scalar if scalar.is_valid else None for scalar in column]


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind

"""Parquet files with an image column, as Hugging Face writes them; every other column is kept with its type.

The column is `struct<bytes, path>` or binary. A part is a row group; only the footers are read to list them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import pyarrow as pa

from pilc_stream.errors import UsageError
from pilc_stream.pipeline.sources.base import Request
from pilc_stream.pipeline.sources.tables import kept_columns, open_parquet, reading, same_columns, values_of
from pilc_stream.storage import Sample, SourceFile

PARQUET_SUFFIXES: Final = (".parquet", ".pq")
PATH_COLUMN: Final = "image_path"
"""Where the path of a `struct<bytes, path>` is kept."""

_ROWS_AT_ONCE: Final = 32
_USUAL_NAMES: Final = ("image", "img", "jpg", "png", "picture", "photo")


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group of a Parquet file; `first_row` is its first row in the file.

    `columns`: the names of the other columns in the source and in the data set. `path_column`: where the image's path
    goes, "" where it has none.
    """

    file: SourceFile
    group: int
    first_row: int
    rows: int
    size: int
    image: str
    columns: tuple[tuple[str, str], ...]
    path_column: str

    @property
    def key(self) -> str:
        """The file's key and the number of the first row."""
        return row_key(self.file, self.first_row)

    @property
    def images(self) -> int:
        """Rows."""
        return self.rows

    def head(self, images: int) -> Self:
        """The first rows only."""
        return replace(self, rows=min(images, self.rows))

    def samples(self) -> Iterator[Sample]:
        """Read the rows, a few at a time. Where the file is damaged, the rows that are lost have a fault."""
        row, end = self.first_row, self.first_row + self.rows
        try:
            for sample in self._read():
                yield sample
                row += 1
                if row == end:
                    return
        except UsageError as error:
            for lost in range(row, end):
                yield Sample(row_key(self.file, lost), b"", fault=str(error))

    def _read(self) -> Iterator[Sample]:
        row = self.first_row
        with reading(self.file, "Parquet"):
            names = [self.image, *(name for name, _ in self.columns)]
            batches = open_parquet(self.file).iter_batches(_ROWS_AT_ONCE, row_groups=[self.group], columns=names)
            for batch in batches:
                images, paths = _images(batch.column(self.image))
                values = {own: values_of(batch.column(name)) for name, own in self.columns}
                if self.path_column:
                    values[self.path_column] = paths
                for position, data in enumerate(images):
                    columns = {name: column[position] for name, column in values.items()}
                    fault = "" if data is not None else _absence(paths[position])
                    yield Sample(row_key(self.file, row), data or b"", columns, fault)
                    row += 1


class ParquetImages:
    """Parquet files with an image column, keyed by path and row."""

    kind = "parquet"

    def __init__(self, request: Request) -> None:
        self._request = request
        self._first = next(request.files(PARQUET_SUFFIXES), None)
        self._schema, self._image, self.columns = pa.schema([]), "", pa.schema([])
        self._names: tuple[tuple[str, str], ...] = ()
        self._path_column = ""
        if self._first is not None:
            with reading(self._first, "Parquet"):
                self._schema = open_parquet(self._first).schema_arrow
            self._image = _image_column(self._first, self._schema, request.image_column)
            self.columns, names = kept_columns(self._schema, self._image)
            self._names = tuple(zip(names, self.columns.names, strict=True))
            if _has_path(self._schema.field(self._image).type):
                self._path_column = PATH_COLUMN if PATH_COLUMN not in self.columns.names else f"source_{PATH_COLUMN}"
                self.columns = self.columns.append(pa.field(self._path_column, pa.string()))

    def parts(self) -> Iterator[RowGroup]:
        """List the row groups. Raises UsageError where a file's columns are not those of the first."""
        for file in self._request.files(PARQUET_SUFFIXES):
            with reading(file, "Parquet"):
                parquet = open_parquet(file)
            if self._first is not None and file != self._first:
                same_columns(file, parquet.schema_arrow, self._schema, self._first.url)
            row = 0
            for number in range(parquet.metadata.num_row_groups):
                group = parquet.metadata.row_group(number)
                size = sum(group.column(each).total_compressed_size for each in range(group.num_columns))
                if group.num_rows:
                    yield RowGroup(file, number, row, group.num_rows, size, self._image, self._names, self._path_column)
                row += group.num_rows


def row_key(file: SourceFile, row: int) -> str:
    """The key of a row: numbers of one length, so that rows and keys rise together."""
    return f"{file.key}/{row:010d}"


def holds_images(request: Request) -> bool:
    """Whether the first Parquet file has a column that could hold images, rather than their URLs."""
    first = next(request.files(PARQUET_SUFFIXES), None)
    if first is None:
        return True
    with reading(first, "Parquet"):
        schema = open_parquet(first).schema_arrow
    if request.image_column in schema.names:
        return _is_image(schema.field(request.image_column).type)
    return any(_is_image(field.type) for field in schema)


def _image_column(file: SourceFile, schema: pa.Schema, wanted: str | None) -> str:
    candidates = [field.name for field in schema if _is_image(field.type)]
    if wanted is not None:
        if wanted not in candidates:
            raise UsageError(
                f"{file.url}: --image-column: {wanted!r} is no column of images; those are struct<bytes, path> or "
                f"binary. Here they are: {', '.join(candidates) or 'none'}."
            )
        return wanted
    # A struct of bytes is what an image looks like; bytes alone may be anything.
    likely = [name for name in candidates if pa.types.is_struct(schema.field(name).type)] or candidates
    if len(likely) > 1:
        likely = [name for name in likely if name.lower() in _USUAL_NAMES] or likely
    if len(likely) != 1:
        found = f"several columns could be the image: {', '.join(likely)}" if likely else "no column holds images"
        raise UsageError(f"{file.url}: {found}. Name it with --image-column. Columns: {', '.join(schema.names)}.")
    return str(likely[0])


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_binary(kind.field(index).type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _has_path(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind) and kind.get_field_index("path") >= 0)


def _images(column: pa.Array) -> tuple[list[bytes | None], list[Any]]:
    """The bytes and the paths of an image column."""
    if not pa.types.is_struct(column.type):
        return column.to_pylist(), [None] * len(column)
    # `field` would overlook nulls of the struct itself.
    values = column.to_pylist()
    return [value and value["bytes"] for value in values], [value and value.get("path") for value in values]


def _absence(path: Any) -> str:
    return f"the row has no image bytes, only the path {path!r}" if path else "the row has no image"

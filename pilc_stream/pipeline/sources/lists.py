"""Lists of URLs, CSV or Parquet: a column says where each image is, the others are kept with their types.

A part is a row. An image that cannot be fetched costs its record: dead links are the rule in such lists. A URL without
a protocol is a path below the list's own folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import pyarrow as pa
import pyarrow.csv as csv

from pilc_stream.errors import PilcError, StorageError, UsageError
from pilc_stream.pipeline.sources.base import Request
from pilc_stream.pipeline.sources.parquet import PARQUET_SUFFIXES, row_key
from pilc_stream.pipeline.sources.tables import kept_columns, open_parquet, reading, same_columns, values_of
from pilc_stream.storage import RangedFile, Sample, SourceFile, Store
from pilc_stream.storage.urls import join, normal, parent_and_name

LIST_SUFFIXES: Final = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
ASSUMED_BYTES: Final = 1 << 17
"""What an image is taken to have when shards are cut: a list does not say, and asking for each would take days."""

_USUAL_NAMES: Final = ("url", "image_url", "uri", "href", "link", "path", "file_path", "file_name", "filename", "image")
_BLOCK_BYTES: Final = 1 << 23
_STORES_KEPT: Final = 256
_NO_OPTIONS: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class ListedImage:
    """A row of a list. `url` is absolute; `values` are those of the other columns; `options` of the list's storage."""

    key: str
    url: str
    values: Mapping[str, Any]
    options: Mapping[str, Any]
    fault: str = ""

    @property
    def size(self) -> int:
        """An assumption."""
        return ASSUMED_BYTES

    @property
    def images(self) -> int:
        """One."""
        return 1

    def head(self, images: int) -> Self:
        """Itself."""
        return self

    def samples(self) -> Iterator[Sample]:
        """Fetch the image. One that cannot be fetched, after the retries, is a sample with a fault."""
        data, fault = b"", self.fault
        if not fault:
            folder, name = parent_and_name(self.url)
            try:
                data = _store_at(folder, self.options).read(name)
            except (StorageError, UsageError) as error:
                fault = str(error)
        yield Sample(self.key, data, self.values, fault)


class UrlLists:
    """CSV files (comma, or tab in `.tsv`) or Parquet files with a column of URLs, keyed by path and row."""

    kind = "list"

    def __init__(self, request: Request) -> None:
        self._request = request
        self._first = next(self._files(), None)
        self._schema, self._url, self.columns = pa.schema([]), "", pa.schema([])
        self._names: tuple[tuple[str, str], ...] = ()
        if self._first is not None:
            self._schema = next(_tables(self._first)).schema
            self._url = _url_column(self._first, self._schema, request.image_column)
            self.columns, names = kept_columns(self._schema, self._url)
            self._names = tuple(zip(names, self.columns.names, strict=True))

    def parts(self) -> Iterator[ListedImage]:
        """List the rows. Raises UsageError where a file's columns are not those of the first, or a row is malformed."""
        for file in self._files():
            row = 0
            for table in _tables(file):
                if self._first is not None and row == 0 and file != self._first:
                    same_columns(file, table.schema, self._schema, self._first.url)
                values = {own: values_of(table.column(name)) for name, own in self._names}
                for position, named in enumerate(table.column(self._url).to_pylist()):
                    url, fault = _absolute(named, file)
                    columns = {name: column[position] for name, column in values.items()}
                    yield ListedImage(row_key(file, row), url, columns, _options(url, self._request.options), fault)
                    row += 1

    def _files(self) -> Iterator[SourceFile]:
        return self._request.files((*LIST_SUFFIXES, *PARQUET_SUFFIXES))


def _tables(file: SourceFile) -> Iterator[pa.Table]:
    """The rows of a list in pieces of some megabytes; at least one, which may be empty."""
    if file.path.lower().endswith(PARQUET_SUFFIXES):
        with reading(file, "Parquet"):
            parquet = open_parquet(file)
            if not parquet.metadata.num_rows:
                yield parquet.schema_arrow.empty_table()
            for batch in parquet.iter_batches(1 << 13):
                yield pa.Table.from_batches([batch])
        return
    with reading(file, "CSV"):
        raw = pa.PythonFile(RangedFile(file.store, file.path, file.size), mode="r")
        stream = pa.CompressedInputStream(raw, "gzip") if file.path.lower().endswith(".gz") else raw
        delimiter = "\t" if ".tsv" in file.path.lower() else ","
        # Types are those of the first block: deterministic, and checked in all that follow.
        yield from map(
            pa.Table.from_batches,
            (
                [batch]
                for batch in csv.open_csv(
                    stream,
                    csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
                    csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                    csv.ConvertOptions(strings_can_be_null=False),
                )
            ),
        )


def _url_column(file: SourceFile, schema: pa.Schema, wanted: str | None) -> str:
    texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    if wanted is None:
        wanted = next((name for usual in _USUAL_NAMES for name in texts if name.lower() == usual), None)
    if wanted not in texts:
        found = "no column is known to hold URLs" if wanted is None else f"{wanted!r} is no column of texts"
        raise UsageError(f"{file.url}: {found}. Name it with --image-column. Columns: {', '.join(schema.names)}.")
    return str(wanted)


def _absolute(named: str | None, file: SourceFile) -> tuple[str, str]:
    """The URL that a list means, or why there is none."""
    if not named:
        return "", "the row has no URL"
    if "://" in named:
        return (named, "") if not named.endswith("/") else ("", f"{named}: the URL names a folder, not an image")
    if named.startswith("/") or ".." in named.split("/"):
        # A list may come from anywhere: it must not name the files of this machine.
        return "", f"{named!r} is neither a URL nor a path below the folder of the list"
    return join(parent_and_name(file.url)[0], named), ""


def _options(url: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Storage options are for the user's own storage; to a web server they would mean nothing."""
    return _NO_OPTIONS if url.startswith(("http://", "https://")) else options


def _store_at(folder: str, options: Mapping[str, Any]) -> Store:
    """The Store of a folder, kept for the next image of it."""
    place = folder, repr(options)
    store = _stores.get(place)
    if store is None:
        try:
            store = Store.open(normal(folder), options)
        except PilcError:
            raise
        except Exception as error:
            # URLs in lists are written by anybody.
            raise UsageError(f"{folder}: no storage is to be found there: {error}.") from error
        if len(_stores) >= _STORES_KEPT:
            _stores.clear()
        _stores[place] = store
    return store


_stores: dict[tuple[str, str], Store] = {}

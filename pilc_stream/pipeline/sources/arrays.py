"""NumPy arrays: `.npy` with images of one shape, `.npz` with such an array and others that say something of each image.

Images are uint8 or uint16 `(N, H, W)` or `(N, H, W, C)`; `(H, W)`, `(H, W, 3)` and `(H, W, 4)` are one. Each becomes a
file in memory (PGM, PPM or PNG), to pass through the same door as every other. Rows are read as they lie in
the file; a part is about 8 MB of an `.npy`, or a whole `.npz`.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import IO, Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilc_stream.errors import PilcError, UsageError
from pilc_stream.images.arrays import array_file
from pilc_stream.pipeline.sources.base import Request, own_names
from pilc_stream.pipeline.sources.parquet import row_key
from pilc_stream.storage import RangedFile, Sample, SourceFile

ARRAY_SUFFIXES: Final = (".npy", ".npz")
PART_BYTES: Final = 1 << 23

_CHANNELS: Final = (1, 2, 3, 4)
_COLOURS: Final = (3, 4)


class _Layout(NamedTuple):
    """An array of images in a file: its shape `(N, H, W[, C])`, its type, and whether columns come first (Fortran)."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fortran: bool

    @property
    def row_bytes(self) -> int:
        return prod(self.shape[1:]) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class ArrayRows:
    """Images `first_row` to `first_row + rows` of an array.

    `member`: of an `.npz`, "" in an `.npy`. `columns`: member and column of every array that goes with it.
    """

    file: SourceFile
    member: str
    first_row: int
    rows: int
    size: int
    columns: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """The file's key and the number of the first image."""
        return row_key(self.file, self.first_row)

    @property
    def images(self) -> int:
        """Images."""
        return self.rows

    def head(self, images: int) -> Self:
        """The first images only."""
        rows = min(images, self.rows)
        return replace(self, rows=rows, size=self.size * rows // self.rows)

    def samples(self) -> Iterator[Sample]:
        """Read the images in order. Where the file is damaged, those that are lost are samples with a fault."""
        row, end = self.first_row, self.first_row + self.rows
        try:
            for sample in self._read():
                yield sample
                row += 1
        except UsageError as error:
            for lost in range(row, end):
                yield Sample(row_key(self.file, lost), b"", fault=str(error))

    def _read(self) -> Iterator[Sample]:
        with _opened(self.file) as file:
            values = {own: _values(_whole(file, name)) for name, own in self.columns}
            for number, array in enumerate(_rows(file, self.member, self.first_row, self.rows), start=self.first_row):
                columns = {name: column[number] for name, column in values.items()}
                yield Sample(row_key(self.file, number), array_file(array), columns)


class Arrays:
    """`.npy` and `.npz` files, keyed by path and row."""

    kind = "arrays"

    def __init__(self, request: Request) -> None:
        self._request = request
        self._first = next(request.files(ARRAY_SUFFIXES), None)
        self.columns = pa.schema([])
        if self._first is not None:
            self.columns = self._look(self._first)[3]

    def parts(self) -> Iterator[ArrayRows]:
        """List the rows. Raises UsageError where a file holds no images, or other columns than the first."""
        for file in self._request.files(ARRAY_SUFFIXES):
            member, layout, columns, schema = self._look(file)
            if self._first is not None and schema != self.columns:
                raise UsageError(
                    f"{file.url}: beside the images it has {_described(schema)}, {self._first.url} has "
                    f"{_described(self.columns)}. Files of one source must have the same arrays."
                )
            count = layout.shape[0]
            step = count if member or layout.is_fortran else max(1, PART_BYTES // max(1, layout.row_bytes))
            for start in range(0, count, max(1, step)):
                rows = min(step, count - start)
                yield ArrayRows(file, member, start, rows, rows * layout.row_bytes, columns)

    def _look(self, file: SourceFile) -> tuple[str, _Layout, tuple[tuple[str, str], ...], pa.Schema]:
        """Where the images of a file are, and what goes with them. Only headers are read."""
        with _opened(file) as opened:
            if not isinstance(opened, zipfile.ZipFile):
                return "", _images_layout(file, _header(opened)), (), pa.schema([])
            layouts = {}
            for name in opened.namelist():
                if name.endswith(".npy"):
                    with opened.open(name) as member:
                        layouts[name.removesuffix(".npy")] = _header(member)
        wanted = self._request.image_column
        images = [name for name, layout in layouts.items() if _are_images(layout)] if wanted is None else [wanted]
        if len(images) != 1 or images[0] not in layouts:
            raise UsageError(
                f"{file.url}: {len(images)} of its arrays could be the images ({', '.join(layouts)}). "
                "Name one with --image-column."
            )
        layout = _images_layout(file, layouts.pop(images[0]))
        count = layout.shape[0]
        others = {name: other for name, other in layouts.items() if other.shape[:1] == (count,)}
        apart = sorted(layouts.keys() - others.keys())
        if apart and wanted is None:
            raise UsageError(
                f"{file.url}: the array {apart[0]!r} does not have one entry for each of the {count} images. "
                f"Say --image-column {images[0]} to leave such arrays out."
            )
        names = own_names(list(others))
        fields = [pa.field(names[name], _arrow_type(file, name, other)) for name, other in others.items()]
        return images[0], layout, tuple(names.items()), pa.schema(fields)


@contextmanager
def _opened(file: SourceFile) -> Iterator[IO[bytes] | zipfile.ZipFile]:
    """The file, or its archive; whatever is wrong with it becomes a sentence."""
    whole: Any = RangedFile(file.store, file.path, file.size)
    try:
        if file.path.lower().endswith(".npz"):
            with zipfile.ZipFile(whole) as archive:
                yield archive
        else:
            yield whole
    except PilcError:
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, KeyError, EOFError) as error:
        raise UsageError(
            f"{file.url}: the file cannot be read as NumPy's: {error}. Restore it, or leave it out."
        ) from error


def _header(file: IO[bytes]) -> _Layout:
    """Read the header of an `.npy`; the file then stands at the first byte of the array."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(file)
    return _Layout(shape, dtype, is_fortran)


def _are_images(layout: _Layout) -> bool:
    return layout.dtype.kind == "u" and layout.dtype.itemsize <= 2 and len(layout.shape) in (3, 4)


def _images_layout(file: SourceFile, found: _Layout) -> _Layout:
    """The layout as `(N, H, W[, C])`. Raises UsageError where an array holds no images."""
    layout = found._replace(shape=(1, *found.shape)) if _is_single(found) else found
    has_channels = len(layout.shape) == 4
    if (
        found.dtype.kind != "u"
        or found.dtype.itemsize > 2
        or len(layout.shape) not in (3, 4)
        or 0 in layout.shape[1:]
        or (has_channels and layout.shape[3] not in _CHANNELS)
    ):
        raise UsageError(
            f"{file.url}: an array of {found.dtype} {found.shape} does not hold images. Images are uint8 or uint16 "
            "(N, H, W) or (N, H, W, C) with 1 to 4 channels."
        )
    return layout


def _is_single(found: _Layout) -> bool:
    """Whether an array is one image rather than several."""
    return len(found.shape) == 2 or (len(found.shape) == 3 and found.shape[2] in _COLOURS)


def _rows(
    file: IO[bytes] | zipfile.ZipFile, member: str, first: int, rows: int
) -> Iterator[npt.NDArray[np.uint8 | np.uint16]]:
    if isinstance(file, zipfile.ZipFile):
        with file.open(f"{member}.npy") as stream:
            yield from _rows(stream, "", first, rows)
        return
    found = _header(file)
    layout = found._replace(shape=(1, *found.shape)) if _is_single(found) else found
    if found.is_fortran:
        array = np.frombuffer(file.read(), found.dtype).reshape(found.shape[::-1]).T
        yield from array.reshape(layout.shape)[first : first + rows]
        return
    if first:
        file.seek(first * layout.row_bytes, 1)
    for _ in range(rows):
        data = file.read(layout.row_bytes)
        if len(data) < layout.row_bytes:
            raise EOFError("the file is shorter than its header says")
        yield np.frombuffer(data, layout.dtype).reshape(layout.shape[1:])


def _whole(file: IO[bytes] | zipfile.ZipFile, member: str) -> npt.NDArray[Any]:
    assert isinstance(file, zipfile.ZipFile)
    with file.open(f"{member}.npy") as stream:
        array: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        return array


def _values(array: npt.NDArray[Any]) -> Sequence[Any]:
    values: list[Any] = array.tolist()
    return values


def _arrow_type(file: SourceFile, name: str, layout: _Layout) -> pa.DataType:
    if layout.dtype.kind not in "biufUS":
        raise UsageError(
            f"{file.url}: the array {name!r} is of {layout.dtype}, which no column can hold. Leave it out with "
            "--image-column, or save it as numbers or texts."
        )
    kind = {"U": pa.string(), "S": pa.binary()}.get(layout.dtype.kind) or pa.from_numpy_dtype(layout.dtype)
    for length in reversed(layout.shape[1:]):
        kind = pa.list_(kind, length)
    return kind


def _described(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema) or "nothing"

"""WebDataset shards: tar files in which consecutive members of one name, up to its first dot, are a sample.

A sample's image is its first member with the suffix of one; the others become columns, named by what follows the
first dot: `cls` and the like as int64, `txt` and `json` as text, anything else as its bytes. Which columns there are,
the first samples of the first file decide. Files are read in order, a few megabytes at a time, compressed ones too.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple, Self

import pyarrow as pa

from pilc_stream.errors import UsageError
from pilc_stream.pipeline.sources.base import Request, own_names
from pilc_stream.storage import IMAGE_SUFFIXES, RangedFile, Sample, SourceFile

TAR_SUFFIXES: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

_SAMPLES_LOOKED_AT: Final = 64
_BYTES_LOOKED_AT: Final = 1 << 24
_BUFFER_BYTES: Final = 1 << 18
# What WebDataset itself decodes so.
_INTEGERS: Final = frozenset({"cls", "cls2", "class", "count", "index", "inx", "id"})
_TEXTS: Final = frozenset({"txt", "text", "transcript", "caption", "json", "jsn", "csv", "url"})
_INT64: Final = range(-(2**63), 2**63)
# What stands behind the last member: two blocks of zeros, or nothing.
_ENDS: Final = frozenset({"EOFHeaderError", "EmptyHeaderError"})
_DAMAGES: Final = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)


class _Member(NamedTuple):
    """A file of a sample: its name up to the first dot with its folder, what follows that dot, and its bytes."""

    stem: str
    ending: str
    data: bytes

    @property
    def is_image(self) -> bool:
        return f".{self.ending}".lower().endswith(IMAGE_SUFFIXES)


class _Header(tarfile.TarInfo):
    """A header that is checked: Python takes a damaged one, or half of one, for the end of the file."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            if type(error).__name__ in _ENDS:
                raise
            raise tarfile.ReadError(str(error)) from error


class TarColumn(NamedTuple):
    """A column: its name in the data set, the ending of its members, and its Arrow type's name."""

    name: str
    ending: str
    type: str


@dataclass(frozen=True, slots=True)
class TarPart:
    """One tar file."""

    file: SourceFile
    columns: tuple[TarColumn, ...]

    @property
    def key(self) -> str:
        """That of the file."""
        return self.file.key

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.file.size

    @property
    def images(self) -> None:
        """Unknown: a tar file has no table of contents."""

    def head(self, images: int) -> Self:
        """Raises UsageError."""
        raise UsageError(f"{self.file.url}: how many images a tar file holds is not known before it is read.")

    def samples(self) -> Iterator[Sample]:
        """Read the file in order. What cannot be read of a damaged file is one sample with a fault."""
        seen: set[str] = set()
        count = 0
        try:
            for members in _grouped(_members(self.file)):
                count += 1
                yield self._sample(members, seen)
        except _DAMAGES as error:
            where = f"after {count:,} samples, the last of which may lack a part" if count else "from its beginning"
            fault = f"the tar file is damaged {where}; what follows is not in the data set: {error}"
            yield Sample(_once(f"{self.key}/(damaged)", seen), b"", fault=fault)

    def _sample(self, members: Sequence[_Member], seen: set[str]) -> Sample:
        image = next((member for member in members if member.is_image), None)
        name = f"{image.stem}.{image.ending}" if image else members[0].stem
        rest = {member.ending: member.data for member in members if member is not image}
        columns: dict[str, Any] = {}
        misfits = []
        for column in self.columns:
            data = rest.pop(column.ending, None)
            if data is not None:
                columns[column.name] = value = _value(data, column.type)
                if value is None:
                    misfits.append(f"its .{column.ending} is no {column.type}")
        misfits += [f"its .{ending} has no column: the first samples of the source lack one" for ending in rest]
        key = _once(f"{self.key}/{name}", seen)
        fault = "" if image else "the sample has no image"
        return Sample(key, image.data if image else b"", columns, fault, tuple(misfits))


class TarShards:
    """Tar files, keyed by path and member; a part is a whole file, so a shard is never smaller than that."""

    kind = "tar"

    def __init__(self, request: Request) -> None:
        self._request = request
        first = next(self._request.files(TAR_SUFFIXES), None)
        self._columns = _columns_of(first) if first is not None else ()
        types = {"int64": pa.int64(), "string": pa.string(), "binary": pa.binary()}
        self.columns = pa.schema([pa.field(column.name, types[column.type]) for column in self._columns])

    def parts(self) -> Iterator[TarPart]:
        """List the files."""
        return (TarPart(file, self._columns) for file in self._request.files(TAR_SUFFIXES))


def _members(file: SourceFile) -> Iterator[_Member]:
    """The regular files of a tar file, in order, without hidden ones."""
    whole = RangedFile(file.store, file.path, file.size)
    # As a stream: no seeking, and compression is found by itself.
    with tarfile.open(
        fileobj=whole, mode="r|*", bufsize=_BUFFER_BYTES, errors="backslashreplace", tarinfo=_Header
    ) as tar:
        for entry in tar:
            folder, slash, name = entry.name.removeprefix("./").rpartition("/")
            reader = tar.extractfile(entry) if entry.isreg() and not name.startswith((".", "__")) else None
            if reader is not None:
                stem, _, ending = name.partition(".")
                yield _Member(folder + slash + stem, ending, reader.read())


def _grouped(members: Iterator[_Member]) -> Iterator[list[_Member]]:
    """Consecutive members of one stem; an ending that comes again begins another sample."""
    group: list[_Member] = []
    try:
        for member in members:
            if group and (member.stem != group[0].stem or any(member.ending == each.ending for each in group)):
                yield group
                group = []
            group.append(member)
    except _DAMAGES:
        if group:
            yield group
        raise
    if group:
        yield group


def _columns_of(file: SourceFile) -> tuple[TarColumn, ...]:
    """The columns that the first samples of a tar file call for, in order of appearance."""
    types: dict[str, str] = {}
    samples = looked_at = 0
    try:
        for members in islice(_grouped(_members(file)), _SAMPLES_LOOKED_AT):
            samples += 1
            image = next((member for member in members if member.is_image), None)
            for member in members:
                looked_at += len(member.data)
                if member is not image:
                    kind = types.get(member.ending) or _type_of(member.ending)
                    types[member.ending] = kind if _value(member.data, kind) is not None else _wider(member.data)
            if looked_at > _BYTES_LOOKED_AT:
                break
    except _DAMAGES as error:
        if not samples:
            raise UsageError(
                f"{file.url}: the file cannot be read as tar: {error}. The first file of a source decides which "
                "columns there are; restore it, or leave it out."
            ) from error
    names = own_names(list(types))
    return tuple(TarColumn(names[ending], ending, kind) for ending, kind in types.items())


def _type_of(ending: str) -> str:
    last = ending.rpartition(".")[2].lower()
    return "int64" if last in _INTEGERS else "string" if last in _TEXTS else "binary"


def _wider(data: bytes) -> str:
    return "string" if _value(data, "string") is not None else "binary"


def _value(data: bytes, kind: str) -> Any:
    """The value that a member's bytes stand for; None where they are none of this type."""
    if kind == "binary":
        return data
    try:
        text = data.decode("utf-8")
        if kind == "string":
            return text
        number = int(text)
    except ValueError:
        return None
    return number if number in _INT64 else None


def _once(key: str, seen: set[str]) -> str:
    """`key`, with a number behind it where it has come before."""
    unique, number = key, 1
    while unique in seen:
        number += 1
        unique = f"{key}#{number}"
    seen.add(unique)
    return unique

"""`Store`: one folder on any storage, with whole reads, ranged reads, put and create-only."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from pilc_stream.errors import AlreadyExistsError, PilcError, StorageError, UsageError
from pilc_stream.storage.backend import Entry, Kind
from pilc_stream.storage.local import LocalDisk
from pilc_stream.storage.remote import Remote
from pilc_stream.storage.retry import RetryPolicy, is_transient, service_code
from pilc_stream.storage.sentences import explain
from pilc_stream.storage.urls import join, local_path, normal

_Result = TypeVar("_Result")


class Store:
    """A folder on a local disk, in memory, or on any object store that fsspec reaches.

    Paths are relative to `url`, '/'-separated, without `..`; "" is the folder itself, which need not exist yet.
    Methods raise StorageError (with `errno` where one fits) after the retries; transient failures are retried as
    `retries` says. A Store is picklable and survives a fork; it holds no open file.
    """

    def __init__(self, url: str, storage_options: Mapping[str, Any], retries: RetryPolicy) -> None:
        self.url = url
        self.storage_options = dict(storage_options)
        self.retries = retries
        self._backend: LocalDisk | Remote | None = None
        self._backend_pid = 0

    @classmethod
    def open(
        cls, url: str, storage_options: Mapping[str, Any] | None = None, retries: RetryPolicy | None = None
    ) -> Store:
        """Return the Store at `url`: a local path (taken literally) or any fsspec URL.

        `storage_options` go to the fsspec file system (credentials, endpoint). Raises UsageError for an unknown
        protocol or option, StorageError where a package for it is missing.
        """
        if not url:
            raise UsageError("An empty URL names no place. Give a folder or a URL such as s3://bucket/folder.")
        store = cls(normal(url), storage_options or {}, retries or RetryPolicy())
        store._connect()
        return store

    def __reduce__(self) -> tuple[type[Store], tuple[str, dict[str, Any], RetryPolicy]]:
        return Store, (self.url, self.storage_options, self.retries)

    def __repr__(self) -> str:
        # Options are left out: they hold credentials.
        return f"Store({self.url!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Store):
            return NotImplemented
        return self.url == other.url and self.storage_options == other.storage_options

    def __hash__(self) -> int:
        return hash(self.url)

    def _connect(self) -> LocalDisk | Remote:
        # Async file systems of fsspec refuse to work in a forked child: each process opens its own.
        if self._backend is None or self._backend_pid != os.getpid():
            path = local_path(self.url)
            if path is not None:
                self._backend = LocalDisk(path)
            else:
                try:
                    self._backend = Remote(self.url, self.storage_options)
                except ImportError as error:
                    raise explain(self.url, "open", error) from error
                except (TypeError, ValueError) as error:
                    options = ", ".join(sorted(self.storage_options)) or "none"
                    raise UsageError(
                        f"{self.url}: cannot open it: {error}. Check the URL and the storage options ({options})."
                    ) from error
            self._backend_pid = os.getpid()
        return self._backend

    def _attempt(self, verb: str, path: str, call: Callable[[LocalDisk | Remote], _Result]) -> _Result:
        """Run `call`, again after transient failures; translate what remains into a StorageError."""
        _check(path)
        delays = self.retries.delays()
        attempts = 0
        while True:
            attempts += 1
            try:
                return call(self._connect())
            except (PilcError, FileExistsError):
                raise
            except Exception as error:
                delay = next(delays, None) if is_transient(error) else None
                if delay is None:
                    raise explain(join(self.url, path), verb, error, attempts) from error
                self.retries.sleep(delay)

    def read(self, path: str) -> bytes:
        """Return the whole object."""
        return self._attempt("read", path, lambda backend: backend.read(path))

    def read_or_none(self, path: str) -> bytes | None:
        """Return the whole object, None where there is none."""

        def call(backend: LocalDisk | Remote) -> bytes | None:
            try:
                return backend.read(path)
            except FileNotFoundError as error:
                if service_code(error) == "NoSuchBucket":
                    raise
                return None

        return self._attempt("read", path, call)

    def read_many(self, paths: Sequence[str]) -> list[bytes]:
        """Return whole objects in the order of `paths`, concurrently where the storage can."""
        for path in paths:
            _check(path)
        try:
            return self._connect().read_many(paths)
        except PilcError:
            raise
        except Exception:
            # One at a time, each with retries of its own: of many together, one fails nearly every time that one in
            # fifty do. And whichever is missing is named.
            return [self.read(path) for path in paths]

    def read_range(self, path: str, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset`. Raises StorageError where the object ends before."""
        return self.read_ranges(path, [(offset, length)])[0]

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return exactly the bytes of each `(offset, length)`, concurrently where the storage can."""
        for offset, length in ranges:
            if offset < 0 or length < 0:
                raise UsageError(f"A range of {length} bytes from {offset} does not exist; both must be at least 0.")
        pieces = self._attempt("read", path, lambda backend: backend.read_ranges(path, ranges))
        for (offset, length), piece in zip(ranges, pieces, strict=True):
            if len(piece) != length:
                raise StorageError(
                    f"{join(self.url, path)}: wanted {length} bytes from {offset}, got {len(piece)}: the object is "
                    "shorter than what refers to it says. It was replaced or cut; restore it or make it again."
                )
        return pieces

    def size(self, path: str) -> int:
        """Return the size of an object in bytes."""
        return self._attempt("read", path, lambda backend: backend.size(path))

    def kind(self, path: str) -> Kind | None:
        """Tell whether `path` is a "file" or a "folder", None where nothing is."""
        return self._attempt("look for", path, lambda backend: backend.kind(path))

    def exists(self, path: str) -> bool:
        """Tell whether there is an object (not a folder) at `path`."""
        return self.kind(path) == "file"

    def list(self, prefix: str = "") -> list[str]:
        """Return the paths of all objects below the folder `prefix`, recursively, sorted; none where it is not."""
        return [path for path, _ in self.list_sizes(prefix)]

    def list_sizes(self, prefix: str = "") -> Sequence[tuple[str, int]]:
        """Return `(path, size in bytes)` of all objects below the folder `prefix`, recursively, sorted by path."""
        folder = prefix.rstrip("/")
        return self._attempt("list", folder, lambda backend: sorted(backend.files(folder)))

    def entries(self, folder: str) -> Iterator[Entry]:
        """Yield files and folders in `folder` (not below), unsorted, without ever holding all of them.

        A failure is tried again as long as nothing was yielded.
        """

        def begin(backend: LocalDisk | Remote) -> tuple[list[Entry], Iterator[Entry]]:
            entries = iter(backend.entries(folder))
            return list(islice(entries, 1)), entries

        first, others = self._attempt("list", folder, begin)
        yield from first
        try:
            yield from others
        except PilcError:
            raise
        except Exception as error:
            raise explain(join(self.url, folder), "list", error) from error

    def identity(self, folder: str) -> Hashable:
        """Return what two paths to the same folder have in common."""
        return self._attempt("look for", folder, lambda backend: backend.identity(folder))

    def temporaries(self, prefix: str = "") -> Iterator[str]:
        """Yield the temporary files of writers that are at work or were killed; no other method shows them."""
        yield from self._attempt("list", prefix, lambda backend: list(backend.temporaries(prefix)))

    def put(self, path: str, data: bytes) -> None:
        """Write the whole object, replacing what is there: readers see the old or the new one, never a part."""
        self._attempt("write", path, lambda backend: backend.put(path, data))

    def put_file(self, path: str, file: str) -> None:
        """As `put`, with the bytes of the local `file`, few of which are in memory at a time."""
        self._attempt("write", path, lambda backend: backend.put_file(path, file))

    def create(self, path: str, data: bytes) -> None:
        """Write the whole object only where nothing is. Raises AlreadyExistsError where something is.

        An answer lost on the network is not mistaken for a rival: after a repeated attempt, an object that
        already holds exactly `data` counts as created.
        """
        attempted = 0

        def call(backend: LocalDisk | Remote) -> None:
            nonlocal attempted
            attempted += 1
            try:
                backend.create(path, data)
            except FileExistsError:
                if attempted == 1 or backend.read(path) != data:
                    raise

        try:
            self._attempt("create", path, call)
        except FileExistsError as error:
            raise AlreadyExistsError(
                f"{join(self.url, path)}: cannot create it: something is there already. "
                "Somebody else wrote it first; read that one, or choose another name."
            ) from error

    def delete(self, path: str) -> None:
        """Delete an object; nothing happens where there is none."""
        self._attempt("delete", path, lambda backend: backend.delete(path))


def _check(path: str) -> None:
    if path.startswith("/") or ".." in path.split("/"):
        raise UsageError(f"{path!r} is not a path inside a store. Give a relative path without `..`.")

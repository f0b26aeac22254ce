"""Everything that is not a local disk, through fsspec: object stores, memory, and whatever else it reaches.

Object stores make a put whole or absent by themselves; a create is conditional there (`mode="create"`). Other file
systems, and services that ignore the condition, can only look, write and read back: of two writers that look at the
same instant the later one stands. What that means for a data set is said in DATASET.md.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from pilc_stream.storage.backend import Entry, Kind
from pilc_stream.storage.local import is_temporary
from pilc_stream.storage.retry import service_code
from pilc_stream.storage.urls import protocol

_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss"})
_EXISTS_CODES = frozenset({"PreconditionFailed", "412"})

# fsspec's memory storage is one dictionary of shared, seekable files per process: unsafe between threads as it is.
_memory_lock = threading.RLock()


class _NoLock:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class Remote:
    """The backend of a folder on any fsspec file system."""

    def __init__(self, url: str, storage_options: Mapping[str, Any]) -> None:
        options = dict(storage_options)
        self._is_object_store = protocol(url) in _OBJECT_STORES and "::" not in url
        if self._is_object_store:
            # A cached listing hides what other machines have committed since.
            options.setdefault("use_listings_cache", False)
        self._fs, root = fsspec.url_to_fs(url, **options)
        self._root = str(root).rstrip("/")
        # What stands before the first component: nothing in an archive's root, a slash in memory's.
        self._above = f"{self._root}/" if self._root else str(self._fs.root_marker)
        # A service of one's own may ignore the condition without a word.
        self._refuses = self._is_object_store and not options.get("endpoint_url")
        self._is_memory = isinstance(self._fs, MemoryFileSystem)
        self._lock = _memory_lock if self._is_memory else _NoLock()

    def _full(self, path: str) -> str:
        return self._above + path if path else self._root

    def read(self, path: str) -> bytes:
        """Return the whole object."""
        with self._lock:
            return bytes(self._fs.cat_file(self._full(path)))

    def read_many(self, paths: Sequence[str]) -> list[bytes]:
        """Return whole objects, in order; async file systems read them concurrently."""
        nothing = [None] * len(paths)
        return self._cat_ranges([self._full(path) for path in paths], nothing, nothing)

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of each `(offset, length)`; async file systems read them concurrently."""
        # Zero bytes cannot be asked for with an HTTP range.
        wanted = [(offset, offset + length) for offset, length in ranges if length]
        starts, ends = [start for start, _ in wanted], [end for _, end in wanted]
        got = iter(self._cat_ranges([self._full(path)] * len(wanted), starts, ends))
        return [next(got) if length else b"" for _, length in ranges]

    def _cat_ranges(self, paths: list[str], starts: Sequence[int | None], ends: Sequence[int | None]) -> list[bytes]:
        if not paths:
            return []
        with self._lock:
            return [bytes(piece) for piece in self._fs.cat_ranges(paths, list(starts), list(ends), on_error="raise")]

    def _info(self, path: str) -> dict[str, Any]:
        with self._lock:
            self._forget()
            return dict(self._fs.info(self._full(path)))

    def _forget(self) -> None:
        """Drop cached listings where the file system may keep some."""
        if not self._is_object_store:
            self._fs.invalidate_cache()

    def size(self, path: str) -> int:
        """Return the size of a file in bytes."""
        info = self._info(path)
        if _is_folder(info):
            raise IsADirectoryError(self._full(path))
        return int(info["size"] or 0)

    def kind(self, path: str) -> Kind | None:
        """Tell what is at `path`, None where nothing is."""
        try:
            return "folder" if _is_folder(self._info(path)) else "file"
        except FileNotFoundError as error:
            if service_code(error) == "NoSuchBucket":
                raise
            return None

    def entries(self, folder: str) -> Iterator[Entry]:
        """Yield what is in a folder; the empty objects that some tools put there as folder marks are left out."""
        inside = self._full(folder) + "/" if folder else self._above
        for info in self._listed(folder):
            listed = str(info["name"]).rstrip("/")
            # What does not lie inside is the folder itself or its mark; entering it would never end.
            name = listed.removeprefix(inside) if listed.startswith(inside) else ""
            if name and "/" not in name and not is_temporary(name):
                is_folder = info["type"] == "directory"
                if not is_folder and info.get("size") is None:
                    # A page of links has no sizes, and shards are cut by them.
                    info = self._info(f"{folder}/{name}" if folder else name)
                yield Entry(name, is_folder, 0 if is_folder else int(info.get("size") or 0))

    def _listed(self, folder: str) -> Iterator[dict[str, Any]]:
        """What the file system says of each name; on S3 page by page, elsewhere all that `ls` returns at once."""
        if self._is_object_store and hasattr(self._fs, "call_s3"):
            yield from self._pages_of_s3(folder)
            return
        with self._lock:
            self._forget()
            found = self._fs.ls(self._full(folder), detail=True)
        yield from found

    def _pages_of_s3(self, folder: str) -> Iterator[dict[str, Any]]:
        # `ls` of s3fs returns a list of dictionaries: 10 GB for ten million objects under one prefix.
        bucket, _, prefix = self._full(folder).partition("/")
        prefix = f"{prefix.rstrip('/')}/" if prefix else ""
        more: dict[str, Any] = {}
        is_empty = True
        while True:
            page = self._fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, Delimiter="/", **more)
            for found in page.get("CommonPrefixes", ()):
                yield {"name": f"{bucket}/{found['Prefix']}", "type": "directory"}
            for found in page.get("Contents", ()):
                yield {"name": f"{bucket}/{found['Key']}", "type": "file", "size": found["Size"]}
            is_empty = is_empty and not page.get("KeyCount")
            if not page.get("IsTruncated"):
                break
            more = {"ContinuationToken": page["NextContinuationToken"]}
        if is_empty and prefix:
            raise FileNotFoundError(self._full(folder))

    def identity(self, folder: str) -> Hashable:
        """Return the path: object stores have no links."""
        return self._full(folder)

    def files(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield path and size of every file below `prefix`, in one listing."""
        with self._lock:
            self._forget()
            try:
                found = self._fs.find(self._full(prefix), detail=True)
            except FileNotFoundError as error:
                if service_code(error) == "NoSuchBucket":
                    raise
                return
        inside = self._full(prefix) + "/" if prefix else self._above
        for name, info in found.items():
            path = str(name).removeprefix(self._above)
            if str(name).startswith(inside) and not is_temporary(path) and not path.endswith("/"):
                yield path, int(info.get("size") or 0)

    def temporaries(self, prefix: str) -> Iterator[str]:
        """Yield nothing: no write here goes through a temporary object."""
        return iter(())

    def put(self, path: str, data: bytes) -> None:
        """Write the whole object, replacing what is there."""
        with self._lock:
            self._make_parent(path)
            self._fs.pipe_file(self._full(path), data)

    def put_file(self, path: str, file: str) -> None:
        """Write a local file as the whole object, replacing what is there."""
        with self._lock:
            self._make_parent(path)
            self._fs.put_file(file, self._full(path))

    def create(self, path: str, data: bytes) -> None:
        """Write the whole object only where nothing is. Raises FileExistsError."""
        # Looking first also guards on S3-compatible services that silently ignore the condition.
        if self.kind(path) == "file":
            raise FileExistsError(self._full(path))
        with self._lock:
            self._make_parent(path)
            try:
                self._fs.pipe_file(self._full(path), data, mode="create")
            except OSError as error:
                if service_code(error) in _EXISTS_CODES:
                    raise FileExistsError(self._full(path)) from error
                raise
        if not (self._refuses or self._is_memory) and self.read(path) != data:
            raise FileExistsError(self._full(path))

    def _make_parent(self, path: str) -> None:
        # Never on object stores: makedirs would create a bucket there.
        if not self._is_object_store and not self._is_memory:
            self._fs.makedirs(self._full(path).rpartition("/")[0], exist_ok=True)

    def delete(self, path: str) -> None:
        """Delete an object; nothing happens where none is."""
        try:
            with self._lock:
                self._fs.rm_file(self._full(path))
        except FileNotFoundError as error:
            if service_code(error) == "NoSuchBucket":
                raise


def _is_folder(info: Mapping[str, Any]) -> bool:
    """Whether this is a folder; on the web, a page: images are none, and a folder shows itself as a page of links."""
    return info["type"] == "directory" or str(info.get("mimetype", "")).startswith("text/html")

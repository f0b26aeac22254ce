"""Local disks: objects that are whole or absent, whatever instant the process or the machine stops at.

An object is written under a temporary name in its own folder, synced to disk, then given its name by one
system call: `os.replace` for put, `os.link` for create (which refuses an existing name). What a killed process
leaves behind is at most a temporary file; its name begins with `TEMPORARY_PREFIX`, listings pass over it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import stat
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial

from pilc_stream.storage.backend import Entry, Kind

TEMPORARY_PREFIX = ".pilc-tmp-"
_WRITE_STEP_BYTES = 1 << 26
_COPY_BYTES = 1 << 23
_LINK_REFUSED = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
_RENAME_NOREPLACE = 1
_AT_FDCWD = -100


def is_temporary(path: str) -> bool:
    """Tell whether `path` is a temporary file of a writer: at work, or killed and safe to delete."""
    return path.rpartition("/")[2].startswith(TEMPORARY_PREFIX)


class LocalDisk:
    """The backend of a folder on a local (or mounted) disk."""

    def __init__(self, root: str) -> None:
        self._root = root

    def _full(self, path: str) -> str:
        return os.path.join(self._root, path) if path else self._root

    def read(self, path: str) -> bytes:
        """Return the whole file."""
        with open(self._full(path), "rb") as file:
            return file.read()

    def read_many(self, paths: Sequence[str]) -> list[bytes]:
        """Return whole files, in order."""
        return [self.read(path) for path in paths]

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of each `(offset, length)`; fewer where the file ends before."""
        with open(self._full(path), "rb", buffering=0) as file:
            return [_read_at(file.fileno(), offset, length) for offset, length in ranges]

    def size(self, path: str) -> int:
        """Return the size of a file in bytes."""
        found = os.stat(self._full(path))
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self._full(path))
        return found.st_size

    def kind(self, path: str) -> Kind | None:
        """Tell what is at `path`, None where nothing is; links are followed."""
        try:
            mode = os.stat(self._full(path)).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        return "folder" if stat.S_ISDIR(mode) else "file"

    def entries(self, folder: str) -> Iterator[Entry]:
        """Yield files and folders in a folder; devices, pipes and sockets are left out, as are temporary files."""
        with os.scandir(self._full(folder)) as items:
            for item in items:
                if is_temporary(item.name):
                    continue
                try:
                    status = item.stat()
                except OSError:
                    # A link that leads nowhere: still a name that somebody counts on; reading it will say why.
                    yield Entry(item.name, False, 0)
                    continue
                if stat.S_ISDIR(status.st_mode):
                    yield Entry(item.name, True, 0)
                elif stat.S_ISREG(status.st_mode):
                    yield Entry(item.name, False, status.st_size)

    def identity(self, folder: str) -> Hashable:
        """Return device and inode."""
        status = os.stat(self._full(folder))
        return status.st_dev, status.st_ino

    def files(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield path and size of every file below `prefix`; folders behind links are followed, circles are not."""
        pending: list[tuple[str, frozenset[Hashable]]] = [(prefix, frozenset())]
        while pending:
            folder, above = pending.pop()
            try:
                here = self.identity(folder)
                entries = list(self.entries(folder))
            except (FileNotFoundError, NotADirectoryError):
                continue
            if here in above:
                continue
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_folder:
                    pending.append((path, above | {here}))
                else:
                    yield path, entry.size

    def temporaries(self, prefix: str) -> Iterator[str]:
        """Yield the path of every temporary file below `prefix`."""
        for folder, _, names in os.walk(self._full(prefix)):
            for name in filter(is_temporary, names):
                yield os.path.relpath(os.path.join(folder, name), self._root)

    def put(self, path: str, data: bytes) -> None:
        """Write the whole file, replacing what is there."""
        self._write(path, [data], os.replace)

    def put_file(self, path: str, file: str) -> None:
        """Write another file's bytes as the whole file, replacing what is there."""
        with open(file, "rb") as source:
            self._write(path, iter(partial(source.read, _COPY_BYTES), b""), os.replace)

    def create(self, path: str, data: bytes) -> None:
        """Write the whole file only where nothing is. Raises FileExistsError."""
        self._write(path, [data], _name_once)

    def delete(self, path: str) -> None:
        """Delete a file; nothing happens where none is."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._full(path))

    def _write(self, path: str, pieces: Iterable[bytes], give_name: Callable[[str, str], None]) -> None:
        target = self._full(path)
        folder = os.path.dirname(target)
        _make_folder(folder)
        temporary = os.path.join(folder, TEMPORARY_PREFIX + secrets.token_hex(8))
        try:
            _write_synced(temporary, pieces)
            give_name(temporary, target)
        finally:
            # After os.replace there is nothing to unlink; after os.link the second name goes.
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        _sync_folder(folder)


def _read_at(descriptor: int, offset: int, length: int) -> bytes:
    """Read `length` bytes at `offset`, fewer only at the end of the file: one pread moves at most 2 GiB."""
    pieces = []
    while length > 0:
        piece = os.pread(descriptor, min(length, 1 << 30), offset)
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _write_synced(path: str, pieces: Iterable[bytes]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[os.write(descriptor, view[:_WRITE_STEP_BYTES]) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_folder(folder: str) -> None:
    """Create `folder` and its parents, and sync each parent that got a new name in it."""
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        parent = os.path.dirname(folder)
        if parent == folder:
            break
        folder = parent
    for path in reversed(missing):
        try:
            os.mkdir(path)
        except FileExistsError:
            if not os.path.isdir(path):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
        _sync_folder(os.path.dirname(path))


def _sync_folder(folder: str) -> None:
    """Bring a folder's names to disk, where its file system knows how."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _name_once(temporary: str, target: str) -> None:
    """Give the file at `temporary` the name `target` only where nothing has it. Raises FileExistsError."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        # NFS may do the link, lose the answer and refuse the repetition: two names of one file mean success.
        if not os.path.samestat(os.stat(temporary), os.lstat(target)):
            raise
    except OSError as error:
        if error.errno not in _LINK_REFUSED:
            raise
        _rename_once(temporary, target)


def _rename_once(temporary: str, target: str) -> None:
    """Do as `_name_once` where there are no hard links: Linux's renameat2 refuses an existing name as well."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        raise OSError(errno.ENOSYS, "neither hard links nor renameat2")
    if renameat2(_AT_FDCWD, os.fsencode(temporary), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) != 0:
        number = ctypes.get_errno()
        # EINVAL: this file system cannot refuse an existing name.
        raise OSError(errno.ENOSYS if number == errno.EINVAL else number, os.strerror(number), target)

"""Machine code on disk, so that a process begins with it in milliseconds, not in seconds of compiling.

A file's name is a digest of everything that the code follows from: the sources that emit it, what was asked of them,
the compiler, and this machine's processor. It is written whole under another name and then moved there, so that any
number of processes may begin at once; and it begins with the digest of its code, so that what was cut short or changed
is compiled again. Files that cannot be read or written cost nothing but the time to compile. As with every cache of
compiled code, whoever can write to the folder can run code as its owner: a folder that others can write to is not used.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

FOLDER_VARIABLE = "PILC_KERNEL_CACHE"
"""Names another folder in the environment; an empty one means none."""

SOURCES = ("backends/*.py", "arith/*.py", "models/spec.py")
"""What machine code is made from, in the package."""


def folders() -> Iterator[Path]:
    """Where machine code may be kept, the best place first."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named is not None:
        if named:
            yield Path(named)
        return
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    yield Path(base) / "pilc-stream" / "kernels"
    # A worker's home may not be there, or not be writable.
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    yield Path(tempfile.gettempdir()) / f"pilc-stream-kernels-{user}"


@cache
def sources_digest() -> str:
    """The digest of the sources."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for pattern in SOURCES:
        for source in sorted(package.glob(pattern)):
            digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()


def load(name: str) -> bytes | None:
    """The code of that name; None where it is to be compiled."""
    for folder in folders():
        try:
            if _is_ours(folder):
                data = (folder / name).read_bytes()
                if hashlib.sha256(data[32:]).digest() == data[:32]:
                    return data[32:]
        except OSError:
            continue
    return None


def keep(name: str, code: bytes) -> None:
    """Keep code in the first folder that takes it."""
    for folder in folders():
        written: str | None = None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_ours(folder):
                continue
            with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
                written = file.name
                file.write(hashlib.sha256(code).digest() + code)
            os.replace(written, folder / name)
            return
        except OSError:
            if written is not None and os.path.exists(written):
                os.unlink(written)


def _is_ours(folder: Path) -> bool:
    if not hasattr(os, "getuid"):
        return folder.is_dir()
    status = folder.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022

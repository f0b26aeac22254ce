"""What the tests of jobs share: a reporter that remembers, folders of files, and data sets looked at from outside."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pilc_stream.pipeline.verify import verify_dataset
from pilc_stream.records.manifest import Manifest
from workers.progress import Snapshot

SHARD_BYTES = 3000
"""Two of the images of these tests fill a shard."""


class Remembering:
    """A Reporter that keeps what it was told."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self.sentences: list[str] = []

    def show(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)


def fill(folder: Path, files: dict[str, bytes]) -> None:
    """Write files by name into a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@dataclass(frozen=True)
class CommitFiles:
    """The commit files of a data set by name: their bytes and when they were written."""

    contents: dict[str, bytes]
    written_ns: dict[str, int]

    @classmethod
    def of(cls, dataset: Path) -> CommitFiles:
        paths = sorted((dataset / "_pilc" / "commits").glob("*.json"))
        return cls(
            {path.name: path.read_bytes() for path in paths}, {path.name: path.stat().st_mtime_ns for path in paths}
        )

    def is_untouched_in(self, later: CommitFiles) -> bool:
        """Whether every one of these is there later with the same bytes, never written again."""
        return all(
            later.contents.get(name) == data and later.written_ns[name] == self.written_ns[name]
            for name, data in self.contents.items()
        )


def keys_of(dataset: Path) -> list[str]:
    """All keys of a finished data set, in its order."""
    manifest = Manifest.load(str(dataset))
    readers = [manifest.reader(position) for position in range(len(manifest.shards))]
    return list(chain.from_iterable(reader.keys() for reader in readers))


def assert_sound(dataset: Path, source: Path) -> None:
    """Verification passes, and the data set holds every file of `source` once."""
    report = verify_dataset(Manifest.load(str(dataset)))
    assert report.failed == ()
    assert keys_of(dataset) == sorted(path.relative_to(source).as_posix() for path in source.rglob("*.*"))

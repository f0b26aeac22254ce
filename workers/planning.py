"""From settings to a plan: what is listed, how it is cut, what job that is, and which shards are left to make.

The listing is streamed, twice: once to know what the job is, once more for the shards. So memory grows with the
number of shards only; in return every shard of the second listing is checked against the first.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any

from pilc_stream.codecs import open_codec
from pilc_stream.errors import JobError, StorageError, UsageError
from pilc_stream.pipeline.plan import Listing, ShardTask, job_fingerprint, plan_shards, survey
from pilc_stream.storage import SourceFile, Store, expand
from workers.settings import JobSettings


@dataclass(frozen=True, slots=True)
class Work:
    """A shard to make; with `again`, one that is committed and is to be made once more."""

    task: ShardTask
    again: bool = False


@dataclass(frozen=True)
class JobPlan:
    """A job, listed and cut: `shards` says of each what it holds. `model` is the model file, b"" for none."""

    settings: JobSettings
    store: Store
    listing: Listing
    shards: tuple[Listing, ...]
    codec: str
    profile: str
    model_sha256: str
    model: bytes

    @classmethod
    def make(cls, settings: JobSettings) -> JobPlan:
        """List the sources and cut them; nothing is written.

        Raises UsageError for an unknown profile and where the sources hold no image or do not exist.
        """
        # Any machine can load a model; only the workers need the device.
        codec = open_codec(settings.profile, "reference", 1, settings.model_path)
        store = Store.open(settings.destination, settings.storage_options)
        _check_places(settings, store)
        shards: list[Listing] = []

        def files() -> Iterator[SourceFile]:
            for task in plan_shards(list_files(settings, store), settings.shard_size):
                shards.append(survey(task.items))
                yield from task.items

        listing = survey(files())
        if not listing.images:
            raise UsageError(
                f"{', '.join(settings.sources)}: no image was found there. Folders are searched for names that end "
                "as those of images do (.png, .jpg, ...); check the place, or name other files with a glob."
            )
        return cls(
            settings=settings,
            store=store,
            listing=listing,
            shards=tuple(shards),
            codec=codec.name,
            profile=codec.profile,
            model_sha256=codec.model_sha256,
            model=codec.model_bytes,
        )

    def fingerprint(self) -> dict[str, Any]:
        """What must be equal for this job to go on where another run of it stopped."""
        return job_fingerprint(
            self.listing,
            codec=self.codec,
            profile=self.profile,
            model_sha256=self.model_sha256,
            max_pixels=self.settings.max_pixels,
            shard_bytes=self.settings.shard_size,
        )

    def works(self, committed: Collection[int]) -> Iterator[Work]:
        """List and cut once more; yield the shards whose numbers are not in `committed`.

        Raises JobError at the first shard that is no longer what it was.
        """
        tasks = plan_shards(list_files(self.settings, self.store), self.settings.shard_size)
        for task, expected in zip_longest(tasks, self.shards):
            if task is None or expected is None or survey(task.items) != expected:
                raise JobError(
                    f"{', '.join(self.settings.sources)}: the files changed while the job was running: they were "
                    "listed twice, and some came, went or changed their size in between. What is committed stays. "
                    "Run again when nothing writes there any more."
                )
            if task.index not in committed:
                yield Work(task)


def list_files(settings: JobSettings, store: Store) -> Iterator[SourceFile]:
    """The files of a job in the order of their keys: what the sources hold, without the data set's own files.

    Raises UsageError where a source does not exist, StorageError where one cannot be listed.
    """
    try:
        found = expand(settings.sources, settings.storage_options)
    except StorageError as error:
        # Nothing there, rather than something that failed.
        if error.__cause__ is None or error.errno == errno.ENOENT:
            raise UsageError(str(error)) from error
        raise
    # A glob such as `photos/**` reaches into a destination below `photos`.
    own = f"{store.url.rstrip('/')}/"
    return islice((file for file in found if not file.url.startswith(own)), settings.limit)


def _check_places(settings: JobSettings, store: Store) -> None:
    for source in settings.sources:
        if f"{Store.open(source, settings.storage_options).url.rstrip('/')}/".startswith(f"{store.url.rstrip('/')}/"):
            raise UsageError(
                f"{source}: the source lies in the destination {store.url}. A data set has a folder of its own: name "
                "another destination; one below the source will do."
            )

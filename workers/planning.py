"""From settings to a plan: what is listed, how it is cut, what job that is, and which shards are left to make.

The listing is streamed, twice: once to know what the job is, once more for the shards. So memory grows with the
number of shards only; in return every shard of the second listing is checked against the first.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import pyarrow as pa

from pilc_stream.codecs import open_codec
from pilc_stream.errors import JobError, StorageError, UsageError
from pilc_stream.pipeline.plan import Listing, ShardTask, job_fingerprint, plan_shards, survey
from pilc_stream.pipeline.sources import Part, Request, Source, open_source
from pilc_stream.records.record import LOSSY_CODECS
from pilc_stream.records.schema import FIDELITY
from pilc_stream.storage import Store
from workers.settings import JobSettings


@dataclass(frozen=True, slots=True)
class Work:
    """A shard to make; with `again`, one that is committed and whose failed records are to be made once more."""

    task: ShardTask
    again: bool = False


@dataclass(frozen=True)
class JobPlan:
    """A job, listed and cut: `shards` says of each what it holds. `model` is the model file, b"" for none."""

    settings: JobSettings
    store: Store
    source: Source
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
        codec = open_codec(
            settings.profile, "reference", 1, settings.model_path, quality=settings.quality, psnr=settings.psnr
        )
        store = Store.open(settings.destination, settings.storage_options)
        _check_places(settings, store)
        source = _open_source(settings, store)
        shards: list[Listing] = []

        def parts() -> Iterator[Part]:
            for task in plan_shards(list_parts(settings, source), settings.shard_size):
                shards.append(survey(task.items))
                yield from task.items

        listing = survey(parts())
        if not shards:
            raise UsageError(
                f"{', '.join(settings.sources)}: no image was found there. Folders are searched for names that end "
                "as those of images do (.png, .jpg, ...), or as --source-kind says; check the place, or name other "
                "files with a glob."
            )
        return cls(
            settings=settings,
            store=store,
            source=source,
            listing=listing,
            shards=tuple(shards),
            codec=codec.name,
            profile=codec.profile,
            model_sha256=codec.model_sha256,
            model=codec.model_bytes,
        )

    def fingerprint(self) -> dict[str, Any]:
        """What must be equal for this job to go on where another run of it stopped."""
        asked = {"quality": self.settings.quality, "psnr": self.settings.psnr}
        return {name: value for name, value in asked.items() if value is not None} | job_fingerprint(
            self.listing,
            codec=self.codec,
            profile=self.profile,
            model_sha256=self.model_sha256,
            max_pixels=self.settings.max_pixels,
            max_streamed_pixels=self.settings.max_streamed_pixels,
            shard_bytes=self.settings.shard_size,
            columns={field.name: str(field.type) for field in self.columns},
            keep=self.settings.keep,
        )

    @property
    def columns(self) -> pa.Schema:
        """The user's own columns, and behind them what a lossy codec says of each record."""
        columns = self.source.columns
        if self.codec not in LOSSY_CODECS:
            return columns
        for field in FIDELITY:
            columns = columns.append(field)
        return columns

    def works(self, committed: Collection[int], again: Collection[int] = ()) -> Iterator[Work]:
        """List and cut once more; yield the shards whose numbers are not in `committed`, and those in `again`.

        Raises JobError at the first shard that is no longer what it was.
        """
        tasks = plan_shards(list_parts(self.settings, self.source), self.settings.shard_size)
        for task, expected in zip_longest(tasks, self.shards):
            if task is None or expected is None or survey(task.items) != expected:
                raise JobError(
                    f"{', '.join(self.settings.sources)}: the files changed while the job was running: they were "
                    "listed twice, and some came, went or changed their size in between. What is committed stays. "
                    "Run again when nothing writes there any more."
                )
            if task.index in again:
                yield Work(task, again=True)
            elif task.index not in committed:
                yield Work(task)


def list_parts(settings: JobSettings, source: Source) -> Iterator[Part]:
    """The parts of a job in the order of their keys, up to the limit of its images.

    Raises UsageError where a source does not exist or has no countable images to limit, StorageError where it cannot
    be listed.
    """
    parts = source.parts()
    if settings.limit is None:
        yield from parts
        return
    left = settings.limit
    for part in parts:
        if part.images is None:
            raise UsageError(
                f"--limit: how many images {part.key} holds is not known before it is read, so a limit of images "
                "cannot be kept. Name fewer files instead."
            )
        yield part if part.images <= left else part.head(left)
        left -= part.images
        if left <= 0:
            return


def _open_source(settings: JobSettings, store: Store) -> Source:
    request = Request(settings.sources, settings.storage_options, store.url, settings.image_column)
    try:
        source = open_source(request, settings.source_kind)
        # Files look their places up when they are listed.
        source.parts()
    except StorageError as error:
        # Nothing there, rather than something that failed.
        if error.__cause__ is None or error.errno == errno.ENOENT:
            raise UsageError(str(error)) from error
        raise
    return source


def _check_places(settings: JobSettings, store: Store) -> None:
    for source in settings.sources:
        if f"{Store.open(source, settings.storage_options).url.rstrip('/')}/".startswith(f"{store.url.rstrip('/')}/"):
            raise UsageError(
                f"{source}: the source lies in the destination {store.url}. A data set has a folder of its own: name "
                "another destination; one below the source will do."
            )

"""One shard, from files to commit: read, decode, code, keep the smaller, prove, build, put, commit.

Everything here can be repeated at any time by anybody: a shard that is committed is left alone, the bytes that are
made depend on files and settings only, and nothing exists before the commit does. So a killed worker, a retried
task and a rival driver are all harmless.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from typing import get_args

import pyarrow as pa

from pilc_stream.codecs import Codec, Decoder
from pilc_stream.errors import StorageError, UsageError
from pilc_stream.images import DEFAULT_MAX_PIXELS, DEFAULT_MAX_STREAMED_PIXELS, Keep
from pilc_stream.pipeline.again import KeptShard
from pilc_stream.pipeline.assembly import Assembly
from pilc_stream.pipeline.coding import Coder, Verify
from pilc_stream.pipeline.loading import LoadLimits, load_batches
from pilc_stream.pipeline.plan import ShardTask
from pilc_stream.pipeline.statistics import ShardStatistics, StageTimes
from pilc_stream.records.commit import commit_shard, put_model, put_shard, read_commit_or_none
from pilc_stream.records.record import Record, RecordError, ShardEntry
from pilc_stream.storage import Store

DEFAULT_BATCH_PIXELS = 1 << 22
"""Pixels coded together unless told otherwise: 4 million, 12 MB as RGB."""

MIN_UNREAD = 16
"""So many images, all that a shard has, are not missing by chance."""

BatchProgress = Callable[[Sequence[Record], StageTimes], None]
"""Called with the records of a batch once they are coded and verified, and with the shard's times so far."""


@dataclass(frozen=True, slots=True)
class CompressSettings:
    """How a shard is made. The limits of pixels and `keep` change what it holds; the others trade time for memory or
    trust.

    `verify`: which payloads are decoded again and compared before they are written.
    `batch_pixels`: pixels coded together; about two batches are in memory, four bytes a pixel and the codec's needs.
    `max_pixels`: images above it are not decoded whole but coded from bands of rows, with a few of them in memory,
    where their format allows that, up to `max_streamed_pixels` (0: none are); others count as undecodable.
    `keep`: what comes along with pixels: all that affects display, nothing, or the source file byte for byte.
    `read_ahead_bytes`: source bytes fetched ahead of the decoder, by `read_threads` threads (they mostly wait).
    `decode_threads`: threads that decode image files.
    `device`, `threads`: of the decoder that verifies, where none is handed over.
    """

    verify: Verify = "all"
    batch_pixels: int = DEFAULT_BATCH_PIXELS
    max_pixels: int = DEFAULT_MAX_PIXELS
    max_streamed_pixels: int = DEFAULT_MAX_STREAMED_PIXELS
    keep: Keep = "display"
    read_ahead_bytes: int = 32 << 20
    read_threads: int = 8
    decode_threads: int = 2
    device: str = "auto"
    threads: int = 1

    def __post_init__(self) -> None:
        if self.verify not in ("all", "sample", "none"):
            raise UsageError(f"verify: {self.verify!r} is unknown; choose 'all', 'sample' or 'none'")
        if self.keep not in get_args(Keep):
            raise UsageError(f"keep: {self.keep!r} is unknown; choose one of {', '.join(get_args(Keep))}")
        for name in ("batch_pixels", "max_pixels", "read_ahead_bytes", "read_threads", "decode_threads", "threads"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: {getattr(self, name)} is not possible; it must be at least 1")


@dataclass(frozen=True, slots=True)
class ShardResult:
    """A committed shard and, where this call made it, its statistics and the records that failed.

    `statistics` is None where the shard was committed before and nothing was done.
    """

    entry: ShardEntry
    statistics: ShardStatistics | None
    errors: tuple[RecordError, ...]


Turn = Callable[[], AbstractContextManager[None]]


def compress_shard(
    task: ShardTask,
    codec: Codec,
    store: Store,
    settings: CompressSettings | None = None,
    *,
    decoder: Decoder | None = None,
    columns: pa.Schema | None = None,
    progress: BatchProgress | None = None,
) -> ShardEntry:
    """Compress and commit one shard; return its entry. `make_shard` says more about it."""
    return make_shard(task, codec, store, settings, decoder=decoder, columns=columns, progress=progress).entry


def make_shard(
    task: ShardTask,
    codec: Codec,
    store: Store,
    settings: CompressSettings | None = None,
    *,
    decoder: Decoder | None = None,
    columns: pa.Schema | None = None,
    kept: KeptShard | None = None,
    turn: Turn = nullcontext,
    progress: BatchProgress | None = None,
) -> ShardResult:
    """Compress and commit one shard into `store`; where it is committed already, return that.

    Every item becomes one record, in order. Files that cannot be decoded, that the codec fails on or does not give
    back exactly are kept as they came and listed; files that the codec does not take or not make smaller are kept
    as they came and counted. No payload is ever larger than its file.
    `decoder` verifies; without one it is made for the device of `settings`. `columns`: the user's own, the same for all
    shards of a data set; without them their types are inferred. `kept`: the shard as it was committed before; only what
    failed of it is made anew. `turn` makes a context in which a batch is coded: where several shards are made at once,
    they share a codec. `progress` is handed the records of each batch, as they will be stored, long before the
    shard is committed.
    Files that are gone since they were listed are listed as failed, unless those are all.
    Raises StorageError where a file cannot be read for other reasons or the shard cannot be written (nothing is
    committed then),
    DeviceError or ModelError where the codec does not work at all.
    """
    settings = settings or CompressSettings()
    committed = read_commit_or_none(store, task.index)
    if committed is not None:
        return ShardResult(committed.entry, None, ())
    start = time.perf_counter()
    coder = Coder(codec, decoder or _decoder_of(codec, settings), settings.verify)
    kept_errors: tuple[RecordError, ...] = ()
    merged: list[Record] = []
    if kept is not None:
        with closing(_coded(task, coder, settings, turn, progress, kept.failed)) as batches:
            anew = [record for batch in batches for record in batch]
        _check_some_read(task, coder, len(anew))
        if {record.key for record in anew} == kept.failed:
            merged, columns, kept_errors = kept.merged(anew), kept.columns, kept.errors
        else:
            # What failed was no image of its own, a part of a tar file for instance: the others may be others now.
            coder = Coder(codec, decoder or _decoder_of(codec, settings), settings.verify)
    times = coder.statistics.times
    with Assembly(columns, times) as assembly:
        if merged:
            assembly.add(merged)
        else:
            with closing(_coded(task, coder, settings, turn, progress, None)) as batches:
                for batch in batches:
                    assembly.add(batch)
            _check_some_read(task, coder, assembly.rows)
        built = assembly.finish()
    with times.measure("write"):
        if codec.model_bytes:
            put_model(store, codec.model_bytes)
        path, sha256 = put_shard(store, task.index, built.file, built.sha256)
    failed = coder.statistics.failed.total()
    entry = ShardEntry(
        index=task.index,
        path=path,
        sha256=sha256,
        shard_bytes=len(built.file),
        rows=assembly.rows,
        failed=failed,
        fallback=assembly.sources - failed,
        raw_bytes=assembly.raw_bytes,
        source_bytes=assembly.source_bytes,
        payload_bytes=assembly.payload_bytes,
        sub_pixels=assembly.sub_pixels,
        seconds=time.perf_counter() - start,
    )
    # By key: in whatever order stages and batches found them, the same shard has the same list.
    errors = tuple(sorted((*coder.errors, *kept_errors), key=lambda error: (error.key, error.stage, error.reason)))
    with times.measure("write"):
        made = {"ended": round(time.time(), 3), "host": socket.gethostname(), **coder.statistics.to_json()}
        entry = commit_shard(store, entry, built.ranges, errors, made)
    return ShardResult(entry, coder.statistics, errors)


def _coded(
    task: ShardTask,
    coder: Coder,
    settings: CompressSettings,
    turn: Turn,
    progress: BatchProgress | None,
    only: frozenset[str] | None,
) -> Generator[list[Record]]:
    """Yield the records of the shard batch by batch, in order. To be closed, or its threads stay."""
    # A part that is an image of its own, and is not wanted, need not be read to find that out.
    parts = task.items if only is None else [part for part in task.items if part.images != 1 or part.key in only]
    limits = LoadLimits(
        batch_pixels=settings.batch_pixels,
        max_pixels=settings.max_pixels,
        max_streamed_pixels=settings.max_streamed_pixels,
        keep=settings.keep,
        read_ahead_bytes=settings.read_ahead_bytes,
        read_threads=settings.read_threads,
        decode_threads=settings.decode_threads,
    )
    # Closed also when interrupted, so that the pools' threads end with the call.
    with closing(load_batches(parts, limits, coder.statistics.times, only)) as batches:
        for batch in batches:
            with turn():
                records = coder.code(batch)
            if progress:
                progress(records, coder.statistics.times)
            # Pixels must be gone before the next batch is decoded, and a variable of a loop outlives its turn.
            batch.clear()
            yield records


def _check_some_read(task: ShardTask, coder: Coder, records: int) -> None:
    """Raise StorageError where none of many images could be read: then it is not they that are missing."""
    if records >= MIN_UNREAD and coder.statistics.failed["read"] == records == len(task.items):
        raise StorageError(
            f"shard {task.index}: none of its {records} images could be read. The last one, "
            f"{coder.errors[-1].key}: {coder.errors[-1].reason.removesuffix('.')}. Check the network and the source."
        )


def _decoder_of(codec: Codec, settings: CompressSettings) -> Decoder:
    """A decoder that knows the codec's own model, be it shipped or fitted."""

    def models(digest: bytes) -> bytes | None:
        return codec.model_bytes if codec.model_sha256.startswith(digest.hex()) else None

    return Decoder(device=settings.device, threads=settings.threads, models=models)

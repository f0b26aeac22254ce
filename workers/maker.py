"""What one worker is: a codec and a decoder of its own, and `pipeline.make_shard` called with them. Knows no Ray.

A worker can be made anywhere from its `WorkerSpec`, which is a few hundred bytes: a model travels by its digest and
is read from the data set, never through the arguments of an actor.
"""

from __future__ import annotations

import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from pilc_stream.codecs import Codec, Decoder, open_codec
from pilc_stream.errors import ModelError, ModelNotFoundError, PilcError
from pilc_stream.images import Keep
from pilc_stream.pipeline.again import KeptShard
from pilc_stream.pipeline.compress import CompressSettings, ShardResult, make_shard
from pilc_stream.pipeline.statistics import StageTimes
from pilc_stream.records.commit import read_commit, read_model
from pilc_stream.records.record import Record
from pilc_stream.storage import Store
from workers.again import Recommit
from workers.planning import Work
from workers.progress import Tally
from workers.settings import Device, Verify
from workers.turns import Turns

ReportTally = Callable[[int, Tally], None]
"""Called with the number of a shard and what has been made of it."""

SHARDS_IN_FLIGHT = 2
"""Of one worker: one is read and coded while the one before is built, put and committed."""


class Abandoned(Exception):
    """The worker was told to stop, so it gave up a shard that nobody will miss: it is made again when it is needed."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """How a worker is made. Picklable and small.

    `quality`, `psnr`: what a lossy profile is asked for.
    `model_sha256`: the model that it must code with, "" for none. `own_model`: it lies in the data set, not among the
    shipped profiles. `threads`: CPU threads for coding and for decoding image files. `columns`: the user's own.
    """

    store: Store
    profile: str
    quality: int | None
    psnr: float | None
    model_sha256: str
    own_model: bool
    device: Device
    threads: int
    verify: Verify
    max_pixels: int
    max_streamed_pixels: int
    columns: pa.Schema
    keep: Keep = "display"


class ShardMaker:
    """Makes shards, several at a time in threads of their own. `report` is called after each batch of each shard."""

    def __init__(self, spec: WorkerSpec, report: ReportTally) -> None:
        """Raises DeviceError or ModelError where the codec cannot be had here."""
        self._store = spec.store
        self._turns = Turns()
        self._stopped = threading.Event()
        self._report = report
        self._columns = spec.columns
        self._codec = _open(spec)
        self._decoder = Decoder(device=spec.device, threads=spec.threads, models=_model_of(self._codec))
        self._settings = CompressSettings(
            verify=spec.verify,
            max_pixels=spec.max_pixels,
            max_streamed_pixels=spec.max_streamed_pixels,
            keep=spec.keep,
            decode_threads=decode_threads(spec.threads),
            threads=spec.threads,
        )

    def stop(self) -> None:
        """Have every shard that is being made given up after its current batch, unless it is being committed."""
        self._stopped.set()

    def make(self, work: Work) -> ShardResult:
        """Compress and commit one shard. Raises as `make_shard`, and Abandoned."""
        index, tally = work.task.index, Tally()
        self._report(index, tally)

        def count(batch: Sequence[Record], times: StageTimes) -> None:
            nonlocal tally
            if self._stopped.is_set():
                raise Abandoned
            tally += Tally.of(batch)
            self._report(index, tally + Tally.of_times(times))

        store, kept = self._store, None
        if work.again:
            kept = KeptShard.of(store, read_commit(store, index).entry)
            store = Recommit(store, index)
        return make_shard(
            work.task,
            self._codec,
            store,
            self._settings,
            decoder=self._decoder,
            columns=self._columns,
            kept=kept,
            turn=partial(self._turns.of, index),
            progress=count,
        )


def decode_threads(threads: int) -> int:
    """How many threads decode image files for one shard: as many as the worker has cores, for they feed its codec.

    Two at least: one decodes while the other's result is taken.
    """
    return max(2, threads)


def _open(spec: WorkerSpec) -> Codec:
    if spec.own_model:
        data = read_model(spec.store, spec.model_sha256)
        if data is None:
            raise ModelNotFoundError(
                f"{spec.store.url}: the model {spec.model_sha256} is not in the data set. Run the same command again."
            )
        with tempfile.TemporaryDirectory(prefix="pilc-model-") as folder:
            path = Path(folder) / "model.safetensors"
            path.write_bytes(data)
            codec = open_codec(spec.profile, spec.device, spec.threads, path, quality=spec.quality, psnr=spec.psnr)
    else:
        codec = open_codec(spec.profile, spec.device, spec.threads, quality=spec.quality, psnr=spec.psnr)
    if codec.model_sha256 != spec.model_sha256:
        raise ModelError(
            f"A worker has the model {codec.model_sha256 or 'none'} for the profile {spec.profile!r}, the job has "
            f"{spec.model_sha256 or 'none'}. Install the same release of pilc-stream on every machine."
        )
    return codec


def _model_of(codec: Codec) -> Callable[[bytes], bytes | None]:
    """A source of models that knows the codec's own, be it shipped or fitted."""
    return lambda digest: codec.model_bytes if codec.model_sha256.startswith(digest.hex()) else None


def reason_of(error: BaseException) -> str:
    """What went wrong, for a person; with the line it came from where nobody meant it to be raised."""
    if isinstance(error, PilcError):
        return str(error)
    if isinstance(error, MemoryError):
        return "there is not enough memory; use smaller shards or fewer workers"
    where = traceback.extract_tb(error.__traceback__)[-1:]
    place = "".join(f" ({frame.filename.rpartition('/')[2]}:{frame.lineno})" for frame in where)
    return f"{type(error).__name__}: {error}{place}"

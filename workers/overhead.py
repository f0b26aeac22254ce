"""What the pipeline costs beside its stages: a job against bare reading, decoding and coding; two actors against one.

Everything is measured in one run, in turns, so that drift of the machine hits all alike; ratios are medians over the
rounds. What a bare stage does is what anybody would write for it alone: read files, open them with Pillow, hand the
codec batches of pixels, one stage after the other on all cores. The job does the same with the stages overlapped, and
digests, Parquet, commits and a listing on top.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from pilc_stream.codecs import Codec, Decoder, open_codec
from pilc_stream.errors import JobError, UsageError
from pilc_stream.pipeline.compress import DEFAULT_BATCH_PIXELS
from pilc_stream.pipeline.loading import MAX_BATCH_IMAGES
from pilc_stream.storage import SourceFile, expand
from workers.job import run_job
from workers.placement import usable_cpus
from workers.progress import Snapshot
from workers.settings import JobSettings

STAGES: Final = ("read", "decode", "code", "verify")
_CHUNK_BYTES: Final = 64 << 20

Pixels = npt.NDArray[Any]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Comparison:
    """A job and the bare stages: the median of the rounds' ratios, and of the seconds of each, by wall clock.

    `cpu_ratio`: of the processor's time, which other programs on the machine do not lengthen.
    """

    verify: str
    ratio: float
    cpu_ratio: float
    job_s: float
    stages_s: dict[str, float]

    def sentence(self) -> str:
        """What a person reads."""
        parts = " + ".join(f"{name} {seconds:.2f}" for name, seconds in self.stages_s.items())
        what = "with every payload verified" if self.verify == "all" else "without verification"
        return (
            f"The job {what} takes {self.job_s:.2f} s, its bare stages {sum(self.stages_s.values()):.2f} s ({parts}): "
            f"{self.ratio:.3f} times as long, {self.cpu_ratio:.3f} times the processor's time."
        )


@dataclass(frozen=True)
class Scaling:
    """How much faster two actors are than one, each with a core of its own: the median of the rounds' ratios.

    `one_mb_s`, `two_mb_s`: raw megabytes a second, from when every actor is at work to the last commit.
    """

    ratio: float
    one_mb_s: float
    two_mb_s: float

    def sentence(self) -> str:
        """What a person reads."""
        return (
            f"Two actors on two cores make {self.two_mb_s:.1f} MB/s, one on one core {self.one_mb_s:.1f} MB/s: "
            f"{self.ratio:.2f} times as much."
        )


@dataclass(frozen=True)
class Overhead:
    """What was measured; `images` and their bytes are those of one job."""

    images: int
    source_bytes: int
    raw_bytes: int
    threads: int
    rounds: int
    comparisons: list[Comparison]
    scaling: Scaling | None = None

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return asdict(self)


@dataclass
class _Bare:
    """Seconds of the bare stages, by wall clock and of the processor."""

    wall: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    cpu: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall[stage] += time.perf_counter() - wall
        self.cpu[stage] += time.process_time() - cpu


class Watch:
    """A Reporter that notes when shards were committed: seconds, shards and raw bytes so far."""

    def __init__(self) -> None:
        self.commits: list[tuple[float, int, int]] = []

    def show(self, snapshot: Snapshot) -> None:
        """Called whenever something has changed."""
        shards = snapshot.made.shards
        if shards and (not self.commits or shards > self.commits[-1][1]):
            self.commits.append((time.perf_counter(), shards, snapshot.made.raw_bytes))

    def say(self, sentence: str) -> None:
        """Called with what a person should know: here, that the measurement is of no use."""
        raise JobError(f"The measurement was disturbed: {sentence}")

    def mb_s(self, workers: int) -> float:
        """Raw megabytes a second from the commit of shard number `workers` to the last."""
        begin = next((commit for commit in self.commits if commit[1] >= workers), None)
        if begin is None or self.commits[-1][1] - begin[1] < 2 * workers:
            raise UsageError(
                f"{len(self.commits)} shards are too few to compare actors by. Name more images, or a smaller "
                "--shard-size."
            )
        end = self.commits[-1]
        return (end[2] - begin[2]) / 1e6 / (end[0] - begin[0])


def measure_overhead(
    source: str, profile: str, threads: int, rounds: int, shard_size: int, *, actors: bool, say: Say
) -> Overhead:
    """Measure on the image files of a local folder. Temporary data sets are made beside it in `tempfile`'s folder.

    `actors`: also compare two Ray actors with one. Raises UsageError where the folder has no image, or too few, and
    what a job raises.
    """
    files = list(expand(source))
    if not files:
        raise UsageError(f"{source}: no image was found there. Name a folder with image files.")
    codec = open_codec(profile, "cpu", threads)
    decoder = Decoder("cpu", threads, lambda _: codec.model_bytes)
    settings = JobSettings(
        sources=(source,),
        destination=tempfile.gettempdir(),
        profile=profile,
        device="cpu",
        threads=threads,
        workers=0,
        shard_size=shard_size,
    )
    # Kernels are made at their first use.
    decoder.decode(codec.encode([np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)]))
    say(f"{len(files):,} images, {threads} threads")
    bares, jobs = list[_Bare](), dict[str, list[tuple[float, float]]]({"none": [], "all": []})
    raw_bytes = 0
    for number in range(rounds):
        raw_bytes, bare = _bare_stages(files, codec, decoder, threads)
        bares.append(bare)
        for verify, found in jobs.items():
            found.append(_timed_job(replace(settings, verify=verify)))  # type: ignore[arg-type]
        say(f"round {number + 1} of {rounds} is done")
    return Overhead(
        images=len(files),
        source_bytes=sum(file.size for file in files),
        raw_bytes=raw_bytes,
        threads=threads,
        rounds=rounds,
        comparisons=[_compare(verify, bares, found) for verify, found in jobs.items()],
        scaling=_scaling(replace(settings, threads=1), rounds, say) if actors else None,
    )


def _bare_stages(files: Sequence[SourceFile], codec: Codec, decoder: Decoder, threads: int) -> tuple[int, _Bare]:
    """Each stage alone on all `threads`, over the images in chunks; returns the bytes of all pixels as well."""
    bare, raw_bytes = _Bare(), 0
    with ThreadPoolExecutor(threads) as pool:
        for chunk in _chunks(files):
            with bare.measure("read"):
                data = list(pool.map(SourceFile.read, chunk))
            with bare.measure("decode"):
                arrays = list(pool.map(_decode, data))
            raw_bytes += sum(array.nbytes for array in arrays)
            taken = [array for array in arrays if codec.refuses(array) is None]
            payloads: list[bytes] = []
            with bare.measure("code"):
                for batch in _batches(taken):
                    payloads += codec.encode(batch)
            with bare.measure("verify"):
                decoder.decode(payloads)
    return raw_bytes, bare


def _decode(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)))


def _chunks(files: Sequence[SourceFile]) -> Iterator[list[SourceFile]]:
    chunk, size = list[SourceFile](), 0
    for file in files:
        chunk.append(file)
        size += file.size
        if size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _batches(arrays: Sequence[Pixels]) -> Iterator[list[Pixels]]:
    """Batches as large as those of a job."""
    batch, pixels = list[Pixels](), 0
    for array in arrays:
        here = array.shape[0] * array.shape[1]
        if batch and (pixels + here > DEFAULT_BATCH_PIXELS or len(batch) == MAX_BATCH_IMAGES):
            yield batch
            batch, pixels = [], 0
        batch.append(array)
        pixels += here
    if batch:
        yield batch


def _timed_job(settings: JobSettings, watch: Watch | None = None) -> tuple[float, float]:
    """Seconds of a job on a destination of its own, by wall clock and of this process."""
    folder = tempfile.mkdtemp(prefix="pilc-overhead-")
    try:
        wall, cpu = time.perf_counter(), time.process_time()
        run_job(replace(settings, destination=str(Path(folder) / "dataset")), watch or Watch())
        return time.perf_counter() - wall, time.process_time() - cpu
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _compare(verify: str, bares: Sequence[_Bare], jobs: Sequence[tuple[float, float]]) -> Comparison:
    stages = [name for name in STAGES if name != "verify" or verify == "all"]
    walls = [sum(bare.wall[name] for name in stages) for bare in bares]
    cpus = [sum(bare.cpu[name] for name in stages) for bare in bares]
    return Comparison(
        verify=verify,
        ratio=median(job[0] / wall for job, wall in zip(jobs, walls, strict=True)),
        cpu_ratio=median(job[1] / cpu for job, cpu in zip(jobs, cpus, strict=True)),
        job_s=median(job[0] for job in jobs),
        stages_s={name: median(bare.wall[name] for bare in bares) for name in stages},
    )


def _scaling(settings: JobSettings, rounds: int, say: Say) -> Scaling:
    ratios, rates = list[float](), list[tuple[float, float]]()
    for number in range(rounds):
        one, two = (_actors_mb_s(settings, workers) for workers in (1, 2))
        rates.append((one, two))
        ratios.append(two / one)
        say(f"actors: round {number + 1} of {rounds} is done")
    return Scaling(median(ratios), median(one for one, _ in rates), median(two for _, two in rates))


def _actors_mb_s(settings: JobSettings, workers: int) -> float:
    watch = Watch()
    with _cores(workers):
        _timed_job(replace(settings, workers=workers), watch)
    return watch.mb_s(workers)


@contextmanager
def _cores(count: int) -> Iterator[None]:
    """So many cores, where the system can say so: what is started in the block, Ray and its actors, has no others."""
    if usable_cpus() < count:
        raise UsageError(f"{count} actors want {count} cores, and there are {usable_cpus()}. Leave --actors out.")
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError("This system does not keep a process to some cores. Leave --actors out.")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, before)

"""What a compression job is told: one field per flag of `pilc compress`, checked when the object is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from pilc_stream.errors import UsageError
from pilc_stream.images import DEFAULT_MAX_PIXELS, DEFAULT_MAX_STREAMED_PIXELS, Keep
from pilc_stream.pipeline.plan import DEFAULT_SHARD_BYTES
from pilc_stream.pipeline.sources import AUTO, KINDS

Device = Literal["auto", "cpu", "cuda", "reference"]
OnExisting = Literal["resume", "fail", "overwrite"]
Verify = Literal["all", "sample", "none"]

DEFAULT_PROFILE = "fast"


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """A job. UsageError, in a sentence, where a value is impossible.

    `sources`: folders, globs and files, local or fsspec URLs; `destination`: the data set's folder or URL.
    `source_kind`: what the sources are, a name of `pipeline.sources` or "auto"; `image_column`: where images or their
    URLs are, for sources that have columns; None finds out.
    `profile`: a shipped profile; `model_path`: a model file instead of one.
    `quality` (1 to 100) or `psnr` (dB): what a lossy profile is asked for; a lossless one takes neither.
    `device`: where each worker codes. `threads`: CPU threads of each worker; None shares the machine's cores out.
    `workers`: Ray actors; 0 works in this process without Ray; None decides (see `workers.placement`).
    `gpus_per_worker`: GPUs that Ray must have for each worker, which an autoscaling cluster may have yet to start; None
    shares out those that are there.
    `ray_address`: a running cluster; None starts a local Ray and stops it at the end.
    `shard_size`: source bytes per shard at most. `limit`: take only the first images of the listing.
    `on_existing`: what to do where the destination holds a data set: go on with it if it is the same job, refuse, or
    delete it first. `retry_failed`: also redo the committed shards that hold records that failed.
    `verify`: which payloads are decoded again and compared before they are written.
    `max_pixels`: larger images are coded from bands of rows where their format allows that, up to
    `max_streamed_pixels`; others count as undecodable. `keep`: what of a file comes along with its pixels.
    `storage_options`: for sources and destination.
    """

    sources: tuple[str, ...]
    destination: str
    source_kind: str = AUTO
    image_column: str | None = None
    profile: str = DEFAULT_PROFILE
    model_path: str | None = None
    quality: int | None = None
    psnr: float | None = None
    device: Device = "auto"
    threads: int | None = None
    workers: int | None = None
    gpus_per_worker: float | None = None
    ray_address: str | None = None
    shard_size: int = DEFAULT_SHARD_BYTES
    on_existing: OnExisting = "resume"
    retry_failed: bool = False
    verify: Verify = "all"
    limit: int | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    max_streamed_pixels: int = DEFAULT_MAX_STREAMED_PIXELS
    keep: Keep = "display"
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.sources or not all(self.sources):
            raise UsageError("No source was given: name at least one folder, glob or image file to compress.")
        if not self.destination:
            raise UsageError("No destination was given: name the folder or URL that the data set is to be written to.")
        for name, choices in (("device", Device), ("on_existing", OnExisting), ("verify", Verify), ("keep", Keep)):
            if getattr(self, name) not in get_args(choices):
                raise UsageError(
                    f"{_flag(name)}: {getattr(self, name)!r} is unknown; choose one of {', '.join(get_args(choices))}."
                )
        if self.source_kind not in (AUTO, *KINDS):
            kinds = ", ".join((AUTO, *KINDS))
            raise UsageError(f"--source-kind: {self.source_kind!r} is unknown; choose one of {kinds}.")
        for name in ("shard_size", "max_pixels", "limit", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{_flag(name)}: {value} is not possible; give at least 1.")
        if self.max_streamed_pixels < 0:
            raise UsageError(
                f"--max-streamed-pixels: {self.max_streamed_pixels} is not possible; give 0 to stream none, or more."
            )
        if self.workers is not None and self.workers < 0:
            raise UsageError(f"--workers: {self.workers} is not possible; give 0 to work without Ray, or more.")
        if self.gpus_per_worker is not None:
            self._check_gpus(self.gpus_per_worker)
        if self.workers == 0 and self.ray_address:
            raise UsageError(
                f"--workers 0 works in this process without Ray, but --ray-address names the cluster "
                f"{self.ray_address}; leave one of them out."
            )
        if self.retry_failed and self.on_existing != "resume":
            raise UsageError(
                f"--retry-failed goes on with the job that is there, which --on-existing {self.on_existing} excludes; "
                "leave one of them out."
            )

    def _check_gpus(self, gpus: float) -> None:
        # Ray counts GPUs in ten-thousandths, and whole ones above one.
        if not math.isfinite(gpus) or gpus < 0.0001 or (gpus > 1 and gpus != int(gpus)):
            raise UsageError(
                f"--gpus-per-worker: {gpus:g} is not possible; give a whole number, or a fraction of one GPU."
            )
        if self.workers == 0 or self.device in ("cpu", "reference"):
            other = "--workers 0" if self.workers == 0 else f"--device {self.device}"
            raise UsageError(f"--gpus-per-worker asks Ray for GPUs, which {other} excludes; leave one of them out.")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")

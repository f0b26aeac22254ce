"""How long a job will take on a given cluster, and what holds it up: from a listing and a sample measured here.

The model: reading, decoding, coding and writing overlap, as they do in a worker, so the job takes as long as the
busiest of network, cores and GPUs. What it leaves out: starting up, the last shards when some workers are idle, and
storage that is slower than the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Final

from pilc_stream.codecs import Codec, Decoder
from pilc_stream.errors import UsageError
from pilc_stream.pipeline.coding import Coder, Verify
from pilc_stream.pipeline.loading import LoadLimits, load_batches
from pilc_stream.pipeline.sources import Part

SAMPLE_IMAGES: Final = 64
_PARTS_LOOKED_AT: Final = 32


@dataclass(frozen=True, slots=True)
class Measured:
    """A sample: its `images`, their bytes before and after, and the seconds that one thread took for each stage.

    `on_gpu`: whether `code_s`, verification included, is of a GPU rather than of a core.
    """

    images: int
    source_bytes: int
    raw_bytes: int
    payload_bytes: int
    decode_s: float
    code_s: float
    on_gpu: bool


@dataclass(frozen=True, slots=True)
class Cluster:
    """What there will be: `gpus` and `cores` in all, `network_gbps` to and from storage, both ways together.

    `gpu_mb_s`: raw megabytes a second of one GPU, None where the sample was measured on one.
    """

    cores: int
    gpus: int = 0
    network_gbps: float = 10.0
    gpu_mb_s: float | None = None

    def __post_init__(self) -> None:
        if self.cores < 1 or self.gpus < 0 or self.network_gbps <= 0 or (self.gpu_mb_s or 1) <= 0:
            raise UsageError(
                f"A cluster of {self.cores} cores, {self.gpus} GPUs and {self.network_gbps} Gbit/s cannot work: give "
                "at least one core and a network."
            )


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a job will come to. `busy_s`: how long each resource is at work; the longest is `seconds`."""

    seconds: float
    bottleneck: str
    busy_s: dict[str, float]
    source_bytes: int
    raw_bytes: int
    stored_bytes: int

    @property
    def saved_bytes(self) -> int:
        """What storage holds less afterwards, the sources being deleted."""
        return self.source_bytes - self.stored_bytes

    def to_json(self) -> dict[str, Any]:
        """The forecast as JSON values."""
        return {**asdict(self), "saved_bytes": self.saved_bytes}


def forecast(source_bytes: int, sample: Measured, cluster: Cluster) -> Forecast:
    """Scale a sample up to `source_bytes`. Raises UsageError where the sample cannot tell how fast a GPU is."""
    if not sample.source_bytes:
        raise UsageError("The sample has no bytes, so nothing follows from it. Check the source.")
    factor = source_bytes / sample.source_bytes
    stored = round(factor * sample.payload_bytes)
    raw = round(factor * sample.raw_bytes)
    core_s = factor * sample.decode_s
    busy = {"network": (source_bytes + stored) * 8 / (cluster.network_gbps * 1e9)}
    if not cluster.gpus:
        if sample.on_gpu:
            raise UsageError(
                "The sample was measured on a GPU, so it does not tell how fast cores are. Use --device cpu."
            )
        core_s += factor * sample.code_s
    elif cluster.gpu_mb_s is not None:
        busy["GPUs"] = raw / (cluster.gpu_mb_s * 1e6 * cluster.gpus)
    elif sample.on_gpu:
        busy["GPUs"] = factor * sample.code_s / cluster.gpus
    else:
        raise UsageError(
            "No GPU was measured here, so how fast yours are is not known. Run this where one is, or say it with "
            "--gpu-mb-per-second; `pilc bench` measures it."
        )
    busy["cores"] = core_s / cluster.cores
    bottleneck = max(busy, key=lambda resource: busy[resource])
    return Forecast(busy[bottleneck], bottleneck, busy, source_bytes, raw, stored)


def measure(parts: Sequence[Part], codec: Codec, decoder: Decoder, *, verify: Verify, on_gpu: bool) -> Measured:
    """Read, decode, code and verify `parts`, one thread for each stage, as a job would. Writes nothing."""
    limits = LoadLimits(1 << 22, 1 << 27, 32 << 20, read_threads=8, decode_threads=1)
    coder = Coder(codec, decoder, verify)
    images = source_bytes = raw_bytes = payload_bytes = 0
    with closing(load_batches(parts, limits, coder.statistics.times)) as batches:
        for batch in batches:
            for record in coder.code(batch):
                images += 1
                source_bytes += record.source_bytes
                raw_bytes += record.raw_bytes
                payload_bytes += len(record.payload)
            batch.clear()
    times = coder.statistics.times
    return Measured(images, source_bytes, raw_bytes, payload_bytes, times.decode, times.code + times.verify, on_gpu)


def spread(parts: Iterable[Part], count: int, images: int = SAMPLE_IMAGES) -> list[Part]:
    """Choose some of `count` parts, evenly spread, with about `images` images in all."""
    step = max(1, count // min(images, _PARTS_LOOKED_AT if count > images else count))
    chosen = list(islice(_every(parts, step), images))
    each = max(1, images // max(1, len(chosen)))
    return [part if part.images is None else part.head(min(each, part.images)) for part in chosen]


def _every(parts: Iterable[Part], step: int) -> Iterator[Part]:
    return (part for number, part in enumerate(parts) if number % step == 0)

"""What a shard's making is known by afterwards: counts by reason and where the time went."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

BITS_PER_STEP = 0.25
"""Width of the steps of bits per sub-pixel by which `ShardStatistics.bits` counts images."""

Progress = Callable[[int, int], None]
"""Called with the number of images, and of their decoded bytes, that were done since the last call."""


@dataclass(slots=True)
class StageTimes:
    """Seconds of work per stage, summed over threads: with several threads they add up to more than the clock shows.

    `read` waits for storage and looks at headers, `decode` decodes image files and digests, `code` runs the codec,
    `verify` decodes payloads again, `write` builds, puts and commits the shard.
    """

    read: float = 0.0
    decode: float = 0.0
    code: float = 0.0
    verify: float = 0.0
    write: float = 0.0

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the duration of the block to `stage`. For one thread; others hand their durations over."""
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, stage, getattr(self, stage) + time.perf_counter() - start)

    def add(self, other: StageTimes) -> None:
        """Add another shard's times."""
        for stage in fields(self):
            setattr(self, stage.name, getattr(self, stage.name) + getattr(other, stage.name))

    def to_json(self) -> dict[str, float]:
        """Stage to seconds, rounded to milliseconds."""
        return {stage.name: round(getattr(self, stage.name), 3) for stage in fields(self)}


@dataclass(slots=True)
class ShardStatistics:
    """Counts of one shard, or of several added up, beyond what a ShardEntry says.

    `codecs`: records per codec. `saved`: bytes that the payloads of a codec are smaller than their source files.
    `fallback`: why sound images were kept as they came, with the number of each reason.
    `failed`: records per stage that failed. `misfits`: what a source says of an image and no column could take.
    `verified`: payloads that were decoded again and found equal.
    `bits`: the coded images by their bits per sub-pixel, in steps of `BITS_PER_STEP` counted from 0.
    `lossy`, `psnr_sum`, `least_psnr`: records of a lossy codec, and dB of their PSNR (`least_psnr` None without any).
    `coded_source_bytes`, `coded_payload_bytes`, `coded_sub_pixels`: sums over the records that a codec coded.
    """

    codecs: Counter[str] = field(default_factory=Counter)
    saved: Counter[str] = field(default_factory=Counter)
    fallback: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    bits: Counter[int] = field(default_factory=Counter)
    misfits: int = 0
    verified: int = 0
    coded_source_bytes: int = 0
    coded_payload_bytes: int = 0
    coded_sub_pixels: int = 0
    lossy: int = 0
    psnr_sum: float = 0.0
    least_psnr: float | None = None
    times: StageTimes = field(default_factory=StageTimes)

    def add(self, other: ShardStatistics) -> None:
        """Add another shard's counts and times, for the totals of a job."""
        self.codecs += other.codecs
        self.saved += other.saved
        self.fallback += other.fallback
        self.failed += other.failed
        self.bits += other.bits
        self.misfits += other.misfits
        self.verified += other.verified
        self.coded_source_bytes += other.coded_source_bytes
        self.coded_payload_bytes += other.coded_payload_bytes
        self.coded_sub_pixels += other.coded_sub_pixels
        self.lossy += other.lossy
        self.psnr_sum += other.psnr_sum
        both = [each for each in (self.least_psnr, other.least_psnr) if each is not None]
        self.least_psnr = min(both, default=None)
        self.times.add(other.times)

    def saw_psnr(self, psnr: float) -> None:
        """Count a record of a lossy codec."""
        self.lossy += 1
        self.psnr_sum += psnr
        self.least_psnr = psnr if self.least_psnr is None else min(psnr, self.least_psnr)

    def fidelity(self) -> dict[str, float | int]:
        """Of the records of a lossy codec: how many, and the mean and the least PSNR in dB; empty without any."""
        if self.least_psnr is None:
            return {}
        mean = round(self.psnr_sum / self.lossy, 2)
        return {"images": self.lossy, "mean_psnr": mean, "least_psnr": round(self.least_psnr, 2)}

    def to_json(self) -> dict[str, Any]:
        """The counts as JSON values, names sorted; `lossy` only where a lossy codec coded some."""
        return {
            "codecs": _sorted(self.codecs),
            "saved": _sorted(self.saved),
            "fallback": _sorted(self.fallback),
            "failed": _sorted(self.failed),
            "bits": {str(step): count for step, count in sorted(self.bits.items())},
            "misfits": self.misfits,
            "verified": self.verified,
            "coded_source_bytes": self.coded_source_bytes,
            "coded_payload_bytes": self.coded_payload_bytes,
            "coded_sub_pixels": self.coded_sub_pixels,
            "seconds": self.times.to_json(),
            **({"lossy": self.fidelity()} if self.lossy else {}),
        }


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))

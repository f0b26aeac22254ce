"""What a finished job has to say, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pilc_stream.pipeline.statistics import ShardStatistics
from pilc_stream.records.record import RecordError
from workers.progress import Totals

FAILURES_KEPT = 20
"""Records that failed and are named in a report; the whole list lies in the data set."""


@dataclass(frozen=True)
class JobReport:
    """A finished data set and the run that finished it.

    `totals`: sums over all shards; `made`: over those that this run made; `skipped_shards`: those that were there.
    `statistics`: of the shards that this run made; its seconds are summed over threads and workers.
    `failures`: the first of the `totals.failed` records that failed; `errors_url`: the folder where all are listed.
    `workers`: Ray actors that worked, 0 for a run in this process; `seconds`: wall time of this run.
    """

    destination: str
    profile: str
    codec: str
    model_sha256: str
    totals: Totals
    made: Totals
    skipped_shards: int
    statistics: ShardStatistics
    failures: tuple[RecordError, ...]
    errors_url: str
    workers: int
    seconds: float

    @property
    def coded_bpsp(self) -> float | None:
        """`Totals.bpsp` of the records that a codec coded in this run, without those kept as they came."""
        sub_pixels = self.statistics.coded_sub_pixels
        return 8 * self.statistics.coded_payload_bytes / sub_pixels if sub_pixels else None

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values. Counts and bytes are of the whole data set unless named otherwise.

        `bpsp`: see `Totals.bpsp`; `ratio`: pixels over payloads; `source_ratio`: sources over payloads;
        `stored_bytes`: the shard files. `run`: what this run did, with rates; `run.coded`: the records that its codec
        coded.
        """
        totals, made, statistics = self.totals, self.made, self.statistics
        return {
            "destination": self.destination,
            "profile": self.profile,
            "codec": self.codec,
            "model_sha256": self.model_sha256,
            "images": totals.images,
            "failed": totals.failed,
            "fallback": totals.fallback,
            "shards": totals.shards,
            "skipped_shards": self.skipped_shards,
            "raw_bytes": totals.raw_bytes,
            "source_bytes": totals.source_bytes,
            "payload_bytes": totals.payload_bytes,
            "stored_bytes": totals.shard_bytes,
            "sub_pixels": totals.sub_pixels,
            "bpsp": _rounded(totals.bpsp),
            "ratio": _ratio(totals.raw_bytes, totals.payload_bytes),
            "source_ratio": _ratio(totals.source_bytes, totals.payload_bytes),
            "seconds": round(self.seconds, 3),
            "stage_seconds": statistics.times.to_json(),
            "workers": self.workers,
            "run": {
                "shards": made.shards,
                "images": made.images,
                "images_per_second": _ratio(made.images, self.seconds),
                "raw_bytes_per_second": round(made.raw_bytes / self.seconds) if self.seconds else None,
                "verified": statistics.verified,
                "codecs": dict(sorted(statistics.codecs.items())),
                "fallback_reasons": dict(sorted(statistics.fallback.items())),
                "saved_bytes": dict(sorted(statistics.saved.items())),
                **({"lossy": statistics.fidelity()} if statistics.lossy else {}),
                "coded": {
                    "source_bytes": statistics.coded_source_bytes,
                    "payload_bytes": statistics.coded_payload_bytes,
                    "sub_pixels": statistics.coded_sub_pixels,
                    "bpsp": _rounded(self.coded_bpsp),
                },
            },
            "failures": [asdict(failure) for failure in self.failures],
            "errors": self.errors_url,
        }


def _ratio(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)

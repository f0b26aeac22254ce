"""What Ray's own monitoring (Prometheus, Grafana, the dashboard) sees of a worker: counts that only grow."""

from __future__ import annotations

from typing import Any

from ray.util import metrics

from pilc_stream.pipeline.compress import ShardResult

PREFIX = "pilc_"


class Gauges:
    """The metrics of one actor."""

    def __init__(self) -> None:
        self._images = _counter("images", "Images in committed shards.")
        self._raw_bytes = _counter("raw_bytes", "Decoded pixels of committed shards, in bytes.")
        self._source_bytes = _counter("source_bytes", "Source files of committed shards, in bytes.")
        self._payload_bytes = _counter("payload_bytes", "Payloads of committed shards, in bytes.")
        self._shards = _counter("shards", "Committed shards.")
        self._shards_failed = _counter("shard_failures", "Attempts at a shard that failed.")
        self._seconds = _counter("stage_seconds", "Seconds of work by stage, summed over threads.", "stage")
        self._fallbacks = _counter("fallbacks", "Sound images kept as they came, by reason.", "reason")
        self._failures = _counter("failures", "Images that could not be read, decoded or coded, by stage.", "stage")

    def made(self, result: ShardResult) -> None:
        """Count a shard; one that was committed before is no work of this actor."""
        entry, statistics = result.entry, result.statistics
        if statistics is None:
            return
        self._shards.inc(1)
        for counter, value in (
            (self._images, entry.rows),
            (self._raw_bytes, entry.raw_bytes),
            (self._source_bytes, entry.source_bytes),
            (self._payload_bytes, entry.payload_bytes),
        ):
            _add(counter, value)
        for stage, seconds in statistics.times.to_json().items():
            _add(self._seconds, seconds, stage=stage)
        for reason, count in statistics.fallback.items():
            _add(self._fallbacks, count, reason=reason)
        for stage, count in statistics.failed.items():
            _add(self._failures, count, stage=stage)

    def failed(self) -> None:
        """Count an attempt at a shard that failed."""
        self._shards_failed.inc(1)


def _counter(name: str, description: str, *tags: str) -> Any:
    return metrics.Counter(PREFIX + name, description=description, tag_keys=tags)


def _add(counter: Any, value: float, **tags: str) -> None:
    # Ray refuses to add nothing.
    if value > 0:
        counter.inc(value, tags=tags)

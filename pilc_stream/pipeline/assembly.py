"""A shard being put together by a thread of its own, from the first records on, while the next ones are coded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import pyarrow as pa

from pilc_stream.pipeline.statistics import StageTimes
from pilc_stream.records.build import BuiltShard, ShardBuilder
from pilc_stream.records.record import SOURCE_CODEC, Record


class Assembly:
    """Takes records in their order and counts them. A context: its thread ends with it.

    `rows`: records so far; `sources` those kept as they came; `raw_bytes`, `source_bytes`, `payload_bytes` their sums;
    `sub_pixels`: samples of those whose pixels are known, whatever codec they have.
    """

    def __init__(self, columns: pa.Schema | None, times: StageTimes) -> None:
        """`columns` as for `records.build.ShardBuilder`; `times.write` is added to."""
        self._builder = ShardBuilder(columns)
        self._times = times
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pilc-build")
        self._running: list[Future[float]] = []
        self.rows = self.sources = 0
        self.raw_bytes = self.source_bytes = self.payload_bytes = self.sub_pixels = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def add(self, records: Sequence[Record]) -> None:
        """Add records; returns at once. What is wrong with them is raised by a later call."""
        self.rows += len(records)
        for record in records:
            self.sources += record.codec == SOURCE_CODEC
            self.raw_bytes += record.raw_bytes
            self.source_bytes += record.source_bytes
            self.payload_bytes += len(record.payload)
            if record.raw_bytes:
                self.sub_pixels += record.width * record.height * record.channels
        while self._running and self._running[0].done():
            self._settle()
        self._running.append(self._thread.submit(self._write, list(records)))

    def finish(self) -> BuiltShard:
        """The shard. Raises UsageError or FormatError as `records.build.build_shard` does."""
        while self._running:
            self._settle()
        with self._times.measure("write"):
            return self._builder.finish()

    def _settle(self) -> None:
        self._times.write += self._running.pop(0).result()

    def _write(self, records: Sequence[Record]) -> float:
        start = time.perf_counter()
        self._builder.add(records)
        return time.perf_counter() - start

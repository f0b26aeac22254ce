"""A shard put together beside the coding: the same shard, and its errors come to light."""

from __future__ import annotations

import threading

import pyarrow as pa
import pytest

from pilc_stream.errors import UsageError
from pilc_stream.pipeline.assembly import Assembly
from pilc_stream.pipeline.statistics import StageTimes
from pilc_stream.records.build import build_shard
from pilc_stream.records.record import SOURCE_CODEC, Record

NO_COLUMNS = pa.schema([])


def record(number: int, codec: str = "raw") -> Record:
    digest = bytes(32)
    raw_bytes = 0 if number == 3 else 18
    return Record(f"k{number}", bytes(number), codec, "", 3, 2, 3, 8, "RGB", raw_bytes, 20, digest, digest)


def test_it_counts_and_builds_the_same_shard() -> None:
    records = [record(number, SOURCE_CODEC if number < 4 else "raw") for number in range(10)]
    times = StageTimes()
    with Assembly(NO_COLUMNS, times) as assembly:
        for start in range(0, 10, 3):
            assembly.add(records[start : start + 3])
        built = assembly.finish()
    assert (built.file, built.ranges) == build_shard(records, NO_COLUMNS)
    assert (assembly.rows, assembly.sources) == (10, 4)
    assert (assembly.raw_bytes, assembly.source_bytes, assembly.payload_bytes) == (9 * 18, 200, 45)
    # The fourth has no pixels.
    assert assembly.sub_pixels == 9 * 18
    assert times.write > 0


def test_what_is_wrong_with_records_is_raised_later_and_leaves_no_thread() -> None:
    with Assembly(NO_COLUMNS, StageTimes()) as assembly:
        assembly.add([record(1), record(1)])
        with pytest.raises(UsageError, match="Two records of one shard have the key 'k1'"):
            assembly.finish()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("pilc-")] == []

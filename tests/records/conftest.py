from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pilc_stream.records.build import build_shard
from pilc_stream.records.commit import commit_shard, put_shard
from pilc_stream.records.record import Record, RecordError, ShardEntry
from pilc_stream.storage import Store


@pytest.fixture(scope="session")
def record() -> Callable[..., Record]:
    """A maker of records that differ in `key` and `payload`; every other field can be given by name."""

    def make(key: str, payload: bytes = b"payload", **fields: Any) -> Record:
        values = {
            "key": key,
            "payload": payload,
            "codec": "raw",
            "model": "",
            "width": 3,
            "height": 2,
            "channels": 3,
            "bit_depth": 8,
            "mode": "RGB",
            "raw_bytes": 18,
            "source_bytes": len(payload) + 7,
            "pixel_sha256": hashlib.sha256(key.encode()).digest(),
            "source_sha256": hashlib.sha256(payload).digest(),
        }
        return Record(**{**values, **fields})

    return make


@pytest.fixture(scope="session")
def commit() -> Callable[..., ShardEntry]:
    """Builds, puts and commits a shard of records; returns the entry that counts."""

    def make(store: Store, index: int, records: Sequence[Record], errors: Sequence[RecordError] = ()) -> ShardEntry:
        file, ranges = build_shard(records)
        path, sha256 = put_shard(store, index, file)
        entry = ShardEntry(
            index=index,
            path=path,
            sha256=sha256,
            shard_bytes=len(file),
            rows=len(records),
            failed=len(errors),
            fallback=0,
            raw_bytes=sum(r.raw_bytes for r in records),
            source_bytes=sum(r.source_bytes for r in records),
            payload_bytes=sum(len(r.payload) for r in records),
            sub_pixels=sum(r.width * r.height * r.channels for r in records),
            seconds=0.25,
        )
        return commit_shard(store, entry, ranges, errors)

    return make


@pytest.fixture
def store() -> Store:
    """An empty store of this test's own, in memory."""
    return Store.open(f"memory://{uuid.uuid4().hex}/ds")


@pytest.fixture(params=["memory", "local", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store.open(str(tmp_path / "ds"))
    if request.param == "memory":
        return Store.open(f"memory://{uuid.uuid4().hex}")
    server = request.getfixturevalue("s3_server")
    return Store.open(f"{request.getfixturevalue('s3_bucket')}/ds", server.options)

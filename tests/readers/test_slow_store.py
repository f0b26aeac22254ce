"""Reading from far away: a store of 100 ms latency and 50 MB/s, and one whose connections break."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_sets import make_set

from pilc_stream.errors import StorageError
from pilc_stream.readers.dataset import Dataset
from pilc_stream.readers.order import EpochOrder, Mixing
from pilc_stream.records.manifest import Manifest
from pilc_stream.storage import RetryPolicy, Store
from pilc_stream.storage.local import LocalDisk

LATENCY_S = 0.1
BYTES_PER_S = 50e6


class Line:
    """What all requests share: each takes its latency, then its turn on the line."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.free_at_s = 0.0

    def carry(self, some_bytes: int) -> None:
        with self.lock:
            self.free_at_s = max(self.free_at_s, time.monotonic() + LATENCY_S) + some_bytes / BYTES_PER_S
            wait_s = self.free_at_s - time.monotonic()
        time.sleep(wait_s)


class SlowStore(Store):
    """Answers one range after another, as file systems without asynchronous requests do."""

    def __init__(self, url: str, line: Line) -> None:
        super().__init__(url, {}, RetryPolicy())
        self.line = line

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        for _, length in ranges:
            self.line.carry(length)
        return super().read_ranges(path, ranges)

    def read_or_none(self, path: str) -> bytes | None:
        data = super().read_or_none(path)
        self.line.carry(len(data or b""))
        return data


def share_of_the_bandwidth(url: str, payload_bytes: int, shuffle: bool, passes: int) -> float:
    """What of the line is used, from opening on, with every setting at its default."""
    begin_s = time.monotonic()
    dataset = Dataset(Manifest.of(SlowStore(url, Line())))
    for epoch in range(passes):
        mixing = Mixing.for_payloads(dataset.mean_payload_bytes)
        order = EpochOrder(dataset.shard_rows, epoch=epoch, shuffle=shuffle, mixing=mixing)
        assert sum(1 for _ in dataset.stream(window.rows for window in order.windows())) == len(dataset)
    return passes * payload_bytes / (time.monotonic() - begin_s) / BYTES_PER_S


@pytest.mark.slow
@pytest.mark.parametrize("shuffle", [True, False])
def test_nine_tenths_of_the_bandwidth_are_used(tmp_path: Path, shuffle: bool) -> None:
    made = make_set(str(tmp_path / "set"), [60] * 4, shape=(512, 768, 3))
    payload_bytes = sum(shard.payload_bytes for shard in made.manifest.shards)
    # Whatever else the machine does makes the share smaller, never larger: one good run of some is enough.
    shares = (share_of_the_bandwidth(made.url, payload_bytes, shuffle, passes=3) for _ in range(4))
    assert any(share >= 0.9 for share in shares)


def test_broken_connections_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_set(str(tmp_path / "set"), [20, 20])
    calls = 0
    read_ranges = LocalDisk.read_ranges

    def flaky(disk: LocalDisk, path: str, ranges: Any) -> list[bytes]:
        nonlocal calls
        calls += 1
        if calls % 3:
            raise ConnectionResetError("peer went away")
        return read_ranges(disk, path, ranges)

    monkeypatch.setattr(LocalDisk, "read_ranges", flaky)
    waits: list[float] = []
    store = Store(made.url, {}, RetryPolicy(sleep=waits.append))
    for sample, image in zip(Dataset(Manifest.of(store)), made.images, strict=True):
        assert np.array_equal(sample.pixels, image)
    assert waits

    def broken(*_: Any) -> list[bytes]:
        raise ConnectionResetError("peer went away")

    monkeypatch.setattr(LocalDisk, "read_ranges", broken)
    dataset = Dataset(Manifest.of(store))
    with pytest.raises(StorageError, match=r"part-000000.*after 4 attempts: the connection or the service failed"):
        dataset[3]
    # Storage that fails is no matter of a sample: it ends the pass whatever on_error says.
    with pytest.raises(StorageError, match="after 4 attempts"):
        list(Dataset(Manifest.of(store), on_error="skip"))

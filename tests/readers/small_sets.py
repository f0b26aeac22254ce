"""Small data sets, of codec `raw` unless told otherwise, and a store that counts its reads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pilc_stream.codecs import Codec, open_codec
from pilc_stream.images import pixel_sha256
from pilc_stream.records.build import build_shard
from pilc_stream.records.commit import commit_shard, create_job, put_model, put_shard
from pilc_stream.records.manifest import Manifest, finish
from pilc_stream.records.record import SOURCE_CODEC, Record, ShardEntry
from pilc_stream.storage import RetryPolicy, Store

ZERO_DIGEST = bytes(32)


class CountingStore(Store):
    """Remembers every ranged read as `(path, offset, length)`."""

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(url, options or {}, RetryPolicy())
        self.reads: list[tuple[str, int, int]] = []

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self.reads += [(path, offset, length) for offset, length in ranges]
        return super().read_ranges(path, ranges)


@dataclass(frozen=True)
class Made:
    """A data set and what was put in: images in row order (empty for a kept file) and the records."""

    url: str
    images: list[np.ndarray]
    records: list[Record]
    manifest: Manifest

    @property
    def path(self) -> Path:
        return Path(self.url)

    def damage(self, row: int, at: int = -1) -> None:
        """Flip a bit of byte `at` in the payload of `row`."""
        starts = np.cumsum([0, *(shard.rows for shard in self.manifest.shards)])
        shard = int(np.searchsorted(starts, row, side="right")) - 1
        offset, length = self.manifest.byte_range(shard, row - int(starts[shard]))
        self.flip(self.path / self.manifest.shards[shard].path, offset + at % length)

    @staticmethod
    def flip(path: Path, at: int) -> None:
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)


def image_of(row: int, shape: tuple[int, ...] | None = None, levels: int = 256) -> np.ndarray:
    """The image of a row: noise of so many levels that tells the row, of a shape of its own."""
    random = np.random.default_rng(row)
    shape = (3 + row % 4, 2 + row % 3, 3) if shape is None else shape
    return random.integers(0, levels, shape, np.uint8)


def coded_record(codec: Codec, key: str, image: np.ndarray, columns: Mapping[str, Any]) -> Record:
    [payload] = codec.encode([image])
    height, width, channels = image.shape if image.ndim == 3 else (*image.shape, 1)
    mode = "L" if channels == 1 else "RGB"
    digests = pixel_sha256(image), hashlib.sha256(key.encode()).digest()
    sizes = image.nbytes, 2 * image.nbytes
    names = codec.name, codec.model_sha256
    return Record(key, payload, *names, width, height, channels, 8, mode, *sizes, *digests, dict(columns))


def kept_record(key: str, data: bytes, columns: Mapping[str, Any]) -> Record:
    digests = ZERO_DIGEST, hashlib.sha256(data).digest()
    return Record(key, data, SOURCE_CODEC, "", 0, 0, 0, 0, "", 0, len(data), *digests, dict(columns))


def write_shard(store: Store, index: int, records: Sequence[Record]) -> ShardEntry:
    data, ranges = build_shard(records)
    path, digest = put_shard(store, index, data)
    kept = sum(record.codec == SOURCE_CODEC for record in records)
    payload_bytes = sum(len(record.payload) for record in records)
    raw_bytes, source_bytes = (sum(getattr(r, name) for r in records) for name in ("raw_bytes", "source_bytes"))
    counts = len(records), 0, kept, raw_bytes, source_bytes, payload_bytes, raw_bytes
    return commit_shard(store, ShardEntry(index, path, digest, len(data), *counts, seconds=0.0), ranges)


MakeDataset = Callable[..., Made]


def make_set(
    url: str,
    sizes: Sequence[int],
    kept: Mapping[int, bytes] | None = None,
    shape: tuple[int, ...] | None = None,
    done: bool = True,
    profile: str = "raw",
    options: Mapping[str, Any] | None = None,
    levels: int = 256,
) -> Made:
    """Shards of these sizes; row r has key "class-K/image-R.png" and label K = r % 3. `kept`: files kept by row."""
    store = CountingStore(url, options)
    codec = open_codec(profile, device="cpu")
    if codec.model_bytes:
        put_model(store, codec.model_bytes)
    create_job(store, {"purpose": "test"})
    records: list[Record] = []
    images: list[np.ndarray] = []
    for index, size in enumerate(sizes):
        first = len(records)
        for row in range(first, first + size):
            key, columns = f"class-{row % 3}/image-{row:05}.png", {"label": row % 3, "name": f"name {row}"}
            if kept and row in kept:
                images.append(np.empty(0, np.uint8))
                records.append(kept_record(key, kept[row], columns))
            else:
                image = image_of(row, shape, levels)
                images.append(image)
                records.append(coded_record(codec, key, image, columns))
        write_shard(store, index, records[first:])
    manifest = finish(store) if done else Manifest.of(store, allow_partial=True)
    return Made(url, images, records, manifest)

"""Shards made of small files, and what must be true of each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pilc_stream.codecs import Codec, Decoder, open_codec
from pilc_stream.images import decode_image
from pilc_stream.pipeline.compress import ShardResult
from pilc_stream.pipeline.plan import ShardTask, plan_shards
from pilc_stream.records.commit import read_commit
from pilc_stream.records.record import SOURCE_CODEC
from pilc_stream.records.shard import read_table
from pilc_stream.storage import Store, expand

Rows = list[dict[str, Any]]


class Raw:
    """The codec `raw`, with a chance to misbehave: a subclass overrides one method."""

    name = "raw"
    profile = "raw"
    model_sha256 = ""
    model_bytes = b""

    def __init__(self) -> None:
        self.raw: Codec = open_codec("raw")

    def refuses(self, image: Any) -> str | None:
        return None

    def encode(self, images: Sequence[Any], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
        return self.raw.encode(images, extras)


def task_of(folder: Path) -> ShardTask:
    (task,) = plan_shards(expand([str(folder)]), 1 << 30)
    return task


def rows_of(store: Store, result: ShardResult) -> Rows:
    file = store.read(result.entry.path)
    assert hashlib.sha256(file).hexdigest() == result.entry.sha256
    table = read_table(file, "test")
    rows: Rows = table.to_pylist()
    ranges = read_commit(store, result.entry.index).ranges
    for row, (offset, length) in zip(rows, ranges.tolist(), strict=True):
        row["payload"] = row.pop("image")["bytes"]
        assert file[offset : offset + length] == row["payload"]
    return rows


def assert_sound(rows: Rows, folder: Path) -> None:
    """Every record holds its source, exactly, and no more bytes than it."""
    decoder = Decoder()
    for row in rows:
        source = (folder / row["key"]).read_bytes()
        assert row["source_bytes"] == len(source)
        assert row["source_sha256"] == hashlib.sha256(source).digest()
        assert len(row["payload"]) <= len(source), "law 4: never larger"
        if row["codec"] == SOURCE_CODEC:
            assert row["payload"] == source
        else:
            (pixels,) = decoder.decode([row["payload"]])
            wanted = decode_image(source)
            np.testing.assert_array_equal(pixels, wanted.array)
            assert decoder.extras(row["payload"]) == wanted.extras
            assert row["mode"] == wanted.mode

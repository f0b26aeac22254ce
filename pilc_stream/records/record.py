"""The words between pipeline, shards and readers: one record, one committed shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SOURCE_CODEC = "source"
"""`codec` of a record whose payload is the source file's own bytes, kept as they came."""

LOSSY_CODECS = frozenset(("lossy",))
"""Codecs whose pixels are not those of the source."""


@dataclass(frozen=True, slots=True)
class Record:
    """One image as a shard stores it: the payload and what the other columns say of it.

    `codec` is "wave", "raw" or "source"; `model` is the sha256 (hex) of the model file, "" where none is needed.
    `raw_bytes` is the size of the decoded pixels in memory, 0 where the source could not be decoded.
    `pixel_sha256` is the digest of the pixels as C-ordered little-endian bytes, 32 zero bytes where there are none.
    Of a lossy codec these are the pixels before they were coded: what comes back has another digest.
    """

    key: str
    payload: bytes
    codec: str
    model: str
    width: int
    height: int
    channels: int
    bit_depth: int
    mode: str
    raw_bytes: int
    source_bytes: int
    pixel_sha256: bytes
    source_sha256: bytes
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RecordError:
    """One line of an errors file: a record that was kept as it came although it should have been compressed."""

    key: str
    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One committed shard: what its commit file holds, without the byte ranges.

    `failed` counts the records that could not be read or decoded (each has a line in the errors file),
    `fallback` those kept as they came because nothing was smaller or the codec does not take them.
    """

    index: int
    path: str
    sha256: str
    shard_bytes: int
    rows: int
    failed: int
    fallback: int
    raw_bytes: int
    source_bytes: int
    payload_bytes: int
    sub_pixels: int
    seconds: float

"""Whether a data set is what its commits say: every byte read, every payload decoded, every digest compared.

Nothing stops at the first fault: a user who must repair a data set wants the whole list. One shard file is in memory
at a time, with a batch of pixels.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pilc_stream.codecs import Decoder
from pilc_stream.errors import FormatError, PilcError, StorageError, UsageError
from pilc_stream.images.metadata import unpack_extras
from pilc_stream.pipeline.keys import digest, doubled
from pilc_stream.pipeline.large import is_large, row_fault
from pilc_stream.pipeline.reading import (
    BATCH_RAW_BYTES,
    COLUMNS,
    Finding,
    Row,
    batches,
    decode_each,
    decoder_for,
    header_fault,
    payload_weight,
    pixel_fault,
    rows_of,
    source_fault,
)
from pilc_stream.pipeline.statistics import Progress
from pilc_stream.records.manifest import Manifest
from pilc_stream.records.pages import locate_payloads
from pilc_stream.records.record import SOURCE_CODEC, ShardEntry


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What verification found.

    `images`: records looked at; `decoded`: those whose pixels were decoded and compared; `failed`: all findings,
    in the order of the shards; `raw_bytes`: pixels decoded; `seconds`: wall time.
    """

    shards: int
    images: int
    decoded: int
    raw_bytes: int
    failed: tuple[Finding, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.failed

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; `failed` becomes the number, `findings` the list."""
        return {
            "shards": self.shards,
            "images": self.images,
            "decoded": self.decoded,
            "raw_bytes": self.raw_bytes,
            "failed": len(self.failed),
            "findings": [asdict(finding) for finding in self.failed],
            "seconds": round(self.seconds, 3),
        }


def verify_dataset(
    manifest: Manifest,
    *,
    device: str = "auto",
    threads: int = 1,
    sample: int | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check every shard file, record and payload of a data set, and that no key is missing or doubled.

    Always: each file's SHA-256, the byte range of each payload, the counts of commit and job, the digests of sources
    that were kept. Of the coded images all are decoded (which checks their CRC) and compared with `pixel_sha256`, or
    with `sample` about one in so many, always the same ones.
    `device` and `threads` decode. Raises UsageError for a `sample` below 1, DeviceError where the device is missing;
    whatever is wrong with the data set, a file that cannot be read included, is a finding of the report.
    """
    if sample is not None and sample < 1:
        raise UsageError(f"sample: one in {sample} images is not possible; it must be at least 1")
    start = time.perf_counter()
    check = _Check(manifest, decoder_for(manifest, device, threads), sample, progress)
    for position in range(len(manifest.shards)):
        check.shard(position)
    check.whole()
    return VerifyReport(
        shards=len(manifest.shards),
        images=check.images,
        decoded=check.decoded,
        raw_bytes=check.raw_bytes,
        failed=tuple(check.findings),
        seconds=time.perf_counter() - start,
    )


class _Check:
    def __init__(self, manifest: Manifest, decoder: Decoder, sample: int | None, progress: Progress | None) -> None:
        self._manifest = manifest
        self._decoder = decoder
        self._sample = sample
        self._progress = progress
        self._unreadable: set[int] = set()
        # Keys that rise through all shards, as those of a compressed listing do, cannot be doubled.
        self._rising = True
        self._last_key: str | None = None
        self.findings: list[Finding] = []
        self.images = 0
        self.decoded = 0
        self.raw_bytes = 0

    def shard(self, position: int) -> None:
        """Check one shard file and its records."""
        entry = self._manifest.shards[position]
        before = len(self.findings)
        try:
            file = self._manifest.store.read(entry.path)
            self._file(entry, file)
            ranges = self._manifest.range_array(position)
            rows = list(rows_of(self._manifest.reader(position).columns(COLUMNS)))
        except (FormatError, StorageError) as error:
            self._unreadable.add(position)
            # A file that is not the committed one has been found already; that it cannot be read either adds nothing.
            if len(self.findings) == before:
                self._find(entry, "", str(error))
            return
        for row in rows:
            self._rising = self._rising and (self._last_key is None or row.key > self._last_key)
            self._last_key = row.key
        self._ranges(entry, file, ranges)
        self._counts(entry, rows, ranges)
        view = memoryview(file)
        for batch in batches(rows, payload_weight, BATCH_RAW_BYTES):
            spans = ranges[batch[0].position : batch[-1].position + 1].tolist()
            self._batch(entry, batch, [view[offset : offset + length] for offset, length in spans])

    def whole(self) -> None:
        """Check what only all shards together can tell: doubled keys, and images of the job that are nowhere."""
        if not self._rising:
            holders: dict[str, list[ShardEntry]] = {key: [] for key in sorted(doubled(self._keys))}
            for entry, keys in self._keys_by_shard():
                for key in keys:
                    if key in holders:
                        holders[key].append(entry)
            for key, entries in holders.items():
                places = ", ".join(entry.path for entry in entries)
                self._find(entries[-1], key, f"the key is there {len(entries)} times: {places}")
        expected = self._manifest.job.get("images")
        if self._manifest.finished and type(expected) is int and expected != self._manifest.rows:
            reason = f"the data set has {self._manifest.rows} images, its job had {expected}"
            self.findings.append(Finding("", "", reason))

    def _find(self, entry: ShardEntry, key: str, reason: str) -> None:
        self.findings.append(Finding(entry.path, key, reason))

    def _file(self, entry: ShardEntry, file: bytes) -> None:
        if len(file) != entry.shard_bytes:
            self._find(entry, "", f"the file has {len(file)} bytes, its commit says {entry.shard_bytes}")
        elif hashlib.sha256(file).hexdigest() != entry.sha256:
            self._find(entry, "", f"the file's SHA-256 is not {entry.sha256}, which its commit says: its bytes changed")

    def _ranges(self, entry: ShardEntry, file: bytes, ranges: npt.NDArray[np.int64]) -> None:
        try:
            located = locate_payloads(file, pq.read_metadata(pa.BufferReader(file)))
        except (FormatError, pa.ArrowException, OSError) as error:
            self._find(entry, "", f"the pages of the file are damaged: {error}")
            return
        if located != [(offset, length) for offset, length in ranges.tolist()]:
            self._find(entry, "", "the byte ranges of the commit are not where the file has its payloads")

    def _counts(self, entry: ShardEntry, rows: Sequence[Row], ranges: npt.NDArray[np.int64]) -> None:
        found = {
            "rows": len(rows),
            "payload_bytes": int(ranges[:, 1].sum()),
            "raw_bytes": sum(row.raw_bytes for row in rows),
            "source_bytes": sum(row.source_bytes for row in rows),
            "failed + fallback": sum(row.codec == SOURCE_CODEC for row in rows),
        }
        said = {**asdict(entry), "failed + fallback": entry.failed + entry.fallback}
        for name, value in found.items():
            if said[name] != value:
                self._find(entry, "", f"{name} is {value} in the file and {said[name]} in its commit")

    def _batch(self, entry: ShardEntry, rows: Sequence[Row], payloads: Sequence[memoryview]) -> None:
        coded: list[tuple[Row, bytes]] = []
        for row, payload in zip(rows, payloads, strict=True):
            if row.codec == SOURCE_CODEC:
                fault = source_fault(row, payload)
            else:
                fault = header_fault(row, payload)
                if fault is None and self._is_sampled(row.key):
                    if is_large(row):
                        fault = self._large_fault(row, payload)
                    else:
                        coded.append((row, bytes(payload)))
            if fault:
                self._find(entry, row.key, fault)
        for (row, stored), pixels in zip(
            coded, decode_each(self._decoder, [stored for _, stored in coded]), strict=True
        ):
            if isinstance(pixels, PilcError):
                fault = str(pixels)
            else:
                fault = pixel_fault(row, pixels) or self._metadata_fault(row, stored)
            if fault:
                self._find(entry, row.key, fault)
            else:
                self.decoded += 1
                self.raw_bytes += row.raw_bytes
        self.images += len(rows)
        if self._progress:
            self._progress(len(rows), sum(row.raw_bytes for row in rows))

    def _large_fault(self, row: Row, payload: memoryview) -> str | None:
        """What is wrong with a record whose pixels are too many to be held; counts it where nothing is."""
        fault = row_fault(self._decoder, row, payload) or self._metadata_fault(row, payload)
        if fault is None:
            self.decoded += 1
            self.raw_bytes += row.raw_bytes
        return fault

    def _is_sampled(self, key: str) -> bool:
        return self._sample is None or int.from_bytes(digest(key)[:8], "big") % self._sample == 0

    def _metadata_fault(self, row: Row, payload: bytes | memoryview) -> str | None:
        try:
            unpack_extras(self._decoder.extras(payload), row.channels, row.bit_depth)
        except FormatError as error:
            return str(error)
        return None

    def _keys_by_shard(self) -> Iterator[tuple[ShardEntry, list[str]]]:
        for position, entry in enumerate(self._manifest.shards):
            if position not in self._unreadable:
                yield entry, self._manifest.reader(position).keys()

    def _keys(self) -> Iterator[str]:
        for _, keys in self._keys_by_shard():
            yield from keys

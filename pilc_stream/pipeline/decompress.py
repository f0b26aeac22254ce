"""From a data set back to files: every record under its key, on any storage.

What is written was checked: pixels against `pixel_sha256`, kept files against `source_sha256`. A record that fails
costs its file and is listed; only storage that cannot be written ends the export. Files are replaced, so an export
that was interrupted is simply run again.
"""

from __future__ import annotations

import errno
import hashlib
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pilc_stream.errors import FormatError, ImageError, PilcError, StorageError, UsageError
from pilc_stream.images import DEFAULT_MAX_PIXELS, Pixels, decode_image, encode_png, source_of
from pilc_stream.pipeline.large import export_large, is_large
from pilc_stream.pipeline.naming import Names, unsafe
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
from pilc_stream.records.record import SOURCE_CODEC, ShardEntry
from pilc_stream.storage import Store

Format = Literal["png", "npy", "source"]

# What a storage may say of one name without being broken as a whole.
_NAME_ERRORS = frozenset((errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EINVAL, errno.EILSEQ))


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written.

    `files`, `file_bytes`: all files; `as_they_came`: those of them that are the source's own bytes. `renamed`: names
    that are longer than expected because two keys met. `unavailable`: records that the format cannot give back
    (format "source" only). `failed`: records and shards that could not be exported, and why.
    """

    files: int
    file_bytes: int
    as_they_came: int
    unavailable: int
    renamed: Mapping[str, str]
    failed: tuple[Finding, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; `failed` becomes the number, `findings` the list."""
        return {
            "files": self.files,
            "file_bytes": self.file_bytes,
            "as_they_came": self.as_they_came,
            "unavailable": self.unavailable,
            "renamed": dict(self.renamed),
            "failed": len(self.failed),
            "findings": [asdict(finding) for finding in self.failed],
            "seconds": round(self.seconds, 3),
        }


def export(
    manifest: Manifest,
    destination: str,
    format: Format = "png",
    *,
    storage_options: Mapping[str, Any] | None = None,
    device: str = "auto",
    threads: int = 2,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    progress: Progress | None = None,
) -> ExportReport:
    """Write the records of a data set as files below `destination`, a folder on any storage.

    Format "png": images as PNG with the pixels, mode and metadata of their source, named by key with the suffix
    .png (see `naming`). Kept sources become PNG too where that loses nothing (a JPEG does, a palette image does not);
    the others are written as they came under their own key.
    Format "npy": the same with NumPy arrays (uint8, (H, W) or (H, W, 3)) instead of PNG.
    Format "source": the files that were kept as they came, byte for byte under their own keys, and those that a job
    with keep "source" coded. Other coded images have no such bytes any more: they are counted as `unavailable`, or
    refused with UsageError where there is nothing else.
    Keys that would lead out of `destination` are not written but listed.
    `device` and `threads` decode payloads; `threads` also encode and write files.
    Raises UsageError for an unknown format or a destination inside the data set, StorageError where writing fails.
    """
    if format not in ("png", "npy", "source"):
        raise UsageError(f"format: {format!r} is unknown; choose 'png', 'npy' or 'source'")
    target = Store.open(destination, storage_options)
    if f"{target.url.rstrip('/')}/".startswith(f"{manifest.store.url.rstrip('/')}/"):
        raise UsageError(f"{target.url}: the destination lies inside the data set; choose another folder")
    kept = sum(entry.failed + entry.fallback for entry in manifest.shards)
    if format == "source" and manifest.rows and not kept and manifest.job.get("keep") != "source":
        raise UsageError(
            f"{manifest.url}: all {manifest.rows} images were coded from their pixels, so none has its source's bytes; "
            "decompress with the format 'png' or 'npy', whose pixels are exactly those of the sources"
        )
    return _Export(manifest, target, format, device, threads, max_pixels, progress).run()


class _Export:
    def __init__(
        self,
        manifest: Manifest,
        target: Store,
        format: Format,
        device: str,
        threads: int,
        max_pixels: int,
        progress: Progress | None,
    ) -> None:
        self._manifest = manifest
        self._target = target
        self._format = format
        self._threads = threads
        self._max_pixels = max_pixels
        self._progress = progress
        self._decoder = decoder_for(manifest, device, threads)
        self._gives_files_back = manifest.job.get("keep") == "source"
        self._unreadable: set[int] = set()
        self._failed: list[Finding] = []
        self._files = self._file_bytes = self._as_they_came = self._unavailable = 0
        self._names: Names | None = None
        self._renamed: dict[str, str] = {}

    def run(self) -> ExportReport:
        start = time.perf_counter()
        if self._format != "source":
            self._names = Names(self._keys, f".{self._format}")
        writers = ThreadPoolExecutor(self._threads, thread_name_prefix="pilc-export")
        try:
            # One batch is written while the next is decoded; no third one is in memory.
            running: list[Future[_Written]] = []
            for entry, rows, payloads in self._batches():
                images = self._checked(entry, rows, payloads)
                self._settle(running)
                running = [writers.submit(self._write, image) for image in images]
                if self._progress:
                    self._progress(len(rows), sum(row.raw_bytes for row in rows))
            self._settle(running)
        finally:
            writers.shutdown(wait=True, cancel_futures=True)
        return ExportReport(
            files=self._files,
            file_bytes=self._file_bytes,
            as_they_came=self._as_they_came,
            unavailable=self._unavailable,
            renamed=self._renamed,
            failed=tuple(self._failed),
            seconds=time.perf_counter() - start,
        )

    def _keys(self) -> Iterator[str]:
        for position, entry in enumerate(self._manifest.shards):
            if position not in self._unreadable:
                try:
                    keys = self._manifest.reader(position).keys()
                except (FormatError, StorageError) as error:
                    self._give_up(position, entry, error)
                else:
                    yield from keys

    def _give_up(self, position: int, entry: ShardEntry, error: PilcError) -> None:
        self._unreadable.add(position)
        self._failed.append(Finding(entry.path, "", str(error)))

    def _batches(self) -> Iterator[tuple[ShardEntry, list[Row], list[bytes]]]:
        """Yield shard, rows and payloads, the latter fetched with one ranged read for a batch."""
        for position, entry in enumerate(self._manifest.shards):
            if position in self._unreadable:
                continue
            try:
                rows = list(rows_of(self._manifest.reader(position).columns(COLUMNS)))
                ranges = self._manifest.range_array(position)
                for batch in batches(rows, payload_weight, BATCH_RAW_BYTES):
                    spans = ranges[batch[0].position : batch[-1].position + 1].tolist()
                    start, end = spans[0][0], sum(spans[-1])
                    piece = self._manifest.store.read_range(entry.path, start, end - start)
                    yield entry, batch, [piece[offset - start : offset - start + length] for offset, length in spans]
            except (FormatError, StorageError) as error:
                self._give_up(position, entry, error)

    def _checked(self, entry: ShardEntry, rows: Sequence[Row], payloads: Sequence[bytes]) -> list[_Image]:
        """Decode a batch and keep what is as its columns say; list the rest."""
        images: list[_Image] = []
        coded: list[tuple[Row, bytes]] = []
        for row, payload in zip(rows, payloads, strict=True):
            is_source = row.codec == SOURCE_CODEC
            if self._format == "source" and not is_source and not self._gives_files_back:
                self._unavailable += 1
                continue
            fault = unsafe(row.key)
            if fault:
                fault = f"the key cannot be a path below the destination: {fault}"
            else:
                fault = source_fault(row, memoryview(payload)) if is_source else header_fault(row, memoryview(payload))
            if fault:
                self._failed.append(Finding(entry.path, row.key, fault))
            elif is_source:
                images.append(_Image(entry.path, row.key, payload, None))
            elif is_large(row) and self._names is not None:
                self._count(self._write_large(entry, row, payload, self._names[row.key]))
            else:
                coded.append((row, payload))
        decoded = decode_each(self._decoder, [payload for _, payload in coded])
        for (row, payload), array in zip(coded, decoded, strict=True):
            if isinstance(array, PilcError):
                self._failed.append(Finding(entry.path, row.key, str(array)))
            elif fault := pixel_fault(row, array):
                self._failed.append(Finding(entry.path, row.key, fault))
            else:
                pixels = Pixels(array, row.mode, self._decoder.extras(payload))
                try:
                    images.append(self._image(entry, row, pixels))
                except FormatError as error:
                    self._failed.append(Finding(entry.path, row.key, str(error)))
        return images

    def _image(self, entry: ShardEntry, row: Row, pixels: Pixels) -> _Image:
        """What is written of decoded pixels: they, or the file that they came from."""
        if self._format != "source":
            return _Image(entry.path, row.key, b"", pixels)
        source = source_of(pixels)
        if source is None or hashlib.sha256(source).digest() != row.source_sha256:
            raise FormatError("the file that its pixels should give back is not the source: its SHA-256 differs")
        return _Image(entry.path, row.key, source, None)

    def _write(self, image: _Image) -> _Written:
        """Make one file and put it. In a thread: touches nothing of the export but its settings."""
        try:
            name, data, as_it_came = self._render(image)
            self._target.put(name, data)
        except FormatError as error:
            return _Written(image.key, "", 0, False, Finding(image.shard, image.key, str(error)))
        except StorageError as error:
            if error.errno not in _NAME_ERRORS:
                raise
            return _Written(image.key, "", 0, False, Finding(image.shard, image.key, str(error)))
        return _Written(image.key, name, len(data), as_it_came, None)

    def _write_large(self, entry: ShardEntry, row: Row, payload: bytes, name: str) -> _Written:
        """Decode and write what is too large to be held, here and now."""
        try:
            file_bytes = export_large(self._decoder, row, payload, self._target, name, self._format == "png")
        except (FormatError, ImageError, StorageError) as error:
            if isinstance(error, StorageError) and error.errno not in _NAME_ERRORS:
                raise
            return _Written(row.key, "", 0, False, Finding(entry.path, row.key, str(error)))
        return _Written(row.key, name, file_bytes, False, None)

    def _render(self, image: _Image) -> tuple[str, bytes, bool]:
        """The file's name and bytes, and whether these are the source's own."""
        pixels = image.pixels
        if pixels is None and self._names is not None:
            try:
                pixels = decode_image(image.source, max_pixels=self._max_pixels)
            except ImageError:
                # Broken, or of a kind that a PNG of ours cannot hold: its own bytes are all there is.
                pixels = None
        if pixels is None or self._names is None:
            return image.key, image.source, True
        data = encode_png(pixels) if self._format == "png" else _npy(pixels.array)
        return self._names[image.key], data, False

    def _settle(self, running: Sequence[Future[_Written]]) -> None:
        """Wait for files that are being written and count them. Raises what ended one of them."""
        for future in running:
            self._count(future.result())

    def _count(self, written: _Written) -> None:
        if written.fault is not None:
            self._failed.append(written.fault)
            return
        self._files += 1
        self._file_bytes += written.file_bytes
        self._as_they_came += written.as_it_came
        if self._names and written.name == self._names.renamed.get(written.key):
            self._renamed[written.key] = written.name


@dataclass(frozen=True, slots=True)
class _Image:
    """A checked record on its way to a file: its pixels, or its `source` bytes where `pixels` is None."""

    shard: str
    key: str
    source: bytes
    pixels: Pixels | None


@dataclass(frozen=True, slots=True)
class _Written:
    """What became of a file: name, size, whether it is the source's own bytes, or the fault that kept it away."""

    key: str
    name: str
    file_bytes: int
    as_it_came: bool
    fault: Finding | None


def _npy(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()

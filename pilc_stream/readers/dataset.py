"""A committed data set by index and by key: `open(url)[i]` costs one ranged read and one decoded image."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from pilc_stream.errors import FormatError, PilcError, UsageError
from pilc_stream.images import DEFAULT_MAX_PIXELS
from pilc_stream.readers.cache import DEFAULT_CACHE_BYTES, PayloadCache
from pilc_stream.readers.columns import check_columns, own_columns
from pilc_stream.readers.fetch import REQUEST_BYTES, Prefetcher, fetch
from pilc_stream.readers.keys import KeyIndex
from pilc_stream.readers.pieces import Pieces
from pilc_stream.readers.regions import Wanted, fetch_regions
from pilc_stream.readers.samples import (
    OnError,
    Sample,
    SampleDecoder,
    SampleSettings,
    Stored,
    StoredSample,
    check_on_error,
    decode_groups,
    stored_sample,
    tolerate,
)
from pilc_stream.readers.shards import AHEAD, Place, Shard, ShardCache
from pilc_stream.records.manifest import Manifest

__all__ = ["PREFETCH_BYTES", "Dataset", "OnError", "Sample", "open"]

PREFETCH_BYTES = 128 << 20
"""Payload bytes that one streaming reader holds at most: what it decodes and what it reads ahead."""

PARCEL_BYTES = 2 * REQUEST_BYTES
"""About what is read together where any cut will do."""

_RUN_ROWS = 4096
_GROUP_ROWS = 256


def open(
    url: str,
    storage_options: Mapping[str, Any] | None = None,
    device: str = "auto",
    threads: int = 1,
    *,
    columns: Sequence[str] | None = None,
    verify: bool = False,
    on_error: OnError = "raise",
    allow_partial: bool = False,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    region: Wanted | None = None,
    cache: str | Path | None = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> Dataset:
    """Open the data set that `pilc compress` wrote to `url`, a local path or any fsspec URL.

    `device`, `threads`: where payloads are decoded ("auto", "cpu", "cuda", "reference"), and with how many CPU threads.
    `columns`: which columns a sample carries; your own by default, those of every shard can be named as well.
    `verify`: also compare decoded pixels with their stored SHA-256; checksums are compared always.
    `on_error`: what iteration does with a sample that cannot be read. `allow_partial`: take what an unfinished job
    has committed so far. `max_pixels`: the largest image decoded from a record that was kept as its source file.
    `region`: the part of every image that is wanted where none is named, `(y, x, height, width)` or a function that
    gives it for an image's height and width, such as `readers.regions.RandomResizedCrop`.
    `cache`: a folder on a local disk where payloads are kept once they were read, of all data sets and for all
    processes together up to `cache_bytes`; `readers.cache` says how.

    Raises ManifestError where there is no (finished) data set, StorageError, UsageError for an unknown column.
    """
    manifest = Manifest.load(url, storage_options, allow_partial=allow_partial)
    return Dataset(
        manifest,
        device,
        threads,
        columns=columns,
        verify=verify,
        on_error=on_error,
        max_pixels=max_pixels,
        region=region,
        cache=cache,
        cache_bytes=cache_bytes,
    )


@dataclass(frozen=True)
class _Process:
    """What belongs to one process: never pickled, never used in a forked child."""

    pid: int
    shards: ShardCache
    samples: SampleDecoder
    keys: KeyIndex


class Dataset:
    """A data set, map style. Rows are numbered through the shards in their order.

    Picklable and safe to fork: a process opens storage, columns and decoder when it first needs them. Threads may
    share it. Reading a sample raises FormatError (ChecksumError, ...) where its bytes are damaged, ImageError where a
    record kept as its source file cannot be decoded, ModelError where its model is missing, VerifyError where `verify`
    finds other pixels, each naming key and shard; StorageError where storage fails.
    """

    def __init__(
        self,
        manifest: Manifest,
        device: str = "auto",
        threads: int = 1,
        *,
        columns: Sequence[str] | None = None,
        verify: bool = False,
        on_error: OnError = "raise",
        max_pixels: int = DEFAULT_MAX_PIXELS,
        region: Wanted | None = None,
        cache: str | Path | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        """As `open`, of a manifest that is loaded already."""
        self.manifest = manifest
        self.device = device
        self.threads = threads
        self.verify = verify
        self.on_error = check_on_error(on_error)
        self.max_pixels = max_pixels
        self.region = region
        shard_rows = {shard.path: shard.rows for shard in manifest.shards}
        self.cache = None if cache is None else PayloadCache(cache, cache_bytes, shard_rows)
        self.skipped = 0
        """Samples that iteration has left out so far, in this process."""
        self._rows = manifest.rows
        self._columns = None if columns is None else check_columns(manifest, columns)
        self._process: _Process | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_process": None}

    def __repr__(self) -> str:
        return f"Dataset({self.manifest.url!r}, {len(self)} samples in {len(self.shard_rows)} shards)"

    def __len__(self) -> int:
        return self._rows

    @cached_property
    def shard_rows(self) -> tuple[int, ...]:
        """Rows of each shard."""
        return tuple(shard.rows for shard in self.manifest.shards)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a sample carries."""
        if self._columns is None:
            self._columns = own_columns(self.manifest)
        return self._columns

    @property
    def mean_payload_bytes(self) -> float:
        """Stored bytes of an image, on average; 0.0 without images."""
        return sum(shard.payload_bytes for shard in self.manifest.shards) / max(1, len(self))

    def with_columns(self, columns: Sequence[str]) -> Dataset:
        """The same data set whose samples carry `columns`. Raises UsageError for an unknown one."""
        other = copy(self)
        other._columns = check_columns(self.manifest, columns)
        other._process = None
        other.skipped = 0
        return other

    @overload
    def __getitem__(self, index: SupportsIndex) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Sample | list[Sample]:
        """The sample at `index` (negative from the end), or a list of them for a slice, read together.

        Raises IndexError outside the data set, and what the class says.
        """
        if isinstance(index, slice):
            return self.__getitems__(range(len(self))[index])
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> list[Sample]:
        """The samples at `indices`: reads of neighbours are merged, images are decoded together. Raises as indexing."""
        return self.read_many(indices)

    def read(self, index: SupportsIndex, region: Wanted | None = None) -> Sample:
        """The sample at `index`, of a large image only the tiles that `region` touches.

        `region`: as `open` takes it, and by default what `open` was given. Raises as indexing, and UsageError for a
        region outside the image.
        """
        return self.read_many([index], [region])[0]

    def read_many(
        self, indices: Sequence[SupportsIndex], regions: Sequence[Wanted | None] | None = None
    ) -> list[Sample]:
        """`read` for many samples: reads of neighbours are merged, images are decoded together."""
        rows = [self._row(index) for index in indices]
        named = [None] * len(rows) if regions is None else regions
        wanted = [self.region if region is None else region for region in named]
        if len(wanted) != len(rows):
            raise UsageError(f"{len(wanted)} regions were given for {len(rows)} samples; give one for each.")
        samples = []
        for found in self._read(rows, wanted):
            if not isinstance(found, Sample):
                raise found
            samples.append(found)
        return samples

    def __iter__(self) -> Iterator[Sample]:
        """All samples in stored order, read ahead; those that cannot be read as `on_error` says."""
        runs = (np.arange(start, min(start + _RUN_ROWS, len(self))) for start in range(0, len(self), _RUN_ROWS))
        for _, found in self.stream(runs):
            if isinstance(found, Sample):
                yield found
            else:
                self.skipped += 1
                tolerate(found, self.on_error)

    def payload(self, index: SupportsIndex) -> bytes:
        """The stored bytes of one image as they are: a payload, or the source file where `codec` says "source"."""
        position, row = self._split(self._row(index))
        offset, length = self.manifest.byte_range(int(position), int(row))
        return self.manifest.store.read_range(self._paths[int(position)], offset, length)

    def keys(self) -> Iterator[str]:
        """All keys in stored order, one shard in memory at a time."""
        for position in range(len(self.shard_rows)):
            yield from self.manifest.reader(position).keys()

    def index(self, key: str) -> int:
        """The row of `key`. Raises UnknownKeyError. The first call reads all keys."""
        return self._here().keys.find(key)

    def get(self, key: str, region: Wanted | None = None) -> Sample:
        """The sample with this key. Raises UnknownKeyError, a KeyError that names close keys, and as `read`."""
        return self.read(self.index(key), region)

    def warm_up(self) -> None:
        """Read one sample, so that processes forked from this one need not compile what decodes it, each for itself."""
        # Whoever needs the sample will be told what is wrong with it.
        with suppress(PilcError):
            self.read_many(range(min(1, len(self))))

    # What streaming readers build on: rows in any order, errors as values.

    def stream(
        self, runs: Iterable[NDArray[np.int64]], prefetch_bytes: int = PREFETCH_BYTES
    ) -> Iterator[tuple[int, Sample | PilcError]]:
        """Each row of `runs` with its sample, or with the error that stands in its place; reads ahead.

        Rows of one run are read together, so a run should hold neighbours. Payloads are read whole; of each image the
        `region` is decoded. Raises StorageError.
        """
        for rows, samples in self.stream_groups(runs, prefetch_bytes):
            yield from zip(rows, samples, strict=True)

    def stream_groups(
        self, runs: Iterable[NDArray[np.int64]], prefetch_bytes: int = PREFETCH_BYTES
    ) -> Iterator[tuple[list[int], list[Sample | PilcError]]]:
        """As `stream`, rows and samples of those together that were decoded together."""
        with self._prefetcher(runs, prefetch_bytes) as parcels:
            for rows, payloads in parcels:
                for group in decode_groups(payloads):
                    numbers = rows[group].tolist()
                    samples = self.decode(numbers, payloads[group], [self.region] * len(numbers))
                    parcels.release(sum(map(len, payloads[group])))
                    payloads[group] = [b""] * len(numbers)
                    yield numbers, samples

    def stream_stored(
        self, runs: Iterable[NDArray[np.int64]], prefetch_bytes: int = PREFETCH_BYTES
    ) -> Iterator[tuple[list[int], list[StoredSample | PilcError]]]:
        """As `stream_groups`, with the images as they are stored, for those who decode elsewhere."""
        with self._prefetcher(runs, prefetch_bytes) as parcels:
            for rows, payloads in parcels:
                for first in range(0, len(payloads), _GROUP_ROWS):
                    group = slice(first, first + _GROUP_ROWS)
                    numbers = rows[group].tolist()
                    yield (
                        numbers,
                        [
                            stored_sample(place, payload, self.columns) if isinstance(place, Place) else place
                            for place, payload in zip(self._places(numbers), payloads[group], strict=True)
                        ],
                    )

    def _prefetcher(self, runs: Iterable[NDArray[np.int64]], limit_bytes: int) -> Prefetcher[NDArray[np.int64]]:
        self._here()  # Before two threads would make one each.
        return Prefetcher(self.manifest.store, self._plan(runs, limit_bytes), limit_bytes, self.cache)

    def pieces(self, rows: Sequence[int]) -> Pieces:
        """Where the payloads of `rows` lie. Those of a damaged shard have no bytes; decoding them gives its error."""
        numbers = np.asarray(rows, dtype=np.int64)
        position, row = self._split(numbers)
        ranges = np.zeros((len(numbers), 2), np.int64)
        used = np.unique(position).tolist()
        for index, shard in zip(used, self._here().shards.get_many(used), strict=True):
            if isinstance(shard, Shard):
                here = position == index
                ranges[here] = shard.ranges[row[here]]
        return Pieces(self._paths, position, ranges[:, 0], ranges[:, 1], row)

    def decode(
        self, rows: Sequence[int], payloads: Sequence[Stored], regions: Sequence[Wanted | None] | None = None
    ) -> list[Sample | PilcError]:
        """The samples of `rows` from their payloads, decoded together, with errors in place of those that fail."""
        return self._decode(self._places(rows), payloads, regions)

    def _decode(
        self,
        places: Sequence[Place | FormatError],
        payloads: Sequence[Stored],
        regions: Sequence[Wanted | None] | None,
    ) -> list[Sample | PilcError]:
        found = self._here().samples.decode(places, payloads, regions)
        if self.cache is not None:
            # What the network damaged must not be kept for ever.
            for place, sample in zip(places, found, strict=True):
                if isinstance(sample, FormatError) and isinstance(place, Place):
                    self.cache.forget(place.shard.path, place.shard_row)
        return found

    def _read(self, rows: Sequence[int], wanted: Sequence[Wanted | None]) -> list[Sample | PilcError]:
        pieces = self.pieces(rows)
        if not any(region is not None for region in wanted):
            return self.decode(rows, fetch(self.manifest.store, pieces, self.cache))
        places = self._places(rows)
        # A source file has no tiles: it is read whole, and its region cut after decoding.
        partly = [
            region if isinstance(place, Place) and not place.is_kept else None
            for place, region in zip(places, wanted, strict=True)
        ]
        payloads, found = fetch_regions(self.manifest.store, pieces, partly, self.cache)
        regions = [old if new is None else new for old, new in zip(wanted, found, strict=True)]
        return self._decode(places, payloads, regions)

    def _places(self, rows: Sequence[int]) -> list[Place | FormatError]:
        position, at = self._split(np.asarray(rows, np.int64))
        shards = {index: self._here().shards[index] for index in set(position.tolist())}
        return [
            self._place(row, shards[index], here)
            for row, index, here in zip(rows, position.tolist(), at.tolist(), strict=True)
        ]

    @staticmethod
    def _place(row: int, shard: Shard | FormatError, shard_row: int) -> Place | FormatError:
        if not isinstance(shard, Shard):
            return type(shard)(f"sample {row} in {shard}")
        place = Place(row, shard, shard_row)
        return place if not shard.damage else place.damage or place

    def _row(self, index: SupportsIndex) -> int:
        row = operator.index(index)
        if not -len(self) <= row < len(self):
            raise IndexError(
                f"{self.manifest.url}: there is no sample {row}; the data set has {len(self)}, "
                f"so indices go from {-len(self)} to {len(self) - 1}."
            )
        return row % len(self)

    def _split(self, rows: int | NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions of the shards that hold `rows`, and the rows in them."""
        position = np.searchsorted(self._shard_ends, rows, side="right")
        return position, rows - self._shard_starts[position]

    @cached_property
    def _paths(self) -> tuple[str, ...]:
        return tuple(shard.path for shard in self.manifest.shards)

    @cached_property
    def _shard_ends(self) -> NDArray[np.int64]:
        return np.cumsum(np.asarray(self.shard_rows, np.int64))

    @cached_property
    def _shard_starts(self) -> NDArray[np.int64]:
        return self._shard_ends - np.asarray(self.shard_rows, np.int64)

    def _here(self) -> _Process:
        if self._process is None or self._process.pid != os.getpid():
            parent = self._process
            if parent is not None:
                old = self.manifest  # A fork: a lock of the parent's may be held for ever here.
                self.manifest = Manifest(old.store, old.job, old.shards, old.finished)
            settings = SampleSettings(self.device, self.threads, self.columns, self.verify, self.max_pixels)
            self._process = _Process(
                os.getpid(),
                ShardCache(self.manifest, self.columns, self.verify),
                SampleDecoder(self.manifest, settings, None if parent is None else parent.samples),
                KeyIndex(self.manifest),
            )
        return self._process

    def _plan(self, runs: Iterable[NDArray[np.int64]], limit_bytes: int) -> Iterator[tuple[NDArray[np.int64], Pieces]]:
        """The runs with their pieces, cut where they pass `limit_bytes`."""
        for run in runs:
            pieces = self.pieces(run.tolist())
            # Rows in stored order can be cut anywhere: small parcels come sooner. Of others, a cut reads much twice.
            is_ascending = bool((np.diff(run) > 0).all())
            step_bytes = min(limit_bytes, PARCEL_BYTES) if is_ascending else limit_bytes
            if is_ascending and len(run):
                last = int(pieces.path[-1])
                self._here().shards.expect(range(last + 1, min(last + 1 + AHEAD, len(self.shard_rows))))
            parcels = np.cumsum(pieces.length) // max(1, step_bytes)
            cuts = [0, *(np.flatnonzero(np.diff(parcels)) + 1).tolist(), len(run)]
            for low, high in pairwise(cuts):
                if low < high:
                    yield run[low:high], pieces.take(slice(low, high))

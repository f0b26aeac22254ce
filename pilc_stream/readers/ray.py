"""Ray Data: `read_pilc` makes a Dataset of a data set, `write_pilc` the other way.

images = read_pilc("s3://bucket/photos").map_batches(augment)
for batch in images.iter_torch_batches(batch_size=64): ...
write_pilc(images, "s3://bucket/augmented", profile="fast")
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
from numpy.typing import NDArray
from ray.data import Datasink, Datasource, ReadTask
from ray.data.block import Block, BlockAccessor, BlockMetadata

from pilc_stream.codecs import Codec, encode_any, open_codec
from pilc_stream.codecs.base import check_image
from pilc_stream.errors import PilcError, UsageError
from pilc_stream.images import pixel_sha256
from pilc_stream.readers.dataset import Dataset, OnError, Sample
from pilc_stream.readers.dataset import open as open_dataset
from pilc_stream.readers.samples import tolerate
from pilc_stream.records.build import build_shard
from pilc_stream.records.commit import (
    commit_shard,
    committed_indices,
    create_job,
    put_model,
    put_shard,
    read_job,
)
from pilc_stream.records.manifest import Manifest, finish
from pilc_stream.records.payload import parse_header
from pilc_stream.records.record import Record, ShardEntry
from pilc_stream.records.schema import COLUMN_NAMES, infer_columns
from pilc_stream.storage import Store

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_BLOCK_ROWS = 256


def read_pilc(
    url: str,
    storage_options: Mapping[str, Any] | None = None,
    *,
    columns: Sequence[str] | None = None,
    keys: bool = False,
    on_error: OnError = "raise",
    parallelism: int = -1,
    **options: Any,
) -> ray.data.Dataset:
    """The data set at `url` with the columns `image` (uint8 or uint16 arrays) and `columns`, your own by default.

    `keys`: with the column `key` as well; it is text, which `iter_torch_batches` does not take. `options` are those of
    `dataset.open`. Ray's tasks read and decode, each a run of rows in stored order. Raises as `dataset.open` does.
    """
    source = open_dataset(url, storage_options, "cpu", columns=columns, on_error=on_error, **options)
    blocks = parallelism if parallelism > 0 else None
    found: ray.data.Dataset = ray.data.read_datasource(_PilcSource(source, keys), override_num_blocks=blocks)
    return found


def write_pilc(
    images: ray.data.Dataset,
    url: str,
    storage_options: Mapping[str, Any] | None = None,
    *,
    profile: str = "fast",
    shard_rows: int = 1024,
) -> None:
    """Compress the rows of `images` into a data set at `url`: `image`, `key`, and all other columns as your own.

    Each write task makes one shard of about `shard_rows` rows. `key` is text, and unique; without that column rows are
    numbered by shard. Raises UsageError where `url` holds a data set already or a row's image is no array of pixels.
    """
    images.write_datasink(_PilcSink(Store.open(url, storage_options), profile, shard_rows))


class _PilcSource(Datasource):
    """Rows in runs that lie inside one shard."""

    def __init__(self, dataset: Dataset, keys: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._dataset, self._keys = dataset, keys

    def estimate_inmemory_data_size(self) -> int | None:
        """Bytes of all pixels."""
        return sum(shard.raw_bytes for shard in self._dataset.manifest.shards)

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """About `parallelism` tasks of as many rows each."""
        total = len(self._dataset)
        raw_bytes = self.estimate_inmemory_data_size() or 0
        tasks = []
        for rows in np.array_split(np.arange(total), max(1, min(parallelism, total))):
            share = raw_bytes * len(rows) // max(1, total)
            metadata = BlockMetadata(num_rows=len(rows), size_bytes=share, exec_stats=None, input_files=None)
            tasks.append(ReadTask(_Read(self._dataset, rows, self._keys), metadata))
        return tasks


class _Read:
    """What one read task does: blocks of some rows."""

    def __init__(self, dataset: Dataset, rows: NDArray[np.int64], keys: bool) -> None:
        self._dataset, self._rows, self._keys = dataset, rows, keys

    def __call__(self) -> Iterator[Block]:
        samples: list[Sample] = []
        for _, found in self._dataset.stream([self._rows]):
            if isinstance(found, PilcError):
                tolerate(found, self._dataset.on_error)
            else:
                samples.append(found)
            if len(samples) == _BLOCK_ROWS:
                yield _block(samples, self._keys)
                samples = []
        if samples:
            yield _block(samples, self._keys)


def _block(samples: Sequence[Sample], keys: bool) -> Block:
    pixels = [sample.pixels for sample in samples]
    if len({(array.shape, array.dtype) for array in pixels}) == 1:
        images: Any = np.stack(pixels)
    else:
        # One object each: Ray keeps tensors of different shapes in one column.
        images = np.empty(len(pixels), object)
        images[:] = pixels
    batch = {"key": np.array([sample.key for sample in samples], object)} if keys else {}
    batch["image"] = images
    for name in samples[0].columns:
        batch[name] = np.array([sample.columns[name] for sample in samples])
    return BlockAccessor.batch_to_block(batch)


class _PilcSink(Datasink[int]):
    """Each write task puts and commits one shard; the driver finishes the data set."""

    def __init__(self, store: Store, profile: str, shard_rows: int) -> None:
        self._store, self._profile, self._shard_rows = store, profile, shard_rows

    def on_write_start(self, *_: Any, **__: Any) -> None:
        """Begin the data set. Raises UsageError where there is one."""
        if read_job(self._store) is not None:
            raise UsageError(f"{self._store.url}: there is a data set already. Choose another place, or delete it.")
        codec = open_codec(self._profile, "cpu")
        create_job(self._store, {"writer": "ray data", "profile": codec.profile, "model": codec.model_sha256})
        if codec.model_bytes:
            put_model(self._store, codec.model_bytes)

    @property
    def min_rows_per_write(self) -> int | None:
        """Rows of a shard."""
        return self._shard_rows

    def write(self, blocks: Iterable[Block], ctx: Any) -> int:
        """Make one shard; how many rows it has. Without rows, none is made."""
        rows: list[Mapping[str, Any]] = []
        types: dict[str, pa.DataType] = {}
        for block in blocks:
            accessor = BlockAccessor.for_block(block)
            rows += accessor.iter_rows(public_row_format=True)
            types |= {field.name: field.type for field in accessor.to_arrow().schema}
        if not rows:
            return 0
        return _write_shard(self._store, open_codec(self._profile, "cpu"), ctx.task_idx, rows, types)

    def on_write_complete(self, *_: Any, **__: Any) -> None:
        """Declare the data set finished. Tasks that got no rows, of a filter for instance, leave empty shards."""
        made = committed_indices(self._store)
        if made:
            reader = Manifest.of(self._store, allow_partial=True).reader(0)
            columns = pa.schema([field for field in reader.schema if field.name not in (*COLUMN_NAMES, "image")])
            for index in sorted(set(range(max(made))) - made):
                _commit(self._store, index, [], columns, 0, 0.0)
        finish(self._store)


def _write_shard(
    store: Store, codec: Codec, index: int, rows: Sequence[Mapping[str, Any]], types: Mapping[str, pa.DataType]
) -> int:
    """Make shard `index` of these rows exist; how many they are. `types`: those that Ray has for their columns."""
    start = time.perf_counter()
    images = [_pixels(row, index, number) for number, row in enumerate(rows)]
    payloads = encode_any(images, codec.profile, "cpu", 1)
    records = [
        _record(codec, f"{index:06}/{number:06}", row, image, payload)
        for number, (row, image, payload) in enumerate(zip(rows, images, payloads, strict=True))
    ]
    # Ray's tensors come as arrays, which Arrow has as lists; everything else keeps its type, also where all are null.
    inferred = infer_columns(records)
    kept = {name: kind for name, kind in types.items() if not isinstance(kind, pa.BaseExtensionType)}
    columns = pa.schema([pa.field(field.name, kept.get(field.name, field.type)) for field in inferred])
    sub_pixels = sum(image.size for image in images)
    return _commit(store, index, records, columns, sub_pixels, time.perf_counter() - start).rows


def _commit(
    store: Store, index: int, records: Sequence[Record], columns: pa.Schema, sub_pixels: int, seconds: float
) -> ShardEntry:
    """Put and commit a shard; the entry that counts."""
    data, ranges = build_shard(records, columns)
    path, digest = put_shard(store, index, data)
    entry = ShardEntry(
        index=index,
        path=path,
        sha256=digest,
        shard_bytes=len(data),
        rows=len(records),
        failed=0,
        fallback=0,
        raw_bytes=sum(record.raw_bytes for record in records),
        source_bytes=sum(record.source_bytes for record in records),
        payload_bytes=sum(len(record.payload) for record in records),
        sub_pixels=sub_pixels,
        seconds=seconds,
    )
    return commit_shard(store, entry, ranges)


def _pixels(row: Mapping[str, Any], index: int, number: int) -> NDArray[Any]:
    if not isinstance(row.get("image"), np.ndarray):
        raise UsageError(
            f"Row {number} of shard {index} has no array of pixels as its image, but "
            f"{type(row.get('image')).__name__}: write_pilc wants uint8 or uint16 arrays (H, W) or (H, W, C) there."
        )
    check_image(row["image"])
    return np.ascontiguousarray(row["image"])


def _record(codec: Codec, number: str, row: Mapping[str, Any], image: NDArray[Any], payload: bytes) -> Record:
    header = parse_header(payload)
    digest = pixel_sha256(image)
    return Record(
        key=str(row.get("key", number)),
        payload=payload,
        codec=header.codec,
        model=codec.model_sha256 if header.model_digest else "",
        width=header.width,
        height=header.height,
        channels=header.channels,
        bit_depth=header.bit_depth,
        mode=_MODES[header.channels] if header.bit_depth == 8 else f"{_MODES[header.channels]};16",
        raw_bytes=image.nbytes,
        source_bytes=image.nbytes,
        pixel_sha256=digest,
        # The pixels are the source: there was no file.
        source_sha256=digest,
        columns={name: value for name, value in row.items() if name not in ("key", "image")},
    )

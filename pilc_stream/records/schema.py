"""The Arrow schema of a shard: columns, types, and the metadata by which others recognise it. See DATASET.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from pilc_stream.errors import FormatError, UnsupportedError, UsageError
from pilc_stream.records.record import Record

SHARD_FORMAT_VERSION: Final = 1
FORMAT_METADATA_KEY: Final = "pilc_stream.shard_format"
HUGGING_FACE_KEY: Final = b"huggingface"
DIGEST_BYTES: Final = 32

# Fields stay nullable although no record leaves one out: Hugging Face compares its Image type with the field
# including nullability, and would take a non-nullable one for a plain struct.
COLUMNS: Final[tuple[pa.Field, ...]] = (
    pa.field("key", pa.string()),
    pa.field("image", pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])),
    pa.field("codec", pa.dictionary(pa.int32(), pa.string())),
    pa.field("model", pa.dictionary(pa.int32(), pa.string())),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("channels", pa.uint8()),
    pa.field("bit_depth", pa.uint8()),
    pa.field("mode", pa.string()),
    pa.field("raw_bytes", pa.int64()),
    pa.field("source_bytes", pa.int64()),
    pa.field("pixel_sha256", pa.binary(DIGEST_BYTES)),
    pa.field("source_sha256", pa.binary(DIGEST_BYTES)),
)
"""The columns that every shard has, in order; the user's own follow."""

COLUMN_NAMES: Final = tuple(field.name for field in COLUMNS)
FIDELITY: Final[tuple[pa.Field, ...]] = (pa.field("lossless", pa.bool_()), pa.field("psnr", pa.float32()))
"""The columns that follow where the job's codec is lossy: whether this record's pixels are the source's, and where they
are not, how far from them in dB."""

PAYLOAD_LEAF: Final = "image.bytes"
"""The Parquet column that holds the payloads."""

_LARGE_PAYLOAD_BYTES: Final = 1 << 14
"""From this mean size on, copying payloads takes longer than handling each does."""


def shard_schema(columns: pa.Schema | None = None) -> pa.Schema:
    """Return the schema of a shard whose own columns are followed by the user's `columns`, with its metadata.

    Raises UsageError where a user column has a name that is taken.
    """
    own = list(columns) if columns is not None else []
    names = [field.name for field in own]
    for name in names:
        if name in COLUMN_NAMES:
            raise UsageError(f"A column of your own cannot be called {name!r}: shards have one already. Rename it.")
        if names.count(name) > 1:
            raise UsageError(f"Two columns of your own are called {name!r}. Rename one.")
    hugging_face = json.dumps({"info": {"features": {"image": {"_type": "Image"}, **_features(columns)}}})
    metadata = {FORMAT_METADATA_KEY: str(SHARD_FORMAT_VERSION), "huggingface": hugging_face}
    return pa.schema([*COLUMNS, *own], metadata=metadata)


def user_columns(schema: pa.Schema) -> pa.Schema:
    """Return the part of a shard's schema that is the user's own, with what is said of it."""
    return pa.schema([field for field in schema if field.name not in COLUMN_NAMES], metadata=schema.metadata)


def _features(columns: pa.Schema | None) -> dict[str, Any]:
    """What Hugging Face knows of the user's columns beyond their types, such as the names of classes.

    Only for a schema that comes from there; elsewhere the types speak for themselves.
    """
    described = (columns.metadata or {}).get(HUGGING_FACE_KEY) if columns is not None else None
    if columns is None or described is None:
        return {}
    try:
        features = json.loads(described)["info"]["features"]
        return {field.name: features[field.name] for field in columns if field.name in features}
    except (ValueError, LookupError, TypeError):
        return {}


def infer_columns(records: Sequence[Record]) -> pa.Schema:
    """Return the schema of the records' own columns, in order of first appearance, types as Arrow infers them.

    Shards of one data set agree only if their values do: give `build_shard` a schema where you have one.
    Raises UsageError where the values of a column have no common type.
    """
    names = dict.fromkeys(name for record in records for name in record.columns)
    fields = []
    for name in names:
        try:
            fields.append(pa.field(name, pa.array([record.columns.get(name) for record in records]).type))
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"The values of your column {name!r} have no common type: {error}.") from error
    return pa.schema(fields)


def to_table(records: Sequence[Record], schema: pa.Schema | None = None) -> pa.Table:
    """Return `records` as a table of the shard schema; a user column that a record lacks is null.

    `image.path` is null: the key says where the image came from. Raises UsageError where a value does not fit
    its column, where a record has a column that `schema` lacks, or a digest that is not 32 bytes.
    """
    schema = shard_schema(infer_columns(records)) if schema is None else schema
    known = set(schema.names)
    for record in records:
        _check_record(record, known)
    arrays = []
    for field in schema:
        try:
            arrays.append(_array(field, records))
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise UsageError(_blame(field, records, error)) from error
    return pa.Table.from_arrays(arrays, schema=schema)


def check_schema(schema: pa.Schema, place: str) -> None:
    """Check that a file's schema is that of a shard. `place` names the file in messages.

    Raises UnsupportedError for another version of the format, FormatError for missing or different columns.
    """
    version = (schema.metadata or {}).get(FORMAT_METADATA_KEY.encode())
    if version is None:
        raise FormatError(f"{place}: this Parquet file is not a pilc-stream shard: it names no shard format.")
    if version != str(SHARD_FORMAT_VERSION).encode():
        raise UnsupportedError(
            f"{place}: the shard format is version {version.decode(errors='replace')}, this release reads version "
            f"{SHARD_FORMAT_VERSION}. Install a newer pilc-stream."
        )
    for position, field in enumerate(COLUMNS):
        if position >= len(schema) or not schema.field(position).equals(field):
            found = schema.field(position) if position < len(schema) else "nothing"
            raise FormatError(
                f"{place}: column {position} is {found}, expected {field}. The file is damaged or foreign."
            )


def _check_record(record: Record, known: set[str]) -> None:
    for name in ("pixel_sha256", "source_sha256"):
        if len(getattr(record, name)) != DIGEST_BYTES:
            raise UsageError(
                f"Record {record.key!r}: {name} has {len(getattr(record, name))} bytes, a SHA-256 digest has "
                f"{DIGEST_BYTES}. Give 32 zero bytes where there is none."
            )
    taken = [name for name in record.columns if name in COLUMN_NAMES]
    if taken:
        raise UsageError(f"Record {record.key!r}: a column of your own cannot be called {taken[0]!r}. Rename it.")
    unknown = [name for name in record.columns if name not in known]
    if unknown:
        raise UsageError(
            f"Record {record.key!r} has the column {unknown[0]!r}, which the shard's schema lacks. Add it."
        )


def _array(field: pa.Field, records: Sequence[Record]) -> pa.Array:
    if field.name == "image":
        return _images([record.payload for record in records], field.type)
    if field.name in ("codec", "model"):
        # In order of first appearance, so equal records give equal bytes.
        return pa.array([getattr(record, field.name) for record in records], pa.string()).dictionary_encode()
    return pa.array(_values(field.name, records), field.type)


def _images(payloads: Sequence[bytes], kind: pa.DataType) -> pa.ChunkedArray:
    """The image column. Large payloads stay where they are, each a chunk of its own; small ones are gathered."""
    if sum(map(len, payloads)) < _LARGE_PAYLOAD_BYTES * len(payloads):
        chunks = [pa.array(payloads, pa.binary())]
    else:
        chunks = [
            pa.Array.from_buffers(
                pa.binary(), 1, [None, pa.array([0, len(each)], pa.int32()).buffers()[1], pa.py_buffer(each)]
            )
            for each in payloads
        ]
    fields = [kind.field(0), kind.field(1)]
    return pa.chunked_array(
        [pa.StructArray.from_arrays([each, pa.nulls(len(each), pa.string())], fields=fields) for each in chunks], kind
    )


def _values(name: str, records: Sequence[Record]) -> list[Any]:
    if name in COLUMN_NAMES:
        return [getattr(record, name) for record in records]
    return [record.columns.get(name) for record in records]


def _blame(field: pa.Field, records: Sequence[Record], error: Exception) -> str:
    """Name the first record whose value does not fit, by trying one at a time."""
    for record in records:
        try:
            _array(field, [record])
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as single:
            return f"Record {record.key!r}: its {field.name} does not fit a column of type {field.type}: {single}."
    return f"The values of column {field.name!r} do not fit its type {field.type}: {error}."

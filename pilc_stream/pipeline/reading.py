"""Committed records in bounded pieces, and what can be wrong with each: for verification and export.

A record is judged by its columns: payload header, pixels or kept bytes must be what they say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import pyarrow as pa

from pilc_stream.codecs import Decoder
from pilc_stream.errors import FormatError, ModelError, PilcError
from pilc_stream.images import MODE_CHANNELS, pixel_sha256
from pilc_stream.records.manifest import Manifest
from pilc_stream.records.payload import parse_header
from pilc_stream.records.record import LOSSY_CODECS

BATCH_RAW_BYTES = 1 << 24
"""Decoded bytes of a batch, unless a single image has more."""

BATCH_ROWS = 256

COLUMNS = (
    *("key", "codec", "model", "width", "height", "channels", "bit_depth", "mode"),
    *("raw_bytes", "source_bytes", "pixel_sha256", "source_sha256"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """The columns of one record, without its payload; `position` is its row in the shard."""

    position: int
    key: str
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


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it must be: in the shard file `shard`, of the record `key` ("" for the shard itself)."""

    shard: str
    key: str
    reason: str


def rows_of(table: pa.Table) -> Iterator[Row]:
    """The rows of a shard's table that has at least `COLUMNS`; a null reads as the empty value of its type."""
    empty: dict[str, Any] = dict.fromkeys(COLUMNS, 0)
    empty |= dict.fromkeys(("key", "codec", "model", "mode"), "") | dict.fromkeys(
        ("pixel_sha256", "source_sha256"), b""
    )
    columns = [table.column(name).to_pylist() for name in COLUMNS]
    for position, values in enumerate(zip(*columns, strict=True)):
        filled = (empty[name] if value is None else value for name, value in zip(COLUMNS, values, strict=True))
        yield Row(position, *filled)


def batches(rows: Iterable[Row], weight: Callable[[Row], int], limit: int) -> Iterator[list[Row]]:
    """Group consecutive rows up to `limit` of summed `weight` or to BATCH_ROWS; one row may exceed it alone."""
    batch, total = list[Row](), 0
    for row in rows:
        if batch and (total + weight(row) > limit or len(batch) == BATCH_ROWS):
            yield batch
            batch, total = [], 0
        batch.append(row)
        total += weight(row)
    if batch:
        yield batch


def decoder_for(manifest: Manifest, device: str, threads: int) -> Decoder:
    """A decoder that finds the models that travel with the data set."""
    return Decoder(device=device, threads=threads, models=manifest.model_file)


def payload_weight(row: Row) -> int:
    """Bytes that a record takes while it is decoded; a damaged column cannot make it negative."""
    return max(0, row.raw_bytes) + max(0, row.source_bytes)


def source_fault(row: Row, payload: memoryview) -> str | None:
    """Why a record that was kept as it came is not its source file; None if it is."""
    if len(payload) != row.source_bytes:
        return f"the file that was kept has {len(payload)} bytes, the column source_bytes says {row.source_bytes}"
    if hashlib.sha256(payload).digest() != row.source_sha256:
        return "the file that was kept is not the source: its SHA-256 is not that of the column source_sha256"
    return None


def header_fault(row: Row, payload: memoryview) -> str | None:
    """Compare the payload's header with the columns, before memory is claimed for what it announces."""
    try:
        header = parse_header(payload)
    except FormatError as error:
        return str(error)
    said = (row.codec, row.height, row.width, row.channels, row.bit_depth)
    found = (header.codec, header.height, header.width, header.channels, header.bit_depth)
    if said != found:
        return f"the payload is of (codec, height, width, channels, bits) {found}, the columns say {said}"
    if header.model_digest and not row.model.startswith(header.model_digest.hex()):
        return f"the payload names the model {header.model_digest.hex()}, the column model says {row.model or 'none'}"
    # Arrays that never were a file have modes of their own, such as "RGB;16".
    if MODE_CHANNELS.get(row.mode.removesuffix(";16")) != row.channels:
        return f"the column mode says {row.mode!r}, which does not have {row.channels} channels"
    return None


def pixel_fault(row: Row, pixels: npt.NDArray[Any]) -> str | None:
    """Why decoded pixels are not those that were compressed; None if they are."""
    if pixels.nbytes != row.raw_bytes:
        return f"the pixels have {pixels.nbytes} bytes, the column raw_bytes says {row.raw_bytes}"
    # Lossy pixels are others; that they are those that were meant, the checksum of their latents has told.
    if row.codec not in LOSSY_CODECS and pixel_sha256(pixels) != row.pixel_sha256:
        return "the pixels are not those of the source: their SHA-256 is not that of the column pixel_sha256"
    return None


def decode_each(decoder: Decoder, payloads: Sequence[bytes]) -> list[npt.NDArray[Any] | PilcError]:
    """Decode together or, where one payload is damaged, each alone, with the error in place of its pixels."""
    if not payloads:
        return []
    try:
        return list(decoder.decode(payloads))
    except (FormatError, ModelError) as error:
        if len(payloads) == 1:
            return [error]
    return [each for payload in payloads for each in decode_each(decoder, [payload])]

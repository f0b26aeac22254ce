"""Images that are never held whole: coded from bands of rows, and compared and written band by band."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.codecs import Codec, Decoder, encode_large
from pilc_stream.errors import FormatError, ImageError, ModelError
from pilc_stream.images import Pixels
from pilc_stream.images.rows import PngWriter, npy_head
from pilc_stream.pipeline.loading import LoadedImage
from pilc_stream.pipeline.reading import Row
from pilc_stream.records.payload import parse_header
from pilc_stream.storage import Store

LARGE_RAW_BYTES = 1 << 28
"""Images of more bytes of pixels are verified and exported in bands."""

_IN_BANDS = frozenset(("raw", "wave", "pilc", "planes", "webp", "deep"))
"""Codecs whose payloads are decoded in bands, and give exactly the pixels back."""

TakeBand = Callable[[NDArray[Any]], object]


def encode_banded(codec: Codec, image: LoadedImage) -> bytes | None:
    """The payload of an image that is read in bands; None where it is not smaller than the pixels.

    Sets the digest of its pixels. Damage that only reading on brings to light becomes the image's error.
    """
    banded = image.banded
    assert banded is not None
    try:
        payload, image.pixel_sha256 = encode_large(codec, banded.shape, banded.dtype, banded.read, banded.head.extras)
    except ImageError as error:
        image.header, image.banded, image.error = None, None, str(error)
        return None
    return payload


def banded_fault(decoder: Decoder, payload: bytes, image: LoadedImage) -> str | None:
    """Why a payload does not give an image back that is read in bands; None if it does."""
    banded = image.banded
    assert banded is not None
    found = hashlib.sha256()
    rows = 0
    for band in decoder.decode_bands(payload):
        rows += len(band)
        if band.dtype != banded.dtype or band.shape[1:] != banded.shape[1:]:
            return f"rows of {band.dtype} {band.shape[1:]} instead of {banded.dtype} {banded.shape[1:]}"
        found.update(_bytes_of(band))
    if rows != banded.shape[0]:
        return f"{rows} rows instead of {banded.shape[0]}"
    if found.digest() != image.pixel_sha256:
        return "other pixels"
    return None if decoder.extras(payload) == banded.head.extras else "other metadata"


def is_large(row: Row) -> bool:
    """Whether a record is decoded in bands."""
    return row.raw_bytes > LARGE_RAW_BYTES and row.codec in _IN_BANDS


def row_fault(decoder: Decoder, row: Row, payload: bytes | memoryview, take: TakeBand | None = None) -> str | None:
    """Decode a record in bands, each handed to `take`, and say why it is not what was compressed; None if it is."""
    found = hashlib.sha256()
    raw_bytes = 0
    try:
        for band in decoder.decode_bands(payload):
            found.update(_bytes_of(band))
            raw_bytes += band.nbytes
            if take is not None:
                take(band)
    except (FormatError, ModelError) as error:
        return str(error)
    if raw_bytes != row.raw_bytes:
        return f"the pixels have {raw_bytes} bytes, the column raw_bytes says {row.raw_bytes}"
    if found.digest() != row.pixel_sha256:
        return "the pixels are not those of the source: their SHA-256 is not that of the column pixel_sha256"
    return None


def export_large(decoder: Decoder, row: Row, payload: bytes, target: Store, name: str, as_png: bool) -> int:
    """Write a record as PNG, or else as an array of NumPy, by way of a temporary file; the bytes of the file.

    Raises FormatError where it is not what was compressed (nothing is written then), ImageError where its mode has no
    PNG, StorageError.
    """
    shape = parse_header(payload).shape
    kind = np.dtype("<u2" if row.bit_depth == 16 else np.uint8)
    image = Pixels(np.broadcast_to(np.zeros((), kind), shape), row.mode, decoder.extras(payload))
    with tempfile.NamedTemporaryFile(prefix="pilc-export-") as file:
        if as_png:
            writer = PngWriter(file, image)
            fault = row_fault(decoder, row, payload, writer.push)
            writer.finish()
        else:
            file.write(npy_head(image))
            fault = row_fault(decoder, row, payload, lambda band: file.write(_bytes_of(band)))
        if fault:
            raise FormatError(fault)
        file.flush()
        target.put_file(name, file.name)
        return file.tell()


def _bytes_of(band: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(band, band.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data

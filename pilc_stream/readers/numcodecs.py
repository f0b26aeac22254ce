"""A numcodecs codec, so that zarr arrays of images are stored as payloads.

    import numcodecs, zarr
    from pilc_stream.readers.numcodecs import PilcCodec

    numcodecs.register_codec(PilcCodec)
    zarr.create_array(..., zarr_format=2, chunks=(1, 512, 768, 3), dtype="uint8", compressors=PilcCodec())

A chunk is one or many images: the last `image_axes` axes are an image's, those before them count images. Encoded it is
the number of images, the length of each payload (all little-endian uint32), and the payloads.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ndarray_copy
from numpy.typing import NDArray

from pilc_stream.codecs import DEFAULT_PROFILE, encode_any, shared_decoder
from pilc_stream.errors import TruncatedError, UsageError

_WORD_BYTES = 4


class PilcCodec(Codec):  # type: ignore[misc]
    """Chunks of uint8 or uint16 samples, losslessly. Configured by `profile` and `image_axes`."""

    codec_id = "pilc"

    def __init__(self, profile: str = DEFAULT_PROFILE, image_axes: int = 3) -> None:
        """`image_axes`: 3 for images `(H, W, C)`, 2 for `(H, W)`. Raises UsageError for another number."""
        if image_axes not in (2, 3):
            raise UsageError(f"image_axes is {image_axes}: give 3 for (H, W, C) or 2 for (H, W).")
        self.profile = profile
        self.image_axes = image_axes

    def encode(self, buf: Any) -> bytes:
        """The chunk's images as payloads. Raises UsageError for an array of other samples or fewer axes."""
        chunk = np.asarray(buf)
        if chunk.ndim < self.image_axes:
            raise UsageError(
                f"A chunk of shape {chunk.shape} holds no images of {self.image_axes} axes; "
                "give other chunks or image_axes."
            )
        shape = chunk.shape[chunk.ndim - self.image_axes :]
        images = chunk.reshape(-1, *shape)
        payloads = encode_any(list(images), self.profile, "cpu", 1)
        lengths = np.array([len(payloads), *map(len, payloads)], "<u4")
        return lengths.tobytes() + b"".join(payloads)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """The chunk, with one axis for the images in front of their own. Raises FormatError for damaged bytes."""
        data = np.frombuffer(buf, np.uint8).tobytes()
        count = int.from_bytes(data[:_WORD_BYTES], "little")
        start = _WORD_BYTES * (1 + count)
        if len(data) < max(start, _WORD_BYTES):
            raise TruncatedError(f"chunk: {len(data)} bytes do not hold the lengths of {count} payloads")
        ends = start + np.cumsum(np.frombuffer(data[_WORD_BYTES:start], "<u4").astype(np.int64))
        if len(data) != (int(ends[-1]) if count else start):
            raise TruncatedError(f"chunk: {len(data)} bytes are not those of its {count} payloads")
        cuts = [start, *ends.tolist()]
        payloads = [data[low:high] for low, high in pairwise(cuts)]
        images = shared_decoder("cpu", 1, None).decode(payloads)
        chunk: NDArray[Any] = np.stack(images) if images else np.empty(0, np.uint8)
        if out is None:
            return chunk
        return ndarray_copy(chunk.reshape(-1), _flat(out, math.prod(chunk.shape), chunk.dtype))


def _flat(out: Any, size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The buffer to decode into, seen as so many samples."""
    return np.frombuffer(out, dtype) if not isinstance(out, np.ndarray) else out.reshape(size).view(dtype)

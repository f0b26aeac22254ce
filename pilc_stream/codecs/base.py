"""What a codec is: pixels in, payload out, and back, for many images at once."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pilc_stream.errors import FormatError, UsageError
from pilc_stream.records.payload import MAX_CHANNELS, MAX_EDGE, Header, Payload
from pilc_stream.records.tiling import Region

Image = NDArray[np.uint8] | NDArray[np.uint16]


class Codec(Protocol):
    """Encodes images with one profile. ``encode([a, b]) == encode([a]) + encode([b])``, on every device."""

    @property
    def name(self) -> str:
        """The codec, as the header and the records call it."""

    @property
    def profile(self) -> str:
        """The profile that it codes with; the codec's own name where it has none."""

    @property
    def model_sha256(self) -> str:
        """The digest of the model file in hex; "" without a model."""

    @property
    def model_bytes(self) -> bytes:
        """The model file; empty without a model."""

    def refuses(self, image: NDArray[Any]) -> str | None:
        """Why this codec cannot take the image; None where it can."""

    def encode(self, images: Sequence[NDArray[Any]], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
        """One payload per image; `extras` are bytes to carry along with each. UsageError for a refused image."""


@dataclass(frozen=True, slots=True)
class TileCoder:
    """Codes the tiles of one image as they come: `header` is its payload's, without extras, and says the tiling.

    `encode` gives a stream for each tile `(h, w, c)`; None where the codec has none that is shorter than the pixels.
    """

    header: Header
    encode: Callable[[Sequence[NDArray[Any]]], Sequence[bytes | None]]


@runtime_checkable
class TilingCodec(Codec, Protocol):
    """A codec whose payloads are made of tiles."""

    def tile_coder(self, image: NDArray[Any], most_log2: int) -> TileCoder:
        """What codes an image like this, of which shape and dtype count, in tiles of at most ``2**most_log2``."""


class TileDecoder(Protocol):
    """Decodes parsed payloads of one codec."""

    def decode(self, payloads: Sequence[Payload], regions: Sequence[Region | None]) -> list[Image]:
        """The images, or the regions asked for. Checksums of the tiles that are used have been checked."""


def check_image(image: NDArray[Any]) -> None:
    """Raise UsageError unless `image` is uint8 or uint16, `(H, W)` or `(H, W, 1..4)`, not empty."""
    if image.dtype not in (np.uint8, np.uint16) or image.ndim not in (2, 3):
        raise UsageError(
            f"image: an array of {image.dtype} with shape {image.shape}; give uint8 or uint16, (H, W) or (H, W, C)"
        )
    if image.ndim == 3 and not 1 <= image.shape[2] <= MAX_CHANNELS:
        raise UsageError(f"image: {image.shape[2]} channels; a payload holds 1 to {MAX_CHANNELS}")
    if not all(1 <= edge <= MAX_EDGE for edge in image.shape[:2]):
        raise UsageError(f"image: {image.shape[0]} x {image.shape[1]} pixels; both edges must lie in 1..{MAX_EDGE}")


def header_fields(image: NDArray[Any]) -> dict[str, Any]:
    """The header fields that follow from the array alone."""
    return {
        "height": image.shape[0],
        "width": image.shape[1],
        "channels": 1 if image.ndim == 2 else image.shape[2],
        "bit_depth": 16 if image.dtype == np.uint16 else 8,
        "two_axes": image.ndim == 2,
    }


def check_region(region: Sequence[int], height: int, width: int) -> Region:
    """`region` as a `Region` inside an image of this size; UsageError where it is not."""
    try:
        y, x, rows, columns = (operator.index(value) for value in region)
    except (TypeError, ValueError):
        raise UsageError(f"region: {region!r} is not (y, x, height, width) in whole pixels") from None
    if min(y, x) < 0 or min(rows, columns) < 1 or y + rows > height or x + columns > width:
        raise UsageError(
            f"region: (y={y}, x={x}, height={rows}, width={columns}) does not lie inside "
            f"the image of {height} x {width} pixels"
        )
    return Region(y, x, rows, columns)


def check_all_tiles(payload: Payload, wanted: Sequence[int] | None = None) -> None:
    """Check the checksums of all tiles, or of those `wanted`."""
    if not payload.tiles:
        raise FormatError("payload: holds no tile")
    for index in range(len(payload.tiles)) if wanted is None else wanted:
        payload.check_tile(index)

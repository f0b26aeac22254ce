"""The words of the image room: pixels, what a file's header says, and why a file is not taken."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pilc_stream.errors import ImageError

MODE_CHANNELS = {"1": 1, "L": 1, "P": 1, "I": 1, "I;16": 1, "I;16B": 1, "LA": 2, "RGB": 3, "RGBA": 4}
"""Modes that are coded, with their number of channels."""

Keep = Literal["display", "pixels", "source"]
"""What a coded image keeps: all that affects display, pixels (and palettes) alone, or the source file byte for byte."""

WIDE_MODES = frozenset(("I", "I;16", "I;16B"))
"""Those whose samples always have 16 bits; L has 8, LA, RGB and RGBA have 8 or 16."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """A decoded image.

    `array`: uint8 or uint16 `(H, W)`, or `(H, W, C)` with 2 to 4 channels; H and W are at least 1. Mode "P" holds
    indices into the palette that `extras` begins with, mode "1" the levels 0 and 255.
    `mode`: the Pillow mode of the source; of more than one channel of 16 bits, which Pillow does not have, that of as
    many channels of 8.
    `extras`: its metadata as a blob of `images.metadata`, b"" where there is none.
    """

    array: npt.NDArray[np.uint8 | np.uint16]
    mode: str
    extras: bytes = b""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What the header of an image file says: Pillow's name of the format, size in pixels, mode, bits per sample."""

    format: str
    width: int
    height: int
    mode: str
    channels: int
    bit_depth: int

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height


class NotRepresentable(ImageError):
    """A sound image that is not coded: it is kept as it came, which is no failure.

    `reason` is short and drawn from a small set, so that reports can count by it; `header` says what the file is.
    """

    def __init__(self, reason: str, header: ImageHeader) -> None:
        super().__init__(reason)
        self.reason = reason
        self.header = header

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.header)


class NotBanded(ImageError):
    """An image whose rows cannot be had without decoding all of it; says why, as a clause."""


def pixel_sha256(array: npt.NDArray[np.uint8 | np.uint16]) -> bytes:
    """SHA-256 (32 bytes) of the samples in C order, 16-bit ones little-endian: what `pixel_sha256` columns hold."""
    little_endian = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(little_endian.reshape(-1).view(np.uint8).data).digest()

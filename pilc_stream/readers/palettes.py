"""Palettes on the way to the reader: what is stored as indices is handed out as colours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.images import shown
from pilc_stream.images.metadata import palette_of
from pilc_stream.records.payload import parse_header


def displayed(image: NDArray[Any], payload: bytes | memoryview) -> NDArray[Any]:
    """The decoded `image` of a payload, or of a region of it; RGB or RGBA where the payload holds a palette.

    Raises FormatError where the palette is damaged; a payload that decoded has none such.
    """
    colours = colours_of(payload)
    return image if colours is None else colours[image]


def colours_of(payload: bytes | memoryview) -> NDArray[np.uint8] | None:
    """The colours that indices 0 to 255 of a payload stand for, `(256, 3)` or `(256, 4)`; None without a palette."""
    extras = parse_header(payload).extras
    palette = palette_of(extras) if extras else None
    return None if palette is None else shown(np.arange(256, dtype=np.uint8), palette)

"""Arrays to image files that hold exactly their samples: how pixels without a file come in by the same door."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pilc_stream.errors import ImageError

_MODES = {2: "LA", 4: "RGBA"}


def array_file(array: npt.NDArray[Any]) -> bytes:
    """The bytes of an image file: PGM or PPM, which are the samples behind a short header, or PNG where alpha is.

    `array`: uint8 or uint16 `(H, W)` or `(H, W, C)`; with C 1 to 4 for uint8, 1 or 3 for uint16.
    Raises ImageError for anything else.
    """
    channels = array.shape[2] if array.ndim == 3 else 1
    is_wide = array.dtype.kind == "u" and array.dtype.itemsize == 2
    if array.ndim not in (2, 3) or array.size == 0 or not (is_wide or array.dtype == np.uint8):
        raise ImageError(f"an array of {array.dtype} {array.shape} is no image of 8 or 16 bits a sample")
    if channels in (1, 3):
        height, width = array.shape[:2]
        header = b"P%d\n%d %d\n%d\n" % (5 if channels == 1 else 6, width, height, 65535 if is_wide else 255)
        # Samples of 16 bits have their high byte first.
        return header + np.ascontiguousarray(array, ">u2" if is_wide else np.uint8).tobytes()
    if channels not in _MODES or is_wide:
        raise ImageError(f"an array of {array.dtype} with {channels} channels has no image file that holds it exactly")
    buffer = io.BytesIO()
    Image.frombytes(_MODES[channels], array.shape[1::-1], np.ascontiguousarray(array).tobytes()).save(buffer, "PNG")
    return buffer.getvalue()

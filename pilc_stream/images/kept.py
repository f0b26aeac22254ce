"""Pixels of records that were kept as their source file: what a loader gets where no payload was written.

Not exact by law as payloads are: the source's own decoder decides. Pixels come as Pillow shows them, first frame only,
palettes and bits expanded. Samples of more bits than Pillow keeps are refused rather than cut.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pilc_stream.errors import ImageError
from pilc_stream.images.decode import DEFAULT_MAX_PIXELS, decode_image
from pilc_stream.images.encode import shown
from pilc_stream.images.metadata import palette_of
from pilc_stream.images.pixels import ImageHeader, NotRepresentable

# What Pillow's modes become where they are not pixels of 8 bits already.
_SHOWN = {"1": "L", "P": "RGB", "PA": "RGBA", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB"}
_WITH_TRANSPARENCY = {"1": "LA", "L": "LA", "P": "RGBA", "RGB": "RGBA"}


def decode_kept(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> NDArray[Any]:
    """Decode the image file `data` to a writable array.

    Returns uint8 `(H, W)` or `(H, W, C)`: grey, grey and alpha, RGB, RGBA, CMYK or LAB as the file has it; 1-bit images
    become grey, palettes RGB, a transparent colour an alpha channel. 16-bit grey is uint16 `(H, W)`.
    Raises ImageError, with a reason that names no file, for what cannot be decoded whole or shown without loss.
    """
    try:
        pixels = decode_image(data, max_pixels=max_pixels)
        palette = palette_of(pixels.extras)
        return np.array(pixels.array) if palette is None else shown(pixels.array, palette)
    except NotRepresentable as error:
        header = error.header
    try:
        # Its size and its soundness were checked by `decode_image` just now.
        with Image.open(io.BytesIO(data), formats=[header.format]) as image:
            return _shown(image, header)
    except ImageError:
        raise
    except Exception as error:
        # On odd files Pillow raises nearly every kind of exception.
        raise ImageError(f"the {header.format} file cannot be decoded: {error}") from error


def _shown(image: Image.Image, header: ImageHeader) -> NDArray[Any]:
    image.load()
    if image.mode == "F":
        raise ImageError("floating-point samples are no integer pixels; decode its payload yourself")
    if image.mode.startswith("I"):
        wide = np.array(image)
        if wide.min() < 0 or wide.max() > np.iinfo(np.uint16).max:
            raise ImageError("its samples need more than 16 bits; decode its payload yourself")
        return wide.astype(np.uint16)
    if header.bit_depth > 8:
        bits = f"8 of the {header.bit_depth} bits of its {header.mode} samples"
        raise ImageError(f"Pillow reads {bits}; decode its payload yourself")
    if image.mode in _WITH_TRANSPARENCY and image.has_transparency_data:
        return np.array(image.convert(_WITH_TRANSPARENCY[image.mode]))
    return np.array(image.convert(_SHOWN[image.mode]) if image.mode in _SHOWN else image)

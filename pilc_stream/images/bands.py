"""Images that are too large to be decoded whole: read from the top down, a band of rows at a time.

Pillow decodes files whole. So each band becomes a small file of its own, with the rows of that band behind the header
of the file, and Pillow decodes that: unfiltering, predictors, byte orders and palettes are its business here as
everywhere, and the pixels are those of `decode_image` by construction. Which rows are where is what this room knows of
the formats that allow it: PNG that is not interlaced (`bands_png`), TIFF in strips and tiles (`bands_tiff`), BMP and
PNM (`bands_plain`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.errors import ImageError, UsageError
from pilc_stream.images.bands_plain import bmp_rows, pnm_rows
from pilc_stream.images.bands_png import png_rows
from pilc_stream.images.bands_tiff import tiff_rows
from pilc_stream.images.decode import fail, header_of, open_file, refusal_of
from pilc_stream.images.pixels import ImageHeader, NotBanded, NotRepresentable, Pixels

DEFAULT_MAX_STREAMED_PIXELS = 1 << 30
"""Largest image read in bands unless told otherwise: 1074 million pixels, 3.2 GB as RGB."""

Band = NDArray[np.uint8 | np.uint16]


@dataclass(frozen=True, slots=True)
class BandedImage:
    """An image that is read in bands. `head`: mode, extras and the shape of a row, as of an image of one row.

    `read` begins anew each time: bands `(rows, W)` or `(rows, W, C)` that are the image from the top down, with at most
    some megabytes at once unless a row, or a strip of a TIFF, has more. It raises ImageError where the file is damaged.
    """

    header: ImageHeader
    head: Pixels
    read: Callable[[], Iterator[Band]]

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the array that `decode_image` would give."""
        return (self.header.height, *self.head.array.shape[1:])

    @property
    def stand_in(self) -> Pixels:
        """What the whole would be, with an array of its shape that is all zeros and takes no memory."""
        return Pixels(np.broadcast_to(np.zeros((), self.dtype), self.shape), self.head.mode, self.head.extras)

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 or uint16."""
        return self.head.array.dtype


def open_bands(data: bytes, *, max_pixels: int = DEFAULT_MAX_STREAMED_PIXELS, metadata: bool = True) -> BandedImage:
    """Open an image file to be read in bands; `max_pixels` and `metadata` as for `decode_image`.

    Raises NotRepresentable for pixels that are not coded, NotBanded for files whose rows cannot be had without decoding
    all of it, and ImageError for those that are damaged or too large.
    """
    image = open_file(data, max_pixels, "max_streamed_pixels")
    header = header_of(image, data)
    try:
        reason = refusal_of(image, data)
        if reason is not None:
            raise NotRepresentable(reason, header)
        match header.format:
            case "PNG":
                head, read = png_rows(data, header, metadata)
            case "PPM":
                head, read = pnm_rows(data, header, image.tile[0], metadata)
            case "BMP":
                head, read = bmp_rows(data, header, image.tile[0], metadata)
            case "TIFF":
                head, read = tiff_rows(data, header, metadata)
            case _:
                raise NotBanded(f"{header.format} files are not read in bands of rows")
    except NotRepresentable as refusal:
        raise NotRepresentable(refusal.reason, header) from refusal
    except (ImageError, UsageError):
        raise
    except Exception as error:
        fail(error, header.format)
    return BandedImage(header, head, lambda: _checked(header, head, read))


def regrouped(bands: Iterable[Band], heights: Iterable[int]) -> Iterator[Band]:
    """The same rows in bands of these `heights`, the sum of which is that of the bands. Bands may be views."""
    source = iter(bands)
    rest: Band | None = None
    for height in heights:
        parts: list[Band] = []
        while height:
            if rest is None or not len(rest):
                rest = next(source)
            parts.append(rest[:height])
            rest = rest[height:]
            height -= len(parts[-1])
        yield parts[0] if len(parts) == 1 else np.concatenate(parts)


def _checked(header: ImageHeader, head: Pixels, read: Callable[[], Iterator[Band]]) -> Iterator[Band]:
    """The bands, each of the right kind, and together all rows."""
    rows = 0
    bands = read()
    while True:
        try:
            band = next(bands, None)
        except (ImageError, UsageError):
            raise
        except Exception as error:
            fail(error, header.format)
        if band is None:
            break
        rows += len(band)
        if band.dtype != head.array.dtype or band.shape[1:] != head.array.shape[1:] or rows > header.height:
            raise ImageError(f"the {header.format} file's rows are not what its header says")
        yield band
    if rows != header.height:
        raise ImageError(f"the {header.format} file ends after {rows} of {header.height} rows")

"""Image file bytes to pixels and back: formats, modes, depths, metadata. Pillow is imported here and nowhere above."""

from pilc_stream.images.bands import DEFAULT_MAX_STREAMED_PIXELS, BandedImage, open_bands, regrouped
from pilc_stream.images.decode import DEFAULT_MAX_PIXELS, decode_image, probe_image
from pilc_stream.images.encode import encode_png, picture, shown
from pilc_stream.images.frame import framed, source_of
from pilc_stream.images.kept import decode_kept
from pilc_stream.images.pixels import (
    MODE_CHANNELS,
    ImageHeader,
    Keep,
    NotBanded,
    NotRepresentable,
    Pixels,
    pixel_sha256,
)

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "DEFAULT_MAX_STREAMED_PIXELS",
    "MODE_CHANNELS",
    "BandedImage",
    "ImageHeader",
    "Keep",
    "NotBanded",
    "NotRepresentable",
    "Pixels",
    "decode_image",
    "decode_kept",
    "encode_png",
    "framed",
    "open_bands",
    "picture",
    "pixel_sha256",
    "probe_image",
    "regrouped",
    "shown",
    "source_of",
]

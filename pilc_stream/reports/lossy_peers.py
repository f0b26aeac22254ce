"""The lossy codecs that lossy profiles are measured against: JPEG, WebP, AVIF and JPEG XL, each on one thread.

JPEG, WebP and AVIF are what Pillow writes, JPEG XL is imagecodecs' (extra `bench`).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from pilc_stream.errors import UsageError

Pixels = NDArray[np.uint8]

JPEG_QUALITIES = (5, 10, 20, 35, 50, 65, 80, 90, 95)
WEBP_QUALITIES = (1, 10, 25, 45, 65, 80, 90, 95)
AVIF_QUALITIES = (15, 25, 35, 45, 55, 65, 75, 85)
JPEGXL_DISTANCES = (0.5, 1.0, 1.7, 2.5, 4.0, 6.0, 9.0, 13.0)
AVIF_SPEED = 6
JPEGXL_EFFORT = 7


@dataclass(frozen=True)
class LossyPeer:
    """`settings`: the library with its version and what is asked of it. `encode`: uint8 `(h, w, 3)` and one of
    `qualities` to a file. `decode`: the image again."""

    name: str
    settings: str
    qualities: Sequence[float]
    encode: Callable[[Pixels, float], bytes]
    decode: Callable[[bytes], Pixels]


def lossy_peers() -> list[LossyPeer]:
    """All peers. Raises UsageError without imagecodecs, or where Pillow was built without AVIF or WebP."""
    try:
        import imagecodecs
    except ModuleNotFoundError as error:
        raise UsageError("measuring peers needs imagecodecs: pip install 'pilc-stream[bench]'") from error
    for name in ("webp", "avif"):
        if not features.check(name):
            raise UsageError(f"this Pillow cannot write {name}; install a wheel of Pillow 11.3 or later")
    pillow = f"Pillow {metadata.version('pillow')}"
    jpegxl = imagecodecs.version(dict)["libjxl"]
    return [
        LossyPeer("JPEG", f"{pillow}, 4:2:0, optimize=True", JPEG_QUALITIES, _encode_jpeg, _decode),
        LossyPeer(
            "WebP", f"{pillow}, libwebp {features.version('webp')}, method 6", WEBP_QUALITIES, _encode_webp, _decode
        ),
        LossyPeer(
            "AVIF",
            f"{pillow}, libavif {features.version('avif')}, speed {AVIF_SPEED}, 4:2:0",
            AVIF_QUALITIES,
            _encode_avif,
            _decode,
        ),
        LossyPeer(
            "JPEG XL",
            f"libjxl {jpegxl}, effort {JPEGXL_EFFORT}",
            JPEGXL_DISTANCES,
            partial(_encode_jpegxl, imagecodecs),
            partial(_decode_jpegxl, imagecodecs),
        ),
    ]


def _encode_jpeg(image: Pixels, quality: float) -> bytes:
    return _saved(image, "JPEG", quality=int(quality), subsampling="4:2:0", optimize=True)


def _encode_webp(image: Pixels, quality: float) -> bytes:
    return _saved(image, "WEBP", quality=int(quality), method=6)


def _encode_avif(image: Pixels, quality: float) -> bytes:
    return _saved(image, "AVIF", quality=int(quality), speed=AVIF_SPEED, subsampling="4:2:0", max_threads=1)


def _saved(image: Pixels, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def _decode(payload: bytes) -> Pixels:
    with Image.open(io.BytesIO(payload)) as image:
        return np.asarray(image.convert("RGB"))


def _encode_jpegxl(library: Any, image: Pixels, distance: float) -> bytes:
    return bytes(library.jpegxl_encode(image, distance=distance, effort=JPEGXL_EFFORT, numthreads=1))


def _decode_jpegxl(library: Any, payload: bytes) -> Pixels:
    return np.asarray(library.jpegxl_decode(payload, numthreads=1))

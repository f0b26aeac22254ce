"""pilc-stream: lossless learned image compression for data sets, at GPU speed, bit-exact on every device.

>>> import numpy as np
>>> import pilc_stream as pilc
>>> pixels = np.full((48, 64, 3), 200, np.uint8)
>>> payload = pilc.compress(pixels)
>>> bool((pilc.decompress(payload) == pixels).all())
True
>>> pilc.inspect(payload).shape
(48, 64, 3)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pilc_stream._version import __version__

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pilc_stream.codecs import PayloadInfo
    from pilc_stream.readers.dataset import Dataset

    Image = NDArray[np.uint8] | NDArray[np.uint16]

__all__ = [
    "__version__",
    "compress",
    "compress_batch",
    "decompress",
    "decompress_batch",
    "inspect",
    "open",
]

# Functions import what they need when called, so that `import pilc_stream` costs nothing.


def compress(
    pixels: NDArray[Any],
    profile: str = "fast",
    *,
    device: str = "auto",
    threads: int = 1,
    quality: int | None = None,
) -> bytes:
    """One image to one payload; losslessly, unless the profile is named that is not: ``lossy-light``.

    `pixels`: uint8 or uint16, `(H, W)` or `(H, W, C)` with C in 1..4, not empty. What the profile does not take, or
    cannot make smaller, is stored as it is, in a payload like any other. The bytes are the same on every device.
    `quality`, 1 to 100, is for a lossy profile alone. Raises UsageError for another array, an unknown profile, or a
    quality of a lossless one.
    """
    return compress_batch([pixels], profile, device=device, threads=threads, quality=quality)[0]


def compress_batch(
    images: Sequence[NDArray[Any]],
    profile: str = "fast",
    *,
    device: str = "auto",
    threads: int = 1,
    quality: int | None = None,
) -> list[bytes]:
    """`compress` for many images, of any shapes, at once: the same bytes, faster."""
    from pilc_stream.codecs import encode_any

    return encode_any(images, profile, device, threads, quality)


def decompress(
    payload: bytes,
    *,
    region: Sequence[int] | None = None,
    device: str = "auto",
    threads: int = 1,
    models: Callable[[bytes], bytes | None] | None = None,
    max_pixels: int = 1 << 30,
) -> Image:
    """The array that `compress` was given, exactly unless a lossy profile coded it; or its `region`
    `(y, x, height, width)`, from the tiles it needs.

    `models` gives model files that do not ship with the package, by the digest that the payload names. More than
    `max_pixels` pixels are refused. Raises FormatError for damaged bytes, ModelNotFoundError, UsageError for a region
    outside the image.
    """
    image: Image = decompress_batch(
        [payload], regions=[region], device=device, threads=threads, models=models, max_pixels=max_pixels
    )[0]
    return image


def decompress_batch(
    payloads: Sequence[bytes],
    *,
    regions: Sequence[Sequence[int] | None] | None = None,
    device: str = "auto",
    threads: int = 1,
    models: Callable[[bytes], bytes | None] | None = None,
    out: str = "numpy",
    max_pixels: int = 1 << 30,
) -> list[Any]:
    """`decompress` for many payloads, of any codecs, at once.

    `out` is "numpy", or "torch" with the device "cuda": the images stay on the card as tensors, complete and ready for
    any stream.
    """
    from pilc_stream.codecs import shared_decoder
    from pilc_stream.errors import UsageError

    if out not in ("numpy", "torch"):
        raise UsageError(f"out={out!r}; images come out as 'numpy' arrays or 'torch' tensors")
    decoder = shared_decoder(device, threads, models, max_pixels)
    return decoder.decode_tensors(payloads, regions) if out == "torch" else decoder.decode(payloads, regions)


def inspect(payload: bytes) -> PayloadInfo:
    """What a payload holds (shape, codec, profile, tiles) and where its bytes go; its checksums are checked."""
    from pilc_stream.codecs import inspect_payload

    return inspect_payload(payload)


def open(
    url: str,
    storage_options: Mapping[str, Any] | None = None,
    device: str = "auto",
    threads: int = 1,
    **options: Any,
) -> Dataset:
    """The data set at `url`: ``len(ds)``, ``ds[17]``, ``ds.get("a/b.png")``, one ranged read each.

    `options` are those of `pilc_stream.readers.dataset.open`: columns, verify, on_error, allow_partial, max_pixels.
    """
    from pilc_stream.readers.dataset import open as open_dataset

    return open_dataset(url, storage_options, device, threads, **options)

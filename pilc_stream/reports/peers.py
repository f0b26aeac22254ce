"""The codecs that profiles are measured against: PNG, lossless WebP, lossless JPEG XL, each on one thread.

PNG is what Pillow writes with ``optimize=True``, as in the demo; all else is imagecodecs (extra `bench`). WebP is asked
for its smallest, JPEG XL for one of its efforts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from multiprocessing import get_context
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.errors import UsageError, VerifyError
from pilc_stream.images import Pixels, encode_png
from pilc_stream.reports.contest import Progress, bits_per_sample, megabytes_per_second
from pilc_stream.reports.figures import Key, PeerFigures
from pilc_stream.reports.sets import ImageSet


def jpegxl_name(effort: int) -> str:
    """How reports call JPEG XL at an effort."""
    return f"JPEG XL e{effort}"


EFFORTS = range(1, 11)
"""What JPEG XL takes."""

PEER_NAMES = ["PNG", "WebP", *(jpegxl_name(effort) for effort in EFFORTS)]
"""All peers there can be, in the order of reports."""

CHUNK = 32
"""At most so many images go to a process at once: enough that small ones do not wait for each other."""

Image = NDArray[Any]


@dataclass(frozen=True)
class Peer:
    """A codec of one image at a time; picklable.

    `settings`: the libraries with their versions, and what is asked of them. `encode`: uint8 `(h, w)` or `(h, w, 3)` to
    a file. `decode`: the image again; RGB with equal channels where the format has no grey.
    """

    name: str
    settings: str
    encode: Callable[[Image], bytes]
    decode: Callable[[bytes], Image]


def all_peers(efforts: Sequence[int]) -> list[Peer]:
    """PNG, WebP and JPEG XL at these efforts. Raises UsageError for an effort there is not, or without imagecodecs."""
    for effort in efforts:
        if effort not in EFFORTS:
            raise UsageError(f"JPEG XL has no effort {effort}; its efforts are {EFFORTS[0]} to {EFFORTS[-1]}")
    versions = _imagecodecs().version(dict)
    png = f"Pillow {metadata.version('pillow')}, optimize=True; decoded by libpng {versions['libpng']}"
    webp = f"libwebp {versions['libwebp']}, lossless, method 6, quality 100"
    jpegxl = f"libjxl {versions['libjxl']}, lossless, effort"
    return [
        Peer("PNG", png, _encode_png, _decode_png),
        Peer("WebP", webp, _encode_webp, _decode_webp),
        *(
            Peer(jpegxl_name(effort), f"{jpegxl} {effort}", partial(_encode_jpegxl, effort), _decode_jpegxl)
            for effort in efforts
        ),
    ]


def _encode_png(image: Image) -> bytes:
    return encode_png(Pixels(image, "L" if image.ndim == 2 else "RGB"), optimize=True)


def _decode_png(payload: bytes) -> Image:
    return np.asarray(_imagecodecs().png_decode(payload))


def _encode_webp(image: Image) -> bytes:
    colours = image[:, :, None].repeat(3, axis=2) if image.ndim == 2 else image
    return bytes(_imagecodecs().webp_encode(np.ascontiguousarray(colours), level=100, lossless=True, method=6))


def _decode_webp(payload: bytes) -> Image:
    return np.asarray(_imagecodecs().webp_decode(payload))


def _encode_jpegxl(effort: int, image: Image) -> bytes:
    return bytes(_imagecodecs().jpegxl_encode(image, lossless=True, effort=effort, numthreads=1))


def _decode_jpegxl(payload: bytes) -> Image:
    return np.asarray(_imagecodecs().jpegxl_decode(payload, numthreads=1))


Coded = tuple[bytes, float]
"""A file and the seconds that encoding it took."""

Coder = Callable[[Peer, Sequence[Image]], Iterable[Coded]]
"""Codes images with a peer, in their order, and checks each."""


@contextmanager
def peer_coder(processes: int) -> Iterator[Coder]:
    """A coder that works in so many processes; in this one for 1."""
    if processes == 1:
        yield lambda peer, images: map(partial(_code, peer), images)
        return
    # Not forked: compiled code and its threads live in this process.
    pool = ProcessPoolExecutor(processes, get_context("spawn"))

    def code(peer: Peer, images: Sequence[Image]) -> Iterable[Coded]:
        chunk = max(1, min(CHUNK, len(images) // (4 * processes)))
        return pool.map(partial(_code, peer), images, chunksize=chunk)

    try:
        yield code
    finally:
        # An interrupted run does not wait for what has not begun.
        pool.shutdown(cancel_futures=True)


def _code(peer: Peer, image: Image) -> Coded:
    start = time.perf_counter()
    payload = peer.encode(image)
    seconds = time.perf_counter() - start
    decoded = peer.decode(payload)
    if image.ndim < decoded.ndim:
        image = image[:, :, None].repeat(decoded.shape[2], axis=2)
    if decoded.dtype != image.dtype or not np.array_equal(decoded, image):
        raise VerifyError(f"{peer.name} does not give the pixels of an image back: it is no lossless peer here")
    return payload, seconds


class PeerContestant:
    """A peer in a contest: it encodes once, before the rounds (the slow ones take minutes), and decodes in each."""

    def __init__(self, peer: Peer, image_set: ImageSet, coder: Coder) -> None:
        self._peer, self._set, self._coder = peer, image_set, coder
        self.key = Key(peer.name, "cpu", 1, peer.settings)
        self._payloads: list[bytes] = []
        self._encode_seconds = 0.0
        self._decode_seconds: list[float] = []

    def prepare(self, progress: Progress) -> None:
        """Encode each image, timed, and check it."""
        label, count = f"{self.key.codec}: encoding", len(self._set.images)
        progress(label, 0, count)
        for payload, seconds in self._coder(self._peer, self._set.images):
            self._payloads.append(payload)
            self._encode_seconds += seconds
            progress(label, len(self._payloads), count)

    def run(self) -> None:
        """Decode all."""
        start = time.perf_counter()
        for payload in self._payloads:
            self._peer.decode(payload)
        self._decode_seconds.append(time.perf_counter() - start)

    def figures(self) -> PeerFigures:
        """What was measured."""
        raw_bytes, payload_bytes = self._set.raw_bytes, sum(map(len, self._payloads))
        return PeerFigures(
            peer=self.key.codec,
            settings=self.key.version,
            device=self.key.device,
            threads=self.key.threads,
            images=len(self._set.images),
            pixels=self._set.pixels,
            raw_bytes=raw_bytes,
            payload_bytes=payload_bytes,
            bpsp=bits_per_sample(payload_bytes, self._set),
            encode_mb_per_s=megabytes_per_second(raw_bytes, self._encode_seconds),
            decode_mb_per_s=megabytes_per_second(raw_bytes, median(self._decode_seconds)),
            rounds=len(self._decode_seconds),
        )


def _imagecodecs() -> Any:
    try:
        import imagecodecs
    except ModuleNotFoundError as error:
        raise UsageError("measuring peers needs imagecodecs: pip install 'pilc-stream[bench]'") from error
    return imagecodecs

"""From files to batches of decoded images: reads ahead, decodes in threads, and holds a bounded amount of either.

Two pools work ahead of the caller. Readers fetch files and look at their headers, in a window of limited bytes;
then the size of every image is known, images are grouped into batches of limited pixels, and decoders decode one
batch while the caller codes the one before. Order is that of the items throughout. Neither limit stops an image
that exceeds it alone; such an image is decoded with nothing beside it.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from pilc_stream.errors import ImageError
from pilc_stream.images import ImageHeader, NotRepresentable, Pixels, decode_image, pixel_sha256, probe_image
from pilc_stream.pipeline.statistics import StageTimes
from pilc_stream.storage import SourceFile

MAX_BATCH_IMAGES = 1024
"""Images of a batch at most, so that a batch of very small images keeps its lists short."""

WINDOW_FILES_PER_THREAD = 8
"""Files fetched ahead per reading thread, so that small files keep all of them busy."""


@dataclass(slots=True)
class LoadedImage:
    """A source file that was read, and what became of it.

    Exactly one of `pixels`, `refusal` and `error` is set: it was decoded, it is sound but not taken (and why), or
    it cannot be decoded (and why). `header` is None for what cannot be decoded: its header proves nothing.
    `pixel_sha256` is empty without pixels.
    """

    key: str
    data: bytes
    source_sha256: bytes
    header: ImageHeader | None = None
    pixels: Pixels | None = None
    pixel_sha256: bytes = b""
    refusal: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class LoadLimits:
    """`batch_pixels`: pixels decoded at a time; `read_ahead_bytes`: source bytes fetched ahead; the rest as named."""

    batch_pixels: int
    max_pixels: int
    read_ahead_bytes: int
    read_threads: int
    decode_threads: int


def load_batches(items: Sequence[SourceFile], limits: LoadLimits, times: StageTimes) -> Generator[list[LoadedImage]]:
    """Yield all `items` in order, in batches of at most `limits.batch_pixels` pixels or of a single image.

    About two batches of pixels are in memory at a time: close the generator, and empty each batch when done with it.
    Raises StorageError where a file cannot be read: nothing is known of it then, so nothing may be recorded.
    """
    readers = ThreadPoolExecutor(limits.read_threads, thread_name_prefix="pilc-read")
    decoders = ThreadPoolExecutor(limits.decode_threads, thread_name_prefix="pilc-decode")
    try:
        waiting: deque[tuple[int, list[Future[tuple[LoadedImage, float]]]]] = deque()
        for pixels, group in _grouped(_fetched(items, limits, readers, times), limits.batch_pixels):
            if waiting and waiting[0][0] + pixels > 2 * limits.batch_pixels:
                yield _collect(waiting.popleft()[1], times)
            waiting.append((pixels, [decoders.submit(_decode, image, limits.max_pixels) for image in group]))
            group.clear()
            if len(waiting) > 1:
                yield _collect(waiting.popleft()[1], times)
        while waiting:
            yield _collect(waiting.popleft()[1], times)
    finally:
        # Running work is a read or a decode that ends soon; waiting for it leaves no thread behind an interrupt.
        readers.shutdown(wait=True, cancel_futures=True)
        decoders.shutdown(wait=True, cancel_futures=True)


def _fetched(
    items: Sequence[SourceFile], limits: LoadLimits, readers: ThreadPoolExecutor, times: StageTimes
) -> Iterator[LoadedImage]:
    """Yield the files in order, read ahead by at most `read_ahead_bytes` as listed, but always one file."""
    window: deque[tuple[int, Future[tuple[LoadedImage, float]]]] = deque()
    ahead_bytes, position = 0, 0

    def has_room(size: int) -> bool:
        few = len(window) < WINDOW_FILES_PER_THREAD * limits.read_threads
        return not window or (few and ahead_bytes + size <= limits.read_ahead_bytes)

    while window or position < len(items):
        while position < len(items) and has_room(items[position].size):
            item = items[position]
            window.append((item.size, readers.submit(_fetch, item, limits.max_pixels)))
            ahead_bytes += item.size
            position += 1
        size, future = window.popleft()
        image, seconds = future.result()
        ahead_bytes -= size
        times.read += seconds
        yield image


def _grouped(images: Iterator[LoadedImage], batch_pixels: int) -> Iterator[tuple[int, list[LoadedImage]]]:
    """Group consecutive images up to `batch_pixels`; yields the sum of pixels with each group."""
    group, total = list[LoadedImage](), 0
    for image in images:
        # One pixel for a file without a header: thousands of broken files must not become one batch.
        pixels = image.header.pixels if image.header else 1
        if group and (total + pixels > batch_pixels or len(group) == MAX_BATCH_IMAGES):
            yield total, group
            group, total = [], 0
        group.append(image)
        total += pixels
    if group:
        yield total, group


def _collect(futures: list[Future[tuple[LoadedImage, float]]], times: StageTimes) -> list[LoadedImage]:
    results = [future.result() for future in futures]
    times.decode += sum(seconds for _, seconds in results)
    return [image for image, _ in results]


def _fetch(item: SourceFile, max_pixels: int) -> tuple[LoadedImage, float]:
    start = time.perf_counter()
    data = item.read()
    image = LoadedImage(item.key, data, hashlib.sha256(data).digest())
    try:
        image.header = probe_image(data, max_pixels=max_pixels)
    except ImageError as error:
        image.error = str(error)
    return image, time.perf_counter() - start


def _decode(image: LoadedImage, max_pixels: int) -> tuple[LoadedImage, float]:
    start = time.perf_counter()
    if not image.error:
        try:
            image.pixels = decode_image(image.data, max_pixels=max_pixels)
            image.pixel_sha256 = pixel_sha256(image.pixels.array)
        except NotRepresentable as refusal:
            image.header, image.refusal = refusal.header, refusal.reason
        except ImageError as error:
            image.header, image.error = None, str(error)
    return image, time.perf_counter() - start

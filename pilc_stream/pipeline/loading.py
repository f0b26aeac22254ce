"""From parts of a source to batches of decoded images: reads ahead, decodes in threads, holds a bounded amount.

Two pools work ahead of the caller. Readers fetch samples and look at their headers, in a window of limited bytes; a
part with many samples, such as a tar file, is read in pieces, of which one is in memory and one on its way, and small
files are read many at a time. Then the size of every image is known, images are grouped into batches of limited
pixels, and decoders decode one batch while the caller codes the one before. Order is that of the parts throughout.
Neither limit stops an image that exceeds it alone; such an image is decoded with nothing beside it.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from pilc_stream.errors import ImageError, StorageError
from pilc_stream.images import (
    BandedImage,
    ImageHeader,
    Keep,
    NotBanded,
    NotRepresentable,
    Pixels,
    decode_image,
    framed,
    open_bands,
    pixel_sha256,
    probe_image,
)
from pilc_stream.pipeline.sources import Part
from pilc_stream.pipeline.statistics import StageTimes
from pilc_stream.storage import Sample, SourceFile, is_missing, read_together

MAX_BATCH_IMAGES = 1024
"""Images of a batch at most, so that a batch of very small images keeps its lists short."""

WINDOW_READS_PER_THREAD = 8
"""Reads ahead per reading thread, so that small parts keep all of them busy."""

SMALL_FILE_BYTES = 1 << 16
SMALL_FILES_TOGETHER = 32
"""So many small files are read at a time: handing each to a thread takes longer than reading it from a disk, and
object stores answer many requests side by side."""

SMALL_IMAGE_PIXELS = 1 << 14
SMALL_IMAGES_TOGETHER = 32
"""So many small images are handed to a decoding thread at a time."""

NOT_REBUILT = "a file that its pixels do not give back byte for byte"

GONE = "it was listed, but there is nothing at its place any more; restore it, then retry what failed"

PIECE_BYTES = 8 << 20
"""Of a part with many samples, what is read at a time."""


@dataclass(slots=True)
class LoadedImage:
    """A sample that was read, and what became of it.

    Exactly one of `pixels`, `banded`, `refusal` and `error` is set: it was decoded, it is so large that it is read in
    bands of rows while it is coded, it is sound but not taken (and why), or it cannot be had (and why; `failed_stage`
    says whether it could not be read or decoded). `header` is None for what cannot be decoded: its header proves
    nothing. `pixel_sha256` is empty without pixels, and until they are coded in bands. `columns`, `misfits`: as those
    of the sample.
    """

    key: str
    data: bytes
    source_sha256: bytes
    header: ImageHeader | None = None
    pixels: Pixels | None = None
    banded: BandedImage | None = None
    pixel_sha256: bytes = b""
    refusal: str = ""
    error: str = ""
    failed_stage: str = "decode"
    columns: Mapping[str, Any] = field(default_factory=dict)
    misfits: tuple[str, ...] = ()

    @property
    def known(self) -> Pixels | None:
        """The pixels, or what stands for those that are read in bands: shape, mode and metadata are right."""
        return self.banded.stand_in if self.banded else self.pixels


@dataclass(frozen=True, slots=True)
class LoadLimits:
    """`batch_pixels`: pixels decoded at a time; `read_ahead_bytes`: source bytes fetched ahead; the rest as named.

    `max_pixels`: of an image that is decoded whole; `max_streamed_pixels`: of one that is read in bands of rows.
    `keep`: what comes along with the pixels.
    """

    batch_pixels: int
    max_pixels: int
    read_ahead_bytes: int
    read_threads: int
    decode_threads: int
    keep: Keep = "display"
    max_streamed_pixels: int = 0


def load_batches(
    parts: Sequence[Part], limits: LoadLimits, times: StageTimes, only: Set[str] | None = None
) -> Generator[list[LoadedImage]]:
    """Yield the images of all `parts` in order, in batches of at most `limits.batch_pixels` pixels or a single image.

    `only`: the keys to take; None takes all.

    About two batches of pixels are in memory at a time: close the generator, and empty each batch when done with it.
    A file that is gone since it was listed is an image that could not be read. Raises StorageError where a file cannot
    be read for any other reason: nothing is known of it then, so nothing may be recorded.
    """
    readers = ThreadPoolExecutor(limits.read_threads, thread_name_prefix="pilc-read")
    decoders = ThreadPoolExecutor(limits.decode_threads, thread_name_prefix="pilc-decode")
    try:
        waiting: deque[tuple[int, list[Future[tuple[list[LoadedImage], float]]]]] = deque()
        for pixels, group in _grouped(_fetched(parts, limits, readers, times, only), limits.batch_pixels):
            if waiting and waiting[0][0] + pixels > 2 * limits.batch_pixels:
                yield _collect(waiting.popleft()[1], times)
            waiting.append((pixels, [decoders.submit(_decode, some, limits) for some in _portions(group)]))
            group.clear()
            if len(waiting) > 1:
                yield _collect(waiting.popleft()[1], times)
        while waiting:
            yield _collect(waiting.popleft()[1], times)
    finally:
        # Running work is a read or a decode that ends soon; waiting for it leaves no thread behind an interrupt.
        readers.shutdown(wait=True, cancel_futures=True)
        decoders.shutdown(wait=True, cancel_futures=True)


class _Reading:
    """A part, or some small files, being read piece by piece: `future` is the next one."""

    def __init__(
        self, parts: Sequence[Part], limits: LoadLimits, only: Set[str] | None, readers: ThreadPoolExecutor
    ) -> None:
        self._samples = _samples(parts)
        self._limits = limits
        self._only = only
        self._readers = readers
        self.future: Future[_Piece] = readers.submit(self._read)
        self.ahead_bytes = _ahead_bytes(parts)

    def go_on(self) -> None:
        """Have the piece after the one that was taken read."""
        self.future = self._readers.submit(self._read)

    def _read(self) -> _Piece:
        start = time.perf_counter()
        images: list[LoadedImage] = []
        read_bytes = 0
        for sample in self._samples:
            if self._only is None or sample.key in self._only:
                images.append(_probe(sample, self._limits))
                read_bytes += len(sample.data)
            if read_bytes >= PIECE_BYTES:
                return _Piece(images, False, time.perf_counter() - start)
        return _Piece(images, True, time.perf_counter() - start)


@dataclass(frozen=True, slots=True)
class _Piece:
    images: list[LoadedImage]
    is_last: bool
    seconds: float


def _fetched(
    parts: Sequence[Part],
    limits: LoadLimits,
    readers: ThreadPoolExecutor,
    times: StageTimes,
    only: Set[str] | None,
) -> Iterator[LoadedImage]:
    """Yield the images in order, read ahead by at most `read_ahead_bytes` as listed, but always one part."""
    window: deque[_Reading] = deque()
    ahead_bytes = 0
    # A group is a small share of what may be read ahead, so that there are always some on their way.
    groups = deque(_together(parts, limits.read_ahead_bytes // (2 * limits.read_threads)))

    def has_room(group: Sequence[Part]) -> bool:
        few = len(window) < WINDOW_READS_PER_THREAD * limits.read_threads
        return not window or (few and ahead_bytes + _ahead_bytes(group) <= limits.read_ahead_bytes)

    while window or groups:
        while groups and has_room(groups[0]):
            window.append(_Reading(groups.popleft(), limits, only, readers))
            ahead_bytes += window[-1].ahead_bytes
        piece = window[0].future.result()
        times.read += piece.seconds
        if piece.is_last:
            ahead_bytes -= window.popleft().ahead_bytes
        else:
            window[0].go_on()
        yield from piece.images


def _together(parts: Iterable[Part], group_bytes: int) -> Iterator[Sequence[Part]]:
    """Group consecutive small files of one store, up to `group_bytes`; every other part is alone."""
    group: list[Part] = []
    room, store = 0, None
    for part in parts:
        small = isinstance(part, SourceFile) and part.size <= SMALL_FILE_BYTES
        here = part.store if isinstance(part, SourceFile) else None
        if group and not (small and here is store and part.size <= room and len(group) < SMALL_FILES_TOGETHER):
            yield group
            group = []
        if not group:
            room, store = group_bytes, here
        group.append(part)
        room = room - part.size if small else -1
    if group:
        yield group


def _samples(parts: Sequence[Part]) -> Iterator[Sample]:
    """The samples of the parts. A part that is gone is one sample with a fault; any other StorageError is raised."""
    files = [part for part in parts if isinstance(part, SourceFile)]
    if len(files) == len(parts) > 1:
        try:
            together = list(read_together(files))
        except StorageError as error:
            if not is_missing(error):
                raise
            # Which of them it is shows when each is read by itself.
        else:
            yield from together
            return
    for part in parts:
        try:
            yield from part.samples()
        except StorageError as error:
            if not is_missing(error):
                raise
            yield Sample(part.key, b"", fault=GONE)


def _ahead_bytes(parts: Sequence[Part]) -> int:
    """Bytes of `parts` that are in memory while they are read."""
    return min(sum(part.size for part in parts), 2 * PIECE_BYTES)


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


def _portions(group: Sequence[LoadedImage]) -> Iterator[list[LoadedImage]]:
    """Cut a batch into what one thread decodes at a time: a large image, or some small ones."""
    portion, pixels = list[LoadedImage](), 0
    for image in group:
        portion.append(image)
        pixels += image.header.pixels if image.header else 1
        if pixels >= SMALL_IMAGE_PIXELS or len(portion) == SMALL_IMAGES_TOGETHER:
            yield portion
            portion, pixels = [], 0
    if portion:
        yield portion


def _collect(futures: list[Future[tuple[list[LoadedImage], float]]], times: StageTimes) -> list[LoadedImage]:
    results = [future.result() for future in futures]
    times.decode += sum(seconds for _, seconds in results)
    return [image for portion, _ in results for image in portion]


def _probe(sample: Sample, limits: LoadLimits) -> LoadedImage:
    image = LoadedImage(
        sample.key,
        sample.data,
        hashlib.sha256(sample.data).digest(),
        columns=sample.columns,
        misfits=sample.misfits,
    )
    if sample.fault:
        image.error, image.failed_stage = sample.fault, "read"
        return image
    try:
        most, limit = max((limits.max_pixels, "max_pixels"), (limits.max_streamed_pixels, "max_streamed_pixels"))
        image.header = probe_image(sample.data, max_pixels=most, limit=limit)
    except ImageError as error:
        image.error = str(error)
    return image


def _decode(portion: list[LoadedImage], limits: LoadLimits) -> tuple[list[LoadedImage], float]:
    start = time.perf_counter()
    for image in portion:
        if not image.error:
            _decode_one(image, limits)
    return portion, time.perf_counter() - start


def _decode_one(image: LoadedImage, limits: LoadLimits) -> None:
    try:
        if image.header is not None and image.header.pixels > limits.max_pixels:
            _open_large(image, image.header, limits)
            return
        image.pixels = decode_image(image.data, max_pixels=limits.max_pixels, metadata=limits.keep != "pixels")
        if limits.keep == "source":
            image.pixels = framed(image.data, image.pixels)
            if image.pixels is None:
                image.refusal = NOT_REBUILT
                return
        image.pixel_sha256 = pixel_sha256(image.pixels.array)
    except NotRepresentable as refusal:
        image.header, image.refusal = refusal.header, refusal.reason
    except ImageError as error:
        image.header, image.error = None, str(error)


def _open_large(image: LoadedImage, header: ImageHeader, limits: LoadLimits) -> None:
    """Open what is not decoded whole. Raises as `images.open_bands`; ImageError also for what has no bands."""
    try:
        opened = open_bands(image.data, max_pixels=limits.max_streamed_pixels, metadata=limits.keep != "pixels")
    except NotBanded as reason:
        raise ImageError(
            f"the {header.format} header says {header.width}x{header.height} pixels, above the limit of "
            f"{limits.max_pixels} for images that are decoded whole, and {reason}; raise max_pixels if the file is to "
            "be trusted and there is memory for it"
        ) from reason
    if limits.keep == "source":
        image.refusal = NOT_REBUILT
    else:
        image.banded = opened

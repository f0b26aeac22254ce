"""From stored bytes to samples: every payload checked and decoded, every error named by key and shard."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, get_args

from numpy.typing import NDArray

from pilc_stream.codecs import Decoder
from pilc_stream.codecs.base import check_region
from pilc_stream.errors import ChecksumError, FormatError, ImageError, ModelError, PilcError, UsageError, VerifyError
from pilc_stream.images import decode_kept, pixel_sha256
from pilc_stream.readers.palettes import displayed
from pilc_stream.readers.regions import Wanted, region_of
from pilc_stream.readers.shards import Place
from pilc_stream.records.manifest import Manifest
from pilc_stream.records.payload import parse_header
from pilc_stream.records.record import LOSSY_CODECS

OnError = Literal["raise", "skip", "warn"]
"""What to do with a sample that cannot be read: raise its error, leave it out, or leave it out with a warning."""

Stored = bytes | memoryview
"""The bytes of one record."""

_SAMPLE_ERRORS = (FormatError, ImageError, ModelError, VerifyError)
_GROUP_RAW_BYTES = 1 << 25
_GROUP_IMAGES = 128
_KEPT_RATIO = 10


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One image. `pixels`: uint8 or uint16, `(H, W)` or `(H, W, C)`; `columns`: the values of the columns asked for."""

    key: str
    pixels: NDArray[Any]
    columns: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class StoredSample:
    """One image as it is stored: `payload` is a payload, or the source file that was kept in its place."""

    key: str
    payload: bytes
    columns: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SampleSettings:
    """How samples are made; the fields are those of `dataset.open`."""

    device: str
    threads: int
    columns: tuple[str, ...]
    verify: bool
    max_pixels: int


def stored_sample(place: Place, payload: bytes, columns: Sequence[str]) -> StoredSample | PilcError:
    """The sample at `place` undecoded; an error where it is a source file that is damaged."""
    try:
        if place.is_kept:
            check_kept(place, payload)
    except ChecksumError as error:
        return ChecksumError(f"{place}: {error}. {_advice(error)}")
    return StoredSample(place.value("key"), payload, {name: place.value(name) for name in columns})


class SampleDecoder:
    """Makes samples of payloads. Belongs to one process; threads may share it."""

    def __init__(self, manifest: Manifest, settings: SampleSettings, parent: SampleDecoder | None = None) -> None:
        """`parent`: that of the process from which this one was forked."""
        self._manifest = manifest
        self._settings = settings
        self._lock = threading.Lock()
        # Code that was compiled for the CPU is as good in a child; a card's context is not.
        inherits = not settings.device.startswith("cuda")
        self._opened: Decoder | None = parent._opened if parent is not None and inherits else None

    def decode(
        self,
        places: Sequence[Place | FormatError],
        payloads: Sequence[Stored],
        wanted: Sequence[Wanted | None] | None = None,
    ) -> list[Sample | PilcError]:
        """The samples at `places`, or the regions `wanted` of them, decoded together.

        In the place of each that fails stands its error; one among `places`, for a shard whose columns are damaged,
        stays what it is. Raises UsageError for a region outside its image.
        """
        wanted = [None] * len(places) if wanted is None else wanted
        coded = [number for number, place in enumerate(places) if isinstance(place, Place) and not place.is_kept]
        decoded = self._decode_coded([payloads[number] for number in coded], [wanted[number] for number in coded])
        images = dict(zip(coded, decoded, strict=True))
        return [
            place if isinstance(place, FormatError) else self._sample(place, payload, part, images.get(number))
            for number, (place, payload, part) in enumerate(zip(places, payloads, wanted, strict=True))
        ]

    def _decode_coded(
        self, payloads: Sequence[Stored], wanted: Sequence[Wanted | None]
    ) -> list[NDArray[Any] | PilcError]:
        """The images, decoded in one call or, where one payload is damaged, each alone."""
        if not payloads:
            return []
        try:
            parts = [self._part(payload, part) for payload, part in zip(payloads, wanted, strict=True)]
            return list(self._decoder.decode(payloads, parts))
        except (FormatError, ModelError) as error:
            if len(payloads) == 1:
                return [error]
        except UsageError:
            # A region outside its image; but a damaged header may only say so.
            if len(payloads) == 1:
                whole = self._decode_coded(payloads, [None])
                if isinstance(whole[0], PilcError):
                    return whole
                raise
        alone = zip(payloads, wanted, strict=True)
        return [image for payload, part in alone for image in self._decode_coded([payload], [part])]

    @staticmethod
    def _part(payload: Stored, wanted: Wanted | None) -> Sequence[int] | None:
        if wanted is None or not callable(wanted):
            return wanted
        header = parse_header(payload)
        return region_of(wanted, header.height, header.width)

    def _sample(
        self, place: Place, payload: Stored, wanted: Wanted | None, image: NDArray[Any] | PilcError | None
    ) -> Sample | PilcError:
        """The sample of an image that was decoded or failed to, or of a kept file where there is none."""
        try:
            if image is None:
                image = self._decode_kept(place, payload)
                if wanted is not None:
                    region = check_region(region_of(wanted, *image.shape[:2]), *image.shape[:2])
                    image = image[region.y : region.y + region.height, region.x : region.x + region.width].copy()
            elif isinstance(image, PilcError):
                raise image
            elif self._settings.verify and wanted is None and _differs(place, payload, image):
                raise VerifyError("the decoded pixels are not those that were compressed: their SHA-256 differs")
            else:
                image = displayed(image, payload)
        except _SAMPLE_ERRORS as error:
            return type(error)(f"{place}: {str(error).rstrip('.')}. {_advice(error)}")
        return Sample(place.value("key"), image, {name: place.value(name) for name in self._settings.columns})

    def _decode_kept(self, place: Place, payload: Stored) -> NDArray[Any]:
        check_kept(place, payload)
        return decode_kept(bytes(payload), max_pixels=self._settings.max_pixels)

    @property
    def _decoder(self) -> Decoder:
        with self._lock:
            if self._opened is None:
                self._opened = Decoder(self._settings.device, self._settings.threads, self._manifest.model_file)
            return self._opened


def _differs(place: Place, payload: Stored, image: NDArray[Any]) -> bool:
    # Of a lossy payload the decoder has checked the latents.
    return parse_header(payload).codec not in LOSSY_CODECS and pixel_sha256(image) != place.value("pixel_sha256")


def check_kept(place: Place, data: Stored) -> None:
    """Raise ChecksumError unless a kept source file is as it was stored: it carries no checksum of its own."""
    if sha256(data).digest() != place.value("source_sha256"):
        raise ChecksumError("the bytes of its source file are not those that were stored: their SHA-256 differs")


def decode_groups(payloads: Sequence[bytes]) -> Iterator[slice]:
    """Cut payloads into groups to decode together, of so few pixels that the decoded images stay small in memory."""
    start = raw_bytes = 0
    for number, payload in enumerate(payloads):
        try:
            more = parse_header(payload).raw_bytes
        except FormatError:
            # A kept file, or damaged: decoding will tell.
            more = _KEPT_RATIO * len(payload)
        if number > start and (raw_bytes + more > _GROUP_RAW_BYTES or number - start == _GROUP_IMAGES):
            yield slice(start, number)
            start, raw_bytes = number, 0
        raw_bytes += more
    if payloads:
        yield slice(start, len(payloads))


def check_on_error(on_error: str) -> OnError:
    """`on_error` if it is one. Raises UsageError otherwise."""
    known: tuple[OnError, ...] = get_args(OnError)
    for each in known:
        if each == on_error:
            return each
    raise UsageError(f"on_error is {on_error!r}; give one of {', '.join(map(repr, known))}.")


def tolerate(error: PilcError, on_error: OnError) -> None:
    """Raise the error of a sample, warn of it, or do nothing."""
    if on_error == "raise":
        raise error
    if on_error == "warn":
        warnings.warn(f"A sample was left out. {error}", stacklevel=3)


def _advice(error: PilcError) -> str:
    if isinstance(error, ModelError):
        return "Every image that was coded with this model needs it."
    if isinstance(error, ImageError):
        return "It was kept as its source file; on_error='skip' goes on without it."
    return "Restore the shard from a copy or compress its sources again; on_error='skip' goes on without this sample."

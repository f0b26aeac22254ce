"""A contest of codecs on the same images: all run in every round, so that drift of the machine hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from pilc_stream.codecs import Codec, Decoder
from pilc_stream.errors import VerifyError
from pilc_stream.reports.figures import Figures, Key, ProfileFigures
from pilc_stream.reports.sets import ImageSet

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many images of it are done, and how many there are."""


class Contestant(Protocol):
    """One codec on one set."""

    @property
    def key(self) -> Key:
        """What its figures will be known by."""

    def prepare(self, progress: Progress) -> None:
        """Code all images once, outside the rounds; raise VerifyError unless their pixels come back."""

    def run(self) -> None:
        """One timed round."""

    def figures(self) -> Figures:
        """What was measured."""


def run_contest(contestants: Sequence[Contestant], images: int, rounds: int, progress: Progress) -> None:
    """Prepare all contestants, then let each of them run in each of the rounds."""
    for contestant in contestants:
        contestant.prepare(progress)
    for turn in range(rounds):
        for contestant in contestants:
            label = f"{contestant.key.codec}: round {turn + 1} of {rounds}"
            progress(label, 0, images)
            contestant.run()
            progress(label, images, images)


class ProfileContestant:
    """A profile of ours, encoding and decoding the whole set at once."""

    def __init__(self, codec: Codec, decoder: Decoder, device: str, threads: int, image_set: ImageSet) -> None:
        self._codec, self._decoder, self._set = codec, decoder, image_set
        engine = getattr(codec, "engine", None)
        self.key = Key(codec.profile, engine.name if engine else device, threads, codec.model_sha256)
        self._payloads: list[bytes] = []
        self._encode_seconds: list[float] = []
        self._decode_seconds: list[float] = []

    def prepare(self, progress: Progress) -> None:
        """The first pass compiles, and is checked."""
        label, images = f"{self.key.codec}: warming up", self._set.images
        progress(label, 0, len(images))
        self._payloads = self._codec.encode(images)
        for image, decoded in zip(images, self._decoder.decode(self._payloads), strict=True):
            if not np.array_equal(image, decoded):
                raise VerifyError(f"{self._set.name}: profile {self.key.codec!r} does not give the pixels back")
        progress(label, len(images), len(images))

    def run(self) -> None:
        """Encode all, decode all."""
        start = time.perf_counter()
        self._payloads = self._codec.encode(self._set.images)
        middle = time.perf_counter()
        self._decoder.decode(self._payloads)
        self._encode_seconds.append(middle - start)
        self._decode_seconds.append(time.perf_counter() - middle)

    def figures(self) -> ProfileFigures:
        """What was measured."""
        raw_bytes, payload_bytes = self._set.raw_bytes, sum(map(len, self._payloads))
        model = getattr(self._codec, "model", None)
        return ProfileFigures(
            profile=self.key.codec,
            model_sha256=self.key.version,
            device=self.key.device,
            threads=self.key.threads,
            images=len(self._set.images),
            pixels=self._set.pixels,
            raw_bytes=raw_bytes,
            payload_bytes=payload_bytes,
            bpsp=bits_per_sample(payload_bytes, self._set),
            encode_mb_per_s=megabytes_per_second(raw_bytes, statistics.median(self._encode_seconds)),
            decode_mb_per_s=megabytes_per_second(raw_bytes, statistics.median(self._decode_seconds)),
            rounds=len(self._encode_seconds),
            macs_per_pixel=model.spec.macs_per_pixel() if model else {},
        )


def bits_per_sample(payload_bytes: int, image_set: ImageSet) -> float:
    """Bits per sub-pixel, to four decimals."""
    return round(8 * payload_bytes / sum(image.size for image in image_set.images), 4)


def megabytes_per_second(raw_bytes: int, seconds: float) -> float:
    """1e6 bytes of raw samples per second, to four digits: never 0, however slow."""
    return float(f"{raw_bytes / 1e6 / seconds:.4g}")

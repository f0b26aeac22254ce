"""Benchmarks of the codecs: megabytes of raw pixels per second each way, medians of interleaved rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pilc_stream.codecs import Codec, Decoder, open_codec
from pilc_stream.errors import ImageError, UsageError, VerifyError
from pilc_stream.images import decode_image
from pilc_stream.storage import expand

Images = Sequence[NDArray[Any]]


@dataclass(frozen=True)
class CodecFigures:
    """What one profile did on one set: `*_mb_per_s` are 1e6 bytes of raw pixels per second, medians of `rounds`."""

    profile: str
    device: str
    threads: int
    images: int
    raw_bytes: int
    payload_bytes: int
    bpsp: float
    encode_mb_per_s: float
    decode_mb_per_s: float
    rounds: int
    macs_per_pixel: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return asdict(self)


def load_images(source: Path | None, limit: int | None = None) -> tuple[list[NDArray[Any]], int]:
    """The images below the folder, or in the column `image` of the Parquet file, at `source` (or the demo's pictures):
    at most `limit` of them, and how many were left out because they do not decode as 8-bit grey or RGB."""
    images: list[NDArray[Any]] = []
    left_out = 0
    for data in _image_files(source or Path(str(resources.files("pilc_stream") / "demo_pictures"))):
        if limit is not None and len(images) == limit:
            break
        try:
            images.append(decode_image(data).array)
        except ImageError:
            left_out += 1
    return images, left_out


def _image_files(source: Path) -> Iterator[bytes]:
    if source.suffix == ".parquet":
        for batch in pq.ParquetFile(source).iter_batches(64, columns=["image"]):
            yield from (value.as_py() for value in batch.column(0))
    else:
        yield from (file.read() for file in expand([str(source)]))


def bench_profiles(
    images: Images,
    profiles: Sequence[str],
    device: str = "auto",
    threads: int = 1,
    rounds: int = 5,
    progress: Callable[[str], None] = lambda _: None,
) -> list[CodecFigures]:
    """Time every profile on the same images, all of them in each round, so that drift hits all alike.

    The first, untimed pass compiles and checks that the pixels come back (VerifyError otherwise).
    """
    if not images:
        raise UsageError("bench: no image was found; give a folder of images")
    contestants = [
        _Contestant(open_codec(name, device, threads), Decoder(device, threads), images) for name in profiles
    ]
    for contestant in contestants:
        progress(f"{contestant.codec.profile}: warming up")
        contestant.check()
    for turn in range(rounds):
        for contestant in contestants:
            progress(f"{contestant.codec.profile}: round {turn + 1} of {rounds}")
            contestant.run()
    return [contestant.figures(device, threads) for contestant in contestants]


class _Contestant:
    def __init__(self, codec: Codec, decoder: Decoder, images: Images) -> None:
        self.codec, self._decoder, self._images = codec, decoder, images
        self._payloads: list[bytes] = []
        self._encode_seconds: list[float] = []
        self._decode_seconds: list[float] = []

    def check(self) -> None:
        self._payloads = self.codec.encode(self._images)
        for image, decoded in zip(self._images, self._decoder.decode(self._payloads), strict=True):
            if not np.array_equal(image, decoded):
                raise VerifyError(f"bench: profile {self.codec.profile!r} does not give the pixels back")

    def run(self) -> None:
        start = time.perf_counter()
        self._payloads = self.codec.encode(self._images)
        middle = time.perf_counter()
        self._decoder.decode(self._payloads)
        self._encode_seconds.append(middle - start)
        self._decode_seconds.append(time.perf_counter() - middle)

    def figures(self, device: str, threads: int) -> CodecFigures:
        raw_bytes = sum(image.nbytes for image in self._images)
        payload_bytes = sum(map(len, self._payloads))
        model = getattr(self.codec, "model", None)
        return CodecFigures(
            profile=self.codec.profile,
            device=device,
            threads=threads,
            images=len(self._images),
            raw_bytes=raw_bytes,
            payload_bytes=payload_bytes,
            bpsp=round(8 * payload_bytes / sum(image.size for image in self._images), 4),
            encode_mb_per_s=round(raw_bytes / 1e6 / statistics.median(self._encode_seconds), 2),
            decode_mb_per_s=round(raw_bytes / 1e6 / statistics.median(self._decode_seconds), 2),
            rounds=len(self._encode_seconds),
            macs_per_pixel=model.spec.macs_per_pixel() if model else {},
        )

"""A race of the profiles and of other lossless codecs on this machine's CPU: one core, then all of them.

Every codec runs in every round, one after the other, so that drift of the machine hits all alike; what is slow runs in
fewer rounds, but at least once. PNG is Pillow's with its default settings both ways: what a data set of PNG files costs
to read. The others come from imagecodecs (extra `bench`), one thread to an image.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pilc_stream.codecs import Decoder, open_profile
from pilc_stream.errors import UsageError, VerifyError
from pilc_stream.reports.contest import bits_per_sample, megabytes_per_second
from pilc_stream.reports.sets import ImageSet

SET_BYTES = 24_000_000
"""Raw bytes that are taken of a set, in whole images from the first: enough for steady figures."""

ENOUGH_SECONDS = 0.7
"""After so many seconds of one measurement no further round repeats it."""

BASELINE = "PNG"
PROFILES = ("fast", "default", "high", "max")

Pixels = NDArray[Any]
Map = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]


@dataclass(frozen=True)
class Racer:
    """A codec of whole batches: `encode` and `decode` take the images or files and the number of threads."""

    name: str
    encode: Callable[[Sequence[Pixels], int], list[bytes]]
    decode: Callable[[Sequence[bytes], int], list[Pixels]]


@dataclass
class Result:
    """What a codec took on a set; seconds by direction and number of threads, a value for each round."""

    name: str
    payload_bytes: int = 0
    seconds: dict[tuple[str, int], list[float]] = field(default_factory=dict)

    def rate(self, raw_bytes: int, direction: str, threads: int) -> float:
        """Megabytes of raw pixels per second, the median of the rounds."""
        return megabytes_per_second(raw_bytes, median(self.seconds[direction, threads]))


def profile_racers(names: Sequence[str], threads: Sequence[int]) -> list[Racer]:
    """The profiles, whose engines use threads of their own."""
    decoders = {count: Decoder("cpu", count) for count in threads}
    racers = []
    for name in names:
        codecs = {count: open_profile(name, "cpu", count) for count in threads}
        racers.append(
            Racer(
                name,
                lambda images, count, codecs=codecs: codecs[count].encode(images),  # type: ignore[misc]
                lambda payloads, count: decoders[count].decode(payloads),
            )
        )
    return racers


def peer_racers(pools: dict[int, Executor]) -> list[Racer]:
    """PNG, QOI, WebP, JPEG XL, JPEG-LS and HTJ2K, an image to a thread. Raises UsageError without imagecodecs."""
    try:
        import imagecodecs
    except ImportError as error:
        raise UsageError("peers need imagecodecs: pip install 'pilc-stream[bench]'") from error

    def racer(name: str, encode: Callable[[Pixels], bytes], decode: Callable[[bytes], Pixels]) -> Racer:
        def over(function: Callable[[Any], Any], items: Sequence[Any], threads: int) -> list[Any]:
            return list(map(function, items) if threads == 1 else pools[threads].map(function, items))

        return Racer(name, partial(over, encode), partial(over, decode))

    def jpegxl(effort: int) -> Racer:
        return racer(
            f"JPEG XL e{effort}",
            lambda image: bytes(imagecodecs.jpegxl_encode(image, lossless=True, effort=effort, numthreads=1)),
            lambda data: np.asarray(imagecodecs.jpegxl_decode(data, numthreads=1)),
        )

    return [
        racer(BASELINE, _encode_png, _decode_png),
        racer("QOI", lambda image: bytes(imagecodecs.qoi_encode(image)), imagecodecs.qoi_decode),
        racer(
            "WebP",
            lambda image: bytes(imagecodecs.webp_encode(image, lossless=True, level=75, method=4)),
            imagecodecs.webp_decode,
        ),
        *map(jpegxl, (1, 3, 7)),
        racer("JPEG-LS", lambda image: bytes(imagecodecs.jpegls_encode(image)), imagecodecs.jpegls_decode),
        racer("HTJ2K", lambda image: bytes(imagecodecs.htj2k_encode(image)), imagecodecs.htj2k_decode),
    ]


def _encode_png(image: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _decode_png(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)))


def part_of(image_set: ImageSet) -> ImageSet:
    """The first images of a set that fill `SET_BYTES`, all in RGB or all in grey as they are."""
    images: list[Pixels] = []
    total = 0
    for image in image_set.images:
        if images and total + image.nbytes > SET_BYTES:
            break
        images.append(np.ascontiguousarray(image))
        total += image.nbytes
    return ImageSet(image_set.name, images, image_set.left_out)


def race(
    image_set: ImageSet, racers: Sequence[Racer], threads: Sequence[int], rounds: int, say: Callable[[str], None]
) -> list[Result]:
    """Run all racers on a set. Raises VerifyError where pixels do not come back."""
    results = [Result(racer.name) for racer in racers]
    files: list[list[bytes]] = [[] for _ in racers]
    for turn in range(rounds):
        say(f"{image_set.name}: round {turn + 1} of {rounds}")
        for number, (racer, result) in enumerate(zip(racers, results, strict=True)):
            if turn == 0:
                # What is made once (code, threads) is made before the clock runs.
                for count in threads:
                    racer.decode(racer.encode(image_set.images[:1], count), count)
            for count in threads:
                encoded = _timed(result, "encode", count, partial(racer.encode, image_set.images, count))
                files[number] = encoded or files[number]
                decoded = _timed(result, "decode", count, partial(racer.decode, files[number], count))
                if turn == 0 and not all(map(np.array_equal, image_set.images, decoded or [])):
                    raise VerifyError(f"{image_set.name}: {racer.name} does not give the pixels back")
            result.payload_bytes = sum(map(len, files[number]))
    return results


def _timed(result: Result, direction: str, threads: int, run: Callable[[], list[Any]]) -> list[Any] | None:
    spent = result.seconds.setdefault((direction, threads), [])
    if sum(spent) > ENOUGH_SECONDS:
        return None
    start = time.perf_counter()
    out = run()
    spent.append(time.perf_counter() - start)
    return out


def results_json(image_set: ImageSet, results: Sequence[Result], threads: Sequence[int]) -> dict[str, Any]:
    """The figures of a set as JSON values; rates are MB/s by the number of threads."""
    raw = image_set.raw_bytes
    return {
        "set": image_set.name,
        "images": len(image_set.images),
        "raw_bytes": raw,
        "codecs": [
            {
                "codec": result.name,
                "bpsp": bits_per_sample(result.payload_bytes, image_set),
                **{
                    f"{direction}_mb_per_s": {str(n): result.rate(raw, direction, n) for n in threads}
                    for direction in ("encode", "decode")
                },
                "rounds": {f"{direction} {n}": len(spent) for (direction, n), spent in result.seconds.items()},
            }
            for result in results
        ],
    }


def race_table(report: dict[str, Any], threads: Sequence[int]) -> str:
    """A set's figures as lines of text."""
    heads = [f"{direction} {n} core{'s' * (n > 1)}" for direction in ("encode", "decode") for n in threads]
    lines = [f"{report['set']}: {report['images']} images, {report['raw_bytes'] / 1e6:.1f} MB; MB/s of raw pixels"]
    lines.append(f"{'codec':<12}{'bpsp':>8}" + "".join(f"{head:>18}" for head in heads))
    for codec in report["codecs"]:
        rates = [codec[f"{way}_mb_per_s"][str(n)] for way in ("encode", "decode") for n in threads]
        lines.append(f"{codec['codec']:<12}{codec['bpsp']:>8.3f}" + "".join(f"{rate:>18.1f}" for rate in rates))
    return "\n".join(lines)


def ratios(reports: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each codec's rates on one core against PNG's on the same set, and its size."""
    out = []
    for report in reports:
        base = next(codec for codec in report["codecs"] if codec["codec"] == BASELINE)
        for codec in report["codecs"]:
            out.append(
                {
                    "set": report["set"],
                    "codec": codec["codec"],
                    **{
                        way: round(codec[f"{way}_mb_per_s"]["1"] / base[f"{way}_mb_per_s"]["1"], 3)
                        for way in ("encode", "decode")
                    },
                    "size": round(codec["bpsp"] / base["bpsp"], 4),
                }
            )
    return out


def ratio_lines(found: Sequence[dict[str, Any]]) -> str:
    """The ratios as lines of text."""
    lines = [f"on one core, against {BASELINE}:"]
    width = max(len(one["set"]) for one in found)
    lines += [
        f"{one['set']:<{width}}  {one['codec']:<12} decodes {one['decode']:6.2f} times as fast, "
        f"encodes {one['encode']:6.2f} times, at {one['size']:.3f} of the size"
        for one in found
    ]
    return "\n".join(lines)


def race_peers(
    sets: Sequence[ImageSet], profiles: Sequence[str], cores: int, rounds: int, say: Callable[[str], None]
) -> tuple[dict[str, Any], str]:
    """The whole race: JSON values, and text whose last lines are the ratios against PNG."""
    threads = sorted({1, cores})
    with ThreadPoolExecutor(cores) as pool:
        racers = [*profile_racers(profiles, threads), *peer_racers({cores: pool})]
        parts = [part_of(image_set) for image_set in sets]
        reports = [results_json(part, race(part, racers, threads, rounds, say), threads) for part in parts]
    found = ratios(reports)
    tables = [race_table(report, threads) for report in reports]
    return {"race": reports, "against_png": found}, "\n\n".join([*tables, ratio_lines(found)])

"""What a CUDA card does with lossy-light: ``python -m pilc_stream.reports.lossy_card FILE``.

Rates are medians over rounds, in MB/s of raw RGB, by the host's clock around calls that have ended: pixels in host
memory to payloads, payloads to tensors on the card, payloads to pixels in host memory. Then the stages of a decoder for
one image of each size.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from pilc_stream.backends.lossy import open_lossy_engine
from pilc_stream.codecs.lossy import LossyCodec, LossyDecoder
from pilc_stream.models.lossy import LossyModel, load_lossy_model
from pilc_stream.models.shipped import preset_bytes
from pilc_stream.records.payload import parse_payload
from pilc_stream.reports.card import BatchSize, pictures
from pilc_stream.reports.lossy_stages import stage_seconds
from pilc_stream.reports.machine import machine_facts

PROFILE = "lossy-light"
QUALITY = 60
ROUNDS = 3
SIZES = (BatchSize(32, 32, 10_000), BatchSize(512, 768, 64), BatchSize(2048, 1365, 8), BatchSize(2048, 1365, 1))


def bench_lossy_card(
    model: LossyModel, sizes: Sequence[BatchSize] = SIZES, rounds: int = ROUNDS
) -> list[dict[str, Any]]:
    """The figures of each size as JSON values. Raises DeviceError without a card."""
    engine = open_lossy_engine("cuda")
    codec, decoder = LossyCodec(model, engine, QUALITY), LossyDecoder(model, engine)
    out = []
    for size in sizes:
        images = pictures(size)
        payloads = codec.encode(images)
        parsed, raw_bytes = [parse_payload(payload) for payload in payloads], sum(image.nbytes for image in images)
        paths: dict[str, Callable[[], object]] = {
            "payloads from pixels": partial(codec.encode, images),
            "tensors from payloads": partial(decoder.decode_to_tensors, parsed),
            "pixels from payloads": partial(decoder.decode, parsed, [None] * len(parsed)),
        }
        stages = stage_seconds(model, images[0], QUALITY, "cuda", rounds)
        out.append(
            {
                "profile": model.profile,
                "quality": QUALITY,
                "size": size._asdict(),
                "bits_per_pixel": 8 * sum(map(len, payloads)) / (size.height * size.width * size.images),
                "mb_per_s": {name: raw_bytes / _seconds(path, rounds) / 1e6 for name, path in paths.items()},
                "stage_seconds_of_one": stages,
            }
        )
    return out


def _seconds(path: Callable[[], object], rounds: int) -> float:
    """The median, after one round to warm up."""
    found = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        path()
        found.append(time.perf_counter() - start)
    return median(found[1:])


def main(file: str) -> None:
    """Measure lossy-light, and write the figures."""
    figures = bench_lossy_card(load_lossy_model(preset_bytes(PROFILE)))
    Path(file).write_text(
        json.dumps({"machine": machine_facts(), "figures": figures}, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main(sys.argv[1])

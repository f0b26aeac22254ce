"""Measuring lossy profiles and peers on a set: bits per pixel of whole files, PSNR, seconds; recorded as JSON.

A record is about one set on one machine: `codecs` holds each codec's points, one for each quality. Rates and PSNR are
means over the images, seconds are CPU seconds of this process for the whole set, of one pass each way.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.errors import UsageError, VerifyError
from pilc_stream.reports.contest import Progress
from pilc_stream.reports.machine import machine_facts, machine_name
from pilc_stream.reports.sets import ImageSet

PREFIX = "lossy-"
PEAK = 255.0
EXACT_DB = 99.0
"""Given for an image without any error."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class LossyCodec:
    """A codec to measure: `encode` takes all images and a quality, `decode` all files. `version`: the digest of a
    profile's model, or the settings of a peer."""

    name: str
    version: str
    is_peer: bool
    device: str
    qualities: Sequence[float]
    encode: Callable[[Sequence[Pixels], float], list[bytes]]
    decode: Callable[[Sequence[bytes]], list[Pixels]]


@dataclass(frozen=True)
class Point:
    """One quality of a codec on a set: means of bits per pixel and of PSNR in dB, seconds for all images."""

    quality: float
    bpp: float
    psnr: float
    encode_seconds: float
    decode_seconds: float


def psnr_of(image: Pixels, decoded: Pixels) -> float:
    """PSNR in dB over all samples."""
    error = float(np.square(image.astype(np.float64) - decoded).mean())
    return 10 * math.log10(PEAK**2 / error) if error else EXACT_DB


def measure_codec(codec: LossyCodec, image_set: ImageSet, progress: Progress) -> list[Point]:
    """The codec's points. Raises VerifyError where an image comes back in another shape."""
    points = []
    for number, quality in enumerate(codec.qualities):
        progress(f"{image_set.name}: {codec.name}", number, len(codec.qualities))
        start = time.process_time()
        files = codec.encode(image_set.images, quality)
        middle = time.process_time()
        decoded = codec.decode(files)
        end = time.process_time()
        rates, psnrs = [], []
        for image, file, again in zip(image_set.images, files, decoded, strict=True):
            if again.shape != image.shape:
                raise VerifyError(f"{image_set.name}: {codec.name} gives {again.shape} back for {image.shape}")
            rates.append(8 * len(file) / (image.shape[0] * image.shape[1]))
            psnrs.append(psnr_of(image, again))
        seconds = (round(middle - start, 4), round(end - middle, 4))
        points.append(Point(quality, round(float(np.mean(rates)), 5), round(float(np.mean(psnrs)), 4), *seconds))
    progress(f"{image_set.name}: {codec.name}", len(codec.qualities), len(codec.qualities))
    return points


def measure_lossy(
    image_set: ImageSet,
    codecs: Sequence[LossyCodec],
    folder: Path | None = None,
    progress: Progress = lambda label, done, total: None,
) -> dict[str, Any]:
    """The record of the set: what is missing in `folder`'s is measured, and written there codec by codec.

    Raises UsageError for grey images, and where something else lies at the record's place.
    """
    if any(image.ndim != 3 for image in image_set.images):
        raise UsageError(f"{image_set.name}: rate-distortion curves are about RGB images, and it holds grey ones")
    machine = machine_facts()
    path = record_path(folder, image_set.name, machine) if folder else None
    record = _read(path, image_set)
    record["machine"] = machine if not record["codecs"] else record["machine"]
    for codec in codecs:
        known = record["codecs"].get(codec.name)
        if known and known["version"] == codec.version and known["device"] == codec.device:
            continue
        points = measure_codec(codec, image_set, progress)
        record["codecs"][codec.name] = {
            "version": codec.version,
            "is_peer": codec.is_peer,
            "device": codec.device,
            "date": machine["date"],
            "command": machine["command"],
            "points": [asdict(point) for point in points],
        }
        if path:
            write_json(path, record)
    return record


def record_path(folder: Path, set_name: str, machine: Mapping[str, Any]) -> Path:
    """Where the record of a set on a machine lies in `folder`."""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{set_name} {machine_name(machine)}".lower()).strip("-")
    return folder / f"{PREFIX}{slug}.json"


def recorded_lossy(kind: str) -> list[dict[str, Any]]:
    """The records that come with the package, by file name: of `kind` "curves", or "course" of a training."""
    folder = resources.files("pilc_stream.reports") / "measured"
    names = sorted(file.name for file in folder.iterdir() if file.name.startswith(PREFIX))
    found = [json.loads((folder / name).read_text()) for name in names if name.endswith(".json")]
    return [record for record in found if record.get("kind") == kind]


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a document whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    os.replace(temporary, path)


def _read(path: Path | None, image_set: ImageSet) -> dict[str, Any]:
    empty = {
        "kind": "curves",
        "set": image_set.name,
        "images": len(image_set.images),
        "pixels": image_set.pixels,
        "sha256": image_set.sha256(),
        "machine": {},
        "codecs": {},
        "times": {},
    }
    if path is None or not path.exists():
        return empty
    try:
        record = json.loads(path.read_text())
        for codec in record["codecs"].values():
            [Point(**point) for point in codec["points"]]
        return record if record["sha256"] == empty["sha256"] else empty
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: this is no record of pilc frontier --lossy ({error!r}); move it away") from error

"""How much memory a very large image takes, step by step, each in a process of its own.

``python -m pilc_stream.reports.memory FOLDER -o memory.json`` writes a PNG of 30000 x 30000 pixels into FOLDER row by
row, compresses it, verifies the data set, reads a region of it and decompresses it, and records the peak of each
process (its resident set, as the system counts it). Region and PNG are compared with the picture. It takes some
minutes and half a gigabyte of disk. `--width` and `--height` make it smaller.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pilc_stream.images import open_bands, regrouped
from pilc_stream.images.metadata import PNG_SIGNATURE, png_chunk
from pilc_stream.reports.machine import machine_facts

EDGE = 30_000
BAND_ROWS = 64
REGION = 512
"""Rows and columns of the region that is read, from the middle."""

_PILC = "from pilc_stream.cli import main; main()"
_FIGURES = "figures of the process: "
_LAUNCH = f"""
import json, os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, used = os.wait4(pid, 0)
print({_FIGURES!r} + json.dumps([used.ru_maxrss, used.ru_utime + used.ru_stime]))
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Between us and the command: the peak of a process begins with that of the one that started it, which may be large."""

_READ = """
import hashlib, sys
import pilc_stream as pilc
region = tuple(map(int, sys.argv[2:]))
pixels = pilc.open(sys.argv[1], device="cpu").get("picture.png", region=region).pixels
print(hashlib.sha256(pixels.tobytes()).hexdigest())
"""


def picture(width: int, first: int, last: int) -> NDArray[np.uint8]:
    """Rows `first` to `last` of the picture, uint8 `(rows, width, 3)`: slopes and waves with a little noise."""
    y, x = np.arange(first, last)[:, None], np.arange(width)[None, :]
    wave = 16 * (128 + 60 * np.sin(x / 900))[:, :, None] + 480 * np.sin(x[:, :, None] / 371 + np.arange(3))
    noise = (x * 2654435761 + y * y * 40503 + (x * y >> 3)) >> 7 & 31 == 0
    rows = (wave.astype(np.int32) + (400 * np.sin(y / 503)).astype(np.int32)[:, :, None] >> 4) + noise[:, :, None]
    pixels: NDArray[np.uint8] = rows.astype(np.uint8)
    return pixels


def write_picture(sink: BinaryIO, width: int, height: int) -> None:
    """Write the picture as PNG, its rows filtered by differences to the left."""
    deflater = zlib.compressobj(3)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    sink.write(PNG_SIGNATURE + png_chunk(b"IHDR", header))
    for first, last in _bands(height):
        rows = picture(width, first, last)
        filtered = np.ones((last - first, 1 + 3 * width), np.uint8)
        flat = rows.reshape(last - first, 3 * width)
        filtered[:, 1:] = flat
        filtered[:, 4:] -= flat[:, :-3]
        if deflated := deflater.compress(filtered.tobytes()):
            sink.write(png_chunk(b"IDAT", deflated))
    sink.write(png_chunk(b"IDAT", deflater.flush()) + png_chunk(b"IEND", b""))


def measure(folder: Path, width: int = EDGE, height: int = EDGE, flags: Sequence[str] = ()) -> dict[str, Any]:
    """The steps and their peaks, as JSON values. `flags` go to `pilc compress`. Raises RuntimeError where one fails.

    `folder` is made, and is emptied of what an earlier run left there.
    """
    source, dataset, out = folder / "source", folder / "dataset", folder / "out"
    for path in (source, dataset, out):
        shutil.rmtree(path, ignore_errors=True)
    source.mkdir(parents=True)
    with (source / "picture.png").open("wb") as file:
        write_picture(file, width, height)
    y, x = max(0, height - REGION) // 2, max(0, width - REGION) // 2
    region = (y, x, min(REGION, height), min(REGION, width))
    pilc = (sys.executable, "-c", _PILC)
    common = ("--device", "cpu", "--threads", "1")
    steps = [
        _step("compress", [*pilc, "compress", str(source), str(dataset), "--workers", "0", *common, "--json", *flags]),
        _step("verify", [*pilc, "verify", str(dataset), *common, "--json"]),
        _step("read a region", [sys.executable, "-c", _READ, str(dataset), *map(str, region)]),
        _step("decompress", [*pilc, "decompress", str(dataset), str(out), *common, "--json"]),
    ]
    outputs = {step["step"]: step.pop("output") for step in steps}
    made = json.loads(outputs["compress"])
    if made["failed"] or made["fallback"]:
        raise RuntimeError(f"the picture was not coded: {made}")
    expected = picture(width, y, y + region[2])[:, x : x + region[3]]
    if outputs["read a region"].strip() != hashlib.sha256(expected.tobytes()).hexdigest():
        raise RuntimeError("the region that was read is not that of the picture")
    png = (out / "picture.png").read_bytes()
    for (first, last), band in zip(_bands(height), _rows_of(png, height), strict=True):
        if not np.array_equal(band, picture(width, first, last)):
            raise RuntimeError(f"rows {first} to {last} of the PNG that was written are not those of the picture")
    return {
        "picture": {"width": width, "height": height, "raw_bytes": 3 * width * height},
        "source_bytes": (source / "picture.png").stat().st_size,
        "stored_bytes": sum(path.stat().st_size for path in dataset.rglob("*.parquet")),
        "steps": steps,
    }


def _bands(height: int) -> Iterator[tuple[int, int]]:
    for first in range(0, height, BAND_ROWS):
        yield first, min(first + BAND_ROWS, height)


def _rows_of(png: bytes, height: int) -> Iterator[NDArray[Any]]:
    yield from regrouped(open_bands(png).read(), (last - first for first, last in _bands(height)))


def _step(name: str, command: Sequence[str]) -> dict[str, Any]:
    """Run a command in a process of its own; what it took."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", _LAUNCH, *command], stdout=subprocess.PIPE, text=True, check=False)
    output, _, figures = done.stdout.rpartition(_FIGURES)
    if done.returncode:
        raise RuntimeError(f"{name}: the process ended with {done.returncode}")
    peak, cpu_seconds = json.loads(figures)
    return {
        "step": name,
        "peak_rss_bytes": peak * (1 if sys.platform == "darwin" else 1024),
        "cpu_seconds": round(cpu_seconds, 1),
        "seconds": round(time.perf_counter() - start, 1),
        "output": output,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m pilc_stream.reports.memory", description=(__doc__ or ""))
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--out", type=Path)
    parser.add_argument("--width", type=int, default=EDGE)
    parser.add_argument("--height", type=int, default=EDGE)
    given = parser.parse_args(arguments)
    found = measure(given.folder, given.width, given.height)
    command = f"python -m pilc_stream.reports.memory FOLDER --width {given.width} --height {given.height}"
    text = json.dumps({**found, "machine": {**machine_facts(), "command": command}}, indent=1) + "\n"
    print(text, end="")
    if given.out:
        given.out.write_text(text)


if __name__ == "__main__":
    main()

"""A loader of another project as a program: it makes its data set of a folder of PNG files and reads it when told to.

    python loader_peers.py KIND PNG_FOLDER OWN_FOLDER BATCH WORKERS

Whichever Python has the peer's library runs this file, so it uses nothing else of the package. `serve` says what is
asked on standard input and answered on standard output; a loader of this project is served by the same function.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

Images = Any
"""Tensor `(N, 3, H, W)`, or a list of tensors `(3, H, W)` where sizes differ."""


def serve(open_batches: Callable[[], Iterable[Images]], libraries: Sequence[str], stored_bytes: int, cores: int) -> int:
    """Read all batches once for each line "pass" on standard input, on so many cores; the exit code.

    Answers each in a line of JSON: first `versions` of the `libraries` and `stored_bytes`, the bytes of all images as
    they are stored; then `samples`, `checksum` (the sum of the CRC-32 of all images' samples in the order C, H, W; only
    the first time, which warms up), `seconds`, and `cpu_seconds` of this process and its workers together, null where
    the system does not tell.
    """
    answers = os.fdopen(os.dup(1), "w")
    # Libraries may print.
    os.dup2(2, 1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    batches = open_batches()
    answer(versions={name: metadata.version(name) for name in libraries}, stored_bytes=stored_bytes)
    checksum = 0
    for number, line in enumerate(sys.stdin):
        if line.strip() != "pass":
            return 2
        samples, begin, begin_cpu = 0, time.perf_counter(), cpu_seconds()
        for images in batches:
            samples += len(images)
            if not number:
                checksum += sum(zlib.crc32(image.numpy().tobytes()) for image in images)
        seconds, end_cpu = time.perf_counter() - begin, cpu_seconds()
        used = None if begin_cpu is None or end_cpu is None else end_cpu - begin_cpu
        answer(samples=samples, checksum=checksum, seconds=seconds, cpu_seconds=used)
    return 0


def cpu_seconds() -> float | None:
    """What this process and its living children have used of the CPU; None where there is no /proc."""
    ticks = 0
    try:
        for pid in [os.getpid(), *(child.pid for child in multiprocessing.active_children())]:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    except OSError:
        return None
    return ticks / os.sysconf("SC_CLK_TCK")


def decode_file(data: bytes) -> Any:
    """The file's image as a uint8 tensor `(3, H, W)`: Pillow's decoding, and one copy into place."""
    import numpy as np
    import torch
    from PIL import Image

    return torch.from_numpy(np.array(Image.open(io.BytesIO(data)).convert("RGB"))).permute(2, 0, 1).contiguous()


def stack(images: Sequence[Any]) -> Images:
    """One tensor where all images have one size, else a list, as this project's loader does."""
    import torch

    return torch.stack(list(images)) if len({image.shape for image in images}) == 1 else list(images)


class _Files:
    """A folder with one file per image, read by torchvision's ImageFolder."""

    libraries = ("torchvision", "torch", "pillow")

    def make(self, pngs: Sequence[Path], folder: Path, workers: int) -> int:
        for png in pngs:
            target = folder / png.parent.name / png.name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(png, target)
        return sum(png.stat().st_size for png in pngs)

    def open(self, folder: Path, batch: int, workers: int) -> Iterable[Images]:
        from torch.utils.data import DataLoader
        from torchvision.datasets import ImageFolder
        from torchvision.transforms import PILToTensor

        files = ImageFolder(folder, PILToTensor())
        return DataLoader(
            files, batch, shuffle=True, num_workers=workers, persistent_workers=True, collate_fn=_first_of_each
        )


class _Tars:
    """WebDataset: tar files of images of one kind, in equal numbers for all workers."""

    libraries = ("webdataset", "torch", "pillow")

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix

    def make(self, pngs: Sequence[Path], folder: Path, workers: int) -> int:
        import webdataset
        from PIL import Image

        @cache
        def webp(png: bytes) -> bytes:
            coded = io.BytesIO()
            Image.open(io.BytesIO(png)).save(coded, "WEBP", lossless=True)
            return coded.getvalue()

        stored_bytes = 0
        shards = 2 * workers
        for shard in range(shards):
            with webdataset.TarWriter(str(folder / f"{shard:04}.tar")) as writer:
                for png in pngs[shard::shards]:
                    data = webp(png.read_bytes()) if self.suffix == "webp" else png.read_bytes()
                    stored_bytes += len(data)
                    writer.write({"__key__": f"{png.parent.name}-{png.stem}", self.suffix: data, "cls": 0})
        return stored_bytes

    def open(self, folder: Path, batch: int, workers: int) -> Iterable[Images]:
        import webdataset

        tars = [str(path) for path in sorted(folder.glob("*.tar"))]
        samples = webdataset.WebDataset(tars, shardshuffle=len(tars)).shuffle(1000)
        images = samples.to_tuple(self.suffix).map_tuple(decode_file).map(_only).batched(batch, collation_fn=stack)
        loader: Iterable[Images] = webdataset.WebLoader(
            images, batch_size=None, num_workers=workers, persistent_workers=True
        )
        return loader


class _Streaming:
    """MosaicML Streaming: MDS shards that hold the PNG files' bytes."""

    libraries = ("mosaicml-streaming", "torch", "pillow")

    def make(self, pngs: Sequence[Path], folder: Path, workers: int) -> int:
        from streaming import MDSWriter

        stored_bytes = 0
        with MDSWriter(out=str(folder), columns={"image": "bytes", "label": "int"}) as writer:
            for png in pngs:
                data = png.read_bytes()
                stored_bytes += len(data)
                writer.write({"image": data, "label": 0})
        return stored_bytes

    def open(self, folder: Path, batch: int, workers: int) -> Iterable[Images]:
        from streaming import StreamingDataset
        from streaming.base.util import clean_stale_shared_memory
        from torch.utils.data import DataLoader

        # What a killed run has left would be refused.
        clean_stale_shared_memory()
        samples = StreamingDataset(local=str(folder), shuffle=True, batch_size=batch)
        return DataLoader(samples, batch, num_workers=workers, persistent_workers=True, collate_fn=_decode_of_each)


def _first_of_each(samples: Sequence[Any]) -> Images:
    return stack([image for image, _ in samples])


def _decode_of_each(samples: Sequence[Any]) -> Images:
    return stack([decode_file(sample["image"]) for sample in samples])


def _only(values: Sequence[Any]) -> Any:
    return values[0]


PEERS: dict[str, Any] = {
    "imagefolder-png": _Files(),
    "webdataset-png": _Tars("png"),
    "webdataset-webp": _Tars("webp"),
    "streaming-png": _Streaming(),
}
"""The loaders by name."""


def _main(kind: str, png_folder: str, own_folder: str, batch: str, workers: str) -> int:
    peer = PEERS[kind]
    folder = Path(own_folder)
    folder.mkdir()
    stored_bytes = peer.make(sorted(_pngs(Path(png_folder))), folder, int(workers))
    return serve(lambda: peer.open(folder, int(batch), int(workers)), peer.libraries, stored_bytes, int(workers))


def _pngs(folder: Path) -> Iterator[Path]:
    return folder.glob("*/*.png")


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))

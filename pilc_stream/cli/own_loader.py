"""This project's loader as `pilc bench --loaders` runs it: a program like those of `reports.loader_peers`.

python -m pilc_stream.cli.own_loader PROFILE PNG_FOLDER OWN_FOLDER BATCH WORKERS
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from pilc_stream import open as open_dataset
from pilc_stream.readers.torch import StreamingImages
from pilc_stream.readers.torch_loader import ImageLoader
from pilc_stream.reports.loader_peers import serve
from workers.job import run_job
from workers.settings import JobSettings


class _Images:
    """The images of each batch of a loader."""

    def __init__(self, loader: ImageLoader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        return (batch["image"] for batch in self._loader)


def main(profile: str, png_folder: str, own_folder: str, batch: str, workers: str) -> int:
    """Compress the folder, then read it when told to."""
    run_job(JobSettings(sources=(png_folder,), destination=own_folder, profile=profile, workers=0, device="cpu"))
    dataset = open_dataset(own_folder, device="cpu")
    images = StreamingImages(dataset, batch_size=int(batch), rank=0, world=1)
    stored_bytes = sum(shard.payload_bytes for shard in dataset.manifest.shards)
    loader = ImageLoader(images, workers=int(workers), persistent_workers=True)
    return serve(lambda: _Images(loader), ("pilc-stream", "torch", "numba"), stored_bytes, int(workers))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

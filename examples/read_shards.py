"""Read a data set: by index, by key, a region of an image, all images in a stream, and the columns with PyArrow alone.

Usage:
    python examples/read_shards.py                          # of the bundled pictures
    python examples/read_shards.py DATASET                  # of your own; a folder or URL
"""

from __future__ import annotations

import argparse
import tempfile

import pyarrow.parquet as pq
from compress_folder import PICTURES, compress

import pilc_stream as pilc


def read(url: str) -> None:
    dataset = pilc.open(url)
    print(f"{len(dataset)} images in {len(dataset.shard_rows)} shards")

    # One image costs one ranged read, wherever the data set lies.
    first = dataset[0]
    print(f"first: {first.key}, {first.pixels.dtype} {first.pixels.shape}, mean {first.pixels.mean():.1f}")
    again = dataset.get(first.key)
    print(f"by its key: the same pixels, {bool((again.pixels == first.pixels).all())}")

    # Of a large image only the tiles that a region touches are read and decoded.
    corner = dataset.read(0, region=(0, 0, 16, 16)).pixels
    print(f"its upper left corner: {corner.shape}, from a payload of {len(dataset.payload(0)):,} bytes")

    # In stored order, read ahead.
    print(f"all images: {sum(sample.pixels.nbytes for sample in dataset):,} bytes of pixels")

    # A shard is a Parquet file: any tool reads its columns.
    if "://" not in url:
        table = pq.read_table(f"{url}/{dataset.manifest.shards[0].path}", columns=["key", "width", "height", "codec"])
        for row in table.slice(0, 3).to_pylist():
            print(f"  {row['key']}: {row['width']} x {row['height']}, codec {row['codec']}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Read a data set in several ways.")
    parser.add_argument("dataset", nargs="?", help="folder or URL; one of the bundled pictures if left out")
    parser.add_argument("--profile", default="fast", help="for compressing the bundled pictures")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        if arguments.dataset is None:
            arguments.dataset = f"{temporary}/dataset"
            compress(str(PICTURES), arguments.dataset, arguments.profile)
        read(arguments.dataset)


if __name__ == "__main__":
    main()

"""Read a data set with Hugging Face `datasets`, and single payloads with Pillow: both through the registered plugin.

Usage:
    python examples/hugging_face.py                         # of the bundled pictures
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from compress_folder import PICTURES, compress
from datasets import load_dataset
from PIL import Image

import pilc_stream.readers.pillow  # noqa: F401  registers the format


def main() -> None:
    parser = argparse.ArgumentParser(description="Read a data set with Hugging Face datasets.")
    parser.add_argument("--profile", default="fast", help="for compressing the bundled pictures")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        compress(str(PICTURES), str(folder / "dataset"), arguments.profile)
        files = sorted(map(str, (folder / "dataset" / "data").glob("*.parquet")))
        pictures = load_dataset("parquet", data_files=files, split="train", cache_dir=str(folder / "cache"))
        print(f"{len(pictures)} pictures, features {', '.join(pictures.features)}")
        first = pictures[0]
        print(f"first: {first['key']}, {first['image'].mode} of {first['image'].size}")

        # A single payload is an image file like any other.
        first["image"].save(folder / "first.pilc", profile=arguments.profile)
        with Image.open(folder / "first.pilc") as again:
            print(f"saved and opened: {again.format}, {again.size}, {(folder / 'first.pilc').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

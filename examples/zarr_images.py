"""Keep images in a zarr array whose chunks are payloads.

Usage:
    python examples/zarr_images.py                          # with the bundled pictures
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numcodecs
import numpy as np
import zarr
from compress_folder import PICTURES
from PIL import Image

from pilc_stream.readers.numcodecs import PilcCodec


def main() -> None:
    numcodecs.register_codec(PilcCodec)
    images = np.stack([np.array(Image.open(path).convert("RGB")) for path in sorted(PICTURES.glob("*.png"))])
    with tempfile.TemporaryDirectory() as temporary:
        store = Path(temporary) / "pictures.zarr"
        settings = {"chunks": (1, *images.shape[1:]), "dtype": images.dtype, "zarr_format": 2}
        array = zarr.create_array(str(store), shape=images.shape, compressors=PilcCodec(), **settings)
        array[:] = images
        stored_bytes = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
        print(f"{images.nbytes:,} bytes of pixels, {stored_bytes:,} bytes stored")
        print(f"the same pixels: {bool((zarr.open_array(str(store), mode='r')[:] == images).all())}")


if __name__ == "__main__":
    main()

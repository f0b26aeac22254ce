"""Sets of images to measure on: a folder of images, or a Parquet file with a column `image`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pilc_stream.errors import ImageError, UsageError
from pilc_stream.images import decode_image
from pilc_stream.storage import IMAGE_SUFFIXES, expand

Images = Sequence[NDArray[Any]]


@dataclass(frozen=True)
class ImageSet:
    """Images in memory, and how many others of the set were left out."""

    name: str
    images: Images
    left_out: int

    @property
    def raw_bytes(self) -> int:
        """Bytes of all samples."""
        return sum(image.nbytes for image in self.images)

    @property
    def pixels(self) -> int:
        """Pixels of all images."""
        return sum(image.shape[0] * image.shape[1] for image in self.images)

    def sha256(self) -> str:
        """The digest of all shapes and samples, hex."""
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(repr(image.shape).encode())
            digest.update(image.tobytes())
        return digest.hexdigest()


def load_images(source: Path | None, limit: int | None = None) -> tuple[list[NDArray[Any]], int]:
    """The images below the folder, or in the column `image` of the Parquet file, at `source` (or the demo's pictures):
    at most `limit` of them, and how many were left out because they do not decode as 8-bit grey or RGB."""
    images: list[NDArray[Any]] = []
    left_out = 0
    for data in _image_files(source or Path(str(resources.files("pilc_stream") / "demo_pictures"))):
        if limit is not None and len(images) == limit:
            break
        try:
            pixels = decode_image(data)
        except ImageError:
            left_out += 1
            continue
        if pixels.mode in ("L", "RGB") and pixels.array.dtype == np.uint8:
            images.append(pixels.array)
        else:
            left_out += 1
    return images, left_out


def load_set(source: Path | None, limit: int | None = None) -> ImageSet:
    """The set at `source`, as `load_images` reads it. Raises UsageError where it holds no image."""
    images, left_out = load_images(source, limit)
    if not images:
        raise UsageError(f"{source}: no image was found; give a folder of images or a Parquet file of them")
    return ImageSet(source.stem if source else "the demo's pictures", images, left_out)


def find_sets(data: Path, names: Sequence[str] = ()) -> list[Path]:
    """The sets in the folder `data`, or those of them that `names` asks for, in its order.

    A set is a sub-folder that holds images at any depth, or a Parquet file; its name is that of either without the
    suffix. Raises UsageError for a name that is not there, and where there is no set at all.
    """
    found = {path.stem: path for path in sorted(data.iterdir()) if _is_set(path)}
    if not found:
        raise UsageError(f"{data}: no set was found; its sub-folders of images and its Parquet files are the sets")
    for name in names:
        if name not in found:
            raise UsageError(f"{data}: there is no set {name!r}; found: {', '.join(found)}")
    return [found[name] for name in names or found]


def _is_set(path: Path) -> bool:
    if path.is_dir():
        return any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.rglob("*"))
    return path.suffix == ".parquet"


def _image_files(source: Path) -> Iterator[bytes]:
    if source.suffix == ".parquet":
        for batch in pq.ParquetFile(source).iter_batches(64, columns=["image"]):
            yield from (value.as_py() for value in batch.column(0))
    else:
        yield from (file.read() for file in expand([str(source)]))

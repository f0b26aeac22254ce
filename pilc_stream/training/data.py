"""Training pixels: images in folders and Parquet files, turned once into rows of integer context.

The context of `arith` has nothing to train in it, so it is computed once per pixel, by the same code that codes; an
epoch is then a walk through shuffled rows.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image

from pilc_stream.arith.context import CHANNELS
from pilc_stream.backends.planes import coding_planes, plane_context
from pilc_stream.errors import UsageError
from pilc_stream.models.spec import WaveSpec
from pilc_stream.training.network import PixelBatch

ROW_ARRAYS = ("inputs", "bases", "pixels", "exponent")
HELD_OUT_EVERY = 50
IMAGE_SUFFIXES = {".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".jpg", ".jpeg"}


def images_below(folder: Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """All images in and below `folder` in the order of their names: (file, uint8 `(h, w, 3)`).

    Image files are taken as they are; of a Parquet file the binary column `image`.
    """
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".parquet":
            for batch in pq.ParquetFile(path).iter_batches(64, columns=["image"]):
                for value in batch.column(0):
                    yield path.name, _rgb(io.BytesIO(value.as_py()))
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            yield path.name, _rgb(path)


def _rgb(file: Path | io.BytesIO) -> NDArray[np.uint8]:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


@dataclass
class PixelRows:
    """Rows of context, one per pixel, shuffled: `inputs` int8 `(n, inputs)`, `bases` int16 `(n, 3)`, `pixels` uint8
    `(n, 3)`, `exponent` uint8 `(n,)`."""

    inputs: NDArray[np.int8]
    bases: NDArray[np.int16]
    pixels: NDArray[np.uint8]
    exponent: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.exponent)

    def shuffle(self, generator: np.random.Generator) -> None:
        """A new random order, in place."""
        order = generator.permutation(len(self))
        for name in ROW_ARRAYS:
            setattr(self, name, getattr(self, name)[order])

    def part(self, start: int, stop: int) -> PixelRows:
        """Rows `start` to `stop`."""
        return PixelRows(
            self.inputs[start:stop], self.bases[start:stop], self.pixels[start:stop], self.exponent[start:stop]
        )

    def batch(self, start: int, stop: int) -> PixelBatch:
        """Rows `start` to `stop` as float tensors."""
        return PixelBatch(
            torch.from_numpy(self.inputs[start:stop].astype(np.float32)),
            torch.from_numpy(self.bases[start:stop].astype(np.float32)),
            torch.from_numpy(self.pixels[start:stop].astype(np.float32)),
            torch.from_numpy(self.exponent[start:stop, None].astype(np.float32)),
        )


def rows_of(tile: NDArray[np.uint8], spec: WaveSpec, keep: NDArray[np.int64] | None = None) -> PixelRows:
    """All pixels of a tile (uint8 `(h, w, 3)`) as rows in raster order, or those at the flat positions `keep`."""
    planes = coding_planes(tile)
    context = plane_context(spec.neighbours, planes)
    chosen = slice(None) if keep is None else keep
    return PixelRows(
        context.inputs.reshape(spec.inputs, -1)[:, chosen].T.astype(np.int8),
        context.bases.reshape(CHANNELS, -1)[:, chosen].T.astype(np.int16),
        planes.reshape(CHANNELS, -1)[:, chosen].T.astype(np.uint8),
        context.exponent.reshape(-1)[chosen].astype(np.uint8),
    )


def concatenated(parts: Sequence[PixelRows]) -> PixelRows:
    """Several sets of rows as one."""
    if not parts:
        raise UsageError("training: no image was found in the data folder; give a folder of images or Parquet files")
    return PixelRows(*(np.concatenate([getattr(part, name) for part in parts]) for name in ROW_ARRAYS))


def cut_tiles(image: NDArray[np.uint8], edge: int) -> Iterator[NDArray[np.uint8]]:
    """The image in tiles of at most `edge` a side, as equal as the codec cuts them."""
    rows, columns = -(-image.shape[0] // edge), -(-image.shape[1] // edge)
    height, width = -(-image.shape[0] // rows), -(-image.shape[1] // columns)
    for y in range(0, image.shape[0], height):
        for x in range(0, image.shape[1], width):
            yield image[y : y + height, x : x + width]


def augmented(tile: NDArray[np.uint8], generator: np.random.Generator, grey_share: float) -> NDArray[np.uint8]:
    """One of the eight orientations of the tile at random; sometimes grey."""
    if generator.random() < 0.5:
        tile = tile.swapaxes(0, 1)
    if generator.random() < 0.5:
        tile = tile[:, ::-1]
    if generator.random() < 0.5:
        tile = tile[::-1]
    if generator.random() < grey_share:
        tile = np.repeat(tile[:, :, 1:2], CHANNELS, axis=2)
    return np.ascontiguousarray(tile)


def collect_rows(
    folder: Path, spec: WaveSpec, *, pixels_per_tile: int, tile_edge: int, seed: int, grey_share: float
) -> tuple[PixelRows, PixelRows]:
    """Rows from every image below `folder`, shuffled: (for training, held out).

    Images are cut into tiles of at most `tile_edge`, of each tile at most `pixels_per_tile` random pixels are taken.
    One image in `HELD_OUT_EVERY` is held out. Raises UsageError where there is no image.
    """
    generator = np.random.default_rng(seed)
    parts: tuple[list[PixelRows], list[PixelRows]] = ([], [])
    for number, (_, image) in enumerate(images_below(folder)):
        held_out = number % HELD_OUT_EVERY == 0
        for tile in cut_tiles(image, tile_edge):
            count = tile.shape[0] * tile.shape[1]
            keep = generator.permutation(count)[:pixels_per_tile] if count > pixels_per_tile else None
            parts[held_out].append(rows_of(augmented(tile, generator, grey_share), spec, keep))
    training, validation = concatenated(parts[0] or parts[1]), concatenated(parts[1])
    training.shuffle(generator)
    validation.shuffle(generator)
    return training, validation

"""Training pixels: images in folders and Parquet files, turned once into rows of integer context.

The context of `arith` has nothing to train in it, so it is computed once per pixel, by the same code that codes; an
epoch is then a walk through shuffled rows.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image

from pilc_stream.arith.context import CHANNELS
from pilc_stream.arith.perceptron import FRACTIONS
from pilc_stream.backends.cpu import CpuEngine, TileContext
from pilc_stream.errors import UsageError
from pilc_stream.models.model import SYMBOLS, Layer, WaveModel
from pilc_stream.models.spec import WaveSpec
from pilc_stream.training.augment import (
    Pixels,
    oriented,
    recoloured,
    reduced,
    through_jpeg,
    with_halved_colour,
)
from pilc_stream.training.network import PixelBatch
from pilc_stream.training.recipe import Recipe
from pilc_stream.training.synthetic import synthetic_pictures

ROW_ARRAYS = ("inputs", "bases", "predictions", "pixels", "exponent", "channels")
GANG_TILES = 32
LEAST_EDGE_TO_DAMAGE = 128
"""Smaller training pictures were reduced from large ones; no format left its traces at their scale."""

HELD_OUT_EVERY = 50
SEEDS_APART = 1_000_003
"""Between the synthetic pictures of one draw and the next."""

PARQUET = ".parquet"
IMAGE_SUFFIXES = {".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".jpg", ".jpeg"}


def images_below(folder: Path) -> Iterator[tuple[str, Pixels]]:
    """All images in and below `folder` in the order of their names: (file, uint8 `(h, w, 3)`).

    Image files are taken as they are; of a Parquet file the binary column `image`.
    """
    for path in _image_files(folder):
        if path.suffix == PARQUET:
            for batch in pq.ParquetFile(path).iter_batches(64, columns=["image"]):
                for value in batch.column(0):
                    yield path.name, _rgb(io.BytesIO(value.as_py()))
        else:
            yield path.name, _rgb(path)


def sampled_images(folder: Path, count: int, seed: int) -> Iterator[Pixels]:
    """At most `count` images in and below `folder`, drawn at random, in random order; uint8 `(h, w, 3)`.

    What is no readable image is passed over. Only what is drawn is read.
    """
    places = [
        (path, row)
        for path in _image_files(folder)
        for row in range(pq.read_metadata(path).num_rows if path.suffix == PARQUET else 1)
    ]
    order = np.random.default_rng(seed).permutation(len(places))
    tables: dict[Path, pa.ChunkedArray] = {}
    for path, row in (places[i] for i in order[:count]):
        try:
            if path.suffix == PARQUET:
                if path not in tables:
                    tables[path] = pq.read_table(path, columns=["image"]).column(0)
                yield _rgb(io.BytesIO(tables[path][row].as_py()))
            else:
                yield _rgb(path)
        except (OSError, ValueError, TypeError, Image.DecompressionBombError):
            continue


def _image_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in {PARQUET, *IMAGE_SUFFIXES}]


def _rgb(file: Path | io.BytesIO) -> Pixels:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


@dataclass
class PixelRows:
    """Rows of context, one per pixel: `inputs` int8 `(n, inputs)`; `bases`, `predictions` int16 `(n, 3)`; `pixels`
    uint8 `(n, 3)` in coding order; `exponent` uint8 `(n,)`; `channels` uint8 `(n,)`, how many of them are coded."""

    inputs: NDArray[np.int8]
    bases: NDArray[np.int16]
    predictions: NDArray[np.int16]
    pixels: NDArray[np.uint8]
    exponent: NDArray[np.uint8]
    channels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.exponent)

    def shuffle(self, generator: np.random.Generator) -> None:
        """A new random order, in place."""
        order = generator.permutation(len(self))
        for name in ROW_ARRAYS:
            setattr(self, name, getattr(self, name)[order])

    def part(self, start: int, stop: int) -> PixelRows:
        """Rows `start` to `stop`."""
        return PixelRows(*(getattr(self, name)[start:stop] for name in ROW_ARRAYS))

    def batch(self, start: int, stop: int) -> PixelBatch:
        """Rows `start` to `stop` as float tensors."""
        rows = {name: torch.from_numpy(getattr(self, name)[start:stop].astype(np.float32)) for name in ROW_ARRAYS}
        coded = torch.arange(CHANNELS) < rows["channels"][:, None]
        return PixelBatch(
            rows["inputs"],
            rows["bases"],
            rows["predictions"],
            rows["pixels"],
            rows["exponent"][:, None],
            coded.to(torch.float32),
        )


class RowSource:
    """Turns tiles into rows with the context that the codec sees, many tiles at a time."""

    def __init__(self, spec: WaveSpec) -> None:
        # Contexts do not depend on the perceptron: the smallest one will do.
        small = WaveSpec(spec.neighbours, spec.taps, (1,), 1, 1)
        layers = {
            name: Layer(np.zeros(shape, np.int8), np.zeros(shape[0], np.int32), np.zeros(shape[0], np.uint8))
            for name, shape in small.layers().items()
        }
        cdf = np.arange(SYMBOLS, dtype=np.uint16)[None] * SYMBOLS
        self._model = WaveModel(small, layers, cdf, np.zeros((1, FRACTIONS), np.uint16), "context only")
        self._engine = CpuEngine()

    def rows(self, tiles: Sequence[Pixels], keep: Sequence[NDArray[np.int64] | None] | None = None) -> list[PixelRows]:
        """The rows of each tile (uint8 `(h, w, 3)` or `(h, w, 1)`): all in raster order, or those at flat positions."""
        chosen = keep or [None] * len(tiles)
        contexts = self._engine.contexts(self._model, tiles)
        return [_rows(*item) for item in zip(tiles, contexts, chosen, strict=True)]


def _rows(tile: Pixels, context: TileContext, keep: NDArray[np.int64] | None) -> PixelRows:
    chosen = slice(None) if keep is None else keep
    channels = tile.shape[2]
    pixels = tile.reshape(-1, channels)[chosen][:, [1, 0, 2] if channels == CHANNELS else [0, 0, 0]]
    return PixelRows(
        context.inputs.reshape(-1, context.inputs.shape[-1])[chosen],
        context.bases.reshape(-1, CHANNELS)[chosen],
        context.predictions.reshape(-1, CHANNELS)[chosen],
        pixels,
        context.exponent.reshape(-1)[chosen].astype(np.uint8),
        np.full(len(pixels), channels, np.uint8),
    )


def concatenated(parts: Sequence[PixelRows]) -> PixelRows:
    """Several sets of rows as one."""
    return PixelRows(*(np.concatenate([getattr(part, name) for part in parts]) for name in ROW_ARRAYS))


def cut_tiles(image: NDArray[np.uint8], edge: int) -> Iterator[NDArray[np.uint8]]:
    """The image in tiles of at most `edge` a side, as equal as the codec cuts them."""
    rows, columns = -(-image.shape[0] // edge), -(-image.shape[1] // edge)
    height, width = -(-image.shape[0] // rows), -(-image.shape[1] // columns)
    for y in range(0, image.shape[0], height):
        for x in range(0, image.shape[1], width):
            yield image[y : y + height, x : x + width]


def varied(tile: Pixels, generator: np.random.Generator, recipe: Recipe) -> Pixels:
    """The tile in a random orientation; sometimes of another size or colour, with another format's traces, or grey
    `(h, w, 1)`."""
    tile = oriented(tile, generator)
    if min(tile.shape[:2]) >= LEAST_EDGE_TO_DAMAGE and generator.random() < recipe.reduced_share:
        tile = reduced(tile, generator)
    if generator.random() < recipe.recoloured_share:
        tile = recoloured(tile, generator)
    kind = generator.random()
    if min(tile.shape[:2]) >= LEAST_EDGE_TO_DAMAGE:
        if kind < recipe.halved_colour_share:
            tile = with_halved_colour(tile, generator)
        elif kind < recipe.halved_colour_share + recipe.jpeg_share:
            tile = through_jpeg(tile, generator)
    if generator.random() < recipe.grey_share:
        tile = np.ascontiguousarray(tile[:, :, 1:2])
    return tile


def training_rows(folder: Path, recipe: Recipe, draw: int = 0) -> PixelRows:
    """Rows from every image below `folder` that is not held out and from synthetic pictures, shuffled.

    Images are cut into tiles, of each tile some random pixels are taken (`Recipe`). One image in `HELD_OUT_EVERY` is
    held out, unless there is no other. Each `draw` holds other pixels, other variations and other synthetic pictures.
    Raises UsageError where there is no image.
    """
    generator = np.random.default_rng((recipe.seed, draw))
    tiles = _tiles(folder, recipe, held_out=False)
    seed = recipe.seed + draw * SEEDS_APART
    synthetic = synthetic_pictures(recipe.synthetic_pictures, recipe.tile_edge, seed)
    parts = _parts(chain(tiles, synthetic), recipe, generator)
    return _shuffled(parts, generator) if parts else held_out_rows(folder, recipe)


def held_out_rows(folder: Path, recipe: Recipe) -> PixelRows:
    """Rows from the images below `folder` that are held out, shuffled.

    They are neither reduced nor recoloured, so that recipes with and without that are compared on the same rows.
    """
    generator = np.random.default_rng(recipe.seed)
    recipe = replace(recipe, reduced_share=0.0, recoloured_share=0.0)
    parts = _parts(_tiles(folder, recipe, held_out=True), recipe, generator)
    if not parts:
        raise UsageError("training: no image was found in the data folder; give a folder of images or Parquet files")
    return _shuffled(parts, generator)


def _tiles(folder: Path, recipe: Recipe, *, held_out: bool) -> Iterator[Pixels]:
    """The tiles of the images that are held out, or of the others."""
    for number, (_, image) in enumerate(images_below(folder)):
        if (number % HELD_OUT_EVERY == 0) is held_out:
            yield from cut_tiles(image, recipe.tile_edge)


def _parts(tiles: Iterator[Pixels], recipe: Recipe, generator: np.random.Generator) -> list[PixelRows]:
    """Of each tile, varied, as many rows as it has pixels, at most `recipe.pixels_per_tile`.

    So all draws are of one size, which the schedule of draws relies on; some pixels of a reduced tile come twice.
    """
    source = RowSource(recipe.spec)
    parts: list[PixelRows] = []
    while gang := list(islice(tiles, GANG_TILES)):
        chosen = [varied(tile, generator, recipe) for tile in gang]
        keep = [
            _positions(after.shape[0] * after.shape[1], before.shape[0] * before.shape[1], recipe, generator)
            for before, after in zip(gang, chosen, strict=True)
        ]
        parts += source.rows(chosen, keep)
    return parts


def _positions(
    pixels: int, pixels_before: int, recipe: Recipe, generator: np.random.Generator
) -> NDArray[np.int64] | None:
    """Which pixels of a tile to take, in any order; None for all."""
    count = min(pixels_before, recipe.pixels_per_tile)
    if count == pixels:
        return None
    return generator.permutation(pixels)[:count] if count < pixels else generator.integers(0, pixels, count)


def _shuffled(parts: Sequence[PixelRows], generator: np.random.Generator) -> PixelRows:
    rows = concatenated(parts)
    rows.shuffle(generator)
    return rows

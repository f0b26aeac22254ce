"""Training tiles of the codec `pilc`: pieces of pictures in all orientations, some with the traces of other formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.blocks import BLOCK, Tap
from pilc_stream.arith.context import COLUMNS_AROUND, ROWS_ABOVE
from pilc_stream.backends.planes import coding_planes, padded
from pilc_stream.errors import UsageError
from pilc_stream.training.augment import Pixels, oriented, through_jpeg, with_halved_colour
from pilc_stream.training.data import HELD_OUT_EVERY, LEAST_EDGE_TO_DAMAGE, images_below
from pilc_stream.training.vq.recipe import PilcRecipe


def collect_tiles(data: Path, recipe: PilcRecipe) -> tuple[list[Pixels], list[Pixels]]:
    """Tiles to train on, shuffled, and those held out: uint8 `(h, w, 3)`, edges multiples of 8, at most the recipe's.

    Raises UsageError where no image below `data` has 8 x 8 pixels.
    """
    generator = np.random.default_rng(recipe.seed)
    train: list[Pixels] = []
    held_out: list[Pixels] = []
    for number, (_, image) in enumerate(images_below(data)):
        pieces = _pieces(image, recipe.tile_edge)
        if number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1:
            held_out += pieces
            continue
        for piece in pieces:
            chance = generator.random()
            if min(piece.shape[:2]) >= LEAST_EDGE_TO_DAMAGE:
                if chance < recipe.halved_colour_share:
                    piece = with_halved_colour(piece, generator)
                elif chance < recipe.halved_colour_share + recipe.jpeg_share:
                    piece = through_jpeg(piece, generator)
            train.append(oriented(piece, generator))
    if not train or not held_out:
        raise UsageError(f"training data {data}: fewer than {HELD_OUT_EVERY} images of {BLOCK} x {BLOCK} pixels")
    order = generator.permutation(len(train))
    return [train[i] for i in order], held_out


def _pieces(image: Pixels, edge: int) -> list[Pixels]:
    out = []
    for y in range(0, image.shape[0], edge):
        for x in range(0, image.shape[1], edge):
            piece = image[y : y + edge, x : x + edge]
            height, width = (length // BLOCK * BLOCK for length in piece.shape[:2])
            if height and width:
                out.append(piece[:height, :width])
    return out


def block_features(tile: Pixels, taps: list[tuple[Tap, ...]]) -> list[NDArray[np.int8]]:
    """Per channel int8 `(blocks, 64, taps + 1)`: neighbours less mid grey, and last the sub-pixel itself."""
    height, width = tile.shape[:2]
    planes = padded(coding_planes(tile))
    out = []
    for channel, offsets in enumerate(taps):
        values = [
            planes[
                source,
                ROWS_ABOVE + dy : ROWS_ABOVE + dy + height,
                COLUMNS_AROUND + dx : COLUMNS_AROUND + dx + width,
            ]
            for source, dy, dx in (*offsets, (channel, 0, 0))
        ]
        stacked = np.stack(values, axis=-1) - 128
        blocks = stacked.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK, -1).swapaxes(1, 2)
        out.append(blocks.reshape(-1, BLOCK * BLOCK, stacked.shape[-1]).astype(np.int8))
    return out

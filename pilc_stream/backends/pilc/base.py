"""What a backend of the codec `pilc` does, and the geometry that all of them share."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.blocks import BLOCK, MIDDLE_CLASS, QUARTERS, code_context
from pilc_stream.arith.context import CHANNELS
from pilc_stream.backends.base import TileEngine
from pilc_stream.models.pilc import PilcModel

Ints = NDArray[np.int64]

MEAN_LIMIT = 512
"""Means of residuals are sixteenths of a level, limited to 32 levels either way."""


PilcEngine = TileEngine[PilcModel]
"""A backend of the codec `pilc`."""


class Choices(NamedTuple):
    """What an encoder chose for each block of a tile: `codes` and `predictors`, integers `(block rows, columns)`."""

    codes: NDArray[Any]
    predictors: NDArray[Any]


def block_grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of blocks of a tile; the last ones may reach beyond it."""
    return -(-height // BLOCK), -(-width // BLOCK)


def quarter_pixels(height: int, width: int) -> Ints:
    """How many pixels of the tile each quarter of each block holds: int64 `(rows, columns, 4)`, 0 to 16."""
    rows, columns = block_grid(height, width)
    half = BLOCK // 2
    heights = np.clip(height - half * np.arange(2 * rows), 0, half).reshape(rows, 1, 2, 1)
    widths = np.clip(width - half * np.arange(2 * columns), 0, half).reshape(1, columns, 1, 2)
    return np.asarray((heights * widths).reshape(rows, columns, QUARTERS), np.int64)


def code_row(model: PilcModel, codes: NDArray[Any], row: int, column: int) -> int:
    """The row of `code.cdf` for a block whose neighbours to the west and north are in `codes`."""
    classes = model.tensors["code.class"]
    west = int(classes[codes[row, column - 1]]) if column else None
    north = int(classes[codes[row - 1, column]]) if row else None
    if west is None and north is None:
        return int(code_context(MIDDLE_CLASS, MIDDLE_CLASS))
    first, second = (west if west is not None else north), (north if north is not None else west)
    return int(code_context(first, second))


def predictor_row(model: PilcModel, predictors: NDArray[Any], row: int, column: int) -> int:
    """The row of `predictor.cdf` for a block: the predictor to the west, else to the north, else a row of its own."""
    if column:
        return int(predictors[row, column - 1])
    return int(predictors[row - 1, column]) if row else model.spec.predictors


def parts(channels: int) -> int:
    """Quarters times channels: the sums of residuals that a block of a tile has."""
    return QUARTERS * (CHANNELS if channels == CHANNELS else 1)

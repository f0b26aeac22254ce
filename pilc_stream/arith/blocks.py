"""The arithmetic of the codec `pilc`: a block's linear predictor, its residuals, and the codes of neighbouring blocks.

A tile is cut into blocks of 8 x 8 pixels from its top left corner, a block into four quarters of 4 x 4. Channels are in
coding order (G, R, B). A prediction is a weighted sum of neighbours around mid grey in fixed point; weights are 16 bits
wide, but the sums stay below ``2**24`` (proved when a model is loaded), so that any order of summation is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pilc_stream.arith.context import COLUMNS_AROUND, ROWS_ABOVE, STEPS_BACK
from pilc_stream.arith.fixed import clamp

BLOCK_LOG2 = 3
BLOCK = 1 << BLOCK_LOG2
QUARTER_LOG2 = 2
QUARTERS = 4
QUARTER_PIXELS = 1 << 2 * QUARTER_LOG2

WEIGHT_BITS = 12
"""Weights of predictors count 4096ths."""

MID_GREY = 128
HIGHEST = 255

CODE_CLASSES = 16
"""Codes are sorted into this many classes by the residuals' size; those to the west and north are the context."""

MIDDLE_CLASS = CODE_CLASSES // 2
CODE_CONTEXTS = 2 * CODE_CLASSES - 1

Tap = tuple[int, int, int]
"""A neighbour of a sub-pixel: channel in coding order, row and column offsets."""


def check_taps(channel: int, taps: Sequence[Tap]) -> None:
    """Raise ValueError unless `taps` of a channel are known before it, inside the padding and distinct."""
    for source, dy, dx in taps:
        before = -STEPS_BACK <= 2 * dy + dx < 0 and -ROWS_ABOVE <= dy <= 0 and abs(dx) <= COLUMNS_AROUND
        same_pixel = dy == dx == 0 and source < channel
        if not (0 <= source <= channel and (before or same_pixel)):
            raise ValueError(
                f"the tap (channel {source}, dy={dy}, dx={dx}) of channel {channel} is not decoded before it, or lies "
                f"beyond the padding of {ROWS_ABOVE} rows and {COLUMNS_AROUND} columns"
            )
    if not taps or len(set(taps)) != len(taps):
        raise ValueError(f"the taps of channel {channel} are none, or one is listed twice")


def rounded_prediction(total: Any) -> Any:
    """The grey level that a predictor's sum (of weights times neighbours less mid grey, plus bias) stands for."""
    return clamp(((total + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS) + MID_GREY, 0, HIGHEST)


def code_context(west: Any, north: Any) -> Any:
    """The row of the code tables, of the classes of the blocks to the west and to the north.

    Where one of the blocks is outside the tile, the other stands for it; for both, `MIDDLE_CLASS`.
    """
    return west + north

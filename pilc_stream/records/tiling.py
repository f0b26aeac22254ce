"""How an image is cut into tiles and a tile into lanes: functions of the image's size and one header byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pilc_stream.arith.fixed import floor_log2

MIN_TILE_LOG2, MAX_TILE_LOG2 = 4, 10
MAX_LANES_LOG2 = 5
DEFAULT_TILE_LOG2 = 8
"""Tiles of 256 a side: the first row and column of a tile lack neighbours, which costs a photograph 0.4 % at 128 a
side and 0.15 % at 256 (measured on Kodak), while a batch of photographs still has tiles enough for a GPU."""


class Region(NamedTuple):
    """A rectangle of an image: top left corner, height and width, in pixels."""

    y: int
    x: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Tiling:
    """The tiles of a `height` x `width` image: at most ``2**tile_log2`` a side, equal but for the last row and column.

    Equal tiles let a wavefront run over many of them in lockstep. The last row (column) is lower (narrower) by less
    than one pixel for each row (column) of tiles, so images of usual sizes have no sliver whose lanes would cost more
    than its pixels. Tiles are numbered in raster order.
    """

    height: int
    width: int
    tile_log2: int

    @property
    def rows(self) -> int:
        """Tiles from top to bottom."""
        return -(-self.height // (1 << self.tile_log2))

    @property
    def columns(self) -> int:
        """Tiles from left to right."""
        return -(-self.width // (1 << self.tile_log2))

    @property
    def tile_height(self) -> int:
        """Height of every tile but those of the last row, which may be lower."""
        return -(-self.height // self.rows)

    @property
    def tile_width(self) -> int:
        """Width of every tile but those of the last column, which may be narrower."""
        return -(-self.width // self.columns)

    @property
    def count(self) -> int:
        """Number of tiles."""
        return self.rows * self.columns

    def tile(self, index: int) -> Region:
        """The rectangle of tile `index`."""
        y = index // self.columns * self.tile_height
        x = index % self.columns * self.tile_width
        return Region(y, x, min(self.tile_height, self.height - y), min(self.tile_width, self.width - x))

    def tiles(self) -> Iterator[Region]:
        """All tiles in order."""
        return map(self.tile, range(self.count))

    def touching(self, region: Region) -> list[int]:
        """The indices of the tiles that share a pixel with `region` (inside the image)."""
        first_row, last_row = region.y // self.tile_height, (region.y + region.height - 1) // self.tile_height
        first_column, last_column = region.x // self.tile_width, (region.x + region.width - 1) // self.tile_width
        return [
            row * self.columns + column
            for row in range(first_row, last_row + 1)
            for column in range(first_column, last_column + 1)
        ]


def default_lanes_log2(tiling: Tiling) -> int:
    """How many rANS lanes a tile gets, as a power of two: about an eighth of the pixels on a wavefront.

    Each lane costs four bytes: one lane at 32x32, four at 64x64, sixteen at 256x256, where they are 0.1 % of a photo.
    """
    area_log2 = int(floor_log2(tiling.tile_height * tiling.tile_width))
    return 0 if area_log2 < 11 else min((area_log2 - 8) // 2, MAX_LANES_LOG2)

"""Which view of each tile an encoder codes: that of the fewest bytes under a small model, the scout.

Photographs are not alike in all directions: which neighbours come first is worth 0.3 to 0.9 % of the bytes, for nothing
but the encoder's time (figures: `training/EXPERIMENTS.md`). What is chosen follows from lengths of streams alone, so it
is the same on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from pilc_stream.arith.context import CHANNELS
from pilc_stream.backends.base import Engine, Tile
from pilc_stream.codecs.views import ORDERS, ORIENTATIONS, views_of
from pilc_stream.models.model import WaveModel, load_model
from pilc_stream.models.shipped import preset_bytes
from pilc_stream.models.spec import WaveSpec
from pilc_stream.records.tiling import MAX_TILE_LOG2, Tiling, default_lanes_log2

SCOUT = "fast"
LEAST_EDGE = 16
"""Smaller cuttings say too little about a tile for their time: it is taken as it is."""

SHARES_BY_PRODUCTS = ((10_000, 1), (4_000, 4))
"""From how many multiply-accumulates per pixel on a model's tiles are searched, and by which `share`: its cost is then
two tenths of `default`, as much as `high` itself."""

ORDERS_FROM_PRODUCTS = 40_000
"""From how many on orders of the channels are tried as well."""


@dataclass(frozen=True, slots=True)
class ViewSearch:
    """How views are searched.

    `scout`: the model whose streams are compared; `share`: it codes the middle of a tile, of this part of its edges;
    `orders`: orders of the channels are tried as well, and the scout's choice only taken where the model agrees, as
    models differ in what order they are good at.
    """

    scout: WaveModel
    share: int = 1
    orders: bool = False

    def encode(self, engine: Engine, model: WaveModel, tiles: Sequence[Tile], lanes_log2: Sequence[int]) -> list[bytes]:
        """For each tile its view and the stream of that."""
        views = self._oriented(engine, tiles)
        streams = self._coded(engine, model, tiles, views, lanes_log2)
        if self.orders:
            self._reorder(engine, model, tiles, lanes_log2, views, streams)
        return [bytes((view,)) + stream for view, stream in zip(views, streams, strict=True)]

    def macs_per_pixel(self, model: WaveSpec) -> dict[str, int]:
        """Multiply-accumulates per RGB pixel that the search adds to those of the model, by part."""
        scouted = sum(self.scout.spec.macs_per_pixel().values())
        views = ORIENTATIONS + self.orders * (len(ORDERS) - 1)
        parts = {"search": views * scouted // self.share**2}
        return parts | ({"second try": sum(model.macs_per_pixel().values())} if self.orders else {})

    def _oriented(self, engine: Engine, tiles: Sequence[Tile]) -> list[int]:
        """The best orientation of each tile."""
        cuttings = [self._cutting(tile) for tile in tiles]
        worthwhile = [k for k, each in enumerate(cuttings) if self.share == 1 or min(each.shape[:2]) >= LEAST_EDGE]
        choices = [list(range(ORIENTATIONS))] * len(worthwhile)
        views = [0] * len(tiles)
        for number, view in zip(
            worthwhile, self._best(engine, [cuttings[k] for k in worthwhile], choices), strict=True
        ):
            views[number] = view
        return views

    def _reorder(
        self,
        engine: Engine,
        model: WaveModel,
        tiles: Sequence[Tile],
        lanes_log2: Sequence[int],
        views: list[int],
        streams: list[bytes],
    ) -> None:
        """Change the order of the channels where both scout and model like another better."""
        coloured = [number for number, tile in enumerate(tiles) if tile.shape[2] == CHANNELS]
        choices = [[views[number] + ORIENTATIONS * order for order in range(len(ORDERS))] for number in coloured]
        liked = self._best(engine, [self._cutting(tiles[number]) for number in coloured], choices)
        others = [(number, view) for number, view in zip(coloured, liked, strict=True) if view != views[number]]
        members = [number for number, _ in others]
        again = self._coded(
            engine, model, [tiles[k] for k in members], [view for _, view in others], [lanes_log2[k] for k in members]
        )
        for (number, view), stream in zip(others, again, strict=True):
            if len(stream) < len(streams[number]):
                views[number], streams[number] = view, stream

    def _best(self, engine: Engine, tiles: Sequence[Tile], choices: Sequence[Sequence[int]]) -> list[int]:
        """Of each tile's choices the one that the scout codes in the fewest bytes, the first of equals."""
        lanes_log2 = [default_lanes_log2(Tiling(tile.shape[0], tile.shape[1], MAX_TILE_LOG2)) for tile in tiles]
        lengths = [
            [len(stream) for stream in self._coded(engine, self.scout, tiles, views, lanes_log2)]
            for views in zip(*choices, strict=True)
        ]
        best = np.argmin(np.array(lengths, np.int64), axis=0) if tiles else ()
        return [each[number] for each, number in zip(choices, best, strict=True)]

    def _cutting(self, tile: Tile) -> Tile:
        height, width = (-(-edge // self.share) for edge in tile.shape[:2])
        y, x = (tile.shape[0] - height) // 2, (tile.shape[1] - width) // 2
        return tile[y : y + height, x : x + width]

    @staticmethod
    def _coded(
        engine: Engine, model: WaveModel, tiles: Sequence[Tile], views: Sequence[int], lanes_log2: Sequence[int]
    ) -> list[bytes]:
        return engine.encode_tiles(model, views_of(tiles, views), lanes_log2) if tiles else []


def search_for(spec: WaveSpec) -> ViewSearch | None:
    """The search whose cost suits a model: none for the smallest, some tenths of its own for a middle one; what has
    many products per pixel is chosen for its bytes."""
    products = sum(spec.macs_per_pixel().values())
    for least, share in SHARES_BY_PRODUCTS:
        if products >= least:
            return ViewSearch(_scout(), share, orders=products >= ORDERS_FROM_PRODUCTS)
    return None


@cache
def _scout() -> WaveModel:
    return load_model(preset_bytes(SCOUT))

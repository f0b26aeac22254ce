"""The wave codec: every pixel's distribution from an integer perceptron over its causal neighbours, tile by tile.

Beyond PILC (Kang et al. 2022): nothing but the pixels is sent. Encoding is parallel over all pixels; decoding runs a
wavefront inside each tile, over all tiles of all images of a batch. The tables are PILC's semi-dynamic coder: a mean's
fraction and a scale index name one of a few hundred shipped distributions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.backends.base import Engine
from pilc_stream.codecs.modelled import ModelCodec, ModelDecoder
from pilc_stream.codecs.view_search import ViewSearch
from pilc_stream.models.model import WaveModel

NAME = "wave"


class WaveCodec(ModelCodec[WaveModel]):
    """Encodes 8-bit grey and RGB images. What would not get smaller is stored by `raw` instead."""

    name = NAME

    def __init__(
        self, model: WaveModel, engine: Engine, tile_log2: int | None = None, search: ViewSearch | None = None
    ) -> None:
        """`search`: how the view of each tile is found; None codes tiles as they are."""
        super().__init__(model, engine, tile_log2)
        self.search, self.has_views = search, search is not None

    def _streams(self, tiles: Sequence[NDArray[Any]], lanes_log2: Sequence[int]) -> list[bytes]:
        if self.search is None:
            return super()._streams(tiles, lanes_log2)
        return self.search.encode(self.engine, self.model, tiles, lanes_log2)


class WaveDecoder(ModelDecoder[WaveModel]):
    """Decodes payloads of one model."""

    name = NAME

    def tables(self) -> Sequence[NDArray[np.uint16]]:
        """The residuals' tables."""
        return [self.model.cdf]

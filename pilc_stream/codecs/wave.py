"""The wave codec: every pixel's distribution from an integer perceptron over its causal neighbours, tile by tile.

Beyond PILC (Kang et al. 2022): nothing but the pixels is sent. Encoding is parallel over all pixels; decoding runs a
wavefront inside each tile, over all tiles of all images of a batch. The tables are PILC's semi-dynamic coder: a mean's
fraction and a scale index name one of a few hundred shipped distributions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pilc_stream.codecs.modelled import ModelCodec, ModelDecoder
from pilc_stream.models.model import WaveModel

NAME = "wave"


class WaveCodec(ModelCodec[WaveModel]):
    """Encodes 8-bit grey and RGB images. What would not get smaller is stored by `raw` instead."""

    name = NAME


class WaveDecoder(ModelDecoder[WaveModel]):
    """Decodes payloads of one model."""

    name = NAME

    def tables(self) -> Sequence[NDArray[np.uint16]]:
        """The residuals' tables."""
        return [self.model.cdf]

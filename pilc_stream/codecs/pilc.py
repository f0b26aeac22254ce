"""The codec of the PILC paper (Kang et al., CVPR 2022): autoregressive residuals, a VQ code book, semi-dynamic tables.

Tile by tile, and each tile by itself:

1. A linear predictor gives the residual image.
2. Each block of 8 x 8 pixels gets an index into a code book; a small convolutional decoder turns the indices of the
   tile into a mean and a scale for every sub-pixel's residual, all in one pass.
3. rANS codes the indices first, then the residuals, each by one of a few hundred integer tables made beforehand and
   picked by its mean and scale (the semi-dynamic coder).

A decoder reads the indices, runs the network once, decodes all residuals in parallel and undoes the prediction last:
nothing that the network or the coder needs depends on a decoded pixel.

What is the paper's: these three parts, their order, integer tables picked by (mean, scale), single images of any size.

What is a published re-implementation's (alipay/Finite_State_Autoregressive_Entropy_Coding): the three-way predictor's
taps (left, upper left and upper neighbour for the first channel; for the others the earlier channel at the same place
and to the left, and the own left neighbour); a code book of 256; means and scales on a grid.

What is ours: exact integers throughout; channels in the order G, R, B; predictors with 12 to 20 taps, one of 64 for
each block, sent beside its code (in prototypes the three fixed taps cost a sixth more on Kodak); taps in the row above
for every channel (8 % of Kodak), so that pixels are undone along a wavefront, not row by row; codes for blocks of
8 x 8, not 2 x 2, chosen by the bits that they cost, coded by tables that see the neighbouring codes; predictors and
code book made by clustering blocks by their bits, and only the decoder network by gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pilc_stream.backends import TileJob
from pilc_stream.backends.pilc.base import block_grid
from pilc_stream.codecs.modelled import ModelCodec, ModelDecoder
from pilc_stream.models.pilc import PilcModel

NAME = "pilc"


class PilcCodec(ModelCodec[PilcModel]):
    """Encodes 8-bit grey and RGB images. What would not get smaller is stored by `raw` instead."""

    name = NAME


class PilcDecoder(ModelDecoder[PilcModel]):
    """Decodes payloads of one model."""

    name = NAME

    def tables(self) -> Sequence[NDArray[np.uint16]]:
        """The tables of residuals, codes and predictors."""
        return [self.model.tensors[name] for name in ("cdf", "code.cdf", "predictor.cdf")]

    def symbols(self, job: TileJob) -> int:
        """Those of the pixels, and two for each block."""
        rows, columns = block_grid(job.height, job.width)
        return super().symbols(job) + 2 * rows * columns

"""Where parameters and units lie for tensor cores: layers as products of matrices of bytes, ``mma.m16n8k32``.

A warp computes a layer for its 32 pixels. The first matrix of a product is 16 pixels by 32 inputs (eight words of four
bytes), the second 32 inputs by eight units, a *tile*. Inputs and units lie in shared memory, ``[word][thread]``, with
eight words more than there are threads from one to the next, so that the words of a product come from 32 banks.

All inputs of a layer are of one kind, as the instruction wants it: signed in the first layer; unsigned in the others,
where a head's own inputs stand 128 higher and the biases make up for it. Sums stay far below ``2**31`` all the same.

A layer's parameters: the number of its tiles (and three fillers); then for each tile for each quarter of the warp's
groups two biases and two shifts; then for each two products for each lane its words of both. What there is not is zero.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pilc_stream.backends.cuda.plan import BYTES, InputWord, Plan, words_of
from pilc_stream.models.model import Layer

TILE = 8
"""Units of a tile."""

PRODUCT_WORDS = 8
"""Words of inputs of a product."""

LANES = 32
LIFT = 128
"""Added to signed inputs of layers whose other inputs are unsigned."""

UNIT_WORDS = 2 * TILE
PAIR_WORDS = LANES * 2 * 2
"""Of two products for all lanes, two words each."""


class TensorPlan(Plan):
    """The layout of one architecture for cards with tensor cores for bytes."""

    padding: ClassVar[int] = 8

    def tiles(self, name: str) -> int:
        """Tiles of a trunk or hidden layer."""
        return words_of(self.spec.layers()[name][0], TILE)

    def unit_words(self, width: int) -> int:
        """Words of a layer's units, whole tiles."""
        return words_of(width, TILE) * (TILE // BYTES)

    @property
    def own_at(self) -> int:
        """The word where a head's own inputs lie, behind the trunk's units."""
        return self.unit_words(self.spec.trunk[-1])

    def products(self, name: str) -> int:
        """Products that give the sums of a tile."""
        return words_of(len(self.matrix_words(name)), PRODUCT_WORDS)

    def matrix_words(self, name: str) -> list[InputWord]:
        """The inputs of a layer where they lie, from the first word of its inputs on."""
        words = self.layer_words(name)
        if name == "trunk.0":
            return words
        trunk = self.spec.trunk[-1] if name.startswith("head") else self.spec.trunk[int(name.split(".")[1]) - 1]
        own = words[words_of(trunk) :]
        fillers = self.unit_words(trunk) - words_of(trunk)
        return [*words[: words_of(trunk)], *[InputWord((None,) * BYTES, False)] * fillers, *own]

    def tile_words(self, name: str) -> int:
        """Words of a tile's parameters."""
        return UNIT_WORDS + PAIR_WORDS * words_of(self.products(name), 2)

    def dense_words(self, name: str, outputs: int) -> int:
        """Words of a layer behind its first four."""
        return self.tiles(name) * self.tile_words(name)

    @property
    def trunk_words(self) -> int:
        """Words for the inputs or the units of any one layer, whole products."""
        names = [name for name in self.spec.layers() if name.startswith("trunk") or name.endswith("hidden")]
        return max(PRODUCT_WORDS * self.products(name) for name in names)

    @property
    def head_at(self) -> int:
        """The word where a head's hidden units begin: behind all that a product may read."""
        return self.trunk_words

    @property
    def hidden_words(self) -> int:
        """Words of inputs and units that each thread keeps: the trunk's, then a head's."""
        return self.head_at + self.unit_words(self.spec.head)

    def pack_dense(self, name: str, layer: Layer, out: NDArray[np.int32]) -> None:
        """A trunk or hidden layer to its place `out`."""
        units, products = TILE * self.tiles(name), self.products(name)
        columns = [column for word in self.matrix_words(name) for column in word.columns]
        lifted = [column for word in self.matrix_words(name) if word.signed for column in word.columns]
        weight = np.zeros((units, PRODUCT_WORDS * BYTES * 2 * words_of(products, 2)), np.int8)
        for place, column in enumerate(columns):
            if column is not None:
                weight[: len(layer.bias), place] = layer.weight[:, column]
        bias, shift = np.zeros((2, units), np.int32)
        bias[: len(layer.bias)], shift[: len(layer.bias)] = layer.bias, layer.shift
        if name != "trunk.0":
            own = [column for column in lifted if column is not None]
            bias[: len(layer.bias)] -= LIFT * layer.weight[:, own].astype(np.int32).sum(axis=1, dtype=np.int32)
        out[0] = self.tiles(name)
        tiles = out[BYTES:].reshape(self.tiles(name), self.tile_words(name))
        # Of each quarter: the biases of its two units, then their shifts.
        tiles[:, :UNIT_WORDS] = np.concatenate([bias.reshape(-1, 4, 2), shift.reshape(-1, 4, 2)], axis=2).reshape(
            -1, UNIT_WORDS
        )
        # [tile][unit: group][pair][product][near, far][quarter] -> [tile][pair][group][quarter][product][near, far]
        words = weight.view(np.int32).reshape(-1, TILE, words_of(products, 2), 2, 2, 4)
        tiles[:, UNIT_WORDS:] = words.transpose(0, 2, 1, 5, 3, 4).reshape(len(tiles), -1)

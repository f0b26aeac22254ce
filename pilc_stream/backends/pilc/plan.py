"""Where everything lies on a card for one architecture of the codec `pilc`: packed weights, and planes of activations.

A *pixel word* holds a pixel's channels less mid grey as signed bytes, the first lowest. A predictor's weights are pairs
of 16 bits, each to be multiplied with two bytes of one pixel word. Activations are *planes* of words, four channels of
a place in each: ``[tile][word][row][column]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.blocks import WEIGHT_BITS
from pilc_stream.arith.context import CHANNELS
from pilc_stream.backends.cuda.plan import BYTES, words_of
from pilc_stream.models.model import Layer
from pilc_stream.models.pilc import KERNEL, OUTPUTS, PilcModel, PilcSpec

CURRENT = -1
"""In place of a position's number: the pixel itself."""

GROUP_WORDS = 4
GROUP_UNITS = GROUP_WORDS * BYTES
"""Units of a layer that a thread computes together, into so many words."""

HALF = 1 << (WEIGHT_BITS - 1)

HEAD_UNITS = 2 * BYTES
"""What the weights of a pixel's outputs are padded to."""

Columns = tuple[int | None, ...]
"""Four channels of a word; None for a filler."""


class Term(NamedTuple):
    """Two weights and the two bytes that they are multiplied with. `taps`: by number; None for a weight of 0."""

    position: int
    high: bool
    taps: tuple[int | None, int | None]


def channel_words(count: int, first: int = 0) -> list[Columns]:
    """So many channels from `first` on, four to a word."""
    columns: list[int | None] = [*range(first, first + count), *[None] * (-count % BYTES)]
    return [tuple(columns[i : i + BYTES]) for i in range(0, len(columns), BYTES)]


@dataclass(frozen=True)
class LayerPlan:
    """A hidden layer: what the words of its inputs hold and which units make the words of its outputs.

    Where it splits places, the words come in four equal groups, for the four places that each place becomes.
    """

    name: str
    taps: int
    inputs: tuple[Columns, ...]
    units: tuple[Columns, ...]
    splits: bool

    @property
    def groups(self) -> int:
        """Groups of units that are computed together."""
        return words_of(len(self.units), GROUP_WORDS)

    @property
    def group_size(self) -> int:
        """Words of a group's parameters: biases, shifts, and for each tap and word of inputs the weights."""
        return GROUP_UNITS * (2 + self.taps * len(self.inputs))

    @property
    def out_words(self) -> int:
        """Planes that a tile's outputs take; the last ones may hold nothing."""
        return words_of(len(self.units)) if self.splits else self.groups * GROUP_WORDS

    def pack(self, layer: Layer) -> NDArray[np.int32]:
        """The parameters, group by group."""
        units = [unit for word in self.units for unit in word]
        units += [None] * (self.groups * GROUP_UNITS - len(units))
        per_tap = layer.weight.shape[1] // self.taps
        out: list[int] = []
        for first in range(0, len(units), GROUP_UNITS):
            group = units[first : first + GROUP_UNITS]
            out += [0 if unit is None else int(layer.bias[unit]) for unit in group]
            out += [0 if unit is None else int(layer.shift[unit]) for unit in group]
            for tap in range(self.taps):
                out += [_packed(layer, unit, word, tap * per_tap) for word in self.inputs for unit in group]
        return np.array(out, np.int32)


@dataclass(frozen=True)
class PilcPlan:
    """The layout of one architecture."""

    spec: PilcSpec

    @cached_property
    def positions(self) -> tuple[tuple[int, int], ...]:
        """The neighbours that any tap looks at, `(dy, dx)`."""
        offsets = [(dy, dx) for taps in self.spec.taps for _, dy, dx in taps]
        return tuple(offset for offset in dict.fromkeys(offsets) if offset != (0, 0))

    @cached_property
    def terms(self) -> tuple[tuple[Term, ...], ...]:
        """The products of each channel's predictors."""
        return tuple(self._terms(taps) for taps in self.spec.taps)

    def _terms(self, taps: Sequence[tuple[int, int, int]]) -> tuple[Term, ...]:
        numbers = {tap: number for number, tap in enumerate(taps)}
        out = []
        for place in dict.fromkeys((dy, dx) for _, dy, dx in taps):
            position = CURRENT if place == (0, 0) else self.positions.index(place)
            for high in (False, True):
                pair = (numbers.get((2 * high, *place)), numbers.get((2 * high + 1, *place)))
                if pair != (None, None):
                    out.append(Term(position, high, pair))
        return tuple(out)

    @property
    def predictor_words(self) -> int:
        """Words of a predictor: the channels' biases, then the pairs of their terms, up to whole vectors."""
        return BYTES * words_of(CHANNELS + sum(map(len, self.terms)))

    def first_pair(self, channel: int) -> int:
        """Where a channel's pairs begin."""
        return CHANNELS + sum(len(terms) for terms in self.terms[:channel])

    @property
    def pixel_words(self) -> int:
        """Words that a pixel takes among those of a block: its neighbours and itself, up to whole vectors."""
        return BYTES * words_of(len(self.positions) + 1)

    def pack_predictors(self, model: PilcModel) -> NDArray[np.int32]:
        """All predictors: int32 `(predictors, predictor_words)`. Their biases hold the half that rounds."""
        out = np.zeros((self.spec.predictors, self.predictor_words), np.int32)
        for c in range(CHANNELS):
            weight, bias = model.predictor(c)
            out[:, c] = bias + HALF
            for i, term in enumerate(self.terms[c]):
                low, high = (0 if tap is None else weight[:, tap].astype(np.int32) for tap in term.taps)
                out[:, self.first_pair(c) + i] = (low & 0xFFFF) | (high << 16)
        return out

    @property
    def feature_words(self) -> tuple[int, int]:
        """Words of a code's and of a predictor's features."""
        return words_of(self.spec.code_features), words_of(self.spec.predictor_features)

    def pack_features(self, model: PilcModel) -> list[NDArray[np.int32]]:
        """The features of codes and of predictors: int32 `(entries, words)`."""
        out = []
        for name, words in zip(("code", "predictor"), self.feature_words, strict=True):
            features = model.tensors[f"{name}.features"]
            padded = np.zeros((len(features), BYTES * words), np.uint8)
            padded[:, : features.shape[1]] = features
            out.append(padded.view(np.int32))
        return out

    @cached_property
    def layers(self) -> tuple[LayerPlan, ...]:
        """The hidden layers in order of use."""
        spec = self.spec
        inputs = [*channel_words(spec.code_features), *channel_words(spec.predictor_features, spec.code_features)]
        out = []
        for name, (outputs, _) in list(spec.layers().items())[:-1]:
            splits = name.endswith("split")
            each = outputs // 4 if splits else outputs
            units = [word for first in range(0, outputs, each) for word in channel_words(each, first)]
            out.append(LayerPlan(name, 1 if splits else KERNEL, tuple(inputs), tuple(units), splits))
            inputs = channel_words(each)
        return tuple(out)

    @property
    def head_words(self) -> int:
        """Words of inputs of the last layer."""
        return words_of(self.spec.widths[3])

    @property
    def head_size(self) -> int:
        """Words of the last layer's parameters for one of the four pixels of a place."""
        return HEAD_UNITS * (2 + self.head_words)

    def pack_head(self, model: PilcModel) -> NDArray[np.int32]:
        """The last layer: for each of four pixels biases and shifts of its outputs, and weights word by word."""
        layer = model.layers["head"]
        out: list[int] = []
        fill = [0] * (HEAD_UNITS - OUTPUTS)
        for first in range(0, len(layer.bias), OUTPUTS):
            units = range(first, first + OUTPUTS)
            out += [*(int(layer.bias[unit]) for unit in units), *fill]
            out += [*(int(layer.shift[unit]) for unit in units), *fill]
            for word in channel_words(self.spec.widths[3]):
                out += [*(_packed(layer, unit, word, 0) for unit in units), *fill]
        return np.array(out, np.int32)

    @property
    def scratch_words(self) -> tuple[int, int]:
        """Words of activations for a block of 8 x 8 pixels in each of two buffers, which the layers use in turns."""
        sizes, places = [words_of(sum(self.feature_words), 1)], 1
        for layer in self.layers:
            # Splitting makes four places of one: `out_words` counts the planes of the finer grid.
            places *= 4 if layer.splits else 1
            sizes.append(places * layer.out_words)
        return max(sizes[::2]), max(sizes[1::2])


def _packed(layer: Layer, unit: int | None, word: Columns, first: int) -> int:
    if unit is None:
        return 0
    weights = [0 if column is None else int(layer.weight[unit, first + column]) for column in word]
    return int(np.array(weights, np.int8).view(np.int32)[0])


def pack_scales(model: PilcModel) -> NDArray[Any]:
    """What codes, then predictors add to the scales: int32 `(codes + predictors, 4)`."""
    both = np.concatenate([model.tensors["code.scale"], model.tensors["predictor.scale"]]).astype(np.int32)
    return np.pad(both, ((0, 0), (0, 1)))

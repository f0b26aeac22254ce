"""Where everything lies for one architecture: packed parameters, and the shared memory of a block. Units: 32-bit words.

A block holds, in this order: the parameters, if they are few (else they stay in device memory); what its threads keep
there, ``[word][thread]``: hidden units, four to a word, and for large architectures the states that a pixel starts
from (where that is more than a card gives, each thread keeps them in *local* memory); and for each of its teams (the
threads that share a tile) the *ring*, in planes of `rows` columns:

    sub-errors  ``[4 steps][row][4]``   the 15 of a pixel as bytes, channel by channel
    errors      ``[4 steps][2][row]``   of the channels 0 and 1 as halves, of channel 2
    pixels      ``[slots][row]``        channels 0, 1, 2 as bytes
    states      ``[words][row]``        weights and running means, as halves; of the last step only
    exchange    ``[thread]``            table rows for the lanes, symbols back

A row of the tile has the column ``row % rows``: on a wavefront no more than ``rows - 5`` rows are under way, three
above are still looked at, and one is about to begin. Steps lie in slots ``step % 4`` and ``step % slots``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pilc_stream.arith.adaptive import AVERAGE_SHIFTS, initial_state
from pilc_stream.arith.context import CHANNELS, ROWS_ABOVE
from pilc_stream.arith.predictor import SUB_PREDICTORS
from pilc_stream.models.model import Layer, WaveModel
from pilc_stream.models.spec import EARLIER_INPUTS, WaveSpec

BYTES = 4
"""Values in a word where they are bytes; units of a layer that are computed together."""

RECORDED_STEPS = 4
SUB_WORDS = (CHANNELS * SUB_PREDICTORS + BYTES - 1) // BYTES
ERROR_WORDS = 2
META_WORDS = 1 + CHANNELS
"""Words behind a pixel's inputs between the kernels of an encoder: pixel, exponent and channels; base and prediction
of each channel."""


MOST_SHARED_PARAMETERS = 4096
"""Words of parameters that a block copies to its shared memory; more would leave room for too few blocks."""


FEW_REGISTERS = 128
"""With so many a thread, a multiprocessor holds four blocks of 128 threads, or one of 512."""

FEW_CARRIED_WORDS = 32
"""Of inputs and states, which lie in registers from a step's beginning to its end."""

MOST_CARRIED_WORDS = 48
"""With more, the states of a decoding thread wait with its hidden units."""


def words_of(values: int, per_word: int = BYTES) -> int:
    """Words that hold so many values."""
    return -(-values // per_word)


@dataclass(frozen=True)
class InputWord:
    """Four inputs of a layer as the kernels hold them: their columns in the weight matrix (None for a filler)."""

    columns: tuple[int | None, ...]
    signed: bool


def _words(first: int, count: int, signed: bool) -> list[InputWord]:
    columns: list[int | None] = [*range(first, first + count), *[None] * (-count % BYTES)]
    return [InputWord(tuple(columns[i : i + BYTES]), signed) for i in range(0, len(columns), BYTES)]


@dataclass(frozen=True)
class Plan:
    """The layout of one architecture."""

    spec: WaveSpec
    local: bool = False
    """Whether threads keep their own words in local memory (the card's, by way of its caches) instead of shared."""

    padding: ClassVar[int] = 0
    """From one of a thread's words in shared memory to its next there are the block's threads and so many words."""

    @property
    def inputs(self) -> int:
        """Words of a pixel's inputs."""
        return words_of(self.spec.inputs)

    @property
    def pixel_slots(self) -> int:
        """Steps of pixels in the ring: as far back as a neighbour lies, at least those of the sub-predictors."""
        return max(RECORDED_STEPS, *(-(2 * dy + dx) for dy, dx in self.spec.neighbours))

    def state_values(self, channel: int) -> int:
        """Weights and running means of a channel."""
        return self.spec.taps + channel + len(AVERAGE_SHIFTS)

    def state_words(self, channel: int) -> int:
        """Words of a channel's state."""
        return words_of(self.state_values(channel), 2)

    def state_offset(self, channel: int) -> int:
        """First word of a channel's state among the state's words."""
        return sum(self.state_words(c) for c in range(channel))

    @property
    def initial_state(self) -> list[int]:
        """The words of a state outside the tile."""
        words = []
        for c in range(CHANNELS):
            values = initial_state(c, self.spec.taps)
            values += [0] * (len(values) % 2)
            words += [low | high << 16 for low, high in zip(values[::2], values[1::2], strict=True)]
        return words

    # Layers.

    def layer_words(self, name: str) -> list[InputWord]:
        """The inputs of a trunk or hidden layer, or of a head's output units (named by ``head.c.mean``)."""
        kind, number, *part = name.split(".")
        spec, c = self.spec, int(number)
        if kind == "trunk":
            return _words(0, spec.inputs, signed=True) if c == 0 else _words(0, spec.trunk[c - 1], signed=False)
        if part == ["hidden"]:
            own = EARLIER_INPUTS * c + 1 if c else 0
            return _words(0, spec.trunk[-1], signed=False) + _words(spec.trunk[-1], own, signed=True)
        return _words(0, spec.head, signed=False)

    @property
    def direct_words(self) -> list[InputWord]:
        """The signed inputs of ``head.c.mean``: those words of the pixel's inputs, then the adaptive prediction."""
        head, direct = self.spec.head, self.spec.direct
        return _words(head, direct, signed=True) + _words(head + direct, 1, signed=True)

    @property
    def direct_vectors(self) -> int:
        """Groups of four words that hold one unit's weights of `direct_words`."""
        return words_of(len(self.direct_words))

    @cached_property
    def _places(self) -> dict[str, int]:
        places, position = {}, 0
        for name, (outputs, _) in self.spec.layers().items():
            if name.endswith((".scale", ".coupling")):
                continue
            places[name] = position
            if name.endswith(".mean"):
                position += self.group_words(name) + BYTES * self.direct_vectors
            else:
                position += BYTES + self.dense_words(name, outputs)
        return {**places, "": position}

    def dense_words(self, name: str, outputs: int) -> int:
        """Words of a trunk or hidden layer behind its first four."""
        return words_of(outputs) * self.group_words(name)

    def place(self, name: str) -> int:
        """First word of a layer's parameters. A trunk or hidden layer begins with its number of groups and fillers."""
        return self._places[name]

    def group_words(self, name: str) -> int:
        """Words of four units: their biases, their shifts, and for each word of inputs one word of weights a unit."""
        return BYTES * (2 + len(self.layer_words(name)))

    @property
    def parameter_words(self) -> int:
        """Words of all parameters."""
        return self._places[""]

    def pack(self, model: WaveModel) -> NDArray[np.int32]:
        """The parameters of a model of this architecture, int32 `(parameter_words,)`."""
        out = np.zeros(self.parameter_words, np.int32)
        for name in self._places:
            if name.endswith(".mean"):
                self._pack_outputs(model, name, out)
            elif name:
                layer, at = model.layers[name], self.place(name)
                self.pack_dense(name, layer, out[at : at + BYTES + self.dense_words(name, len(layer.bias))])
        return out

    def pack_dense(self, name: str, layer: Layer, out: NDArray[np.int32]) -> None:
        """A trunk or hidden layer to its place `out`."""
        groups = words_of(len(layer.bias))
        out[0] = groups
        for group in range(groups):
            units = [(layer, unit) for unit in range(BYTES * group, BYTES * (group + 1))]
            first = BYTES + group * self.group_words(name)
            out[first : first + self.group_words(name)] = _packed_group(units, self.layer_words(name))

    def _pack_outputs(self, model: WaveModel, name: str, out: NDArray[np.int32]) -> None:
        """Mean, scale and couplings are one group of four units over the hidden ones; then the mean's direct inputs."""
        head = name.removesuffix("mean")
        coupling = model.layers.get(f"{head}coupling")
        units = [(model.layers[name], 0), (model.layers[f"{head}scale"], 0)]
        units += [(coupling, i) for i in range(len(coupling.bias))] if coupling else []
        at, size = self.place(name), self.group_words(name)
        out[at : at + size] = _packed_group(units, self.layer_words(name))
        direct = [_packed_weights(model.layers[name], 0, word) for word in self.direct_words]
        out[at + size : at + size + len(direct)] = direct

    # Shared memory.

    @property
    def hidden_words(self) -> int:
        """Words of hidden units that each thread keeps: the trunk's, then a head's."""
        return max(self.trunk_words, self.head_at + words_of(self.spec.head))

    @property
    def head_at(self) -> int:
        """The word where a head's hidden units begin: behind the trunk's last layer."""
        return words_of(self.spec.trunk[-1])

    @property
    def trunk_words(self) -> int:
        """Words for the units of any one layer of the trunk."""
        return max(words_of(width) for width in self.spec.trunk)

    @property
    def stashed_words(self) -> int:
        """Words of states that a decoding thread keeps in memory, not in registers: all or none."""
        carried = self.inputs + len(self.initial_state)
        return len(self.initial_state) if carried > MOST_CARRIED_WORDS else 0

    def thread_words(self, *, decoding: bool) -> int:
        """Words that each thread keeps, in shared memory or `local`."""
        return self.hidden_words + (self.stashed_words if decoding else 0)

    @property
    def shared_parameters(self) -> int:
        """Words of parameters in shared memory: all or none."""
        return self.parameter_words if self.parameter_words <= MOST_SHARED_PARAMETERS else 0

    @property
    def most_registers(self) -> int | None:
        """The limit that kernels fit without spills if a pixel has few words to carry along; others need them all."""
        return FEW_REGISTERS if self.inputs + len(self.initial_state) <= FEW_CARRIED_WORDS else None

    def ring_words(self, rows: int) -> int:
        """Words of a team's ring of `rows` columns, without the exchange."""
        planes = RECORDED_STEPS * (SUB_WORDS + ERROR_WORDS) + self.pixel_slots + len(self.initial_state)
        return words_of(planes * rows) * BYTES

    def shared_words(self, threads: int, teams: int, *, perceptron: bool = True) -> int:
        """Words of a block whose threads are shared out over so many teams; none: there are no rings."""
        team_threads = threads // max(1, teams)
        team = self.ring_words(ring_rows(team_threads)) + team_threads
        # Encoding, the perceptron runs where there are no teams, and no states.
        own = 0 if self.local else self.thread_words(decoding=teams > 0) * (threads + self.padding)
        return (self.shared_parameters + own if perceptron else 0) + teams * team


def ring_rows(team_threads: int) -> int:
    """Columns of a team's ring; a multiple of four, so that sub-errors stay at multiples of 16 bytes."""
    return words_of(team_threads + ROWS_ABOVE + 2) * BYTES


def team_log2(height: ArrayLike, width: ArrayLike) -> Any:
    """How many threads share a tile, as a power of two: one for each pixel of its longest step, at least four.

    Of one tile, or of many at once.
    """
    longest = np.minimum(height, (np.asarray(width) + 1) // 2)
    # The exponent of a float is the number of bits of the integer.
    return np.maximum(2, np.frexp(longest - 1)[1])


def _packed_weights(layer: Layer, unit: int, word: InputWord) -> int:
    weights = [0 if column is None else int(layer.weight[unit, column]) for column in word.columns]
    return int(np.array(weights, np.int8).view(np.int32)[0])


def _packed_group(units: Sequence[tuple[Layer, int]], words: Sequence[InputWord]) -> list[int]:
    """Four units, those that there are not as zeros."""
    real = [(layer, unit) for layer, unit in units if unit < len(layer.bias)]
    fill = [0] * (BYTES - len(real))
    out = [int(layer.bias[unit]) for layer, unit in real] + fill
    out += [int(layer.shift[unit]) for layer, unit in real] + fill
    for word in words:
        out += [_packed_weights(layer, unit, word) for layer, unit in real] + fill
    return out


__all__ = ["InputWord", "Plan", "ring_rows", "team_log2", "words_of"]

"""How the parts of the family's networks are put together, whether they compute with floats or with integers.

Values are `(h, w, channels)` of one tile.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.backends.lossy.family.machine import Machine
from pilc_stream.models.family import FamilyModel
from pilc_stream.models.family_spec import Part, heads_of


class Network(ABC):
    """Computes parts of a model on a machine."""

    def __init__(self, model: FamilyModel, machine: Machine) -> None:
        self.model, self.machine = model, machine
        self._things: dict[tuple[str, str], Any] = {}

    def run(self, parts: Sequence[Part], values: Any) -> Any:
        """Values after all parts."""
        for part in parts:
            values = self.after(part, values)
        return values

    def after(self, part: Part, values: Any) -> Any:
        """Values after a part."""
        kind, name = part.kind, part.name
        if kind == "up":
            return self.widened(name, values)
        if kind == "relu":
            return values.clip(0, None)
        if kind == "gelu":
            return self.gelu(values)
        if kind == "swin down":
            merged = self.linear(f"{name}.merge", self.normalised(f"{name}.normalise", merged_places(values)))
            return self._blocks(part, merged)
        if kind == "swin up":
            tokens = self.normalised(f"{name}.normalise", self._blocks(part, values))
            return split_places(self.linear(f"{name}.split", tokens))
        return self.convolved(name, values, 2 if kind == "down" else 1)

    def _blocks(self, part: Part, tokens: Any) -> Any:
        for number in range(part.depth):
            name = f"{part.name}.blocks.{number}"
            before = self.normalised(f"{name}.before_attention", tokens)
            tokens = self.added(tokens, self._attended(f"{name}.attention", before, part.window, bool(number % 2)))
            before = self.normalised(f"{name}.before_perceptron", tokens)
            hidden = self.gelu(self.linear(f"{name}.perceptron.0", before))
            tokens = self.added(tokens, self.linear(f"{name}.perceptron.2", hidden))
        return tokens

    def _attended(self, name: str, tokens: Any, window: int, shifted: bool) -> Any:
        """Attention within windows, shifted by half of one or not; filled up to whole windows with 0."""
        height, width, channels = tokens.shape
        padded = self.machine.padded(tokens, (0, -height % window), (0, -width % window))
        tall, wide, _ = padded.shape
        shift = window // 2 if shifted and min(tall, wide) > window else 0
        if shift:
            padded = self.machine.rolled(padded, -shift)
        cells = padded.reshape(tall // window, window, wide // window, window, channels).swapaxes(1, 2)
        windows = cells.reshape(-1, window * window, channels)
        count, size, heads = len(windows), window * window, heads_of(channels)
        three = self.linear(f"{name}.query_key_value", windows).reshape(count, size, 3, heads, channels // heads)
        query, key, value = (three[:, :, i].swapaxes(1, 2) for i in range(3))
        mask = self.kept(f"{tall} {wide} {window}", "mask", lambda: self._mask(tall, wide, window)) if shift else None
        bias = self.kept(name, "bias", lambda: self.position_bias(name, window))
        mixed = self.mixed(query, key, value, bias, mask)
        out = self.linear(f"{name}.out", mixed.swapaxes(1, 2).reshape(count, size, channels))
        out = out.reshape(tall // window, wide // window, window, window, channels).swapaxes(1, 2)
        out = out.reshape(tall, wide, channels)
        return (self.machine.rolled(out, shift) if shift else out)[:height, :width]

    def _mask(self, height: int, width: int, window: int) -> Any:
        """`(windows, 1, tokens, tokens)`: above 0 between tokens of different sides of the border that was moved."""

        def sides(length: int) -> NDArray[Any]:
            places = np.arange(length)
            return (places >= length - window).astype(int) + (places >= length - window // 2)

        region = 3 * sides(height)[:, None] + sides(width)
        cells = region.reshape(height // window, window, width // window, window).swapaxes(1, 2)
        flat = cells.reshape(-1, window * window)
        return self.machine.integers(flat[:, None, :, None] != flat[:, None, None, :]) > 0

    def kept(self, name: str, what: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once."""
        if (name, what) not in self._things:
            self._things[name, what] = make()
        return self._things[name, what]

    @abstractmethod
    def convolved(self, name: str, values: Any, stride: int) -> Any:
        """A convolution, 0 outside."""

    @abstractmethod
    def widened(self, name: str, values: Any) -> Any:
        """A transposed convolution to twice the resolution."""

    @abstractmethod
    def linear(self, name: str, values: Any) -> Any:
        """A linear map of the last axis."""

    @abstractmethod
    def normalised(self, name: str, values: Any) -> Any:
        """Layer normalisation of the last axis."""

    @abstractmethod
    def gelu(self, values: Any) -> Any:
        """Each times the normal distribution's share below it."""

    @abstractmethod
    def added(self, values: Any, change: Any) -> Any:
        """The sum."""

    @abstractmethod
    def position_bias(self, name: str, window: int) -> Any:
        """What attention adds for how far tokens are apart: `(heads, tokens, tokens)`."""

    @abstractmethod
    def mixed(self, query: Any, key: Any, value: Any, bias: Any, mask: Any | None) -> Any:
        """Attention, all `(windows, heads, tokens, channels)`; none where `mask` is set."""


def position_index(window: int) -> NDArray[Any]:
    """Which bias belongs to two tokens of a window: `(tokens, tokens)`."""
    at = np.indices((window, window)).reshape(2, -1)
    apart = at[:, :, None] - at[:, None] + window - 1
    return np.asarray(apart[0] * (2 * window - 1) + apart[1])


def merged_places(values: Any) -> Any:
    """`(h, w, c)` -> `(h / 2, w / 2, 4 c)`: the four places of a channel next to each other."""
    height, width, channels = values.shape
    groups = values.reshape(height // 2, 2, width // 2, 2, channels).swapaxes(1, 2).swapaxes(2, 4).swapaxes(3, 4)
    return groups.reshape(height // 2, width // 2, 4 * channels)


def split_places(values: Any) -> Any:
    """The inverse of `merged_places`."""
    height, width, count = values.shape
    groups = values.reshape(height, width, count // 4, 2, 2).swapaxes(3, 4).swapaxes(2, 4).swapaxes(1, 2)
    return groups.reshape(2 * height, 2 * width, count // 4)

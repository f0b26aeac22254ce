"""The architecture of models of the codec `lossy`, and the numbers that all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, NamedTuple

from pilc_stream.errors import ModelError

LEVEL_STRIDES = (4, 2, 2)
"""By how much each level of the transform is smaller than the one before it."""

LATENT_STRIDE = 16
HYPER_STRIDE = 64
UNIT = 40.0
"""Grey levels that the transforms and latents count in."""

MEAN_STEPS = 16
"""Means and decoded latents count sixteenths."""

SCALE_COUNT = 64
SCALE_LEAST = 0.11
SCALE_STEPS = 6
"""Scales are ``0.11 * 2**(index / 6)``."""

HYPER_INPUT = 8
"""A hyper latent enters the network as eight times its value."""

CONTEXT_LIMIT = 127
KERNEL_PLACES = 9
FLOAT_KNOTS = 8
"""Trade-offs at which gains and biases of the transforms are given; between them they are interpolated."""

MAX_WIDTH = 1024
MAX_BLOCKS = 64


class CodingPass(NamedTuple):
    """Latents that are coded at once: channels `start` to `stop`, at places of one `parity` (of row plus column) or at
    all; `known` channels, as far as decoded, are the context."""

    start: int
    stop: int
    parity: int | None
    known: int


@dataclass(frozen=True)
class LossySpec:
    """The architecture: `widths` of the transforms' levels, `inner_widths` and counts of their residual blocks;
    the entropy nets.

    Latent channels are coded in `slices`, one after the other; of the first `checkered` slices half of the places
    first, in the pattern of a chess board.
    """

    widths: tuple[int, int, int]
    inner_widths: tuple[int, int, int]
    analysis_blocks: tuple[int, int, int]
    synthesis_blocks: tuple[int, int, int]
    slices: tuple[int, ...]
    checkered: int
    hyper_channels: int
    hyper_width: int
    context_width: int
    hidden_width: int
    quality_features: int

    def __post_init__(self) -> None:
        widths = (*self.widths, *self.inner_widths, *self.slices)
        widths += (self.hyper_channels, self.hyper_width, self.context_width, self.hidden_width, self.quality_features)
        blocks = (*self.analysis_blocks, *self.synthesis_blocks)
        levels = len(LEVEL_STRIDES)
        if len(self.widths) != levels or len(self.inner_widths) != levels or len(blocks) != 2 * levels:
            raise ModelError(f"lossy model: its transforms do not have {levels} levels: {self}")
        if not all(1 <= width <= MAX_WIDTH for width in widths) or not all(0 <= n <= MAX_BLOCKS for n in blocks):
            raise ModelError(f"lossy model: widths must lie in 1..{MAX_WIDTH}, blocks in 0..{MAX_BLOCKS}: {self}")
        if sum(self.slices) != self.latents or not 0 <= self.checkered <= len(self.slices):
            raise ModelError(f"lossy model: its slices do not make up {self.latents} channels: {self}")

    @property
    def latents(self) -> int:
        """Channels of the latents."""
        return self.widths[-1]

    def residual_blocks(self, side: str) -> list[tuple[str, int, int]]:
        """(name, channels, inner width) of the residual blocks of "analysis" or "synthesis", level by level."""
        counts = self.analysis_blocks if side == "analysis" else self.synthesis_blocks
        return [
            (f"{side}.{level}.{number}", self.widths[level], self.inner_widths[level])
            for level in range(len(LEVEL_STRIDES))
            for number in range(counts[level])
        ]

    def matrices(self) -> list[tuple[int, int]]:
        """(outputs, inputs) of the matrix by which analysis enters each level."""
        inputs = (3, *self.widths[:-1])
        return [
            (width, below * stride**2) for width, below, stride in zip(self.widths, inputs, LEVEL_STRIDES, strict=True)
        ]

    def hyper_analysis(self) -> list[tuple[int, int]]:
        """(outputs, inputs) of the four float layers that make hyper latents; the third is 3 x 3, the others 1 x 1,
        the second and the last of four places each."""
        width = self.hyper_width
        return [
            (width, self.latents),
            (width, 4 * width),
            (width, KERNEL_PLACES * width),
            (self.hyper_channels, 4 * width),
        ]

    def passes(self) -> list[CodingPass]:
        """The passes in order."""
        edges = [0]
        for count in self.slices:
            edges.append(edges[-1] + count)
        out = []
        for number, (start, stop) in enumerate(pairwise(edges)):
            if number < self.checkered:
                out += [CodingPass(start, stop, 0, start), CodingPass(start, stop, 1, stop)]
            else:
                out.append(CodingPass(start, stop, None, start))
        return out

    def layers(self) -> dict[str, tuple[int, int, int]]:
        """Name -> (outputs, inputs, edge of the kernel) of every integer layer in order of use."""
        width, nine = self.hyper_width, KERNEL_PLACES
        layers = {
            "hyper.0": (width, self.hyper_channels + self.quality_features, 1),
            "hyper.1": (4 * width, width, 1),
            "hyper.2": (width, nine * width, 3),
            "hyper.3": (4 * width, width, 1),
            "hyper.4": (width, nine * width, 3),
        }
        for number, each in enumerate(self.passes()):
            inputs = width + self.quality_features
            if each.known:
                layers[f"pass.{number}.context"] = (self.context_width, nine * each.known, 3)
                inputs += self.context_width
            layers[f"pass.{number}.hidden"] = (self.hidden_width, inputs, 1)
            layers[f"pass.{number}.out"] = (2 * (each.stop - each.start), self.hidden_width, 1)
        return layers

    def macs_per_pixel(self) -> dict[str, float]:
        """Multiply-accumulates per pixel to decode: `hyper`, `passes`, `synthesis`."""
        shares = {"hyper.0": 4096, "hyper.1": 4096, "hyper.2": 1024, "hyper.3": 1024, "hyper.4": 256}
        found = {"hyper": 0.0, "passes": 0.0, "synthesis": 0.0}
        for name, (outputs, inputs, _) in self.layers().items():
            found["hyper" if name in shares else "passes"] += outputs * inputs / shares.get(name, 256)
        below, stride = 3, 1
        for width, inner, blocks, step in zip(
            self.widths, self.inner_widths, self.synthesis_blocks, LEVEL_STRIDES, strict=True
        ):
            stride *= step
            found["synthesis"] += (below * step**2 + blocks * (KERNEL_PLACES + 1) * inner) * width / stride**2
            below = width
        return found

    def to_json(self) -> dict[str, Any]:
        """The specification as JSON values; `from_json` is the inverse."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> LossySpec:
        """A specification from parsed JSON; ModelError where it is not one of this release."""
        try:
            if set(values) != {each.name for each in fields(LossySpec)}:
                raise ValueError("its entries are not those of this release")
            return LossySpec(**{name: _whole(value) for name, value in values.items()})
        except (TypeError, ValueError) as error:
            raise ModelError(f"lossy model: its specification cannot be read ({error}): {values}") from error


def _whole(value: object) -> Any:
    # Not int(): a width of 4.5 or true is a broken file, not a width of 4 or 1.
    if isinstance(value, list | tuple):
        return tuple(_whole(each) for each in value)
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value

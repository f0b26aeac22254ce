"""The shape of a wave model: which neighbours it sees and how wide its layers are; parameters and MACs follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pilc_stream.arith.adaptive import products_per_pixel
from pilc_stream.arith.context import CHANNELS, Offset, check_neighbours, input_count
from pilc_stream.arith.predictor import SUB_PREDICTORS
from pilc_stream.errors import ModelError

CONTEXT_VERSION = 1
"""Version of `arith.context` and `arith.perceptron` that a model is made for; a change there needs a new number."""

EARLIER_INPUTS = 3
"""Inputs that each earlier channel of the same pixel adds to a later head."""

MAX_WIDTH = 1024

SIX_NEIGHBOURS: tuple[Offset, ...] = ((0, -1), (0, -2), (-1, -1), (-1, 0), (-1, 1), (-2, 0))


@dataclass(frozen=True)
class WaveSpec:
    """The architecture of a wave model.

    `neighbours`: causal offsets `(dy, dx)`; `taps`: how many of them, from the first, the adaptive units use; `trunk`:
    widths of the layers shared by the channels; `head`: width of the one hidden layer of each channel's head;
    `scale_count`: row groups of the CDF table.
    """

    neighbours: tuple[Offset, ...]
    taps: int
    trunk: tuple[int, ...]
    head: int
    scale_count: int = 80

    def __post_init__(self) -> None:
        try:
            check_neighbours(self.neighbours)
        except ValueError as error:
            raise ModelError(f"wave model: {error}") from error
        widths = (*self.trunk, self.head)
        if not self.neighbours or not self.trunk or not all(1 <= width <= MAX_WIDTH for width in widths):
            raise ModelError(f"wave model: neighbours and layers must not be empty, widths in 1..{MAX_WIDTH}: {self}")
        if not 1 <= self.taps <= len(self.neighbours):
            raise ModelError(
                f"wave model: taps must lie in 1..{len(self.neighbours)}, the neighbours; found {self.taps}"
            )
        if not 1 <= self.scale_count <= 256:
            raise ModelError(f"wave model: scale_count must lie in 1..256, found {self.scale_count}")

    @property
    def inputs(self) -> int:
        """Inputs of the trunk."""
        return input_count(len(self.neighbours))

    @property
    def direct(self) -> int:
        """Scaled neighbours that reach each mean on a linear path of their own (the first of the inputs), as does the
        channel's adaptive prediction."""
        return CHANNELS * len(self.neighbours)

    def layers(self) -> dict[str, tuple[int, int]]:
        """Name -> (outputs, inputs) of every weight matrix, in order of use."""
        shapes = {}
        width = self.inputs
        for i, outputs in enumerate(self.trunk):
            shapes[f"trunk.{i}"] = (outputs, width)
            width = outputs
        for c in range(CHANNELS):
            earlier = EARLIER_INPUTS * c
            # The first channel's adaptive prediction is an input of the trunk, the others' are inputs of their heads.
            shapes[f"head.{c}.hidden"] = (self.head, width + earlier + (c > 0))
            shapes[f"head.{c}.mean"] = (1, self.head + self.direct + 1)
            shapes[f"head.{c}.scale"] = (1, self.head)
            if c:
                shapes[f"head.{c}.coupling"] = (c, self.head)
        return shapes

    def macs_per_pixel(self) -> dict[str, int]:
        """Multiply-accumulates per RGB pixel, to decode and to encode alike, split by part.

        `predictor`: squares of the errors, weighted sums, products of couplings; `adaptive`: the units of
        `arith.adaptive`; `coder`: the rANS step of three symbols. Additions, shifts, comparisons and table look-ups
        (the search of a symbol) hold no product.
        """
        network = sum(outputs * inputs for outputs, inputs in self.layers().values())
        couplings = CHANNELS * (CHANNELS - 1) // 2
        return {
            "predictor": 2 * SUB_PREDICTORS * CHANNELS + couplings,
            "adaptive": products_per_pixel(self.taps),
            "network": network,
            "coder": CHANNELS,
        }

    def parameters(self) -> int:
        """Weights and biases."""
        return sum(outputs * (inputs + 1) for outputs, inputs in self.layers().values())

    def to_json(self) -> dict[str, Any]:
        """The specification as JSON values; `from_json` is the inverse."""
        return {"context_version": CONTEXT_VERSION, **asdict(self)}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> WaveSpec:
        """A specification from parsed JSON; ModelError where it is not one of this release."""
        try:
            version = _whole(values["context_version"])
            neighbours = tuple((_whole(dy), _whole(dx)) for dy, dx in values["neighbours"])
            trunk = tuple(_whole(width) for width in values["trunk"])
            taps, head, scale_count = (_whole(values[name]) for name in ("taps", "head", "scale_count"))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"wave model: its specification cannot be read ({error!r}): {values}") from error
        if version != CONTEXT_VERSION:
            raise ModelError(
                f"wave model: made for context version {version}, this release has {CONTEXT_VERSION}; "
                "use a release that knows it"
            )
        return WaveSpec(neighbours, taps, trunk, head, scale_count)


def _whole(value: object) -> int:
    # Not int(): a width of 4.5 or true is a broken file, not a width of 4 or 1.
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value

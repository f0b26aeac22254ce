"""Models for tests: a tiny one from a fixed formula, and random ones of any architecture up to the bound."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.perceptron import ACTIVATION_LIMIT, FRACTIONS, SUM_LIMIT
from pilc_stream.arith.rans import PRECISION_BITS
from pilc_stream.models.model import MAX_SHIFT, SYMBOLS, Layer, WaveModel
from pilc_stream.models.spec import SIX_NEIGHBOURS, WaveSpec

TOTAL = 1 << PRECISION_BITS

SMALL_SPEC = WaveSpec(neighbours=((0, -1), (-1, 0)), taps=2, trunk=(4,), head=2, scale_count=32)

ALL_NEIGHBOURS = tuple(
    (dy, dx) for dy in (-3, -2, -1, 0) for dx in range(-3, 4) if 2 * dy + dx < 0 and 2 * dy + dx >= -7
)

SPECS = {
    "small": SMALL_SPEC,
    "six": WaveSpec(SIX_NEIGHBOURS, taps=6, trunk=(5, 3), head=3, scale_count=20),
    "all neighbours": WaveSpec(ALL_NEIGHBOURS, taps=len(ALL_NEIGHBOURS), trunk=(13,), head=7, scale_count=16),
    "width one": WaveSpec(((-1, 1),), taps=1, trunk=(1,), head=1, scale_count=1),
    "one then many": WaveSpec(((0, -1), (-2, 3), (-3, -1)), taps=2, trunk=(1, 14), head=25, scale_count=256),
}
"""Architectures at the edges of what a specification may be: odd, single and many units, near and far neighbours."""


def small_model() -> WaveModel:
    """The model of the examples and golden payloads. Never change it: a changed model is another file and digest.

    Small weights around zero from a fixed formula; what matters is set by hand: the scale falls with the local
    activity, so that smooth pixels cost little.
    """
    layers: dict[str, Layer] = {}
    for number, (name, (outputs, inputs)) in enumerate(SMALL_SPEC.layers().items()):
        unit, value = np.indices((outputs, inputs))
        weight = (7 * unit + 5 * value + 3 * number) % 11 - 5
        bias, shift = np.full(outputs, 64), np.full(outputs, 7)
        if name.endswith(".scale"):
            weight, bias = weight - 3, bias + 640
        if name.endswith(".mean"):
            weight, shift = weight * 2, shift - 1
        layers[name] = Layer(weight.astype(np.int8), bias.astype(np.int32), shift.astype(np.uint8))
    rows = [
        cumulative(bell_frequencies(width=(8 + scale % 8) << (scale // 8), centre=centre))
        for scale in range(SMALL_SPEC.scale_count)
        for centre in (-4, 4)
    ]
    row_of = 2 * np.arange(SMALL_SPEC.scale_count)[:, None] + np.arange(FRACTIONS)[None, :] // 8
    return WaveModel(SMALL_SPEC, layers, np.stack(rows), row_of.astype(np.uint16), "small", {"made by": "a formula"})


def random_model(spec: WaveSpec, seed: int, *, at_the_bound: bool = False) -> WaveModel:
    """A model that no training would give: weights, shifts and tables at random, tables from flat to near certain.

    `at_the_bound`: each bias takes what the weights leave of the bound, so that the largest sum is ``2**24 - 1``.
    """
    random = np.random.default_rng(seed)
    layers = {}
    for name, (outputs, inputs) in spec.layers().items():
        # Reaches of all orders, so that some units saturate and others hardly move.
        reach = int(random.choice([1, 8, 127]))
        weight = random.integers(-reach, reach + 1, (outputs, inputs))
        rest = SUM_LIMIT - 1 - ACTIVATION_LIMIT * np.abs(weight).sum(axis=1)
        assert (rest >= 0).all()
        bias = rest * random.choice([-1, 1], outputs) if at_the_bound else random.integers(-(1 << 14), 1 << 14, outputs)
        shift = random.integers(4, 13, outputs) if not at_the_bound else random.integers(0, MAX_SHIFT + 1, outputs)
        layers[name] = Layer(weight.astype(np.int8), bias.astype(np.int32), shift.astype(np.uint8))
    widths = [1, 2, 5, 17, 60, 400, 5000]
    rows = [bell_frequencies(width, 0) for width in widths]
    rows += [certain_frequencies(symbol) for symbol in (0, 128, 255)]
    rows += [frequencies_of(random.integers(1, 1000, SYMBOLS)) for _ in range(4)]
    row_of = random.integers(0, len(rows), (spec.scale_count, FRACTIONS))
    return WaveModel(
        spec, layers, np.stack([cumulative(row) for row in rows]), row_of.astype(np.uint16), f"random {seed}"
    )


def bell_frequencies(width: int, centre: int) -> NDArray[np.int64]:
    """Frequencies that fall with the fourth power of the distance from `centre`, in sixteenths of a level."""
    distance = np.abs(16 * (np.arange(SYMBOLS) - SYMBOLS // 2) - centre)
    return frequencies_of([(width**4 << 40) // (width**4 + int(d) ** 4) for d in distance])


def certain_frequencies(symbol: int) -> NDArray[np.int64]:
    """The most uneven row there can be."""
    frequencies = np.ones(SYMBOLS, np.int64)
    frequencies[symbol] = TOTAL - SYMBOLS + 1
    return frequencies


def frequencies_of(masses: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Frequencies of at least 1 with the sum `TOTAL`, nearly in proportion; the middle takes what rounding leaves."""
    whole = sum(int(mass) for mass in masses)
    frequencies = np.array([1 + int(mass) * (TOTAL - SYMBOLS) // whole for mass in masses], np.int64)
    frequencies[SYMBOLS // 2] += TOTAL - int(frequencies.sum())
    return frequencies


def cumulative(frequencies: NDArray[np.int64]) -> NDArray[np.uint16]:
    """The start of each symbol's interval."""
    return (np.cumsum(frequencies) - frequencies).astype(np.uint16)

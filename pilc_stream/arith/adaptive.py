"""The adaptive units: linear predictors whose weights follow the picture (normalised least mean squares).

Each channel has one unit. It predicts how far the pixel lies from the base, from the scaled neighbours and, behind the
first channel, from the earlier channels of the same pixel. Once the pixel is known, the weights move a little toward
what would have been right there. A pixel starts from the mean of the weights that its west and its north-east
neighbour left behind, both one step of the wavefront before, so that what was learned spreads over the tile as it is
decoded. Beside the weights, each channel keeps two running means of its error's magnitude in the same way.

This is the cheap half of what per-picture adaptation can give: three multiplications per tap, 2.4 % fewer bits on
Kodak at the size of the profile `fast` (`training/EXPERIMENTS.md`). It needs pixels alone, not the perceptron, so an
encoder walks it first and then runs the perceptron over all pixels at once.

Outside the tile the weights and means are the initial ones. All values stay within 32 bits: weights are 14-bit
fractions within +-2, features within +-508, at most 22 of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any

from pilc_stream.arith.context import CHANNELS, log_error
from pilc_stream.arith.fixed import clamp, known, scaled_input

WEIGHT_ONE = 1 << 14
WEIGHT_LIMIT = 32767

LEARNING_RATE = 5
"""Sixteenths: how much of the error an update would undo if the same features came again."""

REGULARISERS = (256, 32, 32)
"""Added to the features' power, per channel and tap: differences of channels are smaller than channels."""

AVERAGE_SHIFTS = (2, 4)
"""Running means of the error's magnitude over about 4 and 16 pixels."""

AVERAGE_ONE = 8
"""Running means count 128ths of a level, so that they fit 16 bits."""

INITIAL_AVERAGE = 16 * AVERAGE_ONE

RECIPROCAL = 1 << 22

WEST, NORTH_EAST = (0, -1), (-1, 1)
"""Where a pixel's weights and means come from."""


def feature_count(channel: int, taps: int) -> int:
    """Features of a channel's unit: its taps, and one or two of the pixel's earlier channels."""
    return taps + channel


def initial_weights(channel: int, taps: int) -> list[int]:
    """All 0 but that of the earlier channels' (mean) distance, which is 1: channels move together."""
    weights = [0] * feature_count(channel, taps)
    if channel:
        weights[taps] = WEIGHT_ONE
    return weights


def initial_state(channel: int, taps: int) -> list[int]:
    """What a channel starts from outside the tile: its weights, then its running means."""
    return [*initial_weights(channel, taps), *[INITIAL_AVERAGE] * len(AVERAGE_SHIFTS)]


def features(channel: int, scaled: Sequence[Sequence[Any]], current: Sequence[Any]) -> list[Any]:
    """The features of a channel's unit, in ``[-508, 508]``.

    `scaled`: per channel its first scaled neighbours, as many as there are taps, in ``[-127, 127]``; `current`: the
    scaled distances from the base of the pixel's earlier channels. Behind the first channel the taps are differences
    to the earlier channels, at twice the scale.
    """
    if channel == 0:
        return list(scaled[0])
    if channel == 1:
        return [2 * (b - a) for a, b in zip(scaled[0], scaled[1], strict=True)] + [current[0]]
    taps = [2 * c - a - b for a, b, c in zip(*scaled, strict=True)]
    return [*taps, (current[0] + current[1]) >> 1, 2 * (current[0] - current[1])]


def inherited(west: Any, north_east: Any) -> Any:
    """A weight or running mean before the pixel is known."""
    return (west + north_east) >> 1


def prediction(weights: Sequence[Any], values: Sequence[Any], base: Any, exponent: Any) -> Any:
    """The unit's prediction of the pixel, sixteenths of a level in ``[0, 4080]``."""
    total = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        total = total + weight * value
    offset = ((((total + 512) >> 10) << exponent) + 8) >> 4
    return clamp(base + offset, 0, 4080)


def updated_weights(
    channel: int, weights: Sequence[Any], values: Sequence[Any], error: Any, exponent: Any
) -> list[Any]:
    """The weights after the pixel: `error` is pixel minus prediction, sixteenths of a level."""
    regulariser = REGULARISERS[channel] * len(values)
    power = regulariser
    for value in values:
        power = power + value * value
    gain = (scaled_input(error, exponent) * (RECIPROCAL // power) * LEARNING_RATE + 32) >> 6
    most = largest_change(regulariser)
    return [
        clamp(weight + known((gain * value + 32) >> 6, -most, most), -WEIGHT_LIMIT, WEIGHT_LIMIT)
        for weight, value in zip(weights, values, strict=True)
    ]


def largest_change(regulariser: int) -> int:
    """How far an update moves a weight at most, before it is limited.

    With the power ``regulariser + s``, where ``s`` is at least the square of the feature `v`, the gain is at most
    ``127 RECIPROCAL LEARNING_RATE / 64 / (regulariser + v**2) + 1/2``. Times ``|v| / 64``, that is largest where
    ``v**2`` is the regulariser; with features up to 508 the two roundings add less than 6.
    """
    return 127 * RECIPROCAL * LEARNING_RATE // (2 * 64 * 64 * isqrt(regulariser)) + 6


def updated_average(index: int, average: Any, error: Any) -> Any:
    """A running mean after the pixel; `index` into `AVERAGE_SHIFTS`."""
    shift = AVERAGE_SHIFTS[index]
    return average + ((abs(error) * AVERAGE_ONE - average + (1 << (shift - 1))) >> shift)


def average_input(average: Any) -> Any:
    """A running mean as an input of the perceptron: logarithmic, in ``[0, 95]``."""
    return log_error(average >> 3)


def products_per_pixel(taps: int) -> int:
    """Multiplications per RGB pixel: prediction, power and update of each feature, the gain, the running means."""
    count = sum(feature_count(channel, taps) for channel in range(CHANNELS))
    return 3 * count + CHANNELS * (2 + len(AVERAGE_SHIFTS))

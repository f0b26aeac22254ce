"""The integer perceptron: what happens to a sum of products, and how outputs become a mean and a scale.

The sum itself, ``bias + sum(weight * input)`` with int8 weights, inputs in ``[-127, 127]`` and hidden units in
``[0, 255]``, is left to each backend: it is below ``2**24`` in magnitude (proved when a model is loaded), so every
order of summation gives the same integer, in int32, in float32 with or without FMA, in DP4A and in tensor cores that
accumulate in float32.
"""

from __future__ import annotations

from typing import Any

from pilc_stream.arith.fixed import clamp

ACTIVATION_LIMIT = 255
"""Hidden units are unsigned bytes; the context's inputs are signed ones."""

SUM_LIMIT = 1 << 24
OFFSET_LIMIT = 8191
"""Mean offsets are 64ths of the local scale, limited to 128 scales either way."""

COUPLING_LIMIT = 127
"""Couplings are 64ths, limited to about 2 either way."""

MEAN_LOW, MEAN_HIGH = -512, 4592
"""Means are sixteenths of a level and may leave [0, 255] by 32 levels: so a saturated pixel can be made certain."""

FRACTIONS = 16
"""Means have this many steps per grey level; a table row is chosen by the mean's fraction."""

SCALE_STEPS_PER_OCTAVE = 8


def hidden_activation(total: Any, shift: Any) -> Any:
    """A hidden unit: the sum scaled down by ``2**shift`` and limited to ``[0, 255]`` (the bias holds the rounding)."""
    return clamp(total >> shift, 0, ACTIVATION_LIMIT)


def mean_offset(total: Any, shift: Any, exponent: Any) -> Any:
    """How far the mean lies from the base, sixteenths of a level, before the earlier channels have their say.

    `total`: the sum of the mean's output unit; ``total >> shift`` counts 64ths of the local scale.
    """
    offset = clamp(total >> shift, -OFFSET_LIMIT, OFFSET_LIMIT)
    return ((offset << exponent) + 2) >> 2


def coupled(total: Any, shift: Any, error: Any) -> Any:
    """What an earlier channel's error (pixel minus mean, sixteenths of a level) adds to a later channel's mean.

    The network says how much of the error the channels share: ``total >> shift`` counts 64ths. As the linear means of
    PixelCNN++ (Salimans et al. 2017); a product at full precision, where an input of 8 bits would blur the error.
    """
    coupling = clamp(total >> shift, -COUPLING_LIMIT, COUPLING_LIMIT)
    return (coupling * error + 32) >> 6


def limited_mean(value: Any) -> Any:
    """The mean of a sub-pixel (base plus offset plus what earlier channels add), limited to ``[-512, 4592]``."""
    return clamp(value, MEAN_LOW, MEAN_HIGH)


def scale_index(total: Any, shift: Any, exponent: Any, scale_count: int) -> Any:
    """The row group of the CDF table: eighths of an octave, in ``[0, scale_count)``."""
    return clamp((total >> shift) + SCALE_STEPS_PER_OCTAVE * exponent, 0, scale_count - 1)


def mean_centre(mean: Any) -> Any:
    """The grey level that the residual is counted from: the mean, rounded."""
    return (mean + FRACTIONS // 2) >> 4


def mean_fraction(mean: Any) -> Any:
    """Which sixteenth of a grey level the mean lies in: 0 to 15, 8 where it lies on the centre."""
    return (mean + FRACTIONS // 2) & (FRACTIONS - 1)


def residual_symbol(pixel: Any, centre: Any) -> Any:
    """The coded symbol, in ``[0, 256)``: ``pixel - centre`` modulo 256, with 128 for a residual of 0."""
    return (pixel - centre + 128) & 255


def symbol_pixel(symbol: Any, centre: Any) -> Any:
    """The inverse of `residual_symbol`."""
    return (symbol + centre - 128) & 255

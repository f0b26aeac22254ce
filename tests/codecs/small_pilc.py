"""Models of the codec `pilc` for tests: small ones from fixed formulas or at random, up to the bound of the law."""

from __future__ import annotations

import numpy as np
from small_model import bell_frequencies, certain_frequencies, cumulative

from pilc_stream.arith.blocks import CODE_CLASSES, CODE_CONTEXTS, MID_GREY, WEIGHT_BITS
from pilc_stream.arith.perceptron import ACTIVATION_LIMIT, FRACTIONS, SUM_LIMIT
from pilc_stream.models.model import Layer
from pilc_stream.models.pilc import ENCODER_LIMIT, LOG_ENTRIES, PilcModel, PilcSpec

ONE = 1 << WEIGHT_BITS
WEST, NORTH, NORTH_WEST, NORTH_EAST = (0, -1), (-1, 0), (-1, -1), (-1, 1)

SMALL_PILC_SPEC = PilcSpec(
    taps=(
        tuple((0, *offset) for offset in (WEST, NORTH, NORTH_WEST)),
        ((0, 0, 0), (0, *WEST), (1, *WEST)),
        ((1, 0, 0), (1, *WEST), (2, *WEST)),
    ),
    predictors=3,
    codes=8,
    code_features=4,
    predictor_features=2,
    widths=(6, 4, 3, 5),
    scale_count=32,
)
"""The taps of the published re-implementation: three for each channel."""

FAR_TAPS = tuple((dy, dx) for dy in (-3, -2, -1, 0) for dx in range(-3, 4) if -7 <= 2 * dy + dx < 0)
WIDE_PILC_SPEC = PilcSpec(
    taps=(
        tuple((0, *offset) for offset in FAR_TAPS),
        ((0, 0, 0), *((source, *offset) for offset in FAR_TAPS for source in (0, 1))),
        ((1, 0, 0), (0, 0, 0), (2, -2, 3), (0, -3, -1)),
    ),
    predictors=5,
    codes=17,
    code_features=1,
    predictor_features=3,
    widths=(7, 1, 2, 9),
    scale_count=256,
)
"""Every tap there can be, odd and single widths."""


def random_pilc_model(spec: PilcSpec, seed: int, *, at_the_bound: bool = False) -> PilcModel:
    """A model that no training would give; `at_the_bound`: each sum can reach ``2**24 - 1``."""
    random = np.random.default_rng(seed)
    layers = {}
    for name, (outputs, inputs) in spec.layers().items():
        weight = random.integers(-127, 128, (outputs, inputs))
        rest = SUM_LIMIT - 1 - ACTIVATION_LIMIT * np.abs(weight).sum(axis=1)
        assert (rest >= 0).all()
        bias = rest * random.choice([-1, 1], outputs) if at_the_bound else random.integers(-4096, 4096, outputs)
        shift = random.integers(0, 20, outputs) if at_the_bound else random.integers(5, 10, outputs)
        layers[name] = Layer(weight.astype(np.int8), bias.astype(np.int32), shift.astype(np.uint8))
    tensors = {}
    for c, taps in enumerate(spec.taps):
        weight = random.integers(-ONE, ONE, (spec.predictors, len(taps)))
        rest = SUM_LIMIT - 1 - ONE - MID_GREY * np.abs(weight).sum(axis=1)
        bias = rest * random.choice([-1, 1], len(rest)) if at_the_bound else random.integers(-ONE, ONE, len(rest))
        tensors[f"predictor.{c}.weight"] = weight.astype(np.int16)
        tensors[f"predictor.{c}.bias"] = bias.astype(np.int32)
    return _model(spec, layers, tensors, random, f"random {seed}")


def small_pilc_model() -> PilcModel:
    """The model that the golden payloads were made with; they keep it as a file.

    Predictors are west, north, and their gradient; a code's residuals double from one to the next.
    """
    random = np.random.default_rng(20)
    spec = SMALL_PILC_SPEC
    layers = {
        name: Layer(
            random.integers(-9, 10, (outputs, inputs)).astype(np.int8),
            np.full(outputs, 64, np.int32),
            np.full(outputs, 6 if name != "head" else 9, np.uint8),
        )
        for name, (outputs, inputs) in spec.layers().items()
    }
    first = [[ONE, 0, 0], [0, ONE, 0], [ONE, ONE, -ONE]]
    later = [[0, 0, ONE], [ONE, -ONE, ONE], [ONE // 2, -ONE // 2, ONE]]
    tensors = {}
    for c, weight in enumerate((first, later, later)):
        tensors[f"predictor.{c}.weight"] = np.array(weight, np.int16)
        tensors[f"predictor.{c}.bias"] = np.zeros(3, np.int32)
    return _model(spec, layers, tensors, random, "small-pilc")


def _model(spec, layers, tensors, random, profile):
    sizes = 2.0 ** np.linspace(-2, 5, spec.codes)[:, None] * random.uniform(0.5, 2, (spec.codes, 12))
    sums = np.arange(LOG_ENTRIES)
    tensors |= {
        "code.features": random.integers(0, 256, (spec.codes, spec.code_features)).astype(np.uint8),
        "predictor.features": random.integers(0, 256, (spec.predictors, spec.predictor_features)).astype(np.uint8),
        "code.scale": np.rint(8 * np.log2(sizes[:, :3]) + spec.scale_count / 4).astype(np.int16),
        "predictor.scale": random.integers(-3, 4, (spec.predictors, 3)).astype(np.int16),
        "code.class": (np.arange(spec.codes) * CODE_CLASSES // spec.codes).astype(np.uint8),
        "code.cdf": _random_tables(random, CODE_CONTEXTS, spec.codes),
        "predictor.cdf": _random_tables(random, spec.predictors + 1, spec.predictors),
        "encoder.log": np.rint(256 * np.log2(sums / 16 + 0.3)).astype(np.int32),
        "encoder.predictor": random.integers(0, 2048, spec.predictors).astype(np.int32),
        "encoder.slope": np.minimum(np.rint(369 / sizes), ENCODER_LIMIT - 1).astype(np.int32),
        "encoder.level": np.rint(256 * np.log2(2 * sizes)).astype(np.int32),
        "encoder.code": random.integers(0, 2048, spec.codes).astype(np.int32),
    }
    rows = [cumulative(bell_frequencies(width, 0)) for width in (1, 5, 17, 40, 90, 200, 500, 2000)]
    rows += [cumulative(certain_frequencies(symbol)) for symbol in (0, 128, 255)]
    by_scale = np.minimum(np.arange(spec.scale_count) // 6, 7)[:, None].repeat(FRACTIONS, 1)
    return PilcModel(
        spec, layers, {**tensors, "cdf": np.stack(rows), "row_of": by_scale.astype(np.uint16)}, profile, {}
    )


def _random_tables(random, rows: int, symbols: int):
    frequencies = 1 + random.multinomial((1 << 16) - symbols, random.dirichlet(np.ones(symbols)), rows)
    return (np.cumsum(frequencies, axis=1) - frequencies).astype(np.uint16)

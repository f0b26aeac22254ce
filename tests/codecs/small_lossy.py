"""Small models of the codec `lossy` for tests, from a fixed seed."""

from __future__ import annotations

import numpy as np

from pilc_stream.models.lossy import QUALITY_KNOTS, LossyModel
from pilc_stream.models.lossy_spec import FLOAT_KNOTS, KERNEL_PLACES, SCALE_COUNT, LossySpec
from pilc_stream.models.model import Layer

SMALL_LOSSY_SPEC = LossySpec(
    widths=(8, 6, 10),
    inner_widths=(5, 4, 3),
    analysis_blocks=(1, 0, 1),
    synthesis_blocks=(1, 1, 0),
    slices=(2, 3, 5),
    checkered=2,
    hyper_channels=3,
    hyper_width=4,
    context_width=5,
    hidden_width=6,
    quality_features=2,
)


def bell_sizes() -> np.ndarray:
    """Intervals of bells that widen with the scale; far values have none."""
    magnitudes = np.arange(128)
    rows = []
    for index in range(1, SCALE_COUNT):
        width = 0.2 * 2 ** (index / 6)
        shares = np.exp(-((magnitudes / width) ** 2) / 2)
        shares /= shares[0] + 2 * shares[1:].sum()
        rows.append(np.floor(shares * 65000))
    return np.maximum(np.array(rows), [1] + [0] * 127).astype(np.uint16)


def small_lossy_model(seed: int = 0, spec: LossySpec = SMALL_LOSSY_SPEC, profile: str = "small") -> LossyModel:
    """A model whose nets are random and whose transform keeps some of a picture."""
    random = np.random.default_rng(seed)
    layers = {}
    for name, (outputs, inputs, _) in spec.layers().items():
        shift = np.full(outputs, 7 if name.endswith("out") else 6, np.uint8)
        weight = random.integers(-40, 41, (outputs, inputs)).astype(np.int8)
        layers[name] = Layer(weight, random.integers(-500, 1500, outputs).astype(np.int32), shift)
    tensors = {
        "quality.gain": np.linspace(1500, 9000, QUALITY_KNOTS)[:, None].repeat(spec.latents, 1).astype(np.uint16),
        "quality.scale": random.integers(-50, 127, (QUALITY_KNOTS, spec.latents)).astype(np.int8),
        "quality.hyper": random.integers(0, 200, (QUALITY_KNOTS, spec.hyper_channels)).astype(np.int16),
        "quality.features": random.integers(0, 256, (QUALITY_KNOTS, spec.quality_features)).astype(np.uint8),
        "context.unit": random.integers(500, 9000, spec.latents).astype(np.int32),
        "table.sizes": bell_sizes(),
    }
    floats = {"latent.spread": np.full(spec.latents, 2.0)}
    for level, (outputs, inputs) in enumerate(spec.matrices()):
        basis = np.linalg.qr(random.normal(size=(inputs, outputs)))[0]
        floats |= {f"analysis.{level}.matrix": basis.T, f"synthesis.{level}.matrix": basis}
    for side in ("analysis", "synthesis"):
        for name, channels, width in spec.residual_blocks(side):
            floats |= {
                f"{name}.spread": random.uniform(0.5, 2, channels),
                f"{name}.first": random.normal(0, 0.1, (width, KERNEL_PLACES * channels)),
                f"{name}.first_bias": random.normal(0, 0.1, (FLOAT_KNOTS, width)),
                f"{name}.second": random.normal(0, 0.02, (channels, width)),
                f"{name}.second_bias": random.normal(0, 0.01, channels),
            }
    for index, (outputs, inputs) in enumerate(spec.hyper_analysis()):
        floats[f"hyper_analysis.{index}.first"] = random.normal(0, 1 / inputs**0.5, (outputs, inputs))
        floats[f"hyper_analysis.{index}.bias"] = random.normal(0, 0.1, (FLOAT_KNOTS, outputs))
    floats["hyper_analysis.gain"] = random.normal(1, 0.1, (FLOAT_KNOTS, spec.hyper_channels))
    made = {name: np.asarray(values, np.float32) for name, values in floats.items()}
    return LossyModel(spec, layers, tensors, made, profile)

"""Models of the codec `lossy`: integer entropy nets and tables, checked against the integer law, and transforms.

What decides on code tables is integer; analysis and synthesis are float32, stored as float16 or as int8 with one scale
a row. Only analysis and hyper analysis differ between encoders, and only synthesis between decoders, by rounding.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from pilc_stream.arith.rans import PRECISION_BITS
from pilc_stream.errors import ModelError
from pilc_stream.models.lossy_spec import FLOAT_KNOTS, KERNEL_PLACES, SCALE_COUNT, LossySpec
from pilc_stream.models.model import (
    CodecModel,
    Layer,
    canonical_safetensors,
    check_array,
    check_layer,
    metadata_of,
)

FORMAT_NAME = "pilc-lossy-model"
QUALITIES = 100
QUALITY_STEP = 11
QUALITY_KNOTS = (QUALITIES - 1) // QUALITY_STEP + 1
"""Tables by quality are given for every eleventh quality from 1 to 100; those between are interpolated in integers."""

GAIN_BITS = 12
SCALE_BITS = 3
"""Scale offsets count eighths of a step of the scale table."""

MAGNITUDES = 128
"""Values of up to 127 either way have an interval of their own; the rest share the escape."""

ESCAPE = 2 * MAGNITUDES - 1
VALUE_LIMIT = (1 << 15) - 1
MEAN_LIMIT = (1 << 15) - 1
CONTEXT_UNIT_LIMIT = 1 << 24
MAX_GAIN, MIN_GAIN = (1 << 16) - 1, 1 << 6
FLOAT_LIMIT = 1e4
"""Largest magnitude of a float of the transforms: a broken file must not make infinities."""


class QualityTables(NamedTuple):
    """The integers of one quality: `gain` `(latents,)` in 4096ths; `scale` `(latents,)` and `hyper` (of the hyper
    latents) in eighths of a step of the scale table; `features` int64 `(quality_features,)`."""

    gain: NDArray[np.int64]
    scale: NDArray[np.int64]
    hyper: NDArray[np.int64]
    features: NDArray[np.int64]


@dataclass(frozen=True)
class LossyModel(CodecModel):
    """A checked lossy model.

    `tensors`, beside the integer layers (`weight` columns of convolutions: row, column, then channel), by quality knot:

    - `quality.gain` uint16, `quality.scale` int8 `(10, latents)`, `quality.hyper` int16 `(10, hyper_channels)`,
      `quality.features` uint8 `(10, quality_features)`: as `QualityTables`;
    - `context.unit` int32 `(latents,)`: a decoded latent enters the context nets times this, divided by its gain;
    - `table.sizes` uint16 `(63, 128)`: the interval of a value of this magnitude, for each sign; by scale from 1 on.

    `floats`: float32, the transforms (`_float_shapes`).
    """

    spec: LossySpec
    layers: Mapping[str, Layer]
    tensors: Mapping[str, NDArray[Any]]
    floats: Mapping[str, NDArray[np.float32]]
    profile: str
    recipe: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (outputs, inputs, _) in self.spec.layers().items():
            if name not in self.layers:
                raise ModelError(f"model {self.profile!r}: the layer {name} is missing")
            check_layer(self.profile, name, self.layers[name], outputs, inputs)
        for name, (dtype, shape) in _shapes(self.spec).items():
            if name not in self.tensors:
                raise ModelError(f"model {self.profile!r}: the tensor {name} is missing")
            check_array(name, self.tensors[name], dtype, shape)
        for name, shape in _float_shapes(self.spec).items():
            if name not in self.floats:
                raise ModelError(f"model {self.profile!r}: the tensor {name} is missing")
            check_array(name, self.floats[name], np.float32, shape)
            if not (np.abs(self.floats[name]) <= FLOAT_LIMIT).all():
                raise ModelError(f"model {self.profile!r}: {name} must lie within {FLOAT_LIMIT} of 0")
            if name.endswith("spread") and self.floats[name].min() <= 0:
                raise ModelError(f"model {self.profile!r}: {name} must be positive")
        if self.tensors["quality.gain"].min() < MIN_GAIN:
            raise ModelError(f"model {self.profile!r}: quality.gain must be at least {MIN_GAIN}")
        unit = self.tensors["context.unit"]
        if unit.min() < 0 or unit.max() > CONTEXT_UNIT_LIMIT:
            raise ModelError(f"model {self.profile!r}: context.unit must lie in 0..{CONTEXT_UNIT_LIMIT}")
        sizes = self.tensors["table.sizes"].astype(np.int64)
        if (sizes[:, 0] + 2 * sizes[:, 1:].sum(axis=1) >= 1 << PRECISION_BITS).any() or sizes[:, 0].min() < 1:
            raise ModelError(f"model {self.profile!r}: a row of table.sizes leaves no room for an escape or for 0")

    @cached_property
    def starts(self) -> NDArray[np.int32]:
        """Where each symbol's interval begins, and the end of the last: int32 `(64, 257)`.

        Symbol ``value + 127`` for values of up to 127 either way, last the escape; of scale 0 the value 0 is certain.
        """
        return gaussian_starts(self.tensors["table.sizes"])

    def quality(self, quality: int) -> QualityTables:
        """The integers of a quality in 1..100."""
        knot, part = divmod(quality - 1, QUALITY_STEP)

        def between(name: str) -> NDArray[np.int64]:
            table = self.tensors[name].astype(np.int64)
            after = table[min(knot + 1, QUALITY_KNOTS - 1)]
            return np.asarray(((QUALITY_STEP - part) * table[knot] + part * after + QUALITY_STEP // 2) // QUALITY_STEP)

        return QualityTables(*(between(f"quality.{name}") for name in QualityTables._fields))

    @cached_property
    def file_bytes(self) -> bytes:
        """The model as a safetensors file; equal models give equal bytes."""
        tensors: dict[str, NDArray[Any]] = dict(self.tensors)
        for name, layer in self.layers.items():
            tensors |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias, f"{name}.shift": layer.shift}
        for name in _float_shapes(self.spec):
            tensors |= stored(name, self.floats[name])
        metadata = {
            "format": FORMAT_NAME,
            "profile": self.profile,
            "spec": json.dumps(self.spec.to_json(), sort_keys=True),
            "recipe": json.dumps(self.recipe, sort_keys=True),
        }
        ordered = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
        return canonical_safetensors(safetensors.numpy.save(ordered, metadata))


def gaussian_starts(table: NDArray[np.uint16]) -> NDArray[np.int32]:
    """Where each symbol's interval begins, and the end of the last, from `table.sizes`: int32 `(64, 257)`."""
    sizes = np.zeros((SCALE_COUNT, 2 * MAGNITUDES), np.int64)
    given = table.astype(np.int64)
    sizes[1:, MAGNITUDES - 1 : ESCAPE] = given
    sizes[1:, : MAGNITUDES - 1] = given[:, :0:-1]
    sizes[0, MAGNITUDES - 1] = 1 << PRECISION_BITS
    sizes[1:, ESCAPE] = (1 << PRECISION_BITS) - sizes[1:].sum(axis=1)
    starts = np.zeros((SCALE_COUNT, 2 * MAGNITUDES + 1), np.int32)
    starts[:, 1:] = sizes.cumsum(axis=1)
    return starts


def stored(name: str, values: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """A tensor of the transforms as the file has it: weights int8 with a scale for each row, the rest float16."""
    if not name.endswith(("first", "second")):
        return {name: values.astype(np.float16)}
    scale = np.maximum(np.abs(values).max(axis=1), 1e-9).astype(np.float32) / np.float32(127)
    return {name: np.rint(values / scale[:, None]).astype(np.int8), f"{name}.scale": scale}


def _restored(name: str, tensors: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    values = tensors.pop(name)
    scale = tensors.pop(f"{name}.scale", None)
    if scale is None:
        check_array(name, values, np.float16, values.shape)
        return values.astype(np.float32)
    check_array(f"{name}.scale", scale, np.float32, values.shape[:1])
    check_array(name, values, np.int8, values.shape)
    return np.asarray(values * scale[:, None], np.float32)


def _shapes(spec: LossySpec) -> dict[str, tuple[type, tuple[int, ...]]]:
    """Type and shape of every integer tensor but the layers'."""
    return {
        "quality.gain": (np.uint16, (QUALITY_KNOTS, spec.latents)),
        "quality.scale": (np.int8, (QUALITY_KNOTS, spec.latents)),
        "quality.hyper": (np.int16, (QUALITY_KNOTS, spec.hyper_channels)),
        "quality.features": (np.uint8, (QUALITY_KNOTS, spec.quality_features)),
        "context.unit": (np.int32, (spec.latents,)),
        "table.sizes": (np.uint16, (SCALE_COUNT - 1, MAGNITUDES)),
    }


def _float_shapes(spec: LossySpec) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of the transforms. `bias` and `gain` are by trade-off; weights of 3 x 3 convolutions have
    columns by row, column, then channel."""
    shapes: dict[str, tuple[int, ...]] = {"latent.spread": (spec.latents,)}
    for level, (outputs, inputs) in enumerate(spec.matrices()):
        shapes |= {f"analysis.{level}.matrix": (outputs, inputs), f"synthesis.{level}.matrix": (inputs, outputs)}
    for side in ("analysis", "synthesis"):
        for name, channels, width in spec.residual_blocks(side):
            shapes |= {
                f"{name}.spread": (channels,),
                f"{name}.first": (width, KERNEL_PLACES * channels),
                f"{name}.first_bias": (FLOAT_KNOTS, width),
                f"{name}.second": (channels, width),
                f"{name}.second_bias": (channels,),
            }
    for index, (outputs, inputs) in enumerate(spec.hyper_analysis()):
        shapes |= {
            f"hyper_analysis.{index}.first": (outputs, inputs),
            f"hyper_analysis.{index}.bias": (FLOAT_KNOTS, outputs),
        }
    return {**shapes, "hyper_analysis.gain": (FLOAT_KNOTS, spec.hyper_channels)}


def is_lossy_model(data: bytes) -> bool:
    """Whether the bytes of a model file are of this kind; False too for what is no model file."""
    try:
        return metadata_of(data).get("format") == FORMAT_NAME
    except (ValueError, struct.error, KeyError, RecursionError):
        return False


def load_lossy_model(data: bytes) -> LossyModel:
    """The model in a safetensors file; ModelError where it is malformed or breaks the integer law."""
    try:
        metadata = metadata_of(data)
        tensors = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, ValueError, struct.error, KeyError, RecursionError) as error:
        raise ModelError(f"model file: not a readable safetensors file ({error})") from error
    if metadata.get("format") != FORMAT_NAME:
        raise ModelError(f"model file: its format is {metadata.get('format')!r}, not {FORMAT_NAME!r}")
    try:
        spec = LossySpec.from_json(json.loads(metadata["spec"]))
        recipe = json.loads(metadata.get("recipe", "{}"))
        layers = {
            name: Layer(*(tensors.pop(f"{name}.{part}") for part in ("weight", "bias", "shift")))
            for name in spec.layers()
        }
        floats = {name: _restored(name, tensors) for name in _float_shapes(spec)}
        model = LossyModel(spec, layers, tensors, floats, metadata["profile"], recipe)
    except (KeyError, json.JSONDecodeError, RecursionError) as error:
        raise ModelError(f"model file: {error} is missing or malformed") from error
    # A model is known by its file's digest, which must not depend on who wrote the file out again.
    model.__dict__["file_bytes"] = data
    return model

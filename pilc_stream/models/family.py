"""Models of the lossy family: a second kind of model of the codec `lossy`, checked against the integer law.

What decides on code tables is integer: hyper synthesis and channel-wise steps with weights of 16 bits and sums below
``2**53``, which 64-bit floats hold exactly in every order. Analysis, hyper analysis and synthesis are float32, stored
as float16.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from pilc_stream.arith.rans import PRECISION_BITS
from pilc_stream.errors import ModelError
from pilc_stream.models.family_spec import Configuration, Tensors, float_layers, integer_layers
from pilc_stream.models.lossy import ESCAPE, FLOAT_LIMIT, MAGNITUDES, gaussian_starts
from pilc_stream.models.lossy_spec import SCALE_COUNT
from pilc_stream.models.model import (
    CodecModel,
    canonical_safetensors,
    check_array,
    metadata_of,
    read_file,
    recipe_of,
)

FORMAT_NAME = "pilc-lossy-family-model"
QUALITY = 1
"""A model is trained for one trade-off; its payloads say that this is their quality."""

FRACTION_BITS = 8
"""Activations, means, latents and side information count 256ths."""

ACTIVATION_LIMIT = (1 << 20) - 1
SUM_LIMIT = 1 << 53
MAX_SHIFT = 24
CURVE_STEPS = 1 << 12
CURVE_LIMIT = CURVE_STEPS // 2
"""The tables of GELU and of the hyperbolic tangent are of inputs from -8 to 8 (without 8) in 256ths."""

EXP_BITS = 16
NORM_BITS = 12
"""Normalised values count 4096ths."""

SIDE_SYMBOLS = 2 * MAGNITUDES - 1


@dataclass(frozen=True)
class FamilyModel(CodecModel):
    """A checked model of the family.

    `tensors`: of each integer layer `weight` int16 (layouts: `Tensors`), `bias` int64 and `shift` uint8 by output; the
    biases of attention by position int32, in 256ths; and

    - `side.median` int32 `(hyper_width,)`, 256ths; `side.sizes` uint16 `(hyper_width, 255)`: the interval of each of
      the values -127 to 127 of the side information; the escape has the rest;
    - `table.sizes` uint16 `(63, 128)`: as of `LossyModel`; `table.scale` int32 `(63,)`: from which output on the scale
      index is 1, 2 and so on;
    - `table.gelu`, `table.tanh` int16 `(4096,)` and `table.exp` int32 `(4096,)`: values of inputs in 256ths; of half
      the tangent, and of ``2**16 exp(-input)``.

    `floats`: float32, the transforms. `tradeoff`: what it was trained for, bits per pixel for a squared grey level.
    """

    configuration: Configuration
    tensors: Mapping[str, NDArray[Any]]
    floats: Mapping[str, NDArray[np.float32]]
    profile: str
    tradeoff: float
    recipe: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (dtype, shape) in integer_shapes(self.configuration).items():
            if name not in self.tensors:
                raise ModelError(f"model {self.profile!r}: the tensor {name} is missing")
            check_array(name, self.tensors[name], dtype, shape)
        for layer in integer_layers(self.configuration):
            self._check_layer(layer)
        for name, shape in float_shapes(self.configuration).items():
            if name not in self.floats:
                raise ModelError(f"model {self.profile!r}: the tensor {name} is missing")
            check_array(name, self.floats[name], np.float32, shape)
            if not (np.abs(self.floats[name]) <= FLOAT_LIMIT).all():
                raise ModelError(f"model {self.profile!r}: {name} must lie within {FLOAT_LIMIT} of 0")
        self._check_tables()
        if not (math.isfinite(self.tradeoff) and self.tradeoff > 0):
            raise ModelError(f"model {self.profile!r}: its trade-off is {self.tradeoff}, which is not positive")

    def _check_layer(self, layer: Tensors) -> None:
        name = layer.name
        if layer.kind == "position":
            if np.abs(self.tensors[name].astype(np.int64)).max() > ACTIVATION_LIMIT:
                raise ModelError(f"model {self.profile!r}: {name} must lie within {ACTIVATION_LIMIT} of 0")
            return
        bias, shift = self.tensors[f"{name}.bias"], self.tensors[f"{name}.shift"]
        if shift.max() > MAX_SHIFT:
            raise ModelError(f"model {self.profile!r}: {name}.shift holds {shift.max()}, above {MAX_SHIFT}")
        magnitudes = np.abs(self.tensors[f"{name}.weight"].astype(np.int64))
        if layer.kind != "norm":
            axes = tuple(axis for axis in range(magnitudes.ndim) if axis != (layer.kind == "transposed"))
            magnitudes = magnitudes.sum(axis=axes)
        # The proof: below 2**53 every partial sum, in any order, is exact in 64-bit floats.
        largest = [int(weights) * ACTIVATION_LIMIT + abs(int(b)) for weights, b in zip(magnitudes, bias, strict=True)]
        if max(largest) >= SUM_LIMIT:
            raise ModelError(
                f"model {self.profile!r}: a sum in {name} can reach {max(largest)}, but sums must stay below 2**53 to "
                "be the same on every device; train it with smaller weights"
            )

    def _check_tables(self) -> None:
        sizes = self.tensors["table.sizes"].astype(np.int64)
        if (sizes[:, 0] + 2 * sizes[:, 1:].sum(axis=1) >= 1 << PRECISION_BITS).any() or sizes[:, 0].min() < 1:
            raise ModelError(f"model {self.profile!r}: a row of table.sizes leaves no room for an escape or for 0")
        if (self.tensors["side.sizes"].sum(axis=1, dtype=np.int64) >= 1 << PRECISION_BITS).any():
            raise ModelError(f"model {self.profile!r}: a row of side.sizes leaves no room for an escape")
        if (np.diff(self.tensors["table.scale"].astype(np.int64)) < 0).any():
            raise ModelError(f"model {self.profile!r}: table.scale falls")
        for name, limit in (("table.gelu", CURVE_LIMIT), ("table.tanh", CURVE_LIMIT), ("table.exp", 1 << EXP_BITS)):
            table = self.tensors[name].astype(np.int64)
            if table.max() > limit or table.min() < (0 if name == "table.exp" else -limit):
                raise ModelError(f"model {self.profile!r}: {name} must lie within {limit} of 0")
        # Weights of attention are divided by their sum, which has a term of input 0.
        if self.tensors["table.exp"][0] < 1:
            raise ModelError(f"model {self.profile!r}: table.exp must begin with a positive number")
        if np.abs(self.tensors["side.median"].astype(np.int64)).max() > ACTIVATION_LIMIT:
            raise ModelError(f"model {self.profile!r}: side.median must lie within {ACTIVATION_LIMIT} of 0")

    @cached_property
    def starts(self) -> NDArray[np.int32]:
        """As of `LossyModel`, and a row for each channel of side information: int32 `(64 + hyper_width, 257)`."""
        sizes = self.tensors["side.sizes"].astype(np.int64)
        side = np.zeros((len(sizes), 2 * MAGNITUDES + 1), np.int32)
        side[:, 1 : ESCAPE + 1] = sizes.cumsum(axis=1)
        side[:, ESCAPE + 1] = 1 << PRECISION_BITS
        return np.concatenate([gaussian_starts(self.tensors["table.sizes"]), side])

    @cached_property
    def file_bytes(self) -> bytes:
        """The model as a safetensors file; equal models give equal bytes."""
        tensors = {name: self.tensors[name] for name in integer_shapes(self.configuration)}
        tensors |= {name: self.floats[name].astype(np.float16) for name in float_shapes(self.configuration)}
        metadata = {
            "format": FORMAT_NAME,
            "profile": self.profile,
            "configuration": json.dumps(self.configuration.to_json(), sort_keys=True),
            "tradeoff": json.dumps(self.tradeoff),
            "recipe": json.dumps(self.recipe, sort_keys=True),
        }
        ordered = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
        return canonical_safetensors(safetensors.numpy.save(ordered, metadata))


def is_family_model(data: bytes) -> bool:
    """Whether a file says that it is a model of the lossy family."""
    try:
        return metadata_of(data).get("format") == FORMAT_NAME
    except (ValueError, struct.error, KeyError, RecursionError):
        return False


def load_family_model(data: bytes) -> FamilyModel:
    """The model in a safetensors file; ModelError where it is malformed or breaks the integer law."""

    def build(metadata: Mapping[str, str], tensors: dict[str, NDArray[Any]]) -> FamilyModel:
        configuration = Configuration.from_json(json.loads(metadata["configuration"]))
        tradeoff = json.loads(metadata["tradeoff"])
        if type(tradeoff) is not float:
            raise ModelError(f"model file: its trade-off is {tradeoff!r}, not a number")
        floats = {}
        for name, shape in float_shapes(configuration).items():
            check_array(name, tensors[name], np.float16, shape)
            floats[name] = tensors[name].astype(np.float32)
        integers = {name: tensors[name] for name in integer_shapes(configuration)}
        return FamilyModel(configuration, integers, floats, metadata["profile"], tradeoff, recipe_of(metadata))

    return read_file(data, FORMAT_NAME, build)


def float_shapes(configuration: Configuration) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of the transforms."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, kind, shape in float_layers(configuration):
        if kind == "position":
            shapes[name] = shape
        elif kind == "gdn":
            shapes |= {f"{name}.root_beta": shape[:1], f"{name}.root_gamma": shape}
        else:
            shapes |= {f"{name}.weight": shape, f"{name}.bias": (Tensors(name, kind, shape).outputs,)}
    return shapes


def integer_shapes(configuration: Configuration) -> dict[str, tuple[type, tuple[int, ...]]]:
    """Type and shape of every integer tensor."""
    shapes: dict[str, tuple[type, tuple[int, ...]]] = {
        "side.median": (np.int32, (configuration.hyper_width,)),
        "side.sizes": (np.uint16, (configuration.hyper_width, SIDE_SYMBOLS)),
        "table.sizes": (np.uint16, (SCALE_COUNT - 1, MAGNITUDES)),
        "table.scale": (np.int32, (SCALE_COUNT - 1,)),
        "table.gelu": (np.int16, (CURVE_STEPS,)),
        "table.tanh": (np.int16, (CURVE_STEPS,)),
        "table.exp": (np.int32, (CURVE_STEPS,)),
    }
    for layer in integer_layers(configuration):
        name, outputs = layer.name, (layer.outputs,)
        if layer.kind == "position":
            shapes[name] = (np.int32, layer.shape)
        else:
            shapes |= {f"{name}.weight": (np.int16, layer.shape), f"{name}.bias": (np.int64, outputs)}
            shapes[f"{name}.shift"] = (np.uint8, outputs)
    return shapes

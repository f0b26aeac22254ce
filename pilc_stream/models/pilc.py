"""Models of the codec `pilc`: predictors, code book, decoder network and tables, checked against the integer law.

The file is a safetensors file as the wave models' is, of another format name; a payload names it by its digest alike.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.blocks import (
    CODE_CLASSES,
    CODE_CONTEXTS,
    MID_GREY,
    QUARTER_PIXELS,
    QUARTERS,
    WEIGHT_BITS,
    Tap,
    check_taps,
)
from pilc_stream.arith.context import CHANNELS
from pilc_stream.arith.perceptron import SUM_LIMIT
from pilc_stream.errors import ModelError
from pilc_stream.models.model import (
    CodecModel,
    Layer,
    check_array,
    check_layer,
    check_rising,
    check_tables,
    metadata_of,
    pack_file,
    read_file,
    recipe_of,
    take_layers,
)

FORMAT_NAME = "pilc-vq-model"
BLOCKS_VERSION = 1
"""Version of `arith.blocks` that a model is made for; a change there needs a new number."""

MAX_WIDTH = 1024
MAX_ENTRIES = 256
KERNEL = 9
"""Places of a 3 x 3 convolution."""

OUTPUTS = 2 * CHANNELS
"""Numbers for a pixel: three means, then three scales."""

LOG_ENTRIES = QUARTER_PIXELS * 255 + 1
"""Sums of absolute residuals that a quarter can have."""


@dataclass(frozen=True)
class PilcSpec:
    """The architecture of a `pilc` model.

    `taps`: for each channel the neighbours `(channel, dy, dx)` that its predictors weigh; `predictors`, `codes`: how
    many of each there are; `code_features`, `predictor_features`: what a block's code and predictor put into the
    network; `widths`: its layers after the first convolution, the second, before and after the third.
    """

    taps: tuple[tuple[Tap, ...], ...]
    predictors: int
    codes: int
    code_features: int
    predictor_features: int
    widths: tuple[int, int, int, int]
    scale_count: int = 80

    def __post_init__(self) -> None:
        if len(self.taps) != CHANNELS:
            raise ModelError(f"pilc model: taps of {len(self.taps)} channels, not {CHANNELS}")
        try:
            for channel, taps in enumerate(self.taps):
                check_taps(channel, taps)
        except ValueError as error:
            raise ModelError(f"pilc model: {error}") from error
        if not all(2 <= count <= MAX_ENTRIES for count in (self.predictors, self.codes)):
            raise ModelError(f"pilc model: predictors and codes must be 2 to {MAX_ENTRIES}: {self}")
        widths = (*self.widths, self.code_features, self.predictor_features)
        if len(self.widths) != 4 or not all(1 <= width <= MAX_WIDTH for width in widths):
            raise ModelError(f"pilc model: four widths and the features must lie in 1..{MAX_WIDTH}: {self}")
        if not 1 <= self.scale_count <= 256:
            raise ModelError(f"pilc model: scale_count must lie in 1..256, found {self.scale_count}")

    def layers(self) -> dict[str, tuple[int, int]]:
        """Name -> (outputs, inputs) of every layer in order of use: 3 x 3 convolutions, each with a 1 x 1 behind it."""
        coarse, middle, fine, last = self.widths
        return {
            "coarse": (coarse, KERNEL * (self.code_features + self.predictor_features)),
            "coarse.split": (4 * middle, coarse),
            "middle": (middle, KERNEL * middle),
            "middle.split": (4 * fine, middle),
            "fine": (last, KERNEL * fine),
            "head": (4 * OUTPUTS, last),
        }

    def macs_per_pixel(self) -> dict[str, int]:
        """Multiply-accumulates per RGB pixel to decode: `predictor`, `network`, and `coder` (the rANS steps).

        An encoder weighs all predictors: `predictors` times the first.
        """
        shares = {"coarse": 64, "coarse.split": 64, "middle": 16, "middle.split": 16, "fine": 4, "head": 4}
        network = sum(-(-outputs * inputs // shares[name]) for name, (outputs, inputs) in self.layers().items())
        return {"predictor": sum(len(taps) for taps in self.taps), "network": network, "coder": CHANNELS}

    def parameters(self) -> int:
        """Weights, biases, and what codes and predictors stand for."""
        network = sum(outputs * (inputs + 1) for outputs, inputs in self.layers().values())
        weights = self.predictors * sum(len(taps) + 1 for taps in self.taps)
        entries = self.codes * (self.code_features + CHANNELS) + self.predictors * (self.predictor_features + CHANNELS)
        return network + weights + entries

    def to_json(self) -> dict[str, Any]:
        """The specification as JSON values; `from_json` is the inverse."""
        return {"blocks_version": BLOCKS_VERSION, **asdict(self)}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> PilcSpec:
        """A specification from parsed JSON; ModelError where it is not one of this release."""
        try:
            version = _whole(values["blocks_version"])
            taps = tuple(tuple(tuple(_whole(v) for v in tap) for tap in channel) for channel in values["taps"])
            if any(len(tap) != 3 for channel in taps for tap in channel):
                raise ValueError("a tap is not (channel, dy, dx)")
            counts = {
                name: _whole(values[name])
                for name in ("predictors", "codes", "code_features", "predictor_features", "scale_count")
            }
            widths = tuple(_whole(width) for width in values["widths"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"pilc model: its specification cannot be read ({error!r}): {values}") from error
        if version != BLOCKS_VERSION:
            raise ModelError(
                f"pilc model: made for blocks version {version}, this release has {BLOCKS_VERSION}; "
                "use a release that knows it"
            )
        return PilcSpec(taps=taps, widths=widths, **counts)  # type: ignore[arg-type]


@dataclass(frozen=True)
class PilcModel(CodecModel):
    """A checked `pilc` model; `n` codes, `m` predictors.

    `tensors`, beside the layers (`weight` columns of convolutions: row, column, then channel):

    - `predictor.C.weight` int16 `(m, taps)`, `predictor.C.bias` int32 `(m,)` for each channel C;
    - `code.features`, `predictor.features` uint8: what each puts into the network; `code.scale`, `predictor.scale`
      int16 `(_, 3)`: what each adds to the scale of every pixel of its block;
    - `code.class` uint8 `(n,)` in `[0, 16)`; `code.cdf` uint16 `(31, n)` by `arith.blocks.code_context`;
      `predictor.cdf` uint16 `(m + 1, m)`, by the predictor to the west, else to the north, else `m`;
    - `cdf`, `row_of`: the residuals' tables, as `WaveModel` has them;
    - `encoder.log` int32 `(4081,)`, `encoder.predictor` int32 `(m,)`, `encoder.slope`, `encoder.level` int32
      `(n, 12)`, `encoder.code` int32 `(n,)`: bits in 256ths, by which an encoder chooses; a decoder ignores them.
    """

    spec: PilcSpec
    layers: Mapping[str, Layer]
    tensors: Mapping[str, NDArray[Any]]
    profile: str
    recipe: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (outputs, inputs) in self.spec.layers().items():
            if name not in self.layers:
                raise ModelError(f"model {self.profile!r}: the layer {name} is missing")
            check_layer(self.profile, name, self.layers[name], outputs, inputs)
        for name, (dtype, shape) in _shapes(self.spec).items():
            if name not in self.tensors:
                raise ModelError(f"model {self.profile!r}: the tensor {name} is missing")
            check_array(name, self.tensors[name], dtype, shape)
        for name in ("code.cdf", "predictor.cdf"):
            check_rising(self.profile, name, self.tensors[name])
        check_tables(self.profile, self.cdf, self.row_of, self.spec.scale_count)
        if self.tensors["code.class"].max() >= CODE_CLASSES:
            raise ModelError(f"model {self.profile!r}: code.class must lie in 0..{CODE_CLASSES - 1}")
        for channel in range(CHANNELS):
            weight, bias = self.predictor(channel)
            reach = np.abs(weight.astype(np.int64)).sum(axis=1) * MID_GREY + np.abs(bias.astype(np.int64))
            if int(reach.max()) + (1 << WEIGHT_BITS) >= SUM_LIMIT:
                raise ModelError(
                    f"model {self.profile!r}: a sum of predictor.{channel} can reach {reach.max()}; with the rounding "
                    f"it must stay below 2**24 = {SUM_LIMIT} to be the same on every device"
                )
        for name in ("encoder.log", "encoder.predictor", "encoder.slope", "encoder.level", "encoder.code"):
            if np.abs(self.tensors[name].astype(np.int64)).max() >= ENCODER_LIMIT:
                raise ModelError(f"model {self.profile!r}: {name} must stay below {ENCODER_LIMIT} in magnitude")

    def predictor(self, channel: int) -> tuple[NDArray[np.int16], NDArray[np.int32]]:
        """Weights and biases of all predictors of a channel."""
        return self.tensors[f"predictor.{channel}.weight"], self.tensors[f"predictor.{channel}.bias"]

    @property
    def cdf(self) -> NDArray[np.uint16]:
        """The residuals' tables: uint16 `(rows, 256)`."""
        return self.tensors["cdf"]

    @property
    def row_of(self) -> NDArray[np.uint16]:
        """The table row of a scale index and a mean's fraction: uint16 `(scale_count, 16)`."""
        return self.tensors["row_of"]

    @cached_property
    def file_bytes(self) -> bytes:
        """The model as a safetensors file; equal models give equal bytes."""
        return pack_file(FORMAT_NAME, self, self.layers, self.tensors, {})


ENCODER_LIMIT = 1 << 14
"""Bound of an encoder's numbers, so that its sums stay below ``2**31``."""


def _shapes(spec: PilcSpec) -> dict[str, tuple[type, tuple[int, ...]]]:
    """Type and shape of every tensor but the layers' and the residuals' tables."""
    codes, predictors, parts = spec.codes, spec.predictors, QUARTERS * CHANNELS
    shapes: dict[str, tuple[type, tuple[int, ...]]] = {
        "code.features": (np.uint8, (codes, spec.code_features)),
        "predictor.features": (np.uint8, (predictors, spec.predictor_features)),
        "code.scale": (np.int16, (codes, CHANNELS)),
        "predictor.scale": (np.int16, (predictors, CHANNELS)),
        "code.class": (np.uint8, (codes,)),
        "code.cdf": (np.uint16, (CODE_CONTEXTS, codes)),
        "predictor.cdf": (np.uint16, (predictors + 1, predictors)),
        "encoder.log": (np.int32, (LOG_ENTRIES,)),
        "encoder.predictor": (np.int32, (predictors,)),
        "encoder.slope": (np.int32, (codes, parts)),
        "encoder.level": (np.int32, (codes, parts)),
        "encoder.code": (np.int32, (codes,)),
    }
    for channel, taps in enumerate(spec.taps):
        shapes[f"predictor.{channel}.weight"] = (np.int16, (predictors, len(taps)))
        shapes[f"predictor.{channel}.bias"] = (np.int32, (predictors,))
    return shapes


def is_pilc_model(data: bytes) -> bool:
    """Whether the bytes of a model file are of this kind; False too for what is no model file."""
    try:
        return metadata_of(data).get("format") == FORMAT_NAME
    except (ValueError, struct.error, KeyError, RecursionError):
        return False


def load_pilc_model(data: bytes) -> PilcModel:
    """The model in a safetensors file; ModelError where it is malformed or breaks the integer law."""

    def build(metadata: Mapping[str, str], tensors: dict[str, NDArray[Any]]) -> PilcModel:
        spec = PilcSpec.from_json(json.loads(metadata["spec"]))
        layers = take_layers(spec.layers(), tensors)
        return PilcModel(spec, layers, tensors, metadata["profile"], recipe_of(metadata))

    return read_file(data, FORMAT_NAME, build)


def _whole(value: object) -> int:
    # Not int(): a width of 4.5 or true is a broken file, not a width of 4 or 1.
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value

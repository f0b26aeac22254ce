"""Integer models: the numbers of one profile, checked against the integer law, and their safetensors file.

A model file is addressed by the sha256 of its bytes; a payload names its model by the first bytes of that digest.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from pilc_stream.arith.perceptron import ACTIVATION_LIMIT, FRACTIONS, SUM_LIMIT
from pilc_stream.errors import ModelError
from pilc_stream.models.spec import WaveSpec
from pilc_stream.records.payload import MODEL_DIGEST_BYTES
from pilc_stream.records.tiling import DEFAULT_TILE_LOG2, MAX_TILE_LOG2, MIN_TILE_LOG2

SYMBOLS = 256
MAX_SHIFT = 24
MAX_TABLE_ROWS = 1 << 16
WAVE_FORMAT = "pilc-wave-model"

AnyModel = TypeVar("AnyModel", bound="CodecModel")


@dataclass(frozen=True)
class Layer:
    """A dense layer: `weight` int8 `(outputs, inputs)` without -128; `bias` int32, `shift` uint8 `(outputs,)`.

    A unit's sum is ``bias + sum(weight * input)``; it is then shifted right by `shift`.
    """

    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    shift: NDArray[np.uint8]

    def largest_sum(self) -> int:
        """The largest magnitude that any order of summation can meet, for inputs of at most 255."""
        magnitudes = np.abs(self.weight.astype(np.int64)).sum(axis=1) * ACTIVATION_LIMIT
        return int((magnitudes + np.abs(self.bias.astype(np.int64))).max())


class CodecModel:
    """What the models of all codecs have in common: a profile and a file, by whose digest payloads name them."""

    profile: str
    tile_log2: int = DEFAULT_TILE_LOG2

    @property
    def file_bytes(self) -> bytes:
        """The model as a safetensors file; equal models give equal bytes."""
        raise NotImplementedError

    @cached_property
    def sha256(self) -> str:
        """The digest of `file_bytes`, hex."""
        return hashlib.sha256(self.file_bytes).hexdigest()

    @property
    def short_digest(self) -> bytes:
        """How payloads name this model."""
        return bytes.fromhex(self.sha256)[:MODEL_DIGEST_BYTES]

    def _keep_file(self, data: bytes) -> None:
        # A model is known by its file's digest, which must not depend on who wrote the file out again.
        self.__dict__["file_bytes"] = data


@dataclass(frozen=True)
class WaveModel(CodecModel):
    """A checked wave model.

    `layers`: by the names of `WaveSpec.layers`. `cdf`: uint16 `(rows, 256)`, the start of each symbol's interval of
    ``[0, 65536)``, strictly increasing from 0. `row_of`: uint16 `(scale_count, 16)`, the table row of a scale index and
    a mean's fraction. `profile` and `recipe` say where the model comes from and change nothing. `tile_log2`: tiles that
    an encoder cuts unless told otherwise; a decoder learns them from the payload.
    """

    spec: WaveSpec
    layers: Mapping[str, Layer]
    cdf: NDArray[np.uint16]
    row_of: NDArray[np.uint16]
    profile: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    tile_log2: int = DEFAULT_TILE_LOG2

    def __post_init__(self) -> None:
        if not MIN_TILE_LOG2 <= self.tile_log2 <= MAX_TILE_LOG2:
            raise ModelError(
                f"model {self.profile!r}: tile_log2 is {self.tile_log2}, not in {MIN_TILE_LOG2}..{MAX_TILE_LOG2}"
            )
        self._check_layers()
        self._check_tables()

    def _check_layers(self) -> None:
        for name, (outputs, inputs) in self.spec.layers().items():
            layer = self.layers.get(name)
            if layer is None:
                raise ModelError(f"model {self.profile!r}: the layer {name} is missing")
            check_layer(self.profile, name, layer, outputs, inputs)

    def _check_tables(self) -> None:
        check_tables(self.profile, self.cdf, self.row_of, self.spec.scale_count)

    @cached_property
    def file_bytes(self) -> bytes:
        """The model as a safetensors file; equal models give equal bytes."""
        extra = {} if self.tile_log2 == DEFAULT_TILE_LOG2 else {"tile_log2": str(self.tile_log2)}
        return pack_file(WAVE_FORMAT, self, self.layers, {"cdf": self.cdf, "row_of": self.row_of}, extra)


def load_model(data: bytes) -> WaveModel:
    """The model in a safetensors file; ModelError where it is malformed or breaks the integer law."""

    def build(metadata: Mapping[str, str], tensors: dict[str, NDArray[Any]]) -> WaveModel:
        spec = WaveSpec.from_json(json.loads(metadata["spec"]))
        tile_log2 = int(metadata.get("tile_log2", DEFAULT_TILE_LOG2))
        layers = take_layers(spec.layers(), tensors)
        return WaveModel(
            spec, layers, tensors["cdf"], tensors["row_of"], metadata["profile"], recipe_of(metadata), tile_log2
        )

    return read_file(data, WAVE_FORMAT, build)


class _Described(Protocol):
    @property
    def profile(self) -> str: ...

    @property
    def spec(self) -> Any: ...

    @property
    def recipe(self) -> Mapping[str, Any]: ...


def pack_file(
    name: str,
    model: _Described,
    layers: Mapping[str, Layer],
    tensors: Mapping[str, NDArray[Any]],
    extra: Mapping[str, str],
) -> bytes:
    """A model of the format `name` as a safetensors file. `extra`: metadata beside profile, specification, recipe."""
    everything = dict(tensors)
    for part, layer in layers.items():
        everything |= {f"{part}.weight": layer.weight, f"{part}.bias": layer.bias, f"{part}.shift": layer.shift}
    metadata = {
        "format": name,
        "profile": model.profile,
        "spec": json.dumps(model.spec.to_json(), sort_keys=True),
        "recipe": json.dumps(model.recipe, sort_keys=True),
        **extra,
    }
    ordered = {part: np.ascontiguousarray(everything[part]) for part in sorted(everything)}
    return canonical_safetensors(safetensors.numpy.save(ordered, metadata))


def read_file(
    data: bytes, name: str, build: Callable[[Mapping[str, str], dict[str, NDArray[Any]]], AnyModel]
) -> AnyModel:
    """What `build` makes of the metadata and tensors of a safetensors file of the format `name`.

    Raises ModelError where it is malformed or of another format.
    """
    try:
        metadata = metadata_of(data)
        tensors = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, ValueError, struct.error, KeyError, RecursionError) as error:
        raise ModelError(f"model file: not a readable safetensors file ({error})") from error
    if metadata.get("format") != name:
        raise ModelError(f"model file: its format is {metadata.get('format')!r}, not {name!r}")
    try:
        model = build(metadata, tensors)
    except (KeyError, ValueError, RecursionError) as error:
        raise ModelError(f"model file: {error} is missing or malformed") from error
    model._keep_file(data)
    return model


def take_layers(names: Iterable[str], tensors: dict[str, NDArray[Any]]) -> dict[str, Layer]:
    """The layers of these names, whose tensors are taken out; KeyError where one is missing."""
    return {name: Layer(*(tensors.pop(f"{name}.{part}") for part in ("weight", "bias", "shift"))) for name in names}


def recipe_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The recipe of a file's metadata."""
    recipe: dict[str, Any] = json.loads(metadata.get("recipe", "{}"))
    return recipe


def canonical_safetensors(data: bytes) -> bytes:
    """The same safetensors file with its header's JSON sorted: safetensors writes metadata in random order."""
    length = struct.unpack_from("<Q", data)[0]
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def check_layer(profile: str, name: str, layer: Layer, outputs: int, inputs: int) -> None:
    """Raise ModelError unless the layer has these sizes and keeps the integer law."""
    check_array(f"{name}.weight", layer.weight, np.int8, (outputs, inputs))
    check_array(f"{name}.bias", layer.bias, np.int32, (outputs,))
    check_array(f"{name}.shift", layer.shift, np.uint8, (outputs,))
    if layer.weight.min() < -127:
        raise ModelError(f"model {profile!r}: {name}.weight holds -128; weights must lie in [-127, 127]")
    if layer.shift.max() > MAX_SHIFT:
        raise ModelError(f"model {profile!r}: {name}.shift holds {layer.shift.max()}, above {MAX_SHIFT}")
    # The proof: below 2**24 every partial sum, in any order, is exact in int32, float32 and tensor cores.
    if layer.largest_sum() >= SUM_LIMIT:
        raise ModelError(
            f"model {profile!r}: a sum in {name} can reach {layer.largest_sum()}, but sums must stay "
            f"below 2**24 = {SUM_LIMIT} to be the same on every device; train it with smaller weights"
        )


def check_tables(profile: str, cdf: NDArray[np.uint16], row_of: NDArray[np.uint16], scale_count: int) -> None:
    """Raise ModelError unless these are residual tables with an index of `scale_count` scales."""
    if cdf.ndim != 2 or not 1 <= len(cdf) <= MAX_TABLE_ROWS:
        raise ModelError(f"model {profile!r}: cdf has shape {cdf.shape}, not (1..{MAX_TABLE_ROWS}, 256)")
    check_array("cdf", cdf, np.uint16, (len(cdf), SYMBOLS))
    check_array("row_of", row_of, np.uint16, (scale_count, FRACTIONS))
    check_rising(profile, "cdf", cdf)
    if row_of.max() >= len(cdf):
        raise ModelError(f"model {profile!r}: row_of names row {row_of.max()} of {len(cdf)}")


def check_rising(profile: str, name: str, cdf: NDArray[np.uint16]) -> None:
    """Raise ModelError unless every row begins with 0 and rises strictly: every symbol has an interval."""
    if cdf[:, 0].any() or not (np.diff(cdf.astype(np.int64), axis=1) > 0).all():
        raise ModelError(f"model {profile!r}: a row of {name} does not rise strictly from 0")


def metadata_of(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file; ValueError, KeyError or struct.error where there is none."""
    length = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + length])
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        raise ValueError("its header or its metadata is not a table")
    return metadata


def check_array(name: str, array: NDArray[Any], dtype: type, shape: tuple[int, ...]) -> None:
    """Raise ModelError unless the array is of this type and shape."""
    if array.dtype != dtype or array.shape != shape:
        raise ModelError(
            f"model: {name} is {array.dtype} {array.shape}, the specification asks for {np.dtype(dtype)} {shape}"
        )

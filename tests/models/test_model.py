from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from small_model import SMALL_SPEC, SPECS, random_model, small_model

from pilc_stream.arith.perceptron import ACTIVATION_LIMIT, SUM_LIMIT
from pilc_stream.errors import ModelError
from pilc_stream.models.model import Layer, WaveModel, load_model
from pilc_stream.models.spec import WaveSpec

Change = Callable[[dict[str, Any]], None]


def with_layer(name: str, **changes: Any) -> WaveModel:
    """The small model with another weight, bias or shift in one layer."""
    model = small_model()
    layer = dataclasses.replace(model.layers[name], **changes)
    return dataclasses.replace(model, layers={**model.layers, name: layer})


def bias_of_sum(layer: Layer, largest: int, sign: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    """A bias under which the unit with the largest weights reaches the sum `largest`."""
    rest = largest - ACTIVATION_LIMIT * np.abs(layer.weight.astype(np.int64)).sum(axis=1)
    bias = np.zeros(len(layer.bias), np.int32)
    bias[-1] = sign * rest[-1]
    return bias


# The bound proof.


@pytest.mark.parametrize("name", SMALL_SPEC.layers())
@pytest.mark.parametrize("sign", [1, -1])
def test_a_sum_of_one_below_the_bound_is_accepted_and_the_bound_refused(name: str, sign: int) -> None:
    layer = small_model().layers[name]
    accepted = with_layer(name, bias=bias_of_sum(layer, SUM_LIMIT - 1, sign))
    assert accepted.layers[name].largest_sum() == SUM_LIMIT - 1
    with pytest.raises(ModelError, match=f"a sum in {name} can reach 16777216, but sums must stay below"):
        with_layer(name, bias=bias_of_sum(layer, SUM_LIMIT, sign))


def test_the_most_negative_bias_does_not_slip_through() -> None:
    with pytest.raises(ModelError, match="can reach"):
        with_layer("trunk.0", bias=np.full(4, -(1 << 31), np.int32))


def test_weights_alone_can_break_the_bound() -> None:
    spec = WaveSpec(SMALL_SPEC.neighbours, taps=1, trunk=(600, 1), head=1, scale_count=1)
    layers = dict(random_model(dataclasses.replace(spec, trunk=(500, 1)), 0).layers)
    for name, (outputs, inputs) in spec.layers().items():
        layers[name] = Layer(
            np.full((outputs, inputs), 127, np.int8), np.zeros(outputs, np.int32), np.zeros(outputs, np.uint8)
        )
    model = small_model()
    with pytest.raises(ModelError, match=f"trunk.1 can reach {600 * 127 * 255}"):
        WaveModel(spec, layers, model.cdf, np.zeros((1, 16), np.uint16), "too large")


@settings(max_examples=30)
@given(st.integers(0, 1 << 30), st.sampled_from(sorted(SPECS)), st.data())
def test_at_the_bound_float32_sums_in_any_order_are_the_integer_sums(seed: int, spec: str, data: st.DataObject) -> None:
    model = random_model(SPECS[spec], seed, at_the_bound=True)
    random = np.random.default_rng(seed)
    name = data.draw(st.sampled_from(sorted(model.layers)))
    layer = model.layers[name]
    assert layer.largest_sum() == SUM_LIMIT - 1
    # The inputs that reach the bound, and others.
    unit = int(random.integers(len(layer.bias)))
    sign = 1 if layer.bias[unit] >= 0 else -1
    extreme = ACTIVATION_LIMIT * sign * np.sign(layer.weight[unit].astype(np.int64))
    for values in (extreme, random.integers(-255, 256, len(extreme))):
        terms = np.append(layer.weight[unit].astype(np.int64) * values, layer.bias[unit])
        exact = int(terms.sum())
        in_order = np.float32(0)
        for term in random.permutation(terms):
            in_order = np.float32(in_order + np.float32(term))
        assert int(in_order) == exact
        assert int(terms.astype(np.float32).sum(dtype=np.float32)) == exact
        blas = layer.weight[unit].astype(np.float32) @ values.astype(np.float32)
        assert int(np.float32(blas + np.float32(layer.bias[unit]))) == exact
    reached = int((layer.weight[unit].astype(np.int64) * extreme).sum() + layer.bias[unit])
    assert abs(reached) == SUM_LIMIT - 1


# Layers and tables.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": np.full((4, 35), -128, np.int8)}, "trunk.0.weight holds -128"),
        ({"weight": np.zeros((4, 34), np.int8)}, r"trunk.0.weight is int8 \(4, 34\), the specification asks for int8"),
        ({"weight": np.zeros((4, 35), np.int16)}, "trunk.0.weight is int16"),
        ({"bias": np.zeros(5, np.int32)}, "trunk.0.bias is int32"),
        ({"bias": np.zeros(4, np.float32)}, "trunk.0.bias is float32"),
        ({"shift": np.zeros((4, 1), np.uint8)}, "trunk.0.shift is uint8"),
        ({"shift": np.full(4, 25, np.uint8)}, "trunk.0.shift holds 25, above 24"),
    ],
)
def test_a_layer_of_another_kind_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        with_layer("trunk.0", **changes)


@pytest.mark.parametrize("name", SMALL_SPEC.layers())
def test_a_missing_layer_is_named(name: str) -> None:
    model = small_model()
    with pytest.raises(ModelError, match=f"the layer {name} is missing"):
        dataclasses.replace(model, layers={key: layer for key, layer in model.layers.items() if key != name})


def rows_changed(place: tuple[int, int], value: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
    cdf = small_model().cdf.copy()
    cdf[place] = value
    return cdf


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cdf": rows_changed((3, 0), 1)}, "does not rise strictly from 0"),
        ({"cdf": rows_changed((5, 255), int(small_model().cdf[5, 254]))}, "does not rise strictly"),
        ({"cdf": rows_changed((0, 1), 0)}, "does not rise strictly"),
        ({"cdf": small_model().cdf[:, :255]}, "cdf is uint16"),
        ({"cdf": small_model().cdf.astype(np.uint32)}, "cdf is uint32"),
        ({"cdf": small_model().cdf[:0]}, "cdf has shape"),
        ({"cdf": small_model().cdf[0]}, "cdf has shape"),
        ({"cdf": small_model().cdf[:63]}, "row_of names row 63 of 63"),
        ({"row_of": np.full((32, 16), 64, np.uint16)}, "row_of names row 64 of 64"),
        ({"row_of": np.zeros((32, 15), np.uint16)}, "row_of is uint16"),
        ({"row_of": np.zeros((31, 16), np.uint16)}, "row_of is uint16"),
    ],
)
def test_a_table_that_no_coder_can_use_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        dataclasses.replace(small_model(), **changes)


# The file.


@pytest.mark.parametrize("spec_name", SPECS)
def test_a_model_comes_back_from_its_file(spec_name: str) -> None:
    model = random_model(SPECS[spec_name], seed=2)
    loaded = load_model(model.file_bytes)
    assert loaded.spec == model.spec
    assert loaded.profile == model.profile
    assert set(loaded.layers) == set(model.layers)
    for name, layer in model.layers.items():
        for part in ("weight", "bias", "shift"):
            assert np.array_equal(getattr(loaded.layers[name], part), getattr(layer, part))
    assert np.array_equal(loaded.cdf, model.cdf)
    assert np.array_equal(loaded.row_of, model.row_of)
    assert loaded.file_bytes == model.file_bytes
    assert loaded.sha256 == model.sha256 == hashlib.sha256(model.file_bytes).hexdigest()
    assert loaded.short_digest == bytes.fromhex(model.sha256[:8])


def test_equal_models_give_equal_files() -> None:
    # safetensors writes its metadata in an order that changes from call to call; the file must not.
    files = {random_model(SMALL_SPEC, seed=2).file_bytes for _ in range(20)}
    assert len(files) == 1
    model = small_model()
    reordered = dataclasses.replace(model, layers=dict(reversed(model.layers.items())))
    assert reordered.file_bytes == model.file_bytes


def test_a_file_written_by_another_hand_keeps_its_own_digest() -> None:
    # The same tensors in another file are another model: payloads name the file.
    other = rewritten(lambda header: header["__metadata__"].update(note="kept"))
    loaded = load_model(other)
    assert loaded.file_bytes == other
    assert loaded.sha256 == hashlib.sha256(other).hexdigest() != small_model().sha256


def rewritten(change: Change) -> bytes:
    """The small model's file with its header changed."""
    data = small_model().file_bytes
    length = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def with_spec(**changes: Any) -> bytes:
    """The small model's file with fields of its specification changed; None takes a field away."""

    def change(header: dict[str, Any]) -> None:
        spec = {**json.loads(header["__metadata__"]["spec"]), **changes}
        header["__metadata__"]["spec"] = json.dumps({key: value for key, value in spec.items() if value is not None})

    return rewritten(change)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context_version": 2}, "made for context version 2, this release has 1; use a release that knows it"),
        ({"context_version": None}, "its specification cannot be read"),
        ({"context_version": "one"}, "its specification cannot be read"),
        ({"neighbours": [[0, 1]]}, "the neighbour"),
        ({"neighbours": [[0, -1], [0, -1]]}, "twice"),
        ({"neighbours": []}, "must not be empty"),
        ({"neighbours": [[0]]}, "cannot be read"),
        ({"neighbours": 3}, "cannot be read"),
        ({"neighbours": [[0.5, -1]]}, "cannot be read"),
        ({"trunk": []}, "must not be empty"),
        ({"taps": 0}, "taps must lie in 1..2"),
        ({"taps": 3}, "taps must lie in 1..2"),
        ({"taps": "two"}, "cannot be read"),
        ({"trunk": [4.5]}, "cannot be read"),
        ({"trunk": [0]}, "widths in 1..1024"),
        ({"trunk": [1025]}, "widths in 1..1024"),
        ({"head": -1}, "widths in 1..1024"),
        ({"head": float("inf")}, "cannot be read"),
        ({"head": True}, "cannot be read"),
        ({"head": 3}, "the specification asks for"),
        ({"trunk": [4, 4]}, "trunk.1"),
        ({"scale_count": 0}, "scale_count must lie in 1..256"),
        ({"scale_count": 257}, "scale_count must lie in 1..256"),
        ({"scale_count": 33}, "row_of is"),
    ],
)
def test_a_specification_that_is_not_one_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(with_spec(**changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header["__metadata__"].update(format="gif"), "its format is 'gif'"),
        (lambda header: header["__metadata__"].pop("format"), "its format is None"),
        (lambda header: header["__metadata__"].pop("profile"), "'profile' is missing"),
        (lambda header: header["__metadata__"].pop("spec"), "'spec' is missing"),
        (lambda header: header["__metadata__"].update(spec="{"), "malformed"),
        (lambda header: header["__metadata__"].update(spec="[1]"), "cannot be read"),
        (lambda header: header["__metadata__"].update(recipe="{"), "malformed"),
        (lambda header: header["__metadata__"].update(spec="[" * 100_000), "malformed"),
        (lambda header: header.update(__metadata__=[]), "not a readable safetensors file"),
        (lambda header: header.update(__metadata__={"format": 1}), "not a readable safetensors file"),
        (lambda header: header["cdf"].update(dtype="F16"), "cdf is float16"),
        (lambda header: header["cdf"].update(dtype="BF16"), "cdf|safetensors"),
        (lambda header: header["cdf"].update(shape=[1, 1]), "not a readable safetensors file"),
        (lambda header: header["row_of"].update(data_offsets=[0, 1 << 40]), "not a readable safetensors file"),
    ],
)
def test_a_header_that_is_not_one_is_refused(change: Change, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(rewritten(change))


@pytest.mark.parametrize(
    "name",
    [f"{layer}.{part}" for layer in SMALL_SPEC.layers() for part in ("weight", "bias", "shift")] + ["cdf", "row_of"],
)
def test_a_missing_tensor_is_named(name: str) -> None:
    model = small_model()
    tensors = safetensors.numpy.load(model.file_bytes)
    del tensors[name]
    spec = json.dumps(model.spec.to_json())
    data = safetensors.numpy.save(tensors, {"format": "pilc-wave-model", "profile": "small", "spec": spec})
    with pytest.raises(ModelError, match=f"'{name}' is missing"):
        load_model(data)


def test_truncated_files_are_refused() -> None:
    data = small_model().file_bytes
    for length in [*range(200), *range(200, len(data), 997), len(data) - 1]:
        with pytest.raises(ModelError):
            load_model(data[:length])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG\r\n\x1a\n" * 20,
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b"null",
        struct.pack("<Q", 1 << 63) + b"{}",
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        struct.pack("<Q", 12) + b'{"a":\xff\xfe"b"}',
    ],
    ids=["nothing", "png", "list", "null", "endless", "deep", "not utf-8"],
)
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        load_model(data)


@settings(max_examples=200)
@given(st.data())
def test_a_file_with_flipped_bits_is_refused_or_is_another_model(data: st.DataObject) -> None:
    original = small_model()
    file = bytearray(original.file_bytes)
    where = st.one_of(st.integers(0, 8 * 3000), st.integers(0, 8 * len(file) - 1))
    for bit in data.draw(st.lists(where, min_size=1, max_size=3, unique=True)):
        file[bit // 8] ^= 1 << bit % 8
    try:
        model = load_model(bytes(file))
    except ModelError:
        return
    assert model.sha256 != original.sha256
    assert max(layer.largest_sum() for layer in model.layers.values()) < SUM_LIMIT

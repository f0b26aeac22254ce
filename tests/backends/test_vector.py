"""The functions of `arith` as vector code: the same integers as Python's, at the edges of what they are defined for."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from llvmlite import ir
from numpy.typing import NDArray

from pilc_stream.arith import adaptive, context, fixed, perceptron, predictor
from pilc_stream.backends.emitter import VECTOR_WIDTHS
from pilc_stream.backends.lanes import I32, I64, POINTER, Lanes
from pilc_stream.backends.machine import CompiledModule, host_has_byte_dots, host_width, object_code
from pilc_stream.backends.narrow import Narrow
from pilc_stream.backends.vector import VectorBuilder

WIDTHS = [width for width in VECTOR_WIDTHS if width <= host_width()]
LARGEST = (1 << 24) - 1

every_width = pytest.mark.parametrize("width", WIDTHS)


def compiled(
    body: Callable[..., Any], inputs: Sequence[NDArray[np.int64]], width: int, byte_dots: bool = False
) -> NDArray[np.int64]:
    """What `body`, traced on vectors, gives for each position of the inputs."""
    module = ir.Module("test")
    builder = VectorBuilder(module, "body", (POINTER, POINTER, I64), width, byte_dots)
    source, sink, count = builder.arguments
    stride = len(inputs[0])
    with builder.loop(count) as (index, _, _):
        at = builder.ir.mul(index, I64(width))
        rows = [builder.load(source, builder.ir.add(at, I64(k * stride)), I32) for k in range(len(inputs))]
        builder.store(builder.lanes(body(*rows)), sink, at, I32)
    builder.ir.ret_void()
    code = CompiledModule(object_code(module))
    function = code.function("body", (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64))
    assert stride % width == 0
    values = np.stack(inputs).astype(np.int32)
    out = np.empty(stride, np.int32)
    function(values.ctypes.data, out.ctypes.data, stride // width)
    return out.astype(np.int64)


def spread(low: int, high: int, seed: int, count: int = 512) -> NDArray[np.int64]:
    """Integers of ``[low, high]`` of all magnitudes, with both ends, zero and powers of two."""
    random = np.random.default_rng(seed)
    powers = [sign * (1 << k) + d for k in range(25) for sign in (1, -1) for d in (-1, 0, 1)]
    edges = [value for value in (low, high, 0, *powers) if low <= value <= high]
    filled = np.concatenate([edges, random.integers(low, high + 1, count - len(edges))]).astype(np.int64)
    return random.permutation(filled)


FUNCTIONS: dict[str, tuple[Callable[..., Any], list[NDArray[np.int64]]]] = {
    "clamp": (lambda v: fixed.clamp(v, -127, 127), [spread(-LARGEST, LARGEST, 0)]),
    "minimum": (fixed.minimum, [spread(-LARGEST, LARGEST, 1), spread(-LARGEST, LARGEST, 2)]),
    "log2_eighths": (fixed.log2_eighths, [spread(1, LARGEST, 3)]),
    "scaled_input": (fixed.scaled_input, [spread(-9000, 9000, 4), spread(0, 7, 5)]),
    "quotient": (lambda a, b: a // b, [spread(0, LARGEST, 6), spread(1, LARGEST, 7)]),
    "quotient of near": (lambda a, b: (a * b - 1) // b, [spread(1, 4095, 8), spread(1, 4095, 9)]),
    "hidden_activation": (perceptron.hidden_activation, [spread(-LARGEST, LARGEST, 10), spread(0, 24, 11)]),
    "mean_offset": (perceptron.mean_offset, [spread(-LARGEST, LARGEST, 12), spread(0, 24, 13), spread(0, 7, 14)]),
    "coupled": (perceptron.coupled, [spread(-LARGEST, LARGEST, 15), spread(0, 24, 16), spread(-4592, 4592, 17)]),
    "limited_mean": (perceptron.limited_mean, [spread(-(1 << 20), 1 << 20, 18)]),
    "scale_index": (
        lambda t, s, e: perceptron.scale_index(t, s, e, 80),
        [spread(-LARGEST, LARGEST, 19), spread(0, 24, 20), spread(0, 7, 21)],
    ),
    "mean_fraction": (perceptron.mean_fraction, [spread(-512, 4592, 22)]),
    "local_exponent": (lambda d: context.local_exponent(d, 20), [spread(0, 300_000, 23)]),
    "log_error": (context.log_error, [spread(0, 6 * 4080, 24)]),
    "sub_prediction_error": (predictor.sub_prediction_error, [spread(0, 1020, 25), spread(0, 255, 26)]),
    "blend": (
        lambda *v: predictor.blend(v[:5], v[5:]),
        [spread(0, 1020, 30 + i) for i in range(5)] + [spread(0, 2550, 40 + i) for i in range(5)],
    ),
    "absolute": (abs, [spread(-LARGEST, LARGEST, 50)]),
    "bits": (lambda a, b: (a & 0xFFFF) | (b << 16), [spread(0, 255, 51), spread(-127, 127, 52)]),
    "reversed operands": (lambda v: (7 - v) + (1 << (v & 7)) + 3 * v, [spread(-4000, 4000, 53)]),
}


@every_width
@pytest.mark.parametrize("name", FUNCTIONS)
def test_vectors_give_what_numbers_give(name: str, width: int) -> None:
    body, inputs = FUNCTIONS[name]
    expected = [body(*values) for values in zip(*(column.tolist() for column in inputs), strict=True)]
    assert compiled(body, inputs, width).tolist() == expected


def pairs(low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.int64]:
    """Two 16-bit integers in one of 32."""
    return ((low & 0xFFFF) | (high << 16)).astype(np.int32).astype(np.int64)


@every_width
def test_dot_products_of_pairs_are_exact(width: int) -> None:
    values = [spread(-127, 255, seed) for seed in (60, 61)]
    weights = [spread(-127, 127, seed) for seed in (62, 63)]
    total = spread(-LARGEST, LARGEST, 64)

    def body(start: Lanes, left: Lanes, right: Lanes) -> Lanes:
        return start.builder.dot_pairs(start, left, right)

    ours = compiled(body, [total, pairs(*values), pairs(*weights)], width)
    assert ours.tolist() == (total + values[0] * weights[0] + values[1] * weights[1]).tolist()


def in_16_bits(value: Lanes, low: int, high: int) -> Lanes:
    """Lanes in ``[low, high]``, held in 16 bits as rows of scratch are."""
    return Narrow(value.builder, value.in_bits(16), low, high)  # type: ignore[attr-defined]


@every_width
@pytest.mark.parametrize("count", [2, 3, 6, 7])
def test_sums_of_products_are_exact(width: int, count: int) -> None:
    weights = [spread(-32767, 32767, 80 + i) for i in range(count)]
    values = [spread(-508, 508, 90 + i) for i in range(count)]

    def body(*rows: Lanes) -> Lanes:
        factors = [in_16_bits(row, -32767, 32767) for row in rows[:count]]
        total: Any = 512
        for factor, row in zip(factors, rows[count:], strict=True):
            total = total + factor * in_16_bits(row, -508, 508)
        return total >> 4

    expected = (512 + sum(a * b for a, b in zip(weights, values, strict=True))) >> 4
    assert compiled(body, [*weights, *values], width).tolist() == expected.tolist()


@every_width
@pytest.mark.parametrize(("channel", "taps"), [(0, 1), (0, 6), (1, 1), (1, 6), (2, 6), (2, 20)])
def test_updates_of_weights_are_those_of_numbers(width: int, channel: int, taps: int) -> None:
    limit = 127 if channel == 0 else 508
    count = adaptive.feature_count(channel, taps)
    # Features all small too, where the gain is largest.
    scale = np.array([1, 4, 30, limit])[np.arange(512) % 4]
    values = [np.sign(v) * np.minimum(abs(v), scale) for v in (spread(-limit, limit, 100 + i) for i in range(count))]
    weights = [spread(-32767, 32767, 130 + i) for i in range(count)]
    error, exponent = spread(-4080, 4080, 160), spread(0, 7, 161)

    def body(error: Any, exponent: Any, *rows: Any) -> Any:
        features = [in_16_bits(row, -limit, limit) if isinstance(row, Lanes) else row for row in rows[:count]]
        before = [in_16_bits(row, -32767, 32767) if isinstance(row, Lanes) else row for row in rows[count:]]
        after = adaptive.updated_weights(channel, before, features, error, exponent)
        total = after[0]
        for number, weight in enumerate(after[1:], 2):
            total = total + number * weight
        return total

    inputs = [error, exponent, *values, *weights]
    expected = [body(*row) for row in zip(*(column.tolist() for column in inputs), strict=True)]
    assert compiled(body, inputs, width).tolist() == expected


@every_width
@pytest.mark.parametrize("byte_dots", [False, True])
def test_dot_products_of_quads_are_exact(width: int, byte_dots: bool) -> None:
    if byte_dots and not host_has_byte_dots(width):
        pytest.skip(f"no dot products of bytes on this machine with vectors of {width} lanes")
    # Bytes are unsigned, weights signed, both at their limits too.
    values = [spread(0, 255, seed) for seed in range(70, 74)]
    weights = [spread(-127, 127, seed) for seed in range(74, 78)]
    total = spread(-LARGEST, LARGEST, 78)

    def body(start: Lanes, quad: Lanes, *words: Lanes) -> Lanes:
        builder = start.builder
        return builder.dot(start, builder.quad_parts(quad), words[: builder.words_per_quad])

    quad = sum(value << 8 * i for i, value in enumerate(values))
    quad = np.asarray(quad).astype(np.uint32).view(np.int32).astype(np.int64)
    as_bytes = np.stack(weights, axis=1).astype(np.int8).view("<i4")[:, 0].astype(np.int64)
    words = [as_bytes, as_bytes] if byte_dots else [pairs(weights[0], weights[2]), pairs(weights[1], weights[3])]
    ours = compiled(body, [total, quad, *words], width, byte_dots)
    expected = total + sum(value * weight for value, weight in zip(values, weights, strict=True))
    assert ours.tolist() == expected.tolist()


@every_width
def test_a_loop_of_no_turns_leaves_everything_as_it_was(width: int) -> None:
    module = ir.Module("test")
    builder = VectorBuilder(module, "body", (POINTER, I64), width)
    sink, count = builder.arguments
    with builder.loop(count, [builder.lanes(5)]) as (_, (value,), end):
        end.values = [value + 2]
    builder.store(end.results[0], sink, I64(0), I32)
    builder.ir.ret_void()
    code = CompiledModule(object_code(module))
    function = code.function("body", (ctypes.c_void_p, ctypes.c_int64))
    out = np.zeros(width, np.int32)
    for turns in (0, 1, 3):
        function(out.ctypes.data, turns)
        assert (out == 5 + 2 * turns).all()


@pytest.mark.parametrize("element", [8, 16])
@every_width
def test_narrow_elements_are_widened_and_narrowed(width: int, element: int) -> None:
    kind = ir.IntType(element)
    for signed in (True, False):
        module = ir.Module("test")
        builder = VectorBuilder(module, "body", (POINTER, POINTER), width)
        source, sink = builder.arguments
        builder.store(builder.load(source, I64(0), kind, signed) + 1, sink, I64(0), kind)
        builder.ir.ret_void()
        code = CompiledModule(object_code(module))
        dtype = np.dtype(f"{'i' if signed else 'u'}{element // 8}")
        values = np.linspace(np.iinfo(dtype).min, np.iinfo(dtype).max - 1, width).astype(dtype)
        out = np.zeros(width, dtype)
        code.function("body", (ctypes.c_void_p, ctypes.c_void_p))(values.ctypes.data, out.ctypes.data)
        assert out.tolist() == (values.astype(np.int64) + 1).tolist()

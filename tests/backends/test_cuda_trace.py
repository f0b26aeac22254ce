"""The tracer of the CUDA backend: what `Word` emits, run on this machine's processor, is what Python computes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import ir

pytest.importorskip("numba_cuda", reason="Numba-CUDA is not installed")

from pilc_stream.arith import fixed, predictor
from pilc_stream.backends.cuda import symbols
from pilc_stream.backends.cuda.plain import PlainOps, multiplied
from pilc_stream.backends.cuda.trace import TracedOps, Word
from pilc_stream.backends.lanes import I8, I32
from pilc_stream.backends.machine import CompiledModule, object_code

Body = Callable[[Any, Sequence[Any]], Sequence[Any]]


class HostOps(TracedOps):
    """Instructions of a card, spelled out for any processor."""

    def quotient(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.ir.fdiv(a, b)

    def highest_bit(self, value: ir.Value) -> ir.Value:
        return self.ir.sub(I32(31), self.ir.ctlz(value, ir.IntType(1)(0)))

    def pack_saturated(self, low: Any, high: Any) -> Word:
        limited = [fixed.clamp(self.lanes(value), 0, 255) for value in (low, high)]
        return Word(self, (limited[0] | limited[1] << 8).value)

    def dot(self, total: Any, values: Any, weights: Any, signed: bool) -> Word:
        out, low = self.lanes(total).value, self.lanes(0).value.type
        for shift in (0, 8, 16, 24):
            bytes_ = [self.ir.trunc(self.ir.lshr(self.lanes(word).value, I32(shift)), I8) for word in (values, weights)]
            first = (self.ir.sext if signed else self.ir.zext)(bytes_[0], low)
            out = self.ir.add(out, self.ir.mul(first, self.ir.sext(bytes_[1], low)))
        return Word(self, out)

    def _permute(self, a: ir.Value, b: ir.Value, selector: int) -> ir.Value:
        width = 8 if selector == 0x0040 else 16
        mask = I32((1 << width) - 1)
        return self.ir.or_(self.ir.and_(a, mask), self.ir.shl(self.ir.and_(b, mask), I32(width)))


@cache
def compiled(body: Body, arguments: int, result: int) -> Any:
    """One result of a stage's arithmetic, compiled for this machine."""
    module = ir.Module("traced")
    function = ir.Function(module, ir.FunctionType(I32, [I32] * arguments), "traced")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    ops = HostOps(builder)
    builder.ret(ops.lanes(body(ops, [Word(ops, argument) for argument in function.args])[result]).value)
    code = CompiledModule(object_code(module))
    return (
        code,
        code.function("traced", ()),
        ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_int32] * arguments)(code.address("traced")),
    )


def same(body: Body, values: Sequence[int], results: int) -> None:
    expected = [int(value) for value in body(PlainOps(), list(values))]
    assert len(expected) == results
    found = [compiled(body, len(values), i)[2](*values) for i in range(results)]
    assert found == expected


def arithmetic(ops: Any, values: Sequence[Any]) -> Sequence[Any]:
    a, b, e = values
    magnitude = fixed.clamp(abs(a), 1, (1 << 24) - 1)
    return [
        fixed.minimum(a, b),
        fixed.maximum(a, 255),
        fixed.clamp(b, -127, 127),
        fixed.log2_eighths(magnitude),
        fixed.scaled_input(fixed.clamp(a, -9000, 9000), e),
        ((a < b) * 1) + ((e >= 3) * 16),
        ops.choose(a > b, a, 7),
        ops.signed_byte(a, 8) + ops.signed_half(b, 16),
        ops.pack_bytes(a, b, e, -1),
        ops.pack_halves(a, b),
        ops.dot(e, a, b, True),
        ops.dot(e, a, b, False),
        (1 << e) - 1,
        ops.pack_saturated(a >> 12, b),
    ]


def blended(ops: Any, values: Sequence[Any]) -> Sequence[Any]:
    return [predictor.blend(predictor.sub_predictions(*values[:4]), values[4:])]


def symbol(ops: Any, values: Sequence[Any]) -> Sequence[Any]:
    index, low, high = symbols.search(ops, values[:8], values[8], symbols.LAST_OF_CDF)
    return [index, low, high]


def coded(ops: Any, values: Sequence[Any]) -> Sequence[Any]:
    emit, word, rest = symbols.must_emit(ops, [], values)
    return [emit, word, rest, symbols.encode(ops, [], [rest, values[1]])[0]]


words = st.integers(-(1 << 31), (1 << 31) - 1)
bounded = st.integers(-(1 << 24), (1 << 24) - 1)


@settings(max_examples=200)
@given(bounded, bounded, st.integers(0, 7))
def test_arithmetic(a: int, b: int, exponent: int) -> None:
    same(arithmetic, [a, b, exponent], 14)


@settings(max_examples=200)
@given(st.lists(st.integers(0, 255), min_size=4, max_size=4), st.lists(st.integers(0, 2550), min_size=5, max_size=5))
def test_the_base(pixels: list[int], errors: list[int]) -> None:
    same(blended, [*pixels, *errors], 1)


@settings(max_examples=200)
@given(st.lists(st.integers(1, 65535), min_size=15, max_size=15, unique=True), st.integers(0, 65535))
def test_the_search(entries: list[int], value: int) -> None:
    row = np.array([0, *sorted(entries)], np.uint16)
    same(symbol, [*row.view(np.int32).tolist(), value], 3)
    index, low, high = symbols.search(PlainOps(), row.view(np.int32).tolist(), value, 65536)
    assert index == int(np.searchsorted(row, value, side="right")) - 1
    assert (low, high) == (row[index], 65536 if index == 15 else row[index + 1])


@settings(max_examples=300)
@given(st.integers(1 << 16, (1 << 32) - 1), st.integers(0, 65535), st.data())
def test_a_symbol_of_the_lanes(state: int, start: int, data: st.DataObject) -> None:
    frequency = data.draw(st.integers(1, min(65281, 65536 - start)))
    ops = PlainOps()
    same(coded, [ops.signed(state), ops.pack_halves(start, frequency)], 4)


@given(st.integers(1, (1 << 24) - 1))
def test_the_highest_bit_is_what_the_schoolbook_finds(value: int) -> None:
    assert compiled(highest, 1, 0)[2](value) == value.bit_length() - 1 == fixed.floor_log2(value)


@given(st.integers(1, (1 << 24) - 1))
def test_eighths_of_an_octave_are_what_the_schoolbook_finds(value: int) -> None:
    assert compiled(eighths, 1, 0)[2](value) == fixed.log2_eighths(value)


def eighths(ops: Any, values: Sequence[Any]) -> Sequence[Any]:
    return [fixed.log2_eighths(values[0])]


def highest(ops: Any, values: Sequence[Any]) -> Sequence[Any]:
    return [fixed.floor_log2(values[0])]


@pytest.mark.parametrize("signed", [False, True])
def test_a_product_of_matrices_as_the_threads_of_a_warp_hold_it(signed: bool) -> None:
    # Fragments by the formulas of the PTX manual (mma.m16n8k32, .s8/.u8), the product by NumPy.
    random = np.random.default_rng(signed)
    low = -128 if signed else 0
    a, b = random.integers(low, low + 256, (16, 32)), random.integers(-127, 128, (32, 8))
    c = random.integers(-(1 << 20), 1 << 20, (16, 8))

    def word(values: Any) -> int:
        return int(np.array(values).astype(np.int8).view("<i4")[0])

    held, sums = [], []
    for lane in range(32):
        group, thread = lane // 4, lane % 4
        first = [word([a[group + 8 * (i % 8 >= 4), 4 * thread + i % 4 + 16 * (i >= 8)] for i in range(n, n + 4)])
                 for n in (0, 4, 8, 12)]  # fmt: skip
        second = [word([b[4 * thread + i % 4 + 16 * (i >= 4), group] for i in range(n, n + 4)]) for n in (0, 4)]
        held.append([*first, *second])
        sums.append([int(c[group + 8 * (i >= 2), 2 * thread + i % 2]) for i in range(4)])
    product = a @ b + c
    for lane in range(32):
        expected = [product[lane // 4 + 8 * (i >= 2), 2 * (lane % 4) + i % 2] for i in range(4)]
        assert multiplied(lane, sums[lane], held, signed) == expected


def test_minima_are_single_choices() -> None:
    module = ir.Module("minimum")
    function = ir.Function(module, ir.FunctionType(I32, [I32, I32]), "minimum")
    ops = HostOps(ir.IRBuilder(function.append_basic_block("entry")))
    a, b = (Word(ops, argument) for argument in function.args)
    ops.ir.ret(fixed.minimum(a, b).value)
    last = str(function).split("select")[-1]
    assert "add" not in last


def quotient_on_a_card(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], off: int) -> Any:
    """`TracedOps.quotient` in float32, with a reciprocal that is `off` units in the last place wrong."""
    a32, b32 = a.astype(np.float32), b.astype(np.float32)
    y = (1 / b32.astype(np.float64)).astype(np.float32)
    y = (y.view(np.int32) + np.int32(off)).view(np.float32)
    q = a32 * y
    # Products of float32 are exact in float64, so these are fused multiply-adds.
    r = (a32.astype(np.float64) - q.astype(np.float64) * b32).astype(np.float32)
    return (q.astype(np.float64) + r.astype(np.float64) * y).astype(np.float32).astype(np.int64)


@pytest.mark.parametrize("off", [-2, -1, 0, 1, 2])
def test_quotients_are_exact_whatever_the_last_bits_of_the_reciprocal(off: int) -> None:
    random = np.random.default_rng(off + 2)
    b = np.concatenate([np.arange(1, 70000), random.integers(1, 1 << 24, 200000)])
    n = random.integers(0, ((1 << 24) - 1) // b + 1)
    for a in (n * b, n * b - 1, n * b + 1, random.integers(0, 1 << 24, len(b))):
        a = np.clip(a, 0, (1 << 24) - 1)
        assert np.array_equal(quotient_on_a_card(a, b, off), a // b)

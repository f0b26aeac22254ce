"""Stages: Python functions over 32-bit integers that the simulator runs and the compiler traces.

What one thread does for one pixel is straight-line arithmetic on values from memory. A *stage* is a function
``body(ops, memory, values) -> results`` of that kind. In the simulator its values are Python integers. On a device it
becomes a Numba intrinsic: `body` runs once, on `Word`s whose operators emit LLVM, so the functions of `arith`, with
their lists and closures, compile as they stand. Emitting code, not Python source for Numba to infer, keeps every value
in 32 bits (Numba widens integers to 64), turns ``a + (b - a) * (b < a)`` into the machine's minimum, lets DP4A and
16-byte loads in, and compiles several times faster. It is the design of `backends.lanes`, whose `Lanes` are reused.

`ops` holds what Python's operators cannot say alike for both kinds of value; see `plain.PlainOps`.
"""

# ruff: noqa: D102 - `plain` says what the traced methods of the same names do.

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from pilc_stream.backends.cuda.plain import PlainMemory, PlainOps
from pilc_stream.backends.cuda.shim import SIMULATED
from pilc_stream.backends.lanes import FLOAT, I8, I16, I32, Lanes

Body = Callable[[Any, Sequence[Any], Sequence[Any]], Sequence[Any]]


class Word(Lanes):
    """A 32-bit integer of one thread; operators emit code."""

    def __init__(self, builder: Any, value: ir.Value) -> None:
        super().__init__(builder, value)
        self.terms: tuple[Word, Any] | None = None
        self.condition: ir.Value | None = None
        self.masked: tuple[Word, ir.Value] | None = None

    def _new(self, value: ir.Value) -> Word:
        return type(self)(self.builder, value)

    def __sub__(self, other: Lanes | int) -> Word:
        b, x, y = self._both(other)
        result = self._new(b.sub(x, y))
        result.terms = self, other
        return result

    def __mul__(self, other: Lanes | int) -> Word:
        condition = other.condition if isinstance(other, Word) else None
        if condition is None and self.condition is not None:
            # The comparison is the second operand from here on.
            swapped: Word = self._new(self.builder.lanes(other).value) * self
            return swapped
        if condition is None:
            b, x, y = self._both(other)
            return self._new(b.mul(x, y))
        result = self._new(self.builder.ir.select(condition, self.value, I32(0)))
        result.masked = self, condition
        return result

    __rmul__ = __mul__

    def __add__(self, other: Lanes | int) -> Word:
        if isinstance(other, Word) and other.masked is not None:
            (second, first), condition = other.masked[0].terms or (None, None), other.masked[1]
            # a + (b - a) * condition, the form of `arith.fixed.minimum`, is a choice.
            if second is not None and id(first) == id(self):
                return self._new(self.builder.ir.select(condition, second.value, self.value))
        b, x, y = self._both(other)
        return self._new(b.add(x, y))

    __radd__ = __add__

    def __floordiv__(self, other: Lanes | int) -> Word:
        # The law of `arith` for operands below 2**24, by `quotient`, which needs no slow path for odd operands.
        b, x, y = self._both(other)
        ops: Any = self.builder
        return self._new(b.fptosi(ops.quotient(b.sitofp(x, FLOAT), b.sitofp(y, FLOAT)), I32))

    def floor_log2(self) -> Word:
        """`arith.fixed.floor_log2`, as it asks for."""
        ops: Any = self.builder
        return self._new(ops.highest_bit(self.value))

    def log2_eighths(self) -> Word:
        """`arith.fixed.log2_eighths`, as it asks for: the exponent and the first bits of the mantissa of a float."""
        b: ir.IRBuilder = self.builder.ir
        bits = b.bitcast(b.sitofp(self.value, FLOAT), I32)
        return self._new(b.lshr(bits, I32(20))) - (127 << 3)

    def _compare(self, operator: str, other: Lanes | int) -> Word:
        b, x, y = self._both(other)
        return self._truth(b.icmp_signed(operator, x, y))

    def _truth(self, condition: ir.Value) -> Word:
        result = Word(self.builder, self.builder.ir.zext(condition, I32))
        result.condition = condition
        return result


class Unsigned(Word):
    """32 bits as a number from 0 on."""

    def __rshift__(self, other: Lanes | int) -> Word:
        b, x, y = self._both(other)
        return self._new(b.lshr(x, y))

    def __floordiv__(self, other: Lanes | int) -> Word:
        b, x, y = self._both(other)
        return self._new(b.udiv(x, y))

    def _compare(self, operator: str, other: Lanes | int) -> Word:
        b, x, y = self._both(other)
        return self._truth(b.icmp_unsigned(operator, x, y))


class TracedOps:
    """The operations of a stage as code for one thread; what `Word` needs of a builder."""

    vector = I32
    width = 1

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.ir = builder

    def lanes(self, value: Lanes | int) -> Lanes:
        """`value` as a word."""
        return value if isinstance(value, Lanes) else Word(self, ir.Constant(I32, value))

    def _assembly(self, kind: ir.Type, text: str, constraint: str, *values: ir.Value) -> ir.Value:
        signature = ir.FunctionType(kind, [value.type for value in values])
        return self.ir.call(ir.InlineAsm(signature, text, constraint), values)

    def quotient(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """A float within half a unit in the last place (and a trifle) of ``a / b``, for integers below ``2**24``.

        An approximate reciprocal and one step of Newton with exact remainders; whole quotients come out exactly, and
        others lie at least one unit below the next whole number, so truncation gives ``a // b``.
        """
        text = (
            "{ .reg .f32 y, q, r, n; rcp.approx.ftz.f32 y, $2; mul.rn.f32 q, $1, y; neg.f32 n, $2;"
            " fma.rn.f32 r, q, n, $1; fma.rn.f32 $0, r, y, q; }"
        )
        return self._assembly(FLOAT, text, "=f,f,f", a, b)

    def highest_bit(self, value: ir.Value) -> ir.Value:
        """The number of the highest set bit."""
        return self._assembly(I32, "bfind.u32 $0, $1;", "=r,r", value)

    def sync_warp(self) -> None:
        text = "bar.warp.sync 0xffffffff;"
        barrier = ir.InlineAsm(ir.FunctionType(ir.VoidType(), []), text, "~{memory}", side_effect=True)
        self.ir.call(barrier, [], attrs=("convergent",))

    def multiply(
        self, sums: Sequence[Any], values: Sequence[Any], weights: Sequence[Any], signed: bool
    ) -> Sequence[Word]:
        text = (
            f"mma.sync.aligned.m16n8k32.row.col.s32.{'s' if signed else 'u'}8.s8.s32 "
            "{$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};"
        )
        arguments = [self.lanes(value).value for value in (*values, *weights, *sums)]
        kind = ir.FunctionType(ir.LiteralStructType([I32] * 4), [I32] * 10)
        product = ir.InlineAsm(kind, text, "=r,=r,=r,=r" + ",r" * 10, side_effect=True)
        # All threads of the warp must take part, whatever the compiler thinks of moving code into branches.
        found = self.ir.call(product, arguments, attrs=("convergent",))
        return [Word(self, self.ir.extract_value(found, i)) for i in range(4)]

    def pack_saturated(self, low: Any, high: Any) -> Word:
        values = [self.lanes(value).value for value in (high, low)]
        return Word(self, self._assembly(I32, "cvt.pack.sat.u8.s32.b32 $0, $1, $2, 0;", "=r,r,r", *values))

    def dot(self, total: Any, values: Any, weights: Any, signed: bool) -> Word:
        text = f"dp4a.{'s' if signed else 'u'}32.s32 $0, $1, $2, $3;"
        arguments = [self.lanes(value).value for value in (values, weights, total)]
        return Word(self, self._assembly(I32, text, "=r,r,r,r", *arguments))

    def pair_dot(self, total: Any, pair: Any, values: Any, high: bool) -> Word:
        text = f"dp2a.{'hi' if high else 'lo'}.s32.s32 $0, $1, $2, $3;"
        arguments = [self.lanes(value).value for value in (pair, values, total)]
        return Word(self, self._assembly(I32, text, "=r,r,r,r", *arguments))

    def signed_byte(self, word: Any, shift: int) -> Any:
        return (word << (24 - shift)) >> 24

    def signed_half(self, word: Any, shift: int) -> Any:
        return (word << (16 - shift)) >> 16

    def _permute(self, a: ir.Value, b: ir.Value, selector: int) -> ir.Value:
        return self._assembly(I32, f"prmt.b32 $0, $1, $2, {selector:#x};", "=r,r,r", a, b)

    def pack_bytes(self, a: Any, b: Any, c: Any, d: Any) -> Word:
        values = [self.lanes(value).value for value in (a, b, c, d)]
        low, high = self._permute(values[0], values[1], 0x0040), self._permute(values[2], values[3], 0x0040)
        return Word(self, self._permute(low, high, 0x5410))

    def pack_halves(self, low: Any, high: Any) -> Word:
        return Word(self, self._permute(self.lanes(low).value, self.lanes(high).value, 0x5410))

    def choose(self, condition: Word, yes: Any, no: Any) -> Word:
        return Word(self, self.ir.select(condition.condition, self.lanes(yes).value, self.lanes(no).value))

    def unsigned(self, word: Any) -> Unsigned:
        return Unsigned(self, self.lanes(word).value)

    def signed(self, number: Any) -> Word:
        return Word(self, number.value)

    def repeat(self, count: Word, body: Callable[[Word], None]) -> None:
        entry, loop, done = self.ir.block, self.ir.append_basic_block("loop"), self.ir.append_basic_block("done")
        total = self.lanes(count).value
        self.ir.cbranch(self.ir.icmp_signed(">", total, I32(0)), loop, done)
        self.ir.position_at_end(loop)
        index = self.ir.phi(I32)
        index.add_incoming(I32(0), entry)
        body(Word(self, index))
        following = self.ir.add(index, I32(1))
        index.add_incoming(following, self.ir.block)
        self.ir.cbranch(self.ir.icmp_signed("<", following, total), loop, done)
        self.ir.position_at_end(done)


class TracedMemory:
    """An array of a kernel as stages see it; `bits` and `signed` say what its elements are."""

    def __init__(self, ops: TracedOps, pointer: ir.Value, bits: int, signed: bool) -> None:
        self._ops, self._pointer, self._bits, self._signed = ops, pointer, bits, signed

    def _at(self, index: Any) -> ir.Value:
        return self._ops.ir.gep(self._pointer, [self._ops.lanes(index).value], inbounds=True)

    def __getitem__(self, index: Any) -> Word:
        value = self._ops.ir.load(self._at(index))
        if self._bits < 32:
            value = (self._ops.ir.sext if self._signed else self._ops.ir.zext)(value, I32)
        return Word(self._ops, value)

    def __setitem__(self, index: Any, value: Any) -> None:
        data = self._ops.lanes(value).value
        self._ops.ir.store(self._ops.ir.trunc(data, {8: I8, 16: I16}[self._bits]) if self._bits < 32 else data,
                           self._at(index))  # fmt: skip

    def put_half(self, index: Any, half: Any, value: Any) -> None:
        b, ops = self._ops.ir, self._ops
        halves = b.bitcast(self._pointer, I16.as_pointer())
        b.store(b.trunc(ops.lanes(value).value, I16), b.gep(halves, [(index * 2 + half).value], inbounds=True))

    def _vector_at(self, index: Any) -> ir.Value:
        return self._ops.ir.bitcast(self._at(index), ir.VectorType(I32, 4).as_pointer())

    def vector(self, index: Any) -> list[Word]:
        loaded = self._ops.ir.load(self._vector_at(index), align=16)
        return [Word(self._ops, self._ops.ir.extract_element(loaded, I32(i))) for i in range(4)]

    def put_vector(self, index: Any, values: Sequence[Any]) -> None:
        b = self._ops.ir
        data: ir.Value = ir.Constant(ir.VectorType(I32, 4), ir.Undefined)
        for i, value in enumerate(values):
            data = b.insert_element(data, self._ops.lanes(value).value, I32(i))
        b.store(data, self._vector_at(index), align=16)


def stage(body: Body, results: int) -> Any:
    """A function for kernels, ``f(arrays, integers)`` of two tuples, giving a tuple of `results` (1 or more) int32.

    A body without results gives one that means nothing.
    """
    if SIMULATED:
        return lambda arrays, integers: _run(body, results, arrays, integers)
    return _intrinsic(body, results)


def _run(body: Body, results: int, arrays: Sequence[Any], integers: Sequence[Any]) -> tuple[int, ...]:
    found = tuple(body(PlainOps(), [PlainMemory(array) for array in arrays], [int(value) for value in integers]))
    if len(found) != results:
        raise ValueError(f"{body.__name__} gave {len(found)} results, not {results}")
    return tuple(int(np.int32(value)) for value in found)


def _intrinsic(body: Body, results: int) -> Any:
    from numba import types
    from numba.cuda import cgutils  # type: ignore[attr-defined]
    from numba.cuda.extending import intrinsic

    @intrinsic
    def traced(typing_context: Any, arrays: Any, integers: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            array_types, integer_types = signature.args
            ops = TracedOps(builder)
            memory = [
                TracedMemory(ops, context.make_array(kind)(context, builder, value).data, kind.dtype.bitwidth,
                             kind.dtype.signed)
                for kind, value in zip(array_types, cgutils.unpack_tuple(builder, arguments[0], len(array_types)),
                                       strict=True)
            ]  # fmt: skip
            given = cgutils.unpack_tuple(builder, arguments[1], len(integer_types))
            values = [
                Word(ops, _as_word(builder, value, kind.signed))
                for value, kind in zip(given, integer_types, strict=True)
            ]
            found = [ops.lanes(value).value for value in body(ops, memory, values)]
            return cgutils.pack_array(builder, found, I32)

        kind: Any = types.UniTuple
        return kind(types.int32, results)(arrays, integers), generate

    return traced


def _as_word(builder: ir.IRBuilder, value: ir.Value, signed: bool) -> ir.Value:
    width = value.type.width
    if width < I32.width:
        return (builder.sext if signed else builder.zext)(value, I32)
    return builder.trunc(value, I32) if width > I32.width else value

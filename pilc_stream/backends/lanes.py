"""Traced values: Python objects whose operators emit LLVM, so that running a function of `arith` compiles it.

A `Lanes` stands for `width` signed 32-bit integers of a builder, one per pixel; the CUDA backend derives its words from
it. Numbers mix in as constants.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
POINTER = ir.PointerType()
FLOAT = ir.FloatType()


class Lanes:
    """A vector of 32-bit integers; operators emit code."""

    __array_ufunc__ = None

    def __init__(self, builder: Any, value: ir.Value) -> None:
        self.builder, self.value = builder, value

    def _both(self, other: Lanes | int) -> tuple[ir.IRBuilder, ir.Value, ir.Value]:
        return self.builder.ir, self.value, self.builder.lanes(other).value

    def _new(self, value: ir.Value) -> Lanes:
        return Lanes(self.builder, value)

    def __add__(self, other: Lanes | int) -> Lanes:
        b, x, y = self._both(other)
        return self._new(b.add(x, y))

    __radd__ = __add__

    def __sub__(self, other: Lanes | int) -> Lanes:
        b, x, y = self._both(other)
        return self._new(b.sub(x, y))

    def __rsub__(self, other: int) -> Lanes:
        result: Lanes = self.builder.lanes(other) - self
        return result

    def __mul__(self, other: Lanes | int) -> Lanes:
        b, x, y = self._both(other)
        return self._new(b.mul(x, y))

    __rmul__ = __mul__

    def __lshift__(self, other: Lanes | int) -> Lanes:
        b, x, y = self._both(other)
        return self._new(b.shl(x, y))

    def __rlshift__(self, other: int) -> Lanes:
        result: Lanes = self.builder.lanes(other) << self
        return result

    def __rshift__(self, other: Lanes | int) -> Lanes:
        b, x, y = self._both(other)
        return self._new(b.ashr(x, y))

    def __and__(self, other: Lanes | int) -> Lanes:
        b, x, y = self._both(other)
        return self._new(b.and_(x, y))

    def __or__(self, other: Lanes | int) -> Lanes:
        b, x, y = self._both(other)
        return self._new(b.or_(x, y))

    def __floordiv__(self, other: Lanes | int) -> Lanes:
        # Both operands are below 2**24 (the law of `arith`): the float quotient, truncated, is the integer quotient.
        b, x, y = self._both(other)
        floats = ir.VectorType(FLOAT, self.builder.width)
        return self._new(b.fptosi(b.fdiv(b.sitofp(x, floats), b.sitofp(y, floats)), self.builder.vector))

    def __rfloordiv__(self, other: int) -> Lanes:
        result: Lanes = self.builder.lanes(other) // self
        return result

    def __abs__(self) -> Lanes:
        b, x, zero = self._both(0)
        return self._new(b.select(b.icmp_signed("<", x, zero), b.sub(zero, x), x))

    def _compare(self, operator: str, other: Lanes | int) -> Lanes:
        b, x, y = self._both(other)
        return self._new(b.zext(b.icmp_signed(operator, x, y), self.builder.vector))

    def __lt__(self, other: Lanes | int) -> Lanes:
        return self._compare("<", other)

    def __gt__(self, other: Lanes | int) -> Lanes:
        return self._compare(">", other)

    def __ge__(self, other: Lanes | int) -> Lanes:
        return self._compare(">=", other)

    def __le__(self, other: Lanes | int) -> Lanes:
        return self._compare("<=", other)

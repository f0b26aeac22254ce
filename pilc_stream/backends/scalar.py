"""Traced 64-bit integers: indices and counts of the walk over a gang, with loops and branches.

The same idea as `lanes`: operators emit code, so that the walk is written in Python and compiled by LLVM, without a
second compiler at run time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from pilc_stream.backends.lanes import I64, POINTER


class Index:
    """A signed 64-bit integer; operators emit code. Comparisons give 0 or 1."""

    def __init__(self, builder: ir.IRBuilder, value: ir.Value, condition: ir.Value | None = None) -> None:
        self.ir, self.value, self._condition = builder, value, condition

    def _of(self, other: Index | int) -> ir.Value:
        return other.value if isinstance(other, Index) else I64(other)

    def _new(self, value: ir.Value) -> Index:
        return Index(self.ir, value)

    def __add__(self, other: Index | int) -> Index:
        return self._new(self.ir.add(self.value, self._of(other)))

    __radd__ = __add__

    def __sub__(self, other: Index | int) -> Index:
        return self._new(self.ir.sub(self.value, self._of(other)))

    def __rsub__(self, other: int) -> Index:
        return self._new(self.ir.sub(I64(other), self.value))

    def __mul__(self, other: Index | int) -> Index:
        return self._new(self.ir.mul(self.value, self._of(other)))

    __rmul__ = __mul__

    def __rshift__(self, other: Index | int) -> Index:
        return self._new(self.ir.ashr(self.value, self._of(other)))

    def __lshift__(self, other: Index | int) -> Index:
        return self._new(self.ir.shl(self.value, self._of(other)))

    def __and__(self, other: Index | int) -> Index:
        return self._new(self.ir.and_(self.value, self._of(other)))

    def _compare(self, operator: str, other: Index | int) -> Index:
        condition = self.ir.icmp_signed(operator, self.value, self._of(other))
        return Index(self.ir, self.ir.zext(condition, I64), condition)

    def __lt__(self, other: Index | int) -> Index:
        return self._compare("<", other)

    def __gt__(self, other: Index | int) -> Index:
        return self._compare(">", other)

    def __ge__(self, other: Index | int) -> Index:
        return self._compare(">=", other)

    def __le__(self, other: Index | int) -> Index:
        return self._compare("<=", other)

    def equals(self, other: Index | int) -> Index:
        """1 where the two are the same."""
        return self._compare("==", other)

    @property
    def condition(self) -> ir.Value:
        """A comparison, or whether the value is not 0, as one bit."""
        return self._condition if self._condition is not None else self.ir.icmp_signed("!=", self.value, I64(0))


def on_stack(builder: ir.IRBuilder, kind: ir.Type) -> ir.Value:
    """The address of memory on the stack of the function, for one value of that type."""
    with builder.goto_entry_block():
        place = builder.alloca(kind)
    # Addresses have no type of what lies there, as those of arguments.
    place.type = POINTER
    return place


@contextmanager
def counting(builder: ir.IRBuilder, stop: Index | int, by: int = 1) -> Iterator[Index]:
    """A loop ``for i in range(0, stop, by)``."""
    end = stop.value if isinstance(stop, Index) else I64(stop)
    entry = builder.block
    body, done = builder.append_basic_block("each"), builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed(">", end, I64(0)), body, done)
    builder.position_at_end(body)
    index = builder.phi(I64)
    index.add_incoming(I64(0), entry)
    yield Index(builder, index)
    following = builder.add(index, I64(by))
    index.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, end), body, done)
    builder.position_at_end(done)


@contextmanager
def each_bit(builder: ir.IRBuilder, mask: ir.Value) -> Iterator[Index]:
    """A loop over the positions of the bits that are set in `mask`, the lowest first."""
    kind = mask.type
    zero = ir.Constant(kind, 0)
    entry = builder.block
    body, done = builder.append_basic_block("bit"), builder.append_basic_block("bits_done")
    builder.cbranch(builder.icmp_unsigned("!=", mask, zero), body, done)
    builder.position_at_end(body)
    left = builder.phi(kind)
    left.add_incoming(mask, entry)
    lowest: Any = builder.cttz(left, ir.Constant(ir.IntType(1), 1))
    yield Index(builder, builder.zext(lowest, I64) if kind.width < I64.width else lowest)
    rest = builder.and_(left, builder.sub(left, ir.Constant(kind, 1)))
    left.add_incoming(rest, builder.block)
    builder.cbranch(builder.icmp_unsigned("!=", rest, zero), body, done)
    builder.position_at_end(done)

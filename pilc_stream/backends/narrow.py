"""Lanes that know their range: what fits 16 bits is computed in 16 bits, where a vector holds twice as many.

Each value carries the interval that it lies in, found from the intervals of its operands. An operation takes 16 bits
where its operands and its result fit them and one of them is held so already; otherwise operands are widened.
The functions of `arith` need not know: ``a + (b - a) * (b < a)``, their minimum, is recognised and becomes one
instruction, and so is the mean ``(a + b) >> 1``, whose sum would not fit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from llvmlite import ir

from pilc_stream.arith.fixed import log2_eighths
from pilc_stream.backends.lanes import FLOAT, I1, Lanes
from pilc_stream.backends.products import clamped_sum, scaled_product, sum_of_products

LOW_16, HIGH_16 = -(1 << 15), (1 << 15) - 1
LOW_32, HIGH_32 = -(1 << 31), (1 << 31) - 1
MIRROR = HIGH_16
"""What turns signed integers of 16 bits into unsigned ones in reverse order, and back, by an exclusive or."""

LOOKUP_ENTRIES = 128
FLOAT_MANTISSA = 23
FLOAT_EIGHTHS_OF_ONE = 127 * 8
"""A float32's exponent and first three bits of mantissa, for 1.0: eighths of an octave from there."""


class Narrow(Lanes):
    """A vector of integers in ``[low, high]``, in lanes of 16 or 32 bits; operators emit code."""

    def __init__(
        self, builder: Any, value: ir.Value | int | Callable[[], ir.Value], low: int = LOW_32, high: int = HIGH_32
    ) -> None:
        """`value`: a function where the vector is emitted when it is asked for."""
        self._value: Any = None
        super().__init__(builder, value)
        if low < LOW_32 or high > HIGH_32:
            # Beyond 32 bits values wrap around, which is meant where bits are put together.
            low, high = LOW_32, HIGH_32
        self.low, self.high = low, high
        self._converted: ir.Value | None = None
        self._root: Narrow | None = None
        self._factors: tuple[Narrow, Narrow] | None = None
        self._mirrored: ir.Value | None = None
        self._products: list[tuple[Narrow, Narrow]] = []
        self._beside: list[Narrow] = []
        self._rounded: tuple[Narrow, Narrow, int] | None = None
        self._floored: tuple[tuple[Narrow, Narrow], Narrow] | None = None
        self._terms: tuple[Narrow, Narrow] | None = None
        self._summands: tuple[Narrow, Narrow] | None = None
        self._condition: tuple[str, Narrow, Narrow, ir.Value] | None = None
        self._gated: tuple[Narrow, tuple[str, Narrow, Narrow, ir.Value]] | None = None

    @classmethod
    def mirrored(cls, mirrored: Narrow, low: int, high: int) -> Narrow:
        """The values in ``[low, high]`` of which `mirrored` holds ``value ^ MIRROR``."""
        result = cls(mirrored.builder, lambda: (mirrored ^ MIRROR).value, low, high)
        result._mirrored = mirrored.value
        return result

    @property
    def value(self) -> Any:
        """The vector, or the number that a constant has in every lane."""
        if callable(self._value):
            self._value = self._value()
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        self._value = value

    @property
    def constant(self) -> bool:
        """Whether this is the same number in every lane, known when the code is made."""
        return isinstance(self.value, int)

    @property
    def fits(self) -> bool:
        """Whether 16 bits hold every value that there can be."""
        return self.low >= LOW_16 and self.high <= HIGH_16

    @property
    def halved(self) -> bool:
        """Whether the lanes have 16 bits."""
        return not self.constant and self.value.type == self.builder.half_vector

    @property
    def short(self) -> bool:
        """Whether the lanes have 16 bits, which hold every value that there can be."""
        return self.halved and self.fits

    def in_bits(self, bits: int) -> ir.Value:
        """The vector with lanes of 16 bits (which must hold the values) or 32."""
        kind = self.builder.half_vector if bits == 16 else self.builder.vector
        if self.constant:
            return ir.Constant(kind, [self.value] * self.builder.width)
        if self.value.type == kind:
            return self.value
        if self._converted is None:
            b = self.builder.ir
            if bits == 16:
                self._converted = b.trunc(self.value, kind)
            else:
                self._converted = (b.zext if self.low >= 0 else b.sext)(self.value, kind)
        return self._converted

    def _of(self, other: Lanes | int) -> Narrow:
        result: Narrow = self.builder.lanes(other)
        return result

    def _bits(self, other: Narrow, fits: bool) -> int:
        return 16 if fits and self.fits and other.fits and (self.halved or other.halved) else 32

    def _emit(
        self, operation: Callable[[ir.Value, ir.Value], ir.Value], other: Narrow, low: int, high: int, bits: int = 0
    ) -> Narrow:
        bits = bits or self._bits(other, low >= LOW_16 and high <= HIGH_16)
        return Narrow(self.builder, operation(self.in_bits(bits), other.in_bits(bits)), low, high)

    def __add__(self, other: Lanes | int) -> Narrow:
        y = self._of(other)
        for first, gated in ((self, y), (y, self)):
            if gated._gated is not None:
                difference, condition = gated._gated
                second, taken = difference._terms or (None, None)
                if second is not None and _same(taken, first):
                    return first._chosen(second, condition)
        low, high = self.low + y.low, self.high + y.high
        products = self._products + y._products
        beside = [term for x in (self, y) for term in (x._beside if x._products else [x])]
        if products and not (low >= LOW_16 and high <= HIGH_16):
            result = Narrow(self.builder, partial(sum_of_products, self.builder, products, beside), low, high)
        else:
            result = self._emit(self.builder.ir.add, y, low, high)
        result._products, result._beside = products, beside if products else []
        result._summands = self, y
        return result

    __radd__ = __add__

    def _chosen(self, second: Narrow, condition: tuple[str, Narrow, Narrow, ir.Value]) -> Narrow:
        """`second` where the condition holds, else this: a minimum or maximum where it compares just these."""
        operator, x, y, _ = condition
        if _same(x, self) and _same(y, second):
            operator = {"<": ">", ">": "<"}.get(operator, "")
        elif not (_same(x, second) and _same(y, self)):
            operator = ""
        if operator == "<" and self._floored is not None and second.constant and second.fits:
            terms, floor = self._floored
            value = clamped_sum(self.builder, terms, floor, second)
            return Narrow(self.builder, value, min(self.low, second.low), min(self.high, second.high))
        if operator == "<":
            low, high, name = min(self.low, second.low), min(self.high, second.high), "smin"
        elif operator == ">":
            low, high, name = max(self.low, second.low), max(self.high, second.high), "smax"
        else:
            raise ValueError("a choice that is neither a minimum nor a maximum")
        bits = self._bits(second, True)
        kind = self.builder.half_vector if bits == 16 else self.builder.vector
        value = self.builder.intrinsic(
            f"llvm.{name}.v{self.builder.width}i{bits}", kind, [self.in_bits(bits), second.in_bits(bits)]
        )
        result = Narrow(self.builder, value, low, high)
        sums = self._summands
        if operator == ">" and sums is not None and sums[0].short and sums[1].short and second.constant:
            result._floored = (sums, second) if second.fits else None
        return result

    def __sub__(self, other: Lanes | int) -> Narrow:
        y = self._of(other)
        result = self._emit(self.builder.ir.sub, y, self.low - y.high, self.high - y.low)
        result._terms = self, y
        return result

    def __mul__(self, other: Lanes | int) -> Narrow:
        y = self._of(other)
        if self._condition is not None and y._condition is None:
            return y * self
        if y._condition is not None:
            bits = 16 if self.fits else 32
            zero = Narrow(self.builder, 0, 0, 0)
            value = self.builder.ir.select(y._condition[3], self.in_bits(bits), zero.in_bits(bits))
            result = Narrow(self.builder, value, min(0, self.low), max(0, self.high))
            result._gated = self, y._condition
            return result
        if y is self:
            largest = max(-self.low, self.high)
            square = self._emit(self.builder.ir.mul, y, max(0, self.low) ** 2, largest**2)
            square._root = self
            square._remember_factors(y, self)
            return square
        corners = [a * b for a in (self.low, self.high) for b in (y.low, y.high)]
        result = self._emit(self.builder.ir.mul, y, min(corners), max(corners))
        result._remember_factors(self, y)
        return result

    def _in_half(self) -> Narrow:
        return Narrow(self.builder, self.in_bits(16), self.low, self.high)

    def _remember_factors(self, a: Narrow, b: Narrow) -> None:
        if not self.builder.multiplies_halves or a.constant or b.constant:
            return
        if a.short and b.short:
            self._products = [(a, b)]
        if a.short or b.short:
            self._factors = (a, b) if b.short else (b, a)

    __rmul__ = __mul__

    def _shift_bits(self, y: Narrow, fits: bool) -> int:
        if not y.constant and not self.builder.shifts_halves:
            return 32
        return 16 if fits and self.fits and (self.halved or (self.constant and y.halved)) else 32

    def __lshift__(self, other: Lanes | int) -> Narrow:
        y = self._of(other)
        if y.low < 0 or y.high > 31:
            return self._emit(self.builder.ir.shl, y, LOW_32, HIGH_32, 32)
        corners = [a << b for a in (self.low, self.high) for b in (y.low, y.high)]
        low, high = min(corners), max(corners)
        bits = self._shift_bits(y, low >= LOW_16 and high <= HIGH_16)
        return self._emit(self.builder.ir.shl, y, low, high, bits)

    def __rshift__(self, other: Lanes | int) -> Narrow:
        y = self._of(other)
        if y.low < 0 or y.high > 31:
            return self._emit(self.builder.shifted_right, y, self.low, self.high, 32)
        corners = [a >> b for a in (self.low, self.high) for b in (y.low, y.high)]
        low, high = min(corners), max(corners)
        if y.value == 1 and self._summands is not None and not self.halved:
            a, b = self._summands
            if a._mirrored is not None and b._mirrored is not None:
                # Rounded up in the reverse order: one instruction of unsigned lanes.
                mean = self.builder.upper_mean(a._mirrored, b._mirrored)
                return Narrow.mirrored(Narrow(self.builder, mean, LOW_16, HIGH_16), low, high)
            if a.halved and b.halved and low >= LOW_16 and high <= HIGH_16:
                emit = self.builder.ir
                half = emit.ashr(emit.xor(a.value, b.value), ir.Constant(a.value.type, [1] * self.builder.width))
                return Narrow(self.builder, emit.add(emit.and_(a.value, b.value), half), low, high)
        bits = self._shift_bits(y, True)
        shift = self.builder.ir.ashr if y.constant or bits == 16 else self.builder.shifted_right
        result = self._emit(shift, y, low, high, bits)
        if self._summands is not None and 0 < y.low == y.high <= 16:
            product, half = self._summands
            if product._factors is not None and half.constant and half.low == 1 << (y.low - 1):
                result._rounded = *product._factors, y.low
        return result

    def __and__(self, other: Lanes | int) -> Narrow:
        y = self._of(other)
        ends = [v.high for v in (self, y) if v.low >= 0]
        low, high = (0, min(ends)) if ends else (LOW_32, HIGH_32)
        return self._emit(self.builder.ir.and_, y, low, high)

    def __or__(self, other: Lanes | int) -> Narrow:
        y = self._of(other)
        low, high = LOW_32, HIGH_32
        if self.low >= 0 and y.low >= 0:
            low, high = 0, (1 << max(self.high.bit_length(), y.high.bit_length())) - 1
        return self._emit(self.builder.ir.or_, y, low, high)

    def __xor__(self, other: Lanes | int) -> Narrow:
        return self._emit(self.builder.ir.xor, self._of(other), LOW_16, HIGH_16, 16)

    def _float(self) -> ir.Value:
        return self.builder.ir.sitofp(self.in_bits(32), ir.VectorType(FLOAT, self.builder.width))

    def __floordiv__(self, other: Lanes | int) -> Narrow:
        # Both operands are below 2**24 (the law of `arith`): the float quotient, truncated, is the integer quotient.
        y = self._of(other)
        emit = self.builder.ir
        if (
            self.builder.looks_up
            and self.constant
            and y._root is not None
            and y._root.low >= 0
            and y._root.high < LOOKUP_ENTRIES
        ):
            # Few enough to look them up; below the least root nothing is asked, and at 0 nothing is defined.
            least, most = max(1, y._root.low), y._root.high
            table = [self.low // (root if root >= least else most) ** 2 for root in range(LOOKUP_ENTRIES)]
            if max(table) <= HIGH_16:
                looked_up = self.builder.lookup(table, y._root.in_bits(16))
                return Narrow(self.builder, looked_up, table[most], table[least])
        value = emit.fptosi(emit.fdiv(self._float(), y._float()), self.builder.vector)
        return Narrow(self.builder, value, max(0, self.low) // max(1, y.high), self.high // max(1, y.low))

    def __abs__(self) -> Narrow:
        if self.low >= 0:
            return self
        bits = 16 if self.halved and self.low > LOW_16 else 32
        value, zero = self.in_bits(bits), Narrow(self.builder, 0, 0, 0).in_bits(bits)
        emit = self.builder.ir
        magnitude = emit.select(emit.icmp_signed("<", value, zero), emit.sub(zero, value), value)
        return Narrow(self.builder, magnitude, 0 if self.high >= 0 else -self.high, max(-self.low, self.high))

    def _compare(self, operator: str, other: Lanes | int) -> Narrow:
        y = self._of(other)
        spare = self.high.bit_length() - HIGH_16.bit_length()
        if spare > 0 and self.low >= 0 and y.constant and operator == ">=" and y.low % (1 << spare) == 0 and y.low >= 0:
            # Nothing of what the bits below say is asked.
            return (self >> spare).known(0, HIGH_16)._in_half()._compare(operator, y.low >> spare)
        bits = self._bits(y, True)
        condition = self.builder.ir.icmp_signed(operator, self.in_bits(bits), y.in_bits(bits))
        result = Narrow(self.builder, self.builder.ir.zext(condition, self.builder.half_vector), 0, 1)
        result._condition = operator, self, y, condition
        return result

    def known(self, low: int, high: int) -> Narrow:
        """This, in lanes of 32 bits or 16 as it is, where it is proved to lie in ``[low, high]``."""
        low, high = max(low, self.low), min(high, self.high)
        if self._rounded is not None and low >= LOW_16 and high <= HIGH_16:
            return Narrow(self.builder, scaled_product(self.builder, *self._rounded), low, high)
        return Narrow(self.builder, self.value, low, high)

    def floor_log2(self) -> Narrow:
        """What `arith.fixed.floor_log2` gives: the highest bit, or the exponent of the value as a float, exact below
        ``2**24``."""
        if self.builder.counts_zeros:
            name, emit = f"llvm.ctlz.v{self.builder.width}i32", self.builder.ir
            zeros = self.builder.intrinsic(name, self.builder.vector, [self.in_bits(32), ir.Constant(I1, 1)])
            highest = emit.sub(ir.Constant(self.builder.vector, [31] * self.builder.width), zeros)
            return Narrow(self.builder, highest, max(self.low, 1).bit_length() - 1, max(self.high, 1).bit_length() - 1)
        eighths = self.log2_eighths()
        return eighths >> 3

    def log2_eighths(self) -> Narrow:
        """What `arith.fixed.log2_eighths` gives: a float's exponent and first bits of mantissa, one after the other."""
        emit = self.builder.ir
        bits = emit.bitcast(self._float(), self.builder.vector)
        shift = ir.Constant(self.builder.vector, [FLOAT_MANTISSA - 3] * self.builder.width)
        one = ir.Constant(self.builder.vector, [FLOAT_EIGHTHS_OF_ONE] * self.builder.width)
        low, high = (int(log2_eighths(min(max(1, end), (1 << 24) - 1))) for end in (self.low, self.high))
        return Narrow(self.builder, emit.sub(emit.ashr(bits, shift), one), low, high)


def _same(a: Narrow | None, b: Narrow) -> bool:
    return a is b or (a is not None and a.constant and b.constant and a.value == b.value)

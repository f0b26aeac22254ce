"""Vectors of 32-bit lanes as Python values that emit LLVM: how the functions of `arith` become SIMD code.

A `Lanes` stands for `VectorBuilder.width` signed 32-bit integers, one per pixel. Its operators emit instructions, so
running a function of `arith` on it compiles that function: one source for the schoolbook and for AVX2, AVX-512 and
NEON. Numbers mix in as constants.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
POINTER = ir.PointerType()
FLOAT = ir.FloatType()


class Lanes:
    """A vector of 32-bit integers; operators emit code."""

    __array_ufunc__ = None

    def __init__(self, builder: VectorBuilder, value: ir.Value) -> None:
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
        return self.builder.lanes(other) - self

    def __mul__(self, other: Lanes | int) -> Lanes:
        b, x, y = self._both(other)
        return self._new(b.mul(x, y))

    __rmul__ = __mul__

    def __lshift__(self, other: Lanes | int) -> Lanes:
        b, x, y = self._both(other)
        return self._new(b.shl(x, y))

    def __rlshift__(self, other: int) -> Lanes:
        return self.builder.lanes(other) << self

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
        return self.builder.lanes(other) // self

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


class VectorBuilder:
    """Emits one function over vectors of `width` lanes: loads, stores, loops, and the dot products of `Lanes`."""

    def __init__(
        self, module: ir.Module, name: str, argument_types: Sequence[ir.Type], width: int, byte_dots: bool = False
    ) -> None:
        """`byte_dots`: multiply quads of bytes with one instruction (VNNI)."""
        self.width, self.byte_dots = width, byte_dots
        self.vector = ir.VectorType(I32, width)
        self.function = ir.Function(module, ir.FunctionType(ir.VoidType(), argument_types), name)
        for argument in self.function.args:
            if argument.type == POINTER:
                argument.add_attribute("noalias")
        self.ir = ir.IRBuilder(self.function.append_basic_block("entry"))

    @property
    def arguments(self) -> Sequence[ir.Value]:
        """The function's arguments."""
        return list(self.function.args)

    def lanes(self, value: Lanes | int) -> Lanes:
        """`value` as lanes; a number stands in every lane."""
        if isinstance(value, Lanes):
            return value
        return Lanes(self, ir.Constant(self.vector, [value] * self.width))

    def splat(self, scalar: ir.Value) -> Lanes:
        """A scalar i32 in every lane."""
        single = self.ir.insert_element(ir.Constant(self.vector, ir.Undefined), scalar, I32(0))
        order = ir.Constant(self.vector, [0] * self.width)
        return Lanes(self, self.ir.shuffle_vector(single, ir.Constant(self.vector, ir.Undefined), order))

    def scalar(self, value: int) -> ir.Constant:
        """A 64-bit constant for addresses."""
        return I64(value)

    def address(self, base: ir.Value, index: ir.Value, element: ir.Type) -> ir.Value:
        """``&base[index]`` for elements of that type."""
        return self.ir.gep(base, [index], source_etype=element)

    def load(self, base: ir.Value, index: ir.Value, element: ir.IntType, signed: bool = True) -> Lanes:
        """`width` consecutive elements, widened."""
        kind = ir.VectorType(element, self.width)
        value = self.ir.load(self.address(base, index, element), typ=kind, align=element.width // 8)
        if element.width < 32:
            value = self.ir.sext(value, self.vector) if signed else self.ir.zext(value, self.vector)
        return Lanes(self, value)

    def store(self, value: Lanes, base: ir.Value, index: ir.Value, element: ir.IntType) -> None:
        """`width` consecutive elements, narrowed."""
        data = value.value
        if element.width < 32:
            data = self.ir.trunc(data, ir.VectorType(element, self.width))
        self.ir.store(data, self.address(base, index, element), align=element.width // 8)

    def load_scalar(self, base: ir.Value, index: ir.Value) -> Lanes:
        """One i32 from memory in every lane."""
        return self.splat(self.ir.load(self.address(base, index, I32), typ=I32, align=4))

    @property
    def words_per_quad(self) -> int:
        """Words of 32 bits that the four weights of a quad take."""
        return 1 if self.byte_dots else 2

    def quad_parts(self, quad: Lanes) -> list[Lanes]:
        """Four unsigned bytes in each lane as `dot` wants them: as they are, or as pairs of even and of odd bytes."""
        if self.byte_dots:
            return [quad]
        return [quad & 0x00FF00FF, (quad >> 8) & 0x00FF00FF]

    def dot(self, total: Lanes, parts: Sequence[Lanes], weights: Sequence[Lanes]) -> Lanes:
        """``total`` plus the products of four unsigned bytes (`quad_parts`) with four weights."""
        if self.byte_dots:
            return self._dot_bytes(total, parts[0], weights[0])
        for pairs, pair_weights in zip(parts, weights, strict=True):
            total = self.dot_pairs(total, pairs, pair_weights)
        return total

    def _dot_bytes(self, total: Lanes, quads: Lanes, weights: Lanes) -> Lanes:
        name = f"llvm.x86.avx512.vpdpbusd.{32 * self.width}"
        module = self.function.module
        callee = module.globals.get(name) or ir.Function(module, ir.FunctionType(self.vector, [self.vector] * 3), name)
        return Lanes(self, self.ir.call(callee, [total.value, quads.value, weights.value]))

    def dot_pairs(self, total: Lanes, pairs: Lanes, weights: Lanes) -> Lanes:
        """``total + low * low + high * high`` where each lane holds two 16-bit integers."""
        halves = ir.VectorType(I16, 2 * self.width)
        name = {16: "llvm.x86.avx512.pmaddw.d.512", 8: "llvm.x86.avx2.pmadd.wd"}.get(self.width)
        if name is None:
            low = (pairs << 16 >> 16) * (weights << 16 >> 16)
            return total + low + (pairs >> 16) * (weights >> 16)
        module = self.function.module
        callee = module.globals.get(name) or ir.Function(module, ir.FunctionType(self.vector, [halves, halves]), name)
        both = [self.ir.bitcast(value.value, halves) for value in (pairs, weights)]
        return total + Lanes(self, self.ir.call(callee, both))

    @contextmanager
    def loop(self, count: ir.Value, carried: Sequence[Lanes] = ()) -> Iterator[tuple[ir.Value, list[Lanes], LoopEnd]]:
        """A loop ``for i in range(count)``: yields `i`, the carried vectors, and where to put their next values."""
        entry = self.ir.block
        body = self.function.append_basic_block("loop")
        done = self.function.append_basic_block("done")
        self.ir.cbranch(self.ir.icmp_signed(">", count, I64(0)), body, done)
        self.ir.position_at_end(body)
        index = self.ir.phi(I64)
        index.add_incoming(I64(0), entry)
        phis = [self.ir.phi(self.vector) for _ in carried]
        for phi, start in zip(phis, carried, strict=True):
            phi.add_incoming(start.value, entry)
        end = LoopEnd()
        yield index, [Lanes(self, phi) for phi in phis], end
        following = self.ir.add(index, I64(1))
        tail = self.ir.block
        index.add_incoming(following, tail)
        for phi, value in zip(phis, end.values, strict=True):
            phi.add_incoming(value.value, tail)
        self.ir.cbranch(self.ir.icmp_signed("<", following, count), body, done)
        self.ir.position_at_end(done)
        for start, value in zip(carried, end.values, strict=True):
            out = self.ir.phi(self.vector)
            out.add_incoming(start.value, entry)
            out.add_incoming(value.value, tail)
            end.results.append(Lanes(self, out))


class LoopEnd:
    """The carried values of a loop: set `values` inside, read `results` behind it."""

    def __init__(self) -> None:
        self.values: list[Lanes] = []
        self.results: list[Lanes] = []


VECTOR_WIDTHS = (4, 8, 16)


def host_width() -> int:
    """Lanes per vector on this machine: 16 with AVX-512, 8 with AVX2, else 4."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512bw"):
        return 16
    return 8 if features.get("avx2") else 4


def host_has_byte_dots(width: int) -> bool:
    """Whether this machine multiplies unsigned with signed bytes and adds four products in one instruction."""
    features = llvm.get_host_cpu_features()
    if width == 16:
        return bool(features.get("avx512vnni"))
    return width == 8 and bool(features.get("avx512vnni") and features.get("avx512vl"))


class CompiledModule:
    """Machine code for this machine; functions are known by address and live as long as this object."""

    def __init__(self, module: ir.Module) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        target = llvm.Target.from_default_triple()
        machine = target.create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
        )
        module.triple = llvm.get_default_triple()
        parsed = llvm.parse_assembly(str(module))
        parsed.verify()
        options = llvm.create_pipeline_tuning_options(speed_level=3)
        passes = llvm.create_pass_builder(machine, options)
        passes.getModulePassManager().run(parsed, passes)
        self._engine = llvm.create_mcjit_compiler(parsed, machine)
        self._engine.finalize_object()

    def address(self, name: str) -> int:
        """Where the function's code begins."""
        return int(self._engine.get_function_address(name))

    def function(self, name: str, argument_types: Sequence[Any]) -> Callable[..., None]:
        """The function as a ctypes callable; it runs without the GIL."""
        return ctypes.CFUNCTYPE(None, *argument_types)(self.address(name))

"""What every function over vectors is made of: lanes, loads, stores, loops, and what the machine can do.

`vector` adds the operations that more than one instruction is worth choosing for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from llvmlite import ir

from pilc_stream.backends.lanes import I16, I32, I64, POINTER, Lanes
from pilc_stream.backends.machine import host_permutes_bytes
from pilc_stream.backends.narrow import HIGH_16, HIGH_32, LOW_16, LOW_32, Narrow
from pilc_stream.backends.scalar import on_stack

VECTOR_WIDTHS = (1, 4, 8, 16)
"""Lanes of 32 bits that functions are emitted for; 1 is plain scalar code, and 4 needs nothing but what LLVM has for
every machine."""

ZMM_WIDTH, YMM_WIDTH = 16, 8


class Emitter:
    """Emits one function over vectors of `width` lanes."""

    def __init__(
        self,
        module: ir.Module,
        name: str,
        argument_types: Sequence[ir.Type],
        width: int,
        byte_dots: bool = False,
    ) -> None:
        """`byte_dots`: multiply quads of bytes with one instruction (VNNI)."""
        self.byte_dots = byte_dots
        self.function = ir.Function(module, ir.FunctionType(ir.VoidType(), argument_types), name)
        for argument in self.function.args:
            if argument.type == POINTER:
                argument.add_attribute("noalias")
        self.ir = ir.IRBuilder(self.function.append_basic_block("entry"))
        self._stack: dict[tuple[int, int], ir.Value] = {}
        self._set_width(width)

    def _set_width(self, width: int) -> None:
        self.width = width
        self.vector, self.half_vector = ir.VectorType(I32, width), ir.VectorType(I16, width)

    @contextmanager
    def lanes_of(self, width: int) -> Iterator[None]:
        """Emit for vectors of another width meanwhile."""
        usual = self.width
        self._set_width(width)
        yield
        self._set_width(usual)

    @property
    def shifts_halves(self) -> bool:
        """Whether lanes of 16 bits can be shifted by different amounts; AVX2 shifts lanes of 32 bits so, not of 16."""
        return self.width == ZMM_WIDTH

    @property
    def multiplies_halves(self) -> bool:
        """Whether products of lanes of 16 bits are worth adding in pairs and keeping in halves."""
        return self.width >= YMM_WIDTH

    @property
    def counts_zeros(self) -> bool:
        """Whether one instruction finds the highest bit of each lane."""
        return self.width == ZMM_WIDTH

    @property
    def _on_x86(self) -> bool:
        return bool(self.function.module.triple.startswith("x86_64"))

    @property
    def looks_up(self) -> bool:
        """Whether `lookup` is to be had: registers hold its table, and one instruction reads two of them."""
        return self.width == ZMM_WIDTH

    @property
    def looks_up_bytes(self) -> bool:
        """Whether one instruction reads a table of 128 bytes."""
        return self.byte_dots and self.looks_up and host_permutes_bytes()

    @property
    def arguments(self) -> Sequence[ir.Value]:
        """The function's arguments."""
        return list(self.function.args)

    def lanes(self, value: Lanes | int) -> Narrow:
        """`value` as lanes; a number stands in every lane."""
        if isinstance(value, Narrow):
            return value
        assert isinstance(value, int)
        return Narrow(self, value, value, value)

    def wide(self, value: ir.Value, low: int = LOW_32, high: int = HIGH_32) -> Narrow:
        """A vector of 32-bit lanes as lanes."""
        return Narrow(self, value, low, high)

    def intrinsic(self, name: str, kind: ir.Type, arguments: Sequence[ir.Value]) -> ir.Value:
        """Call an LLVM intrinsic."""
        module = self.function.module
        callee = module.globals.get(name)
        if callee is None:
            callee = ir.Function(module, ir.FunctionType(kind, [argument.type for argument in arguments]), name)
        return self.ir.call(callee, arguments)

    def splat(self, scalar: ir.Value) -> ir.Value:
        """A scalar in every lane."""
        kind = ir.VectorType(scalar.type, self.width)
        single = self.ir.insert_element(ir.Constant(kind, ir.Undefined), scalar, I32(0))
        order = ir.Constant(ir.VectorType(I32, self.width), [0] * self.width)
        return self.ir.shuffle_vector(single, ir.Constant(kind, ir.Undefined), order)

    def scalar(self, value: int) -> ir.Constant:
        """A 64-bit constant for addresses."""
        return I64(value)

    def address(self, base: ir.Value, index: ir.Value, element: ir.Type) -> ir.Value:
        """``&base[index]`` for elements of that type."""
        return self.ir.gep(base, [index], source_etype=element)

    def load(
        self,
        base: ir.Value,
        index: ir.Value,
        element: ir.IntType,
        signed: bool = True,
        limits: tuple[int, int] | None = None,
    ) -> Narrow:
        """`width` consecutive elements; `limits` where they are known to be narrower than the elements' type."""
        kind = ir.VectorType(element, self.width)
        value = self.ir.load(self.address(base, index, element), typ=kind, align=element.width // 8)
        if element.width == 32:
            return Narrow(self, value, *(limits or (LOW_32, HIGH_32)))
        if element.width == 16:
            if signed:
                return Narrow(self, value, *(limits or (LOW_16, HIGH_16)))
            return Narrow(self, self.ir.zext(value, self.vector), 0, 0xFFFF)
        value = (self.ir.sext if signed else self.ir.zext)(value, self.half_vector)
        return Narrow(self, value, *(limits or ((-128, 127) if signed else (0, 255))))

    def store(self, value: Narrow, base: ir.Value, index: ir.Value, element: ir.IntType) -> None:
        """`width` consecutive elements, narrowed."""
        if element.width == 8:
            data = value.value if value.halved else value.in_bits(32)
        elif element.width == 16 and not value.fits:
            data = value.in_bits(32)
        else:
            data = value.in_bits(element.width)
        if data.type.element != element:
            data = self.ir.trunc(data, ir.VectorType(element, self.width))
        self.ir.store(data, self.address(base, index, element), align=element.width // 8)

    def load_scalar(self, base: ir.Value, index: ir.Value) -> Narrow:
        """One i32 from memory in every lane."""
        return Narrow(self, self.splat(self.ir.load(self.address(base, index, I32), typ=I32, align=4)))

    def scratch_vectors(self, number: int, count: int = 1) -> ir.Value:
        """Memory for `count` vectors on the stack, the same for the same number and count."""
        key = number, count
        if key not in self._stack:
            self._stack[key] = on_stack(self.ir, ir.VectorType(I32, count * ZMM_WIDTH))
        return self._stack[key]

    @contextmanager
    def loop(self, count: ir.Value, carried: Sequence[Narrow] = ()) -> Iterator[tuple[ir.Value, list[Narrow], LoopEnd]]:
        """A loop ``for i in range(count)``: yields `i`, the carried vectors, and where to put their next values."""
        entry = self.ir.block
        body = self.function.append_basic_block("loop")
        done = self.function.append_basic_block("done")
        starts = [value.in_bits(32) for value in carried]
        self.ir.cbranch(self.ir.icmp_signed(">", count, I64(0)), body, done)
        self.ir.position_at_end(body)
        index = self.ir.phi(I64)
        index.add_incoming(I64(0), entry)
        phis = [self.ir.phi(self.vector) for _ in carried]
        for phi, start in zip(phis, starts, strict=True):
            phi.add_incoming(start, entry)
        end = LoopEnd()
        yield index, [self.wide(phi) for phi in phis], end
        following = self.ir.add(index, I64(1))
        tail = self.ir.block
        values = [value.in_bits(32) for value in end.values]
        index.add_incoming(following, tail)
        for phi, value in zip(phis, values, strict=True):
            phi.add_incoming(value, tail)
        self.ir.cbranch(self.ir.icmp_signed("<", following, count), body, done)
        self.ir.position_at_end(done)
        for start, value in zip(starts, values, strict=True):
            out = self.ir.phi(self.vector)
            out.add_incoming(start, entry)
            out.add_incoming(value, tail)
            end.results.append(self.wide(out))


class LoopEnd:
    """The carried values of a loop: set `values` inside, read `results` behind it."""

    def __init__(self) -> None:
        self.values: list[Narrow] = []
        self.results: list[Narrow] = []


def every_lane(kind: ir.VectorType, value: int) -> ir.Constant:
    """A number in each lane of a vector of that type."""
    return ir.Constant(kind, [value] * kind.count)

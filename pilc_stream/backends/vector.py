"""Functions over vectors, emitted as LLVM: loads, stores, loops and dot products of traced lanes.

One source for AVX2, AVX-512 and NEON: what LLVM has for all of them is emitted as such, and what only one has (dot
products of bytes, packing with saturation, gathers) comes with a form for the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from llvmlite import ir

from pilc_stream.backends.lanes import I1, I8, I16, I32, I64, POINTER, Lanes
from pilc_stream.backends.narrow import HIGH_16, HIGH_32, LOW_16, LOW_32, Narrow
from pilc_stream.backends.scalar import on_stack

VECTOR_WIDTHS = (1, 4, 8, 16)
"""Lanes of 32 bits that functions are emitted for; 1 is plain scalar code, and 4 needs nothing but what LLVM has for
every machine."""

ZMM_WIDTH, YMM_WIDTH = 16, 8


class VectorBuilder:
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
    def looks_up(self) -> bool:
        """Whether `lookup` is to be had: registers hold its table, and one instruction reads two of them."""
        return self.width == ZMM_WIDTH

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

    def pack_bytes(self, values: Sequence[Narrow]) -> Narrow:
        """Four values as the bytes of a lane, the lowest first: each in ``[0, 255]``, or each in ``[-128, 127]`` and
        then stored plus 128."""
        signed = any(value.low < 0 for value in values)
        values = [*values, *[self.lanes(-128 if signed else 0)] * (4 - len(values))]
        low, high = (
            self.ir.add(a.in_bits(16), self.ir.shl(b.in_bits(16), _constant(self.half_vector, 8)))
            for a, b in (values[:2], values[2:])
        )
        if signed:
            bias = _constant(self.half_vector, 0x8080 - (1 << 16))
            low, high = self.ir.add(low, bias), self.ir.add(high, bias)
        return self.wide(self._interleaved(low, high))

    def _interleaved(self, low: ir.Value, high: ir.Value) -> ir.Value:
        order = [k for pair in zip(range(self.width), range(self.width, 2 * self.width), strict=True) for k in pair]
        shuffled = self.ir.shuffle_vector(low, high, ir.Constant(ir.VectorType(I32, 2 * self.width), order))
        return self.ir.bitcast(shuffled, self.vector)

    def pack_saturated(self, values: Sequence[Narrow]) -> Narrow:
        """Four values of any size, each limited to ``[0, 255]``, as the bytes of a lane."""
        values = [*values, *[self.lanes(0)] * (4 - len(values))]
        names = (
            {
                ZMM_WIDTH: ("llvm.x86.avx512.packssdw.512", "llvm.x86.avx512.packuswb.512"),
                YMM_WIDTH: ("llvm.x86.avx2.packssdw", "llvm.x86.avx2.packuswb"),
            }.get(self.width)
            if self.function.module.triple.startswith("x86_64")
            else None
        )
        if names is None:
            limited = [_limited(value) for value in values]
            quad = limited[0].in_bits(32)
            for i, value in enumerate(limited[1:], 1):
                quad = self.ir.or_(quad, self.ir.shl(value.in_bits(32), _constant(self.vector, 8 * i)))
            return self.wide(quad)
        words, quads = ir.VectorType(I16, 2 * self.width), ir.VectorType(I8, 4 * self.width)
        a, b, c, d = (value.in_bits(32) for value in values)
        halves = [self.intrinsic(names[0], words, pair) for pair in ((a, b), (c, d))]
        planes = self.intrinsic(names[1], quads, halves)
        # Within each 128 bits: four bytes of each value in turn, to be dealt out.
        order = [16 * (k // 16) + 4 * (k % 4) + k % 16 // 4 for k in range(4 * self.width)]
        dealt = self.ir.shuffle_vector(planes, ir.Constant(quads, ir.Undefined), _integers(order))
        return self.wide(self.ir.bitcast(dealt, self.vector))

    def byte(self, value: Narrow, number: int) -> Narrow:
        """One byte of each lane."""
        shifted = self.ir.lshr(value.in_bits(32), _constant(self.vector, 8 * number))
        return self.wide(self.ir.and_(shifted, _constant(self.vector, 255)), 0, 255)

    @property
    def words_per_quad(self) -> int:
        """Words of 32 bits that the four weights of a quad take."""
        return 1 if self.byte_dots else 2

    def quad_parts(self, quad: Narrow) -> list[Narrow]:
        """Four unsigned bytes in each lane as `dot` wants them: as they are, or as pairs of even and of odd bytes."""
        if self.byte_dots:
            return [quad]
        return [quad & 0x00FF00FF, (quad >> 8) & 0x00FF00FF]

    def dot(self, total: Narrow, parts: Sequence[Narrow], weights: Sequence[Narrow]) -> Narrow:
        """``total`` plus the products of four unsigned bytes (`quad_parts`) with four weights."""
        if self.byte_dots:
            return self._dot_bytes(total, parts[0], weights[0])
        for pairs, pair_weights in zip(parts, weights, strict=True):
            total = self.dot_pairs(total, pairs, pair_weights)
        return total

    def _dot_bytes(self, total: Narrow, quads: Narrow, weights: Narrow) -> Narrow:
        name = f"llvm.x86.avx512.vpdpbusd.{32 * self.width}"
        arguments = [value.in_bits(32) for value in (total, quads, weights)]
        return self.wide(self.intrinsic(name, self.vector, arguments))

    def dot_pairs(self, total: Narrow, pairs: Narrow, weights: Narrow) -> Narrow:
        """``total + low * low + high * high`` where each lane holds two 16-bit integers."""
        halves = ir.VectorType(I16, 2 * self.width)
        name = {ZMM_WIDTH: "llvm.x86.avx512.pmaddw.d.512", YMM_WIDTH: "llvm.x86.avx2.pmadd.wd"}.get(self.width)
        a, b = pairs.in_bits(32), weights.in_bits(32)
        if name is None:
            low = [self.ir.ashr(self.ir.shl(v, _constant(self.vector, 16)), _constant(self.vector, 16)) for v in (a, b)]
            high = [self.ir.ashr(v, _constant(self.vector, 16)) for v in (a, b)]
            products = self.ir.add(self.ir.mul(*low), self.ir.mul(*high))
        else:
            products = self.intrinsic(name, self.vector, [self.ir.bitcast(v, halves) for v in (a, b)])
        return self.wide(self.ir.add(total.in_bits(32), products))

    def lookup(self, table: Sequence[int], index: ir.Value) -> ir.Value:
        """Entries of a table of 128 integers of 16 bits, for an index in lanes of 16 bits."""
        # The two halves of the table, each in two registers of 32 entries.
        words = ir.VectorType(I16, 2 * ZMM_WIDTH)
        order = _integers([k % ZMM_WIDTH for k in range(2 * ZMM_WIDTH)])
        wide = self.ir.shuffle_vector(index, ir.Constant(self.half_vector, ir.Undefined), order)
        quarters = [ir.Constant(words, list(table[first : first + 32])) for first in range(0, 128, 32)]
        name = "llvm.x86.avx512.vpermi2var.hi.512"
        low, high = (self.intrinsic(name, words, [quarters[k], wide, quarters[k + 1]]) for k in (0, 2))
        chosen = self.ir.select(self.ir.icmp_signed(">", wide, _constant(words, 63)), high, low)
        return self.ir.shuffle_vector(chosen, ir.Constant(words, ir.Undefined), _integers(list(range(ZMM_WIDTH))))

    def gather(self, base: ir.Value, index: ir.Value, scale: int) -> ir.Value:
        """The 32 bits at ``base + scale * index`` for each lane, of any alignment."""
        if self.width == ZMM_WIDTH:
            name = "llvm.x86.avx512.mask.gather.dpi.512"
            arguments = [_constant(self.vector, 0), base, index, self._everywhere(ZMM_WIDTH), I32(scale)]
            return self.intrinsic(name, self.vector, arguments)
        return self._gathered(base, index, scale, I32)

    def gather_pairs(self, base: ir.Value, index: ir.Value, scale: int) -> tuple[ir.Value, ir.Value]:
        """The 32 bits at ``base + scale * index``, and the next 32."""
        if self.width == ZMM_WIDTH:
            kind = ir.VectorType(I64, ZMM_WIDTH // 2)
            halves = []
            for first in (0, ZMM_WIDTH // 2):
                order = _integers(list(range(first, first + ZMM_WIDTH // 2)))
                some = self.ir.shuffle_vector(index, ir.Constant(self.vector, ir.Undefined), order)
                arguments = [_constant(kind, 0), base, some, self._everywhere(ZMM_WIDTH // 2), I32(scale)]
                loaded = self.intrinsic("llvm.x86.avx512.mask.gather.dpq.512", kind, arguments)
                halves.append(self.ir.bitcast(loaded, self.vector))
            low, high = (_integers([2 * k + part for k in range(ZMM_WIDTH)]) for part in (0, 1))
            return self.ir.shuffle_vector(*halves, low), self.ir.shuffle_vector(*halves, high)
        pairs = self._gathered(base, index, scale, I64)
        high_bits = self.ir.lshr(pairs, _constant(pairs.type, 32))
        return self.ir.trunc(pairs, self.vector), self.ir.trunc(high_bits, self.vector)

    @staticmethod
    def _everywhere(count: int) -> ir.Constant:
        return ir.Constant(ir.VectorType(I1, count), [1] * count)

    def _gathered(self, base: ir.Value, index: ir.Value, scale: int, element: ir.IntType) -> ir.Value:
        out: ir.Value = ir.Constant(ir.VectorType(element, self.width), ir.Undefined)
        for k in range(self.width):
            at = self.ir.mul(self.ir.sext(self.ir.extract_element(index, I32(k)), I64), I64(scale))
            value = self.ir.load(self.address(base, at, I8), typ=element, align=1)
            out = self.ir.insert_element(out, value, I32(k))
        return out

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


def _constant(kind: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def _integers(values: Sequence[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(I32, len(values)), list(values))


def _limited(value: Narrow) -> Narrow:
    from pilc_stream.arith.fixed import clamp

    result: Narrow = clamp(value, 0, 255)
    return result

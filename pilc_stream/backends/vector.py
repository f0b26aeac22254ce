"""Operations on vectors, emitted as LLVM, that an instruction is chosen for: packing, dot products, tables.

One source for AVX2, AVX-512 and NEON: what LLVM has for all of them is emitted as such, and what only one has (dot
products of bytes, packing with saturation, gathers) comes with a form for the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from pilc_stream.backends.emitter import YMM_WIDTH, ZMM_WIDTH, Emitter, every_lane
from pilc_stream.backends.lanes import I1, I8, I16, I32, I64
from pilc_stream.backends.narrow import Narrow


class VectorBuilder(Emitter):
    """Emits one function over vectors; adds packing, dot products and looks into tables."""

    def shifted_right(self, value: ir.Value, amount: ir.Value) -> ir.Value:
        """Lanes of 32 bits, shifted by as many bits each as `amount` says, copying the sign.

        Asked for by name, since LLVM fetches an amount that is the same for all lanes into a register of its own.
        """
        name = {ZMM_WIDTH: "llvm.x86.avx512.psrav.d.512", YMM_WIDTH: "llvm.x86.avx2.psrav.d.256"}.get(self.width)
        if name is None or not self._on_x86:
            return self.ir.ashr(value, amount)
        return self.intrinsic(name, self.vector, [value, amount])

    def upper_mean(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """``(a + b + 1) >> 1`` of unsigned lanes of 16 bits, which processors have an instruction for."""
        total = self.ir.add(self.ir.zext(a, self.vector), self.ir.zext(b, self.vector))
        half = self.ir.lshr(self.ir.add(total, every_lane(self.vector, 1)), every_lane(self.vector, 1))
        return self.ir.trunc(half, self.half_vector)

    def pack_bytes(self, values: Sequence[Narrow]) -> Narrow:
        """Four values as the bytes of a lane, the lowest first: each in ``[0, 255]``, or each in ``[-128, 127]`` and
        then stored plus 128."""
        signed = any(value.low < 0 for value in values)
        values = [*values, *[self.lanes(-128 if signed else 0)] * (4 - len(values))]
        low, high = (
            self.ir.add(a.in_bits(16), self.ir.shl(b.in_bits(16), every_lane(self.half_vector, 8)))
            for a, b in (values[:2], values[2:])
        )
        if signed:
            bias = every_lane(self.half_vector, 0x8080 - (1 << 16))
            low, high = self.ir.add(low, bias), self.ir.add(high, bias)
        return self.wide(self._interleaved(low, high))

    def paired(self, low: ir.Value, high: ir.Value) -> Narrow:
        """Two vectors of 16-bit lanes as lanes of 32 bits, as `dot_pairs` wants them."""
        return self.wide(self._interleaved(low, high))

    def _interleaved(self, low: ir.Value, high: ir.Value) -> ir.Value:
        order = [k for pair in zip(range(self.width), range(self.width, 2 * self.width), strict=True) for k in pair]
        if self.width == ZMM_WIDTH:
            # As a shuffle, LLVM fills the upper half of a register first.
            words = ir.VectorType(I16, 2 * ZMM_WIDTH)
            index = self._kept("interleaving", words, [k + ZMM_WIDTH * (k >= ZMM_WIDTH) for k in order])
            arguments = [self._in_full_register(low), index, self._in_full_register(high)]
            shuffled = self.intrinsic("llvm.x86.avx512.vpermi2var.hi.512", words, arguments)
            return self.ir.bitcast(shuffled, self.vector)
        shuffled = self.ir.shuffle_vector(low, high, ir.Constant(ir.VectorType(I32, 2 * self.width), order))
        return self.ir.bitcast(shuffled, self.vector)

    def _in_full_register(self, half: ir.Value) -> ir.Value:
        """Lanes of 16 bits in the lower half of a register; the upper half may hold anything."""
        order = [min(k, ZMM_WIDTH) for k in range(2 * ZMM_WIDTH)]
        return self.ir.shuffle_vector(half, ir.Constant(self.half_vector, ir.Undefined), _integers(order))

    def _kept(self, name: str, kind: ir.VectorType, values: Sequence[int]) -> ir.Value:
        """A vector of numbers that LLVM does not know, so that it does not choose another instruction for them."""
        module = self.function.module
        place = module.globals.get(name)
        if place is None:
            place = ir.GlobalVariable(module, kind, name)
            place.initializer = ir.Constant(kind, list(values))
        return self.ir.load(place, typ=kind, align=64)

    def pack_saturated(self, values: Sequence[Narrow]) -> Narrow:
        """Four values of any size, each limited to ``[0, 255]``, as the bytes of a lane."""
        values = [*values, *[self.lanes(0)] * (4 - len(values))]
        names = (
            {
                ZMM_WIDTH: ("llvm.x86.avx512.packssdw.512", "llvm.x86.avx512.packuswb.512"),
                YMM_WIDTH: ("llvm.x86.avx2.packssdw", "llvm.x86.avx2.packuswb"),
            }.get(self.width)
            if self._on_x86
            else None
        )
        if names is None:
            limited = [_limited(value) for value in values]
            quad = limited[0].in_bits(32)
            for i, value in enumerate(limited[1:], 1):
                quad = self.ir.or_(quad, self.ir.shl(value.in_bits(32), every_lane(self.vector, 8 * i)))
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
        shifted = self.ir.lshr(value.in_bits(32), every_lane(self.vector, 8 * number))
        return self.wide(self.ir.and_(shifted, every_lane(self.vector, 255)), 0, 255)

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
            bits = every_lane(self.vector, 16)
            low = [self.ir.ashr(self.ir.shl(v, bits), bits) for v in (a, b)]
            high = [self.ir.ashr(v, bits) for v in (a, b)]
            products = self.ir.add(self.ir.mul(*low), self.ir.mul(*high))
        else:
            products = self.intrinsic(name, self.vector, [self.ir.bitcast(v, halves) for v in (a, b)])
        return self.wide(self.ir.add(total.in_bits(32), products))

    def lookup(self, table: Sequence[int], index: ir.Value) -> ir.Value:
        """Entries of a table of 128 integers of 16 bits, for an index in lanes of 16 bits."""
        least = min(table)
        if self.looks_up_bytes and max(table) - least < 256 and table[0] == least:
            # The upper byte of each lane is 0, and so is what it looks up.
            return self._lookup_bytes([value - least for value in table], index, least)
        # The two halves of the table, each in two registers of 32 entries.
        words = ir.VectorType(I16, 2 * ZMM_WIDTH)
        order = _integers([k % ZMM_WIDTH for k in range(2 * ZMM_WIDTH)])
        wide = self.ir.shuffle_vector(index, ir.Constant(self.half_vector, ir.Undefined), order)
        quarters = [ir.Constant(words, list(table[first : first + 32])) for first in range(0, 128, 32)]
        name = "llvm.x86.avx512.vpermi2var.hi.512"
        low, high = (self.intrinsic(name, words, [quarters[k], wide, quarters[k + 1]]) for k in (0, 2))
        chosen = self.ir.select(self.ir.icmp_signed(">", wide, every_lane(words, 63)), high, low)
        return self._lower_half(chosen)

    def permuted(self, base: ir.Value, index: ir.Value, first: int) -> ir.Value:
        """Entries of a table of 32 integers of 16 bits in memory, for an index in lanes of 16 bits."""
        words = ir.VectorType(I16, 2 * ZMM_WIDTH)
        table = self.ir.load(self.address(base, I64(first), I16), typ=words, align=2)
        name = "llvm.x86.avx512.permvar.hi.512"
        found = self.intrinsic(name, words, [table, self._in_full_register(index)])
        return self._lower_half(found)

    def _lower_half(self, words: ir.Value) -> ir.Value:
        return self.ir.shuffle_vector(words, ir.Constant(words.type, ir.Undefined), _integers(list(range(ZMM_WIDTH))))

    def _lookup_bytes(self, table: Sequence[int], index: ir.Value, more: int) -> ir.Value:
        """Entries of a table of 128 bytes in two registers, plus `more`."""
        quads = ir.VectorType(I8, 4 * ZMM_WIDTH)
        wide = self._in_full_register(index)
        low, high = (ir.Constant(quads, list(table[first : first + 64])) for first in (0, 64))
        name = "llvm.x86.avx512.vpermi2var.qi.512"
        found = self.intrinsic(name, quads, [low, self.ir.bitcast(wide, quads), high])
        words = self.ir.bitcast(found, ir.VectorType(I16, 2 * ZMM_WIDTH))
        return self.ir.add(self._lower_half(words), every_lane(self.half_vector, more))

    def gather(self, base: ir.Value, index: ir.Value, scale: int) -> ir.Value:
        """The 32 bits at ``base + scale * index`` for each lane, of any alignment."""
        if self.width == ZMM_WIDTH:
            name = "llvm.x86.avx512.mask.gather.dpi.512"
            arguments = [every_lane(self.vector, 0), base, index, self._everywhere(ZMM_WIDTH), I32(scale)]
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
                arguments = [every_lane(kind, 0), base, some, self._everywhere(ZMM_WIDTH // 2), I32(scale)]
                loaded = self.intrinsic("llvm.x86.avx512.mask.gather.dpq.512", kind, arguments)
                halves.append(self.ir.bitcast(loaded, self.vector))
            low, high = (_integers([2 * k + part for k in range(ZMM_WIDTH)]) for part in (0, 1))
            return self.ir.shuffle_vector(*halves, low), self.ir.shuffle_vector(*halves, high)
        pairs = self._gathered(base, index, scale, I64)
        high_bits = self.ir.lshr(pairs, every_lane(pairs.type, 32))
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


def _integers(values: Sequence[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(I32, len(values)), list(values))


def _limited(value: Narrow) -> Narrow:
    from pilc_stream.arith.fixed import clamp

    result: Narrow = clamp(value, 0, 255)
    return result

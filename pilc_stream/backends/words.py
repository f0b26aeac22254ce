"""Where the words of a step's symbols come from and go to: each lane's word is found by counting the lanes of its tile
before it that need one too.

In general a gather fetches them. Where a vector holds sixteen lanes of which each tile of the gang has as many, the
next words of each tile are read as they lie and dealt to the lanes by one permutation.
"""

from __future__ import annotations

from typing import Protocol

from llvmlite import ir

from pilc_stream.arith.rans import SLOT_MASK
from pilc_stream.backends.block import Frame
from pilc_stream.backends.emitter import ZMM_WIDTH
from pilc_stream.backends.lanes import I16, I32, I64
from pilc_stream.backends.scalar import Index
from pilc_stream.backends.vector import VectorBuilder


class Words(Protocol):
    """The words of vectors that are decoded one after the other."""

    def take(self, needed: ir.Value) -> ir.Value:
        """A word for each lane that needs one, in 32 bits; anything for the others."""

    def keep(self) -> None:
        """Write back where the tiles are up to."""


class WordAt:
    """Where the words of a vector's tiles are up to: `value`, taken from memory and kept there in the end."""

    def __init__(self, builder: VectorBuilder, frame: Frame, element: Index) -> None:
        self._builder, self._frame, self._base = builder, frame, frame.pointer("word_at")
        self._index = (element & (frame.number("word_period") - 1)).value
        self.value = builder.load(self._base, self._index, I32).value

    def take(self, needed: ir.Value) -> ir.Value:
        """See `Words`."""
        b, builder, frame = self._builder.ir, self._builder, self._frame
        rank, taken = word_ranks(builder, frame, needed)
        position = b.add(self.value, rank)
        self.value = b.add(self.value, taken)
        limit = builder.splat(b.trunc(frame.values["last_word"], I32))
        position = b.select(b.icmp_signed(">", position, limit), limit, position)
        return b.and_(builder.gather(frame.pointer("words"), position, 2), all_lanes(builder, SLOT_MASK))

    def keep(self) -> None:
        """See `Words`."""
        store_lanes(self._builder, self.value, self._base, self._index)


class DealtWords:
    """The words of a gang of 1, 2 or 4 tiles, of which each has as many lanes in a vector as the others.

    Behind the last word there must be `base.WORDS_BEHIND` more.
    """

    def __init__(self, builder: VectorBuilder, frame: Frame, gang: int) -> None:
        self._builder, self._frame, self._gang = builder, frame, gang
        b = builder.ir
        self._starts = [
            b.sext(b.load(builder.address(frame.pointer("word_at"), I64(g), I32), typ=I32, align=4), I64)
            for g in range(gang)
        ]
        # A damaged stream may want words behind the last: those that these vectors want are there to read.
        last = frame.values["last_word"]
        at = [b.select(b.icmp_signed(">", start, last), last, start) for start in self._starts]
        self._addresses = [builder.address(frame.pointer("words"), place, I16) for place in at]
        self._taken: list[ir.Value] = [I64(0)] * gang

    def take(self, needed: ir.Value) -> ir.Value:
        """See `Words`."""
        b, builder, gang = self._builder.ir, self._builder, self._gang
        lanes, each = range(ZMM_WIDTH), ZMM_WIDTH // gang
        parts = []
        mask = b.bitcast(needed, I16)
        for g in range(gang):
            # Four words are one number, so that all are put together by whole numbers.
            kind = ir.VectorType(I64, each // 4)
            parts.append(b.load(builder.address(self._addresses[g], self._taken[g], I16), typ=kind, align=2))
            own = b.and_(mask, I16(sum(1 << lane for lane in lanes if lane % gang == g)))
            count = builder.intrinsic("llvm.ctpop.i16", I16, [own])
            self._taken[g] = b.add(self._taken[g], b.zext(count, I64))
        while len(parts) > 1:
            order = ir.Constant(ir.VectorType(I32, 2 * parts[0].type.count), list(range(2 * parts[0].type.count)))
            parts = [b.shuffle_vector(low, high, order) for low, high in zip(parts[::2], parts[1::2], strict=True)]
        words = b.zext(b.bitcast(parts[0], builder.half_vector), builder.vector)
        before = [sum(1 << other for other in range(lane % gang, lane, gang)) for lane in lanes]
        bits = b.and_(builder.splat(b.zext(mask, I32)), ir.Constant(builder.vector, before))
        rank = builder.intrinsic("llvm.ctpop.v16i32", builder.vector, [bits])
        place = b.add(rank, ir.Constant(builder.vector, [lane % gang * each for lane in lanes]))
        return builder.intrinsic("llvm.x86.avx512.permvar.si.512", builder.vector, [words, place])

    def keep(self) -> None:
        """See `Words`."""
        b, builder = self._builder.ir, self._builder
        for g, (start, taken) in enumerate(zip(self._starts, self._taken, strict=True)):
            place = builder.address(self._frame.pointer("word_at"), I64(g), I32)
            b.store(b.trunc(b.add(start, taken), I32), place, align=4)


def word_ranks(builder: VectorBuilder, frame: Frame, needed: ir.Value) -> tuple[ir.Value, ir.Value]:
    """How many lanes of its tile before each lane need a word too, and how many words the tile takes."""
    b = builder.ir
    mask = mask_of(builder, needed)
    bits = builder.splat(mask if builder.width == 32 else b.zext(mask, I32))
    below, group = (b.and_(bits, builder.load(frame.pointer(table), I64(0), I32).value) for table in ("below", "group"))
    name = f"llvm.ctpop.v{builder.width}i32"
    return builder.intrinsic(name, builder.vector, [below]), builder.intrinsic(name, builder.vector, [group])


def mask_of(builder: VectorBuilder, truths: ir.Value) -> ir.Value:
    """Truths as the bits of a number."""
    return builder.ir.bitcast(truths, ir.IntType(builder.width))


def all_lanes(builder: VectorBuilder, value: int) -> ir.Constant:
    """A number in every lane."""
    return ir.Constant(builder.vector, [value] * builder.width)


def store_lanes(builder: VectorBuilder, value: ir.Value, base: ir.Value, index: ir.Value) -> None:
    """Write a vector of 32-bit lanes."""
    builder.ir.store(value, builder.address(base, index, I32), align=4)

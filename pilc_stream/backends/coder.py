"""Coding the symbols of a gang's pixels: intervals while the pixels are walked, then all of them in reverse.

What states and words are, and what decoding shares, is told in `decoding`.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from pilc_stream.arith.context import CHANNELS
from pilc_stream.arith.perceptron import MEAN_HIGH, MEAN_LOW, mean_centre, residual_symbol
from pilc_stream.arith.rans import PRECISION_BITS, SLOT_MASK, WORD_BITS
from pilc_stream.backends.block import Block, Frame
from pilc_stream.backends.emitter import ZMM_WIDTH
from pilc_stream.backends.lanes import I8, I16, I32, I64
from pilc_stream.backends.layout import ScratchRows
from pilc_stream.backends.narrow import Narrow
from pilc_stream.backends.scalar import Index, counting, each_bit
from pilc_stream.backends.tables import LARGEST_INDEX, OCTAVE_BITS, OCTAVES, SYMBOL_BITS
from pilc_stream.backends.vector import VectorBuilder
from pilc_stream.backends.words import WordAt, all_lanes, mask_of, store_lanes, word_ranks


def whole_vectors(count: Index, width: int) -> Index:
    """`count` rounded up to whole vectors: what the intervals of a step's channel take."""
    return (count + (width - 1)) & -width


def put_intervals(builder: VectorBuilder, frame: Frame, rows: ScratchRows, c: Index) -> None:
    """Store the intervals of a channel of the step's known pixels: the last slot before each, and its own last slot.

    In a loop of its own, so that the processor looks up one vector's while those before it are on their way.
    """
    b, width, count, scratch = builder.ir, builder.width, frame.number("count"), frame.pointer("scratch")
    intervals = frame.number("interval_at") + whole_vectors(count, width) * c
    with counting(b, count, width) as element:
        start = element * rows.count + c * width
        index = builder.load(scratch, (start + rows.table_index * width).value, I16, True, (0, LARGEST_INDEX))
        row = row_start(builder, frame, index)
        mean = builder.load(scratch, (start + rows.means * width).value, I16, True, (MEAN_LOW, MEAN_HIGH))
        place = Block(builder, frame, rows, element).ring_index(CHANNELS, c, 0, 0)
        pixel = builder.load(frame.pointer("pixels"), place.value, I8, False)
        symbol = residual_symbol(pixel, mean_centre(mean))
        interval = builder.gather(frame.pointer("lasts"), b.add(row, symbol.in_bits(32)), 2)
        store_lanes(builder, interval, frame.pointer("intervals"), (intervals + element).value)


def row_start(builder: VectorBuilder, frame: Frame, index: Narrow) -> ir.Value:
    """The first entries of the table rows of indices."""
    b = builder.ir
    if builder.width != ZMM_WIDTH:
        return builder.gather(frame.pointer("rows"), index.in_bits(32), 4)
    octave = b.lshr(index.in_bits(16), ir.Constant(builder.half_vector, [OCTAVE_BITS] * builder.width))
    shift, offset = (builder.permuted(frame.pointer("steps"), octave, k * OCTAVES) for k in (0, 1))
    row = b.add(b.lshr(index.in_bits(16), shift), offset)
    return b.shl(b.zext(row, builder.vector), all_lanes(builder, SYMBOL_BITS))


def encode(builder: VectorBuilder, frame: Frame, at: Index, element: Index, stack: Sequence[ir.Value]) -> None:
    """Code the intervals from `at` on, which belong to the step's elements from `element` on, before all coded so far.

    Words are put in front of those at `word_at`. `stack`: two vectors in memory.
    """
    b = builder.ir
    inside = inside_lanes(builder, frame.number("count") - element)
    state_at = (element & (frame.number("lanes") - 1)).value
    before_state = builder.load(frame.pointer("lane_states"), state_at, I32).value
    interval = builder.load(frame.pointer("intervals"), at.value, I32).value
    before, last = b.and_(interval, all_lanes(builder, SLOT_MASK)), b.lshr(interval, all_lanes(builder, 16))
    # Lanes behind the last pixel get a frequency that nothing can be wrong with.
    frequency = b.select(inside, b.and_(b.sub(last, before), all_lanes(builder, SLOT_MASK)), all_lanes(builder, 1))
    start = b.and_(b.add(before, all_lanes(builder, 1)), all_lanes(builder, SLOT_MASK))
    emits = b.icmp_unsigned(">=", before_state, b.shl(frequency, all_lanes(builder, WORD_BITS)))
    emits = b.and_(emits, inside)
    words = WordAt(builder, frame, element)
    rank, taken = word_ranks(builder, frame, emits)
    words.value = b.sub(words.value, taken)
    position = b.add(words.value, rank)
    store_lanes(builder, position, stack[0], I64(0))
    store_lanes(builder, before_state, stack[1], I64(0))
    with each_bit(b, mask_of(builder, emits)) as lane:
        place = b.load(builder.address(stack[0], lane.value, I32), typ=I32, align=4)
        low = b.load(builder.address(stack[1], lane.value, I32), typ=I32, align=4)
        address = builder.address(frame.pointer("words"), b.sext(place, I64), I16)
        b.store(b.trunc(low, I16), address, align=2)
    state = b.select(emits, b.lshr(before_state, all_lanes(builder, WORD_BITS)), before_state)
    # A double holds both exactly, and their quotient, below 2**16, is far enough from the next whole number.
    doubles = ir.VectorType(ir.DoubleType(), builder.width)
    quotient = b.fptoui(b.fdiv(b.uitofp(state, doubles), b.uitofp(frequency, doubles)), builder.vector)
    rest = b.add(b.sub(state, b.mul(quotient, frequency)), start)
    coded = b.add(b.shl(quotient, all_lanes(builder, PRECISION_BITS)), rest)
    store_lanes(builder, b.select(inside, coded, before_state), frame.pointer("lane_states"), state_at)
    words.keep()


def inside_lanes(builder: VectorBuilder, left: Index) -> ir.Value:
    """Which lanes are pixels of the step, if there are `left` from the first lane on."""
    lane = ir.Constant(builder.vector, list(range(builder.width)))
    return builder.ir.icmp_signed("<", lane, builder.splat(builder.ir.trunc(left.value, I32)))

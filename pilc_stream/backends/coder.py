"""The rANS coder of a gang: as many lanes at once as a vector has, or as the gang has if these are fewer.

The elements of a step are numbered by pixel, then by tile, so that the state of element `e` is the one at ``e mod
lanes``, where `lanes` (a power of two) counts the rANS lanes of all tiles of the gang: those of a vector are
consecutive and different. Words are shared by the lanes of a tile, so each lane's word is found by counting the lanes
of the same tile before it (`below`) that need one too; `group` holds all lanes of the tile.

A table row is kept as the last slot of each symbol's interval, all rows one after the other and a 65535 before the
first: an interval begins behind the last slot of the symbol before it, and 0 is what comes behind 65535. The symbol of
a slot is found through its high byte, which says where to begin (`symbols`), and a look at the next three intervals;
the few slots beyond them are searched sixteen intervals at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from pilc_stream.arith.context import CHANNELS
from pilc_stream.arith.perceptron import MEAN_HIGH, MEAN_LOW, mean_centre, residual_symbol, symbol_pixel
from pilc_stream.arith.rans import PRECISION_BITS, SLOT_MASK, STATE_LOW, WORD_BITS
from pilc_stream.backends.block import Block, Frame
from pilc_stream.backends.lanes import I8, I16, I32, I64
from pilc_stream.backends.narrow import Narrow
from pilc_stream.backends.scalar import Index, each_bit
from pilc_stream.backends.vector import VectorBuilder

SYMBOLS = 256
BUCKET_BITS = 8
"""Slots are looked up by so many of their high bits."""

LOOK_AHEAD = 16
"""Intervals searched at once beyond the first look."""

LARGEST_INDEX = SYMBOLS * 16 - 1


class Tables:
    """A model's distributions as the coder reads them.

    `rows` int32 `(scales * 16,)`: the first entry of the table row of a scale and fraction. `lasts` uint16: see above.
    `symbols` uint8: for each row and high byte of a slot, the symbol of the first slot with that byte.
    """

    def __init__(self, cdf: NDArray[np.uint16], row_of: NDArray[np.uint16]) -> None:
        count = len(cdf)
        ends = np.concatenate([cdf[:, 1:].astype(np.int64), np.full((count, 1), 1 << PRECISION_BITS)], axis=1)
        # A first look and a search read behind the last row, whatever stands there.
        self.lasts = np.concatenate([[SLOT_MASK], (ends - 1).reshape(-1), np.zeros(LOOK_AHEAD + 4)]).astype(np.uint16)
        firsts = np.arange(0, 1 << PRECISION_BITS, 1 << (PRECISION_BITS - BUCKET_BITS))
        symbols = np.stack([np.searchsorted(row, firsts, side="right") - 1 for row in cdf.astype(np.int64)])
        self.symbols = np.concatenate([symbols.reshape(-1), np.zeros(4)]).astype(np.uint8)
        self.rows = row_of.reshape(-1).astype(np.int32) * SYMBOLS


def decode(builder: VectorBuilder, block: Block, c: Index, width: int, at: Index) -> None:
    """Decode `width` pixels of a channel, the block's from `at` on, into the ring."""
    # Rows of scratch are as wide as the block's vectors.
    table_index = block.row_index(block.rows.table_index) + at
    mean = block.row_index(block.rows.means) + c * builder.width + at
    with builder.lanes_of(width):
        _decode(builder, block, c, at, (table_index, mean))


def _decode(builder: VectorBuilder, block: Block, c: Index, at: Index, places: tuple[Index, Index]) -> None:
    b, frame = builder.ir, block.frame
    element = block.first + at
    inside = _inside(builder, frame.number("count") - element)
    state_at = (element & (frame.number("lanes") - 1)).value
    state = builder.load(frame.pointer("lane_states"), state_at, I32).value
    scratch = frame.pointer("scratch")
    index = builder.load(scratch, places[0].value, I16, True, (0, LARGEST_INDEX))
    row = builder.gather(frame.pointer("rows"), index.in_bits(32), 4)
    slot = b.and_(state, _all(builder, SLOT_MASK))
    bucket = b.lshr(slot, _all(builder, PRECISION_BITS - BUCKET_BITS))
    symbol = b.and_(builder.gather(frame.pointer("symbols"), b.add(row, bucket), 1), _all(builder, SYMBOLS - 1))

    # Before the symbol's interval, its own, and the next two.
    entry = b.add(row, symbol)
    first, second = builder.gather_pairs(frame.pointer("lasts"), entry, 2)
    ends = [b.and_(first, _all(builder, SLOT_MASK)), b.lshr(first, _all(builder, 16)),
            b.and_(second, _all(builder, SLOT_MASK)), b.lshr(second, _all(builder, 16))]  # fmt: skip
    beyond = [b.icmp_unsigned(">", slot, end) for end in ends[1:]]
    beyond[1] = b.and_(beyond[0], beyond[1])
    missing = b.and_(b.and_(beyond[1], beyond[2]), inside)
    before, last = ends[0], ends[1]
    for step in (0, 1):
        before = b.select(beyond[step], ends[step + 1], before)
        last = b.select(beyond[step], ends[step + 2], last)
        symbol = b.add(symbol, b.zext(beyond[step], builder.vector))
    symbol, before, last = _search(builder, frame, missing, [symbol, before, last], row, slot)

    frequency = b.and_(b.sub(last, before), _all(builder, SLOT_MASK))
    offset = b.sub(b.sub(slot, before), _all(builder, 1))
    offset = b.and_(offset, _all(builder, SLOT_MASK))
    moved = b.add(b.mul(frequency, b.lshr(state, _all(builder, PRECISION_BITS))), offset)
    needed = b.and_(b.icmp_unsigned("<", moved, _all(builder, STATE_LOW)), inside)
    position, words_at, taken = _word_places(builder, frame, element, needed)
    limit = builder.splat(b.trunc(frame.values["last_word"], I32))
    position = b.select(b.icmp_signed(">", position, limit), limit, position)
    word = b.and_(builder.gather(frame.pointer("words"), position, 2), _all(builder, SLOT_MASK))
    moved = b.select(needed, b.or_(b.shl(moved, _all(builder, WORD_BITS)), word), moved)
    _store(builder, b.select(inside, moved, state), frame.pointer("lane_states"), state_at)
    _store(builder, b.add(words_at[0], taken), frame.pointer("word_at"), words_at[1])

    mean = builder.load(scratch, places[1].value, I16, True, (MEAN_LOW, MEAN_HIGH))
    value = symbol_pixel(Narrow(builder, symbol, 0, SYMBOLS - 1), mean_centre(mean))
    builder.store(value, frame.pointer("pixels"), (block.ring_index(CHANNELS, c, 0, 0) + at).value, I8)


def whole_vectors(count: Index, width: int) -> Index:
    """`count` rounded up to whole vectors: what the intervals of a step's channel take."""
    return (count + (width - 1)) & -width


def put_intervals(builder: VectorBuilder, block: Block, c: int) -> None:
    """Store the intervals of the block's known pixels: the last slot before each, and its own last slot."""
    b, frame = builder.ir, block.frame
    row = builder.gather(frame.pointer("rows"), block.get(block.rows.table_index, 0, LARGEST_INDEX).in_bits(32), 4)
    symbol = residual_symbol(block.pixel(c, 0, 0), mean_centre(block.mean(c)))
    interval = builder.gather(frame.pointer("lasts"), b.add(row, symbol.in_bits(32)), 2)
    place = frame.number("interval_at") + whole_vectors(frame.number("count"), builder.width) * c + block.first
    _store(builder, interval, frame.pointer("intervals"), place.value)


def encode(builder: VectorBuilder, frame: Frame, at: Index, element: Index, stack: Sequence[ir.Value]) -> None:
    """Code the intervals from `at` on, which belong to the step's elements from `element` on, before all coded so far.

    Words are put in front of those at `word_at`. `stack`: two vectors in memory.
    """
    b = builder.ir
    inside = _inside(builder, frame.number("count") - element)
    state_at = (element & (frame.number("lanes") - 1)).value
    before_state = builder.load(frame.pointer("lane_states"), state_at, I32).value
    interval = builder.load(frame.pointer("intervals"), at.value, I32).value
    before, last = b.and_(interval, _all(builder, SLOT_MASK)), b.lshr(interval, _all(builder, 16))
    # Lanes behind the last pixel get a frequency that nothing can be wrong with.
    frequency = b.select(inside, b.and_(b.sub(last, before), _all(builder, SLOT_MASK)), _all(builder, 1))
    start = b.and_(b.add(before, _all(builder, 1)), _all(builder, SLOT_MASK))
    emits = b.icmp_unsigned(">=", before_state, b.shl(frequency, _all(builder, WORD_BITS)))
    emits = b.and_(emits, inside)
    position, words_at, taken = _word_places(builder, frame, element, emits)
    position = b.sub(position, taken)
    _store(builder, position, stack[0], I64(0))
    _store(builder, before_state, stack[1], I64(0))
    with each_bit(b, _mask(builder, emits)) as lane:
        place = b.load(builder.address(stack[0], lane.value, I32), typ=I32, align=4)
        low = b.load(builder.address(stack[1], lane.value, I32), typ=I32, align=4)
        address = builder.address(frame.pointer("words"), b.sext(place, I64), I16)
        b.store(b.trunc(low, I16), address, align=2)
    state = b.select(emits, b.lshr(before_state, _all(builder, WORD_BITS)), before_state)
    # A double holds both exactly, and their quotient, below 2**16, is far enough from the next whole number.
    doubles = ir.VectorType(ir.DoubleType(), builder.width)
    quotient = b.fptoui(b.fdiv(b.uitofp(state, doubles), b.uitofp(frequency, doubles)), builder.vector)
    rest = b.add(b.sub(state, b.mul(quotient, frequency)), start)
    coded = b.add(b.shl(quotient, _all(builder, PRECISION_BITS)), rest)
    _store(builder, b.select(inside, coded, before_state), frame.pointer("lane_states"), state_at)
    _store(builder, b.sub(words_at[0], taken), frame.pointer("word_at"), words_at[1])


def _word_places(
    builder: VectorBuilder, frame: Frame, element: Index, needed: ir.Value
) -> tuple[ir.Value, tuple[ir.Value, ir.Value], ir.Value]:
    """Where each lane's word lies; its tile's place in the words and where that is kept; how many the tile takes."""
    b = builder.ir
    words_index = (element & (frame.number("word_period") - 1)).value
    words_at = builder.load(frame.pointer("word_at"), words_index, I32).value
    mask = _mask(builder, needed)
    bits = builder.splat(mask if builder.width == 32 else b.zext(mask, I32))
    ranks = []
    for table in ("below", "group"):
        members = builder.load(frame.pointer(table), I64(0), I32).value
        kind = builder.vector
        ranks.append(builder.intrinsic(f"llvm.ctpop.v{builder.width}i32", kind, [b.and_(bits, members)]))
    return b.add(words_at, ranks[0]), (words_at, words_index), ranks[1]


def _search(
    builder: VectorBuilder, frame: Frame, missing: ir.Value, found: Sequence[ir.Value], row: ir.Value, slot: ir.Value
) -> list[ir.Value]:
    """Symbols and intervals of the lanes that the first look missed, lane by lane."""
    b, function = builder.ir, builder.function
    mask = _mask(builder, missing)
    entry = b.block
    search, done = function.append_basic_block("search"), function.append_basic_block("found")
    b.cbranch(b.icmp_unsigned("!=", mask, ir.Constant(mask.type, 0)), search, done)
    b.position_at_end(search)
    memory = [builder.scratch_vector(k) for k in range(5)]
    for place, value in zip(memory, [*found, row, slot], strict=True):
        _store(builder, value, place, I64(0))
    with each_bit(b, mask) as lane:
        _search_lane(builder, frame, [builder.address(place, lane.value, I32) for place in memory])
    results = [b.load(place, typ=builder.vector, align=4) for place in memory[:3]]
    tail = b.block
    b.branch(done)
    b.position_at_end(done)
    out = []
    for before, after in zip(found, results, strict=True):
        phi = b.phi(builder.vector)
        phi.add_incoming(before, entry)
        phi.add_incoming(after, tail)
        out.append(phi)
    return out


def _search_lane(builder: VectorBuilder, frame: Frame, places: Sequence[ir.Value]) -> None:
    """Search on from the third symbol behind the first look's."""
    b, function = builder.ir, builder.function
    symbol, _, _, row, slot = (b.load(place, typ=I32, align=4) for place in places)
    begin = b.add(symbol, I32(1))
    kind = ir.VectorType(I16, LOOK_AHEAD)
    needle = b.trunc(slot, I16)
    single = b.insert_element(ir.Constant(kind, ir.Undefined), needle, I32(0))
    needles = b.shuffle_vector(
        single, ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(I32, LOOK_AHEAD), [0] * LOOK_AHEAD)
    )
    entry = b.block
    look, found = function.append_basic_block("look"), function.append_basic_block("lane_found")
    b.branch(look)
    b.position_at_end(look)
    from_symbol = b.phi(I32)
    from_symbol.add_incoming(begin, entry)
    # `lasts` has one entry before the first row.
    at = b.zext(b.add(b.add(row, from_symbol), I32(1)), I64)
    ends = b.load(builder.address(frame.pointer("lasts"), at, I16), typ=kind, align=2)
    less = b.bitcast(b.icmp_unsigned("<", ends, needles), I16)
    count = b.cttz(b.not_(less), ir.Constant(ir.IntType(1), 0))
    whole = b.icmp_unsigned("==", count, I16(LOOK_AHEAD))
    following = b.add(from_symbol, b.zext(count, I32))
    from_symbol.add_incoming(following, b.block)
    b.cbranch(whole, look, found)
    b.position_at_end(found)
    at = b.zext(b.add(row, following), I64)
    for k in (0, 1):
        end = b.load(builder.address(frame.pointer("lasts"), b.add(at, I64(k)), I16), typ=I16, align=2)
        b.store(b.zext(end, I32), places[1 + k], align=4)
    b.store(following, places[0], align=4)


def _inside(builder: VectorBuilder, left: Index) -> ir.Value:
    lane = ir.Constant(builder.vector, list(range(builder.width)))
    return builder.ir.icmp_signed("<", lane, builder.splat(builder.ir.trunc(left.value, I32)))


def _mask(builder: VectorBuilder, truths: ir.Value) -> ir.Value:
    return builder.ir.bitcast(truths, ir.IntType(builder.width))


def _all(builder: VectorBuilder, value: int) -> ir.Constant:
    return ir.Constant(builder.vector, [value] * builder.width)


def _store(builder: VectorBuilder, value: ir.Value, base: ir.Value, index: ir.Value) -> None:
    builder.ir.store(value, builder.address(base, index, I32), align=4)

"""Decoding symbols of a step: as many lanes at once as a vector has, or as the gang has if these are fewer.

The elements of a step are numbered by pixel, then by tile, so that the state of element `e` is the one at ``e mod
lanes``, where `lanes` (a power of two) counts the rANS lanes of all tiles of the gang: those of a vector are
consecutive and different. Words are shared by the lanes of a tile, so each lane's word is found by counting the lanes
of the same tile before it (`below`) that need one too; `group` holds all lanes of the tile.

A symbol waits for memory four times: for its row, for its bucket, for its intervals and for its word. So where there
are lanes enough, four vectors are decoded in one stream of instructions, stage by stage, and wait together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llvmlite import ir

from pilc_stream.arith.context import CHANNELS
from pilc_stream.arith.perceptron import MEAN_HIGH, MEAN_LOW, mean_centre, symbol_pixel
from pilc_stream.arith.rans import PRECISION_BITS, SLOT_MASK, STATE_LOW, WORD_BITS
from pilc_stream.backends.block import Block, Frame
from pilc_stream.backends.coder import inside_lanes, row_start
from pilc_stream.backends.emitter import ZMM_WIDTH
from pilc_stream.backends.lanes import I8, I16, I32, I64
from pilc_stream.backends.layout import ScratchRows
from pilc_stream.backends.narrow import Narrow
from pilc_stream.backends.scalar import Index, counting, each_bit
from pilc_stream.backends.tables import BUCKET_BITS, LARGEST_INDEX, LOOK_AHEAD, SYMBOLS
from pilc_stream.backends.vector import VectorBuilder
from pilc_stream.backends.words import DealtWords, WordAt, Words, all_lanes, mask_of, store_lanes

DEALT_GANGS = (4, 2, 1)


def decode_step(builder: VectorBuilder, frame: Frame, rows: ScratchRows, c: Index) -> None:
    """Decode a channel of all pixels of a step into the ring."""
    width, count, gang = builder.width, frame.number("count"), frame.number("gang")
    lanes = frame.number("lanes")
    if width == ZMM_WIDTH:
        for tiles in DEALT_GANGS:
            dealt = gang.equals(tiles) & lanes.equals(tiles * width)
            _decode_dealt(builder, frame, rows, c, tiles, count * dealt)
            lanes = lanes * (1 - dealt)
    done = count - count
    # As many vectors at once as their lanes are different, then one by one, then parts of vectors.
    for vectors, one_place in ((4, True), (2, True), (2, False), (1, True)):
        together = vectors * width
        suits = (
            (lanes >= together) & ((gang <= width) if one_place else (gang > width)) if vectors > 1 else lanes >= width
        )
        # Each vector but perhaps the last is whole.
        groups = ((count - done + (width - 1)) >> (together.bit_length() - 1)) * suits
        with counting(builder.ir, groups) as number:
            first = done + number * together
            elements = [first + k * width for k in range(vectors)]
            _decode(builder, frame, rows, c, elements, width, elements[:1] if one_place else elements)
        done = done + groups * together
    few = width >> 1
    while few:
        with counting(builder.ir, count * lanes.equals(few), few) as element:
            _decode(builder, frame, rows, c, [element], few, [element])
        few >>= 1


def _decode_dealt(
    builder: VectorBuilder, frame: Frame, rows: ScratchRows, c: Index, tiles: int, count: Index
) -> None:  # fmt: skip
    """Decode `count` pixels of a gang of so many tiles with sixteen lanes each."""
    width = builder.width
    left, first = (count + (width - 1)) >> (width.bit_length() - 1), count - count
    vectors = tiles
    while vectors:
        # Of the last four, three are decoded as four.
        groups = (left + int(vectors > 2)) >> (vectors.bit_length() - 1)
        with counting(builder.ir, groups) as number:
            start = first + number * (vectors * width)
            _decode(builder, frame, rows, c, [start + k * width for k in range(vectors)], width, tiles)
        first, left = first + groups * (vectors * width), left - groups * vectors
        left = left * (left > 0)
        vectors >>= 1


def _decode(
    builder: VectorBuilder, frame: Frame, rows: ScratchRows, c: Index, elements: Sequence[Index], lanes: int,
    words: int | Sequence[Index]
) -> None:  # fmt: skip
    """Decode vectors of so many lanes; `words`: the elements that say where vectors' words are, if there are fewer
    than vectors by turns; or how many tiles words are dealt to."""
    whole = builder.width
    with builder.lanes_of(lanes):
        vectors = [_Symbols(builder, frame, rows, c, element, whole) for element in elements]
        _in_turn([vector.look() for vector in vectors])
        _search(builder, frame, vectors)
        places: list[Words] = (
            [DealtWords(builder, frame, words)]
            if isinstance(words, int)
            else [WordAt(builder, frame, element) for element in words]
        )
        _in_turn([vector.finish(places[k % len(places)]) for k, vector in enumerate(vectors)])
        for place in places:
            place.keep()


def _in_turn(stages: Sequence[Iterator[None]]) -> None:
    """Emit the stages of several vectors by turns."""
    left = list(stages)
    while left:
        left = [stage for stage in left if next(stage, left) is not left]


class _Symbols:
    """A vector of symbols on the way."""

    def __init__(
        self, builder: VectorBuilder, frame: Frame, rows: ScratchRows, c: Index, element: Index, whole: int
    ) -> None:
        """`element`: the first, from the step's first; `whole`: lanes of the vectors that scratch is laid out for."""
        self._builder, self._frame, self._c, self._element = builder, frame, c, element
        lane = element & (whole - 1)
        start = (element - lane) * rows.count + lane
        self._table_index = start + (c + rows.table_index) * whole
        self._mean = start + (c + rows.means) * whole
        self._pixel = Block(builder, frame, rows, element).ring_index(CHANNELS, c, 0, 0)

    def look(self) -> Iterator[None]:
        """Symbols, frequencies and offsets as the first look finds them; `missing` where it does not."""
        builder, frame = self._builder, self._frame
        b, scratch = builder.ir, frame.pointer("scratch")
        self._inside = inside_lanes(builder, frame.number("count") - self._element)
        index = builder.load(scratch, self._table_index.value, I16, True, (0, LARGEST_INDEX))
        # Behind the step's last pixel there may be anything.
        known = b.select(self._inside, index.value, ir.Constant(index.value.type, [0] * builder.width))
        self.row = row_start(builder, frame, Narrow(builder, known, 0, LARGEST_INDEX))
        yield
        self._state_at = (self._element & (frame.number("lanes") - 1)).value
        self._state = builder.load(frame.pointer("lane_states"), self._state_at, I32).value
        self.slot = b.and_(self._state, all_lanes(builder, SLOT_MASK))
        bucket = b.lshr(self.slot, all_lanes(builder, PRECISION_BITS - BUCKET_BITS))
        symbol = builder.gather(frame.pointer("symbols"), b.add(self.row, bucket), 1)
        yield
        symbol = b.and_(symbol, all_lanes(builder, SYMBOLS - 1))
        # Before the symbol's interval, its own, and the next two.
        low, high = builder.gather_pairs(frame.pointer("lasts"), b.add(self.row, symbol), 2)
        yield
        ends = []
        for pair in (low, high):
            ends += [b.and_(pair, all_lanes(builder, SLOT_MASK)), b.lshr(pair, all_lanes(builder, 16))]
        yield
        beyond = [b.icmp_unsigned(">", self.slot, end) for end in ends[1:3]]
        beyond[1] = b.and_(*beyond)
        before, last = ends[:2]
        for k in (0, 1):
            before = b.select(beyond[k], ends[k + 1], before)
            last = b.select(beyond[k], ends[k + 2], last)
            symbol = b.select(beyond[k], b.add(symbol, all_lanes(builder, 1)), symbol)
        self.symbol = symbol
        yield
        self.frequency = b.and_(b.sub(last, before), all_lanes(builder, SLOT_MASK))
        offset = b.sub(b.sub(self.slot, before), all_lanes(builder, 1))
        self.offset = b.and_(offset, all_lanes(builder, SLOT_MASK))
        none = b.icmp_unsigned(">", self.slot, ends[3])
        self.missing = b.and_(b.and_(none, beyond[1]), self._inside)
        yield

    def finish(self, words: Words) -> Iterator[None]:
        """Move the states on, refill them with words, and write the pixels."""
        builder, frame = self._builder, self._frame
        b = builder.ir
        high = b.lshr(self._state, all_lanes(builder, PRECISION_BITS))
        moved = b.add(b.mul(self.frequency, high), self.offset)
        needed = b.and_(b.icmp_unsigned("<", moved, all_lanes(builder, STATE_LOW)), self._inside)
        yield
        word = words.take(needed)
        yield
        mean = builder.load(frame.pointer("scratch"), self._mean.value, I16, True, (MEAN_LOW, MEAN_HIGH))
        value = symbol_pixel(Narrow(builder, self.symbol, 0, SYMBOLS - 1), mean_centre(mean))
        builder.store(value, frame.pointer("pixels"), self._pixel.value, I8)
        moved = b.select(needed, b.or_(b.shl(moved, all_lanes(builder, WORD_BITS)), word), moved)
        moved = b.select(self._inside, moved, self._state)
        store_lanes(builder, moved, frame.pointer("lane_states"), self._state_at)
        yield


def _search(builder: VectorBuilder, frame: Frame, vectors: Sequence[_Symbols]) -> None:
    """Symbols, frequencies and offsets of the lanes that the first look missed, lane by lane."""
    b, function, width = builder.ir, builder.function, builder.width
    kind = ir.IntType(len(vectors) * width)
    mask: ir.Value = ir.Constant(kind, 0)
    for number, vector in enumerate(vectors):
        lanes = mask_of(builder, vector.missing)
        mask = b.or_(mask, b.shl(b.zext(lanes, kind) if kind != lanes.type else lanes, kind(number * width)))
    entry = b.block
    search, done = function.append_basic_block("search"), function.append_basic_block("found")
    b.cbranch(b.icmp_unsigned("!=", mask, kind(0)), search, done)
    b.position_at_end(search)
    memory = [builder.scratch_vectors(k, len(vectors)) for k in range(5)]
    for number, vector in enumerate(vectors):
        values = (vector.symbol, vector.frequency, vector.offset, vector.row, vector.slot)
        for place, value in zip(memory, values, strict=True):
            store_lanes(builder, value, place, I64(number * width))
    with each_bit(b, mask) as lane:
        _search_lane(builder, frame, [builder.address(place, lane.value, I32) for place in memory])
    results = [
        [b.load(builder.address(place, I64(number * width), I32), typ=builder.vector, align=4) for place in memory[:3]]
        for number in range(len(vectors))
    ]
    tail = b.block
    b.branch(done)
    b.position_at_end(done)
    for vector, after in zip(vectors, results, strict=True):
        out = []
        for before, found in zip((vector.symbol, vector.frequency, vector.offset), after, strict=True):
            phi = b.phi(builder.vector)
            phi.add_incoming(before, entry)
            phi.add_incoming(found, tail)
            out.append(phi)
        vector.symbol, vector.frequency, vector.offset = out


def _search_lane(builder: VectorBuilder, frame: Frame, places: Sequence[ir.Value]) -> None:
    """Search on from the symbol that the first look ended with."""
    b, function = builder.ir, builder.function
    symbol, _, _, row, slot = (b.load(place, typ=I32, align=4) for place in places)
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
    from_symbol.add_incoming(symbol, entry)
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
    before, last = (
        b.load(builder.address(frame.pointer("lasts"), b.add(at, I64(k)), I16), typ=I16, align=2) for k in (0, 1)
    )
    b.store(following, places[0], align=4)
    b.store(b.zext(b.sub(last, before), I32), places[1], align=4)
    b.store(b.zext(b.sub(b.sub(needle, before), I16(1)), I32), places[2], align=4)

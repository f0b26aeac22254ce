"""The CPU backend's walk over a gang of tiles: passes over the pixels of a step, padding, and images to rings and back.

See `kernels` for the gang's skewed ring. Everything here is about which elements a step has and where they lie; the
arithmetic of pixels is in `kernels`, that of states in `decoding` and `coder`. A step is walked once per channel
when decoding, since all symbols of a channel come before those of the next, and once for all channels when encoding.

An element's pixel lies in `image` at ``offsets[element mod period]`` bytes from that of the step's first pixel, and
``row_bytes`` further for each `period_rows` rows; `period` is the gang, or the vectors' width if that is more, and
`row_bytes` what a step to the next row and two pixels back takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import llvmlite.binding as llvm
from llvmlite import ir

from pilc_stream.arith.context import CHANNELS
from pilc_stream.backends import coder
from pilc_stream.backends.block import (
    ARGUMENT_TYPES,
    ARGUMENTS,
    POINTERS,
    Block,
    Frame,
)
from pilc_stream.backends.decoding import decode_step
from pilc_stream.backends.kernels import Model
from pilc_stream.backends.lanes import I8, I16, I32, I64, POINTER
from pilc_stream.backends.layout import QUAD, SIGNED_OFFSET, ScratchRows
from pilc_stream.backends.padding import Padding, step_rows
from pilc_stream.backends.scalar import Index, counting, on_stack
from pilc_stream.backends.vector import VectorBuilder
from pilc_stream.models.spec import WaveSpec

WALKS = ("decode", "encode", "look")
IMAGE_ORDER = (1, 0, 2)
"""Which coded channel each channel of an RGB image is."""

VALUES = 2 * CHANNELS + 1


def looked_at(rows: ScratchRows) -> list[int]:
    """The rows of `values`: bases, exponent, adaptive predictions."""
    return [*range(rows.bases, rows.bases + CHANNELS), rows.exponent,
            *range(rows.predictions, rows.predictions + CHANNELS)]  # fmt: skip


class WalkEmitter:
    """Emits a walk as the function `walk`, which takes the address of its arguments (`block.ARGUMENTS`) as integers."""

    def __init__(
        self, spec: WaveSpec, offsets: Mapping[str, int], width: int, byte_dots: bool, walk: str, channels: int
    ) -> None:  # fmt: skip
        """`walk`: one of `WALKS`; `channels`: of the tiles."""
        self.model = Model(spec, offsets, width, byte_dots)
        self.width, self.byte_dots = width, byte_dots
        self.module = ir.Module(walk)
        self.module.triple = llvm.get_default_triple()
        coding = {"decode": decode_step, "encode": coder.put_intervals}.get(walk)
        self._symbols = self._emit_symbols(coding) if coding is not None else None
        self._codes = {1 << k: self._emit_code(1 << k) for k in range(width.bit_length())} if walk == "encode" else {}
        self._emit_walk(walk, channels)

    # Passes over the blocks of a step.

    def _emit_pass(self, name: str, body: Callable[[VectorBuilder, Block], None]) -> ir.Function:
        builder = VectorBuilder(self.module, name, ARGUMENT_TYPES, self.width, self.byte_dots)
        builder.function.linkage = "internal"
        # Within the walk, which LLVM would put it into, it takes 2 % longer.
        builder.function.attributes.add("noinline")
        frame = Frame(builder.ir, builder.arguments)
        with counting(builder.ir, frame.number("count"), self.width) as first:
            frame.reread("parameters")
            body(builder, Block(builder, frame, self.model.rows, first))
        builder.ir.ret_void()
        return builder.function

    def _decode_pass(self, c: int, channels: int, builder: VectorBuilder, block: Block) -> None:
        """What is between the symbols of the channel before `c` and those of `c`."""
        if c == 0:
            self.model.context(block)
        else:
            self._leave(block, c - 1, channels)
        if c < channels:
            self.model.head(block, c)
        else:
            self._to_image(builder, block, channels)

    def _leave(self, block: Block, c: int, channels: int) -> None:
        if channels == 1:
            for plane in range(1, CHANNELS):
                block.put_pixel(plane, block.pixel(0, 0, 0))
        for plane in range(c, c + 1) if channels > 1 else range(CHANNELS):
            self.model.leave(block, plane, rests=plane >= channels)

    def _encode_pass(self, channels: int, builder: VectorBuilder, block: Block) -> None:
        self._from_image(builder, block, channels)
        self.model.context(block)
        for c in range(channels):
            self.model.head(block, c)
        for channel in range(CHANNELS):
            self.model.leave(block, channel, rests=channel >= channels)

    def _look_pass(self, channels: int, builder: VectorBuilder, block: Block) -> None:
        self._from_image(builder, block, channels)
        self.model.context(block)
        for c in range(channels):
            self.model.head(block, c)
        for channel in range(CHANNELS):
            self.model.leave(block, channel, rests=channel >= channels)

    def _emit_symbols(self, emit: Callable[[VectorBuilder, Frame, ScratchRows, Index], None]) -> ir.Function:
        """A function for the symbols of one channel of a step; the channel is its last argument."""
        builder = VectorBuilder(self.module, "symbols", [*ARGUMENT_TYPES, I64], self.width)
        builder.function.linkage = "internal"
        *values, c = builder.arguments
        emit(builder, Frame(builder.ir, values), self.model.rows, Index(builder.ir, c))
        builder.ir.ret_void()
        return builder.function

    # Pixels between image and ring.

    def _places(self, block: Block) -> tuple[ir.Value, ir.Value]:
        """The address that the offsets of the block's pixels count from, and the address of these."""
        frame, b = block.frame, block.builder.ir
        turns = block.first >> frame.number("period_log2")
        at = frame.number("image_at") + turns * frame.number("period_bytes")
        start = b.gep(frame.pointer("image"), [at.value], source_etype=I8)
        offsets = b.gep(
            frame.pointer("offsets"), [(block.first & (frame.number("period") - 1)).value], source_etype=I32
        )
        return start, offsets

    def _each_place(self, block: Block, body: Callable[[ir.Value, Index], None]) -> None:
        """Call `body` with the address of each of the block's pixels in the image, and its number in the block."""
        b = block.builder.ir
        start, offsets = self._places(block)
        left = block.frame.number("count") - block.first

        def one(number: Index) -> None:
            offset = b.load(b.gep(offsets, [number.value], source_etype=I32), typ=I32, align=4)
            body(b.gep(start, [b.sext(offset, I64)], source_etype=I8), number)

        with b.if_else((left >= self.width).condition) as (whole, part):
            with whole:
                for known in range(self.width):
                    one(Index(b, I64(known)))
            with part, counting(b, left) as number:
                one(number)

    def _to_image(self, builder: VectorBuilder, block: Block, channels: int) -> None:
        b = builder.ir
        if channels == CHANNELS:
            # Four bytes at once: the fourth is overwritten by the next pixel of the row, or lies behind it.
            planes = [block.pixel(plane, 0, 0).in_bits(32) for plane in IMAGE_ORDER]
            colour = planes[0]
            for k in (1, 2):
                colour = b.or_(colour, b.shl(planes[k], ir.Constant(builder.vector, [8 * k] * self.width)))
            memory, stored = builder.scratch_vectors(0), colour
        else:
            memory, stored = builder.scratch_vectors(0), block.pixel(0, 0, 0).in_bits(32)
        b.store(stored, memory, align=4)

        def put(address: ir.Value, number: Index) -> None:
            value = b.load(b.gep(memory, [number.value], source_etype=I32), typ=I32, align=4)
            b.store(value if channels == CHANNELS else b.trunc(value, I8), address, align=1)

        self._each_place(block, put)

    def _from_image(self, builder: VectorBuilder, block: Block, channels: int) -> None:
        b = builder.ir
        memory = builder.scratch_vectors(0)

        def take(address: ir.Value, number: Index) -> None:
            element = I32 if channels == CHANNELS else I8
            value = b.load(address, typ=element, align=1)
            place = b.gep(memory, [number.value], source_etype=I32)
            b.store(value if channels == CHANNELS else b.zext(value, I32), place, align=4)

        self._each_place(block, take)
        colour = builder.wide(b.load(memory, typ=builder.vector, align=4))
        for plane, shift in enumerate(IMAGE_ORDER if channels == CHANNELS else (0, 0, 0)):
            block.put_pixel(plane, builder.byte(colour, shift))

    # The walk.

    def _emit_walk(self, walk: str, channels: int) -> None:
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [POINTER]), "walk")
        b = ir.IRBuilder(function.append_basic_block("entry"))
        values = []
        for number, name in enumerate(ARGUMENTS):
            value = b.load(b.gep(function.args[0], [I64(number)], source_etype=I64), typ=I64, align=8)
            values.append(b.inttoptr(value, POINTER) if name in POINTERS else value)
        frame = Frame(b, values)
        bodies = {
            "decode": [partial(self._decode_pass, c, channels) for c in range(channels + 1)],
            "encode": [partial(self._encode_pass, channels)],
            "look": [partial(self._look_pass, channels)],
        }[walk]
        passes = [self._emit_pass(f"pass{number}", body) for number, body in enumerate(bodies)]
        padding = Padding(frame, self.model.planes, self.width)
        padding.reset()
        height, width = frame.number("height"), frame.number("width")
        done = on_stack(b, I64)
        b.store(I64(0), done, align=8)
        with counting(b, width + 2 * height - 2) as step:
            y0, rows = step_rows(step, height, width)
            coded = Index(b, b.load(done, typ=I64, align=8))
            count = rows * frame.number("gang")
            image_at = y0 * frame.number("row_bytes") + step * channels
            arguments = frame.with_numbers(step=step, first_row=y0, count=count, image_at=image_at, interval_at=coded)
            # Decoding, a channel's symbols come before the next pass; encoding, all come behind the only one.
            after = [[number] for number in range(channels)] + [[]] if walk == "decode" else [list(range(channels))]
            for one, coded_channels in zip(passes, after, strict=True):
                b.call(one, arguments)
                if self._symbols is not None:
                    for c in coded_channels:
                        b.call(self._symbols, [*arguments, I64(c)])
            b.store((coded + coder.whole_vectors(count, self.width) * channels).value, done, align=8)
            padding.pixels(step)
            padding.recorded(step)
            if walk == "look":
                self._look_around(frame, step, y0, rows, channels)
        if walk == "encode":
            coded = Index(b, b.load(done, typ=I64, align=8))
            for lanes, code in self._codes.items():
                suits = frame.number("lanes").equals(lanes) if lanes < self.width else frame.number("lanes") >= lanes
                with b.if_then(suits.condition):
                    b.call(code, [*frame.with_numbers(interval_at=coded), I64(channels)])
        b.ret_void()

    def _look_around(self, frame: Frame, step: Index, y0: Index, rows: Index, channels: int) -> None:
        """Put the context of a step's pixels where these lie in their tiles."""
        b, scratch_rows, gang = frame.ir, self.model.rows, frame.number("gang")
        inputs = self.model.spec.inputs
        with counting(b, rows) as k, counting(b, gang) as g:
            y, element = y0 + k, k * gang + g
            pixel = (g * frame.number("height") + y) * frame.number("width") + step - 2 * y
            lane = element & (self.width - 1)
            start = (element - lane) * scratch_rows.count + lane
            for i, row in enumerate(looked_at(scratch_rows)):
                place = b.gep(frame.pointer("scratch"), [(start + row * self.width).value], source_etype=I16)
                out = b.gep(frame.pointer("values"), [(pixel * VALUES + i).value], source_etype=I16)
                b.store(b.load(place, typ=I16, align=2), out, align=2)
            # Quads of 32 bits: two rows each.
            quads = (element - lane) * (2 * scratch_rows.count) + lane * QUAD + 2 * scratch_rows.inputs * self.width
            with counting(b, inputs) as number:
                byte = quads + (number >> 2) * (QUAD * self.width) + (number & 3)
                place = b.gep(frame.pointer("scratch"), [byte.value], source_etype=I8)
                out = b.gep(frame.pointer("inputs"), [(pixel * inputs + number).value], source_etype=I8)
                b.store(b.sub(b.load(place, typ=I8, align=1), I8(SIGNED_OFFSET)), out, align=1)

    def _emit_code(self, lanes: int) -> ir.Function:
        """Code all intervals, the last first, by vectors of so many lanes; `interval_at` says how many there are."""
        builder = VectorBuilder(self.module, f"code{lanes}", [*ARGUMENT_TYPES, I64], lanes)
        builder.function.linkage = "internal"
        b = builder.ir
        *values, channels = builder.arguments
        frame = Frame(b, values)
        height, width = frame.number("height"), frame.number("width")
        left = on_stack(b, I64)
        b.store(frame.values["interval_at"], left, align=8)
        steps = width + 2 * height - 2
        with counting(b, steps) as turn:
            _, rows = step_rows(steps - 1 - turn, height, width)
            count = rows * frame.number("gang")
            inner = Frame(b, frame.with_numbers(count=count))
            with counting(b, Index(b, channels)):
                start = Index(b, b.load(left, typ=I64, align=8)) - coder.whole_vectors(count, self.width)
                b.store(start.value, left, align=8)
                blocks = (count + (lanes - 1)) >> (lanes.bit_length() - 1)
                with counting(b, blocks) as behind:
                    element = (blocks - 1 - behind) * lanes
                    memory = [builder.scratch_vectors(k) for k in (0, 1)]
                    coder.encode(builder, inner, start + element, element, memory)
        b.ret_void()
        return builder.function

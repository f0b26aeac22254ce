"""What the ring holds around a gang's pixels: the padding rule of `arith.context`, as code for each step of a walk."""

from __future__ import annotations

from llvmlite import ir

from pilc_stream.arith.context import BEFORE_FIRST, CHANNELS, ROWS_ABOVE
from pilc_stream.arith.fixed import maximum, minimum
from pilc_stream.backends.block import SLOTS, STATE_SLOTS, STRIDE, SUB_PLANES, Frame
from pilc_stream.backends.lanes import I1, I8, I16, I64, POINTER
from pilc_stream.backends.scalar import Index, counting


def step_rows(step: Index, height: Index, width: Index) -> tuple[Index, Index]:
    """First row and number of rows of a step."""
    zero = step - step
    first = maximum(zero, (step - width + 2) >> 1)
    return first, maximum(zero, minimum(height - 1, step >> 1) + 1 - first)


class Padding:
    """Fills the cells of a ring that no pixel is written to."""

    def __init__(self, frame: Frame, planes: int, slack: int) -> None:
        """`planes`: of the adaptive units' states; `slack`: elements behind the last that vectors may reach."""
        self._slack = slack
        self._frame, self._planes, self._ir = frame, planes, frame.ir
        self._gang = frame.number("gang")
        self._height, self._width = frame.number("height"), frame.number("width")

    def reset(self) -> None:
        """The ring before the first step."""
        elements = (self._height + ROWS_ABOVE) * self._gang + self._slack
        for ring, planes, size, value in (
            ("pixels", SLOTS * CHANNELS, 1, BEFORE_FIRST),
            ("sub_errors", SLOTS * SUB_PLANES, 2, 0),
            ("errors", SLOTS * CHANNELS, 2, 0),
        ):
            with counting(self._ir, planes) as plane:
                self._fill(ring, elements * size, value, plane * (STRIDE * size))
        zero = Index(self._ir, I64(0))
        for slot in range(STATE_SLOTS):
            self._initial_states(zero + slot, zero, elements)

    def pixels(self, step: Index) -> None:
        """The cells around the step's pixels, once these are known."""
        b, height, width = self._ir, self._height, self._width
        slot, before = step & (SLOTS - 1), (step - 1) & (SLOTS - 1)
        # Right of a row: its last pixel, carried from step to step.
        for beyond in range(3):
            past = step - width - beyond
            y = past >> 1
            begun = (past & 1).equals(0) & (past >= 0) & (y < height)
            with b.if_then(begun.condition):
                self._copy_pixels(slot, y, before, y)
        # Left of a row: the first pixel of the row above, decoded at this step (two cells) or the last (one cell).
        y = step >> 1
        with b.if_then((y + 1 < height).condition), b.if_else((step & 1).equals(0).condition) as (even, odd):
            with even:
                self._copy_pixels(slot, y + 1, slot, y)
                self._copy_pixels(before, y + 1, slot, y)
            with odd:
                self._copy_pixels(slot, y + 1, before, y)
        # Above the first row: row 0, two pixels later per row, which is the same step.
        with b.if_then((step < width + 3).condition):
            for row in range(ROWS_ABOVE):
                self._copy_pixels(slot, step * 0 + (row - ROWS_ABOVE), slot, step * 0)

    def recorded(self, step: Index) -> None:
        """What pixels outside the tile have recorded: no error, and the initial state of the adaptive units."""
        b = self._ir
        past = step - self._width
        y = past >> 1
        ended = (past & 1).equals(0) & (past >= 0) & (y < self._height)
        with b.if_then(ended.condition):
            # Right of a row that has ended: the ring still holds what was recorded a turn of the ring ago.
            slot, at = step & (SLOTS - 1), (y + ROWS_ABOVE) * self._gang
            for ring, planes in (("sub_errors", SUB_PLANES), ("errors", CHANNELS)):
                with counting(b, planes) as plane:
                    place = (slot * planes + plane) * STRIDE + at
                    self._fill(ring, self._gang * 2, 0, place * 2)
            self._initial_states(step, at, self._gang)
        following = (step + 1) >> 1
        begins = (step & 1) & (following < self._height)
        with b.if_then(begins.condition):
            # Left of the row that begins with the next step.
            self._initial_states(step, (following + ROWS_ABOVE) * self._gang, self._gang)

    def _address(self, array: str, at: Index, element: ir.Type) -> ir.Value:
        return self._ir.gep(self._frame.pointer(array), [at.value], source_etype=element)

    def _fill(self, array: str, count: Index, value: int, at: Index) -> None:
        """So many bytes from the byte `at` on."""
        start = self._address(array, at, I8)
        self._call("llvm.memset.p0.i64", [start, I8(value), count.value, I1(0)])

    def _copy_pixels(self, slot: Index, row: Index, from_slot: Index, from_row: Index) -> None:
        """A row's cell of one slot to another cell, in all channels."""
        for c in range(CHANNELS):
            to, source = (
                self._address("pixels", (a * CHANNELS + c) * STRIDE + (y + ROWS_ABOVE) * self._gang, I8)
                for a, y in ((slot, row), (from_slot, from_row))
            )
            self._call("llvm.memcpy.p0.p0.i64", [to, source, self._gang.value, I1(0)])

    def _initial_states(self, step: Index, at: Index, count: Index) -> None:
        b = self._ir
        with counting(b, self._planes) as plane:
            value = b.load(self._address("initial", plane, I16), typ=I16, align=2)
            place = ((step & (STATE_SLOTS - 1)) * self._planes + plane) * STRIDE + at
            with counting(b, count) as k:
                b.store(value, self._address("states", place + k, I16), align=2)

    def _call(self, name: str, arguments: list[ir.Value]) -> None:
        module = self._ir.module
        callee = module.globals.get(name)
        if callee is None:
            kinds = [POINTER if argument.type == POINTER else argument.type for argument in arguments]
            callee = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
        self._ir.call(callee, arguments)

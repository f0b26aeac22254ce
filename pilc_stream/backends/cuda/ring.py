"""The ring of `plan` as the pixel at hand sees it: neighbours, their errors and states, what lies outside the tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pilc_stream.arith.adaptive import NORTH_EAST, WEST, inherited
from pilc_stream.arith.context import CHANNELS, ERROR_NEIGHBOURS
from pilc_stream.arith.predictor import SUB_PREDICTORS, recent_error
from pilc_stream.backends.cuda.plan import BYTES, ERROR_WORDS, RECORDED_STEPS, SUB_WORDS, Plan

Values = Sequence[Any]
HALF_BYTES = 0x00FF00FF
"""Every other byte of a word: sums of six errors stay within the 16 bits that each then has."""

PLACE = 6
"""Integers that say where a thread is: first word of its ring, columns, step, row, the row's column, pixel slot."""


class Ring:
    """A team's ring as the pixel at hand sees it. `place`: see `PLACE`."""

    def __init__(self, plan: Plan, ops: Any, memory: Any, place: Values) -> None:
        self.plan, self.ops, self.memory = plan, ops, memory
        base, self.rows, self.step, self.y, self._column, self._slot = place
        self._subs = base
        self._errors = self._subs + RECORDED_STEPS * SUB_WORDS * self.rows
        self._pixels = self._errors + RECORDED_STEPS * ERROR_WORDS * self.rows
        self._states = self._pixels + plan.pixel_slots * self.rows

    def column(self, dy: int) -> Any:
        """The column of a row above (or one below) the pixel's."""
        column = self._column + dy
        if dy > 0:
            return self.ops.choose(column >= self.rows, column - self.rows, column)
        return column if dy == 0 else self.ops.choose(column < 0, column + self.rows, column)

    def pixel_place(self, steps: int, column: Any) -> Any:
        """Where the pixel word of a column lies, so many steps from now."""
        slots, slot = self.plan.pixel_slots, self._slot + steps
        if steps:
            slot = self.ops.choose(slot < 0, slot + slots, slot) if steps < 0 else slot
            slot = self.ops.choose(slot >= slots, slot - slots, slot) if steps > 0 else slot
        return self._pixels + slot * self.rows + column

    def pixel_word(self, dy: int, dx: int) -> Any:
        """The three channels of a neighbour; rows above the tile repeat row 0, whose column is 0, at the same step."""
        column = self.column(dy)
        if dy < 0:
            column = self.ops.choose(self.y < -dy, 0, column)
        return self.memory[self.pixel_place(2 * dy + dx, column)]

    def _recorded(self, dy: int, dx: int) -> Any:
        return (self.step + (2 * dy + dx)) & (RECORDED_STEPS - 1)

    def sub_place(self, dy: int, dx: int) -> Any:
        """Where the sub-errors of a pixel lie."""
        return self._subs + SUB_WORDS * (self._recorded(dy, dx) * self.rows + self.column(dy))

    def error_place(self, dy: int, dx: int) -> Any:
        """Where the first word of recorded errors of a pixel lies; the second is `rows` behind it."""
        return self._errors + ERROR_WORDS * self._recorded(dy, dx) * self.rows + self.column(dy)

    def state_place(self, word: int, dy: int) -> Any:
        """Where a word of the state lies that the row's pixel of the last step left."""
        return self._states + word * self.rows + self.column(dy)

    def forget(self, dy: int, steps: Sequence[int]) -> None:
        """Outside the tile: no errors at these steps from now, and the initial state."""
        for steps_on in steps:
            dx = steps_on - 2 * dy
            self.memory.put_vector(self.sub_place(dy, dx), [0] * SUB_WORDS)
            for i in range(ERROR_WORDS):
                self.memory[self.error_place(dy, dx) + i * self.rows] = 0
        for word, value in enumerate(self.plan.initial_state):
            self.memory[self.state_place(word, dy)] = value

    def recent_errors(self) -> list[list[Any]]:
        """Per channel the sums of recent errors of each sub-predictor, four bytes at a time."""
        vectors = [self.memory.vector(self.sub_place(dy, dx)) for dy, dx in ERROR_NEIGHBOURS]
        sums: list[Any] = []
        for j in range(SUB_WORDS):
            even = recent_error(*(vector[j] & HALF_BYTES for vector in vectors))
            odd = recent_error(*((vector[j] >> 8) & HALF_BYTES for vector in vectors))
            sums += [even & 0xFFFF, odd & 0xFFFF, even >> 16, odd >> 16]
        return [sums[SUB_PREDICTORS * c : SUB_PREDICTORS * (c + 1)] for c in range(CHANNELS)]

    def inherited_state(self) -> list[list[Any]]:
        """Per channel the weights and running means that the pixel starts from."""
        rows = []
        for c in range(CHANNELS):
            values = []
            for word in range(self.plan.state_offset(c), self.plan.state_offset(c + 1)):
                west, north_east = (self.memory[self.state_place(word, dy)] for dy in (WEST[0], NORTH_EAST[0]))
                values += [
                    inherited(self.ops.signed_half(west, shift), self.ops.signed_half(north_east, shift))
                    for shift in (0, 16)
                ]
            rows.append(values[: self.plan.state_values(c)])
        return rows


def unpacked(word: Any, c: int) -> Any:
    """A channel of a pixel word."""
    return (word >> (8 * c)) & 255


def pack_all(ops: Any, values: Values) -> list[Any]:
    """Bytes to words, the last filled with zeros."""
    filled = [*values, *[0] * (-len(values) % BYTES)]
    return [ops.pack_bytes(*filled[i : i + BYTES]) for i in range(0, len(filled), BYTES)]


def pack_state(ops: Any, values: Values) -> list[Any]:
    """Halves to words, the last filled with a zero."""
    filled = [*values, *[0] * (len(values) % 2)]
    return [ops.pack_halves(filled[i], filled[i + 1]) for i in range(0, len(filled), 2)]

"""The pixels of one vector: their neighbours in the ring, their rows in scratch; and what a walk's functions are given.

A `Block` remembers what it has loaded or put, so that a value is in memory for later passes and in a register for this
one.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from pilc_stream.arith.context import CHANNELS, MAX_EXPONENT, ROWS_ABOVE, STEPS_BACK
from pilc_stream.arith.perceptron import MEAN_HIGH, MEAN_LOW
from pilc_stream.arith.predictor import SUB_PREDICTORS
from pilc_stream.backends.lanes import I8, I16, I32, I64, POINTER
from pilc_stream.backends.layout import QUAD, SIGNED_OFFSET, ScratchRows
from pilc_stream.backends.narrow import HIGH_16, LOW_16, MIRROR, Narrow
from pilc_stream.backends.scalar import Index
from pilc_stream.backends.vector import VectorBuilder

SLOTS = STEPS_BACK + 1
"""Steps kept in the ring; a power of two, because slots are found by masking."""

STATE_SLOTS = 2
"""Steps of which the adaptive units' states are kept."""

STRIDE = 1216
"""Elements from plane to plane of a ring: known when code is made, so that planes are constants in addresses. Enough
for a tile of the greatest height that there is, and an odd number of cache lines, so that planes do not take the places
of each other there."""

SUB_PLANES = CHANNELS * SUB_PREDICTORS
LARGEST_PREDICTION = 4080
LARGEST_ERROR = 16 * 255
LARGEST_MEAN_ERROR = LARGEST_ERROR - MEAN_LOW
INPUT_LIMIT = 127

POINTERS = (
    "pixels", "sub_errors", "errors", "states", "initial", "scratch", "parameters",
    "rows", "steps", "symbols", "lasts", "lane_states", "words", "word_at", "below", "group", "intervals",
    "image", "offsets", "inputs", "values",
)  # fmt: skip
NUMBERS = (
    "gang", "height", "width", "lanes", "last_word", "word_period", "period", "period_log2", "period_bytes",
    "row_bytes", "step", "first_row", "count", "interval_at", "image_at",
)  # fmt: skip
ARGUMENTS = (*POINTERS, *NUMBERS)
"""What every function of a walk is given, in this order. `ring`: pixels, sub_errors, errors and states, as `kernels`
has it; `initial`: a state outside the tile. `rows`, `steps`, `symbols`, `lasts`: see `tables`. `lane_states`,
`words`, `word_at`, `below`, `group`, `intervals`, `lanes`, `last_word`: see `decoding`. `image`, `offsets`,
`period`, `period_rows`, `row_bytes`: see `walk`. `count`: elements of the step, whose first row is `first_row`."""

ARGUMENT_TYPES = [POINTER] * len(POINTERS) + [I64] * len(NUMBERS)


class Frame:
    """The arguments of a function of a walk by name; numbers are traced."""

    def __init__(self, builder: ir.IRBuilder, values: Sequence[ir.Value]) -> None:
        self.ir = builder
        self.values = dict(zip(ARGUMENTS, values, strict=True))

    def pointer(self, name: str) -> ir.Value:
        """An array's address."""
        return self.values[name]

    def reread(self, name: str) -> None:
        """Let what follows read an array as if it were another, so that nothing of it is read before a loop and kept
        on the stack."""
        kind = ir.FunctionType(POINTER, [POINTER])
        self.values[name] = self.ir.asm(kind, "", "=r,0", [self.values[name]], True)

    def number(self, name: str) -> Index:
        """A number."""
        return Index(self.ir, self.values[name])

    def with_numbers(self, **numbers: Index) -> list[ir.Value]:
        """All arguments in order, some numbers of them changed."""
        return [{**self.values, **{name: value.value for name, value in numbers.items()}}[name] for name in ARGUMENTS]


class Block:
    """One vector of pixels of a step."""

    def __init__(self, builder: VectorBuilder, frame: Frame, rows: ScratchRows, first: Index) -> None:
        """`first`: the block's first element, a multiple of the vectors' width, counted from the step's first."""
        self.builder, self.frame, self.rows, self.first = builder, frame, rows, first
        self._scratch_start = first * rows.count
        gang = frame.number("gang")
        self._element = (frame.number("first_row") + ROWS_ABOVE) * gang + first
        self._gang, self._step = gang, frame.number("step")
        self._loaded: dict[tuple[str, int, int, int], Narrow] = {}
        self._rows: dict[int, Narrow] = {}

    def ring_index(self, planes: int, plane: Index | int, dy: int, dx: int, slots: int = SLOTS) -> Index:
        """Where the neighbour `(dy, dx)` of the block's first pixel lies in a ring of so many planes to a slot."""
        slot = (self._step + (2 * dy + dx)) & (slots - 1)
        start = slot * (planes * STRIDE) + self._element + self._gang * dy
        return start + plane * STRIDE

    def _from_ring(
        self, ring: str, planes: int, plane: int, offset: tuple[int, int], element: ir.IntType,
        limits: tuple[int, int], slots: int = SLOTS
    ) -> Narrow:  # fmt: skip
        key = (ring, plane, *offset)
        if key not in self._loaded:
            index = self.ring_index(planes, plane, *offset, slots).value
            signed = element.width > 8
            self._loaded[key] = self.builder.load(self.frame.pointer(ring), index, element, signed, limits)
        return self._loaded[key]

    def pixel(self, c: int, dy: int, dx: int) -> Narrow:
        """Grey levels of a neighbour, or of the pixel itself at (0, 0)."""
        return self._from_ring("pixels", CHANNELS, c, (dy, dx), I8, (0, 255))

    def put_pixel(self, c: int, value: Narrow) -> None:
        """Write the pixels themselves. What is written behind the step's last pixel is padded or decoded later."""
        self.builder.store(value, self.frame.pointer("pixels"), self.ring_index(CHANNELS, c, 0, 0).value, I8)
        self._loaded["pixels", c, 0, 0] = value

    def sub_error(self, c: int, i: int, dy: int, dx: int) -> Narrow:
        """A neighbour's recorded error of one sub-predictor."""
        return self._from_ring("sub_errors", SUB_PLANES, c * SUB_PREDICTORS + i, (dy, dx), I16, (0, 255))

    def put_sub_error(self, c: int, i: int, value: Narrow) -> None:
        """Record a sub-predictor's error at the pixels themselves."""
        index = self.ring_index(SUB_PLANES, c * SUB_PREDICTORS + i, 0, 0).value
        self.builder.store(value, self.frame.pointer("sub_errors"), index, I16)

    def error(self, c: int, dy: int, dx: int) -> Narrow:
        """A neighbour's adaptive prediction minus its pixel, sixteenths of a level."""
        return self._from_ring("errors", CHANNELS, c, (dy, dx), I16, (-LARGEST_ERROR, LARGEST_ERROR))

    def put_error(self, c: int, value: Narrow) -> None:
        """Record prediction minus pixel at the pixels themselves."""
        self.builder.store(value, self.frame.pointer("errors"), self.ring_index(CHANNELS, c, 0, 0).value, I16)

    def state(self, planes: int, plane: int, dy: int, dx: int, limits: tuple[int, int]) -> Narrow:
        """What a neighbour of the step before left to the adaptive units."""
        mirrored = self._from_ring("states", planes, plane, (dy, dx), I16, (LOW_16, HIGH_16), STATE_SLOTS)
        return Narrow.mirrored(mirrored, *limits)

    def put_state(self, planes: int, plane: int, value: Narrow) -> None:
        """Leave a weight or running mean to the next step."""
        index = self.ring_index(planes, plane, 0, 0, STATE_SLOTS).value
        self.builder.store(value ^ MIRROR, self.frame.pointer("states"), index, I16)

    def inside(self) -> Narrow:
        """1 for lanes that are pixels of this step, 0 for those behind the last."""
        lane = self.builder.wide(ir.Constant(self.builder.vector, list(range(self.builder.width))), 0, 15)
        left = self.frame.number("count") - self.first
        limit = self.builder.wide(self.builder.splat(self.builder.ir.trunc(left.value, I32)))
        return self.builder.lanes(lane < limit)

    def row_index(self, row: int) -> Index:
        """Where a row of scratch begins."""
        return self._scratch_start + row * self.builder.width

    def get(self, row: int, low: int, high: int) -> Narrow:
        """A row of scratch whose values lie in ``[low, high]``."""
        if row not in self._rows:
            index = self.row_index(row).value
            self._rows[row] = self.builder.load(self.frame.pointer("scratch"), index, I16, True, (low, high))
        return self._rows[row]

    def put(self, row: int, value: Narrow) -> None:
        """Write a row of scratch."""
        self.builder.store(value, self.frame.pointer("scratch"), self.row_index(row).value, I16)
        self._rows[row] = value

    def exponent(self) -> Narrow:
        """The local scale's exponent."""
        return self.get(self.rows.exponent, 0, MAX_EXPONENT)

    def base(self, c: int) -> Narrow:
        """The base prediction."""
        return self.get(self.rows.bases + c, 0, LARGEST_PREDICTION)

    def mean(self, c: int) -> Narrow:
        """The predicted mean."""
        return self.get(self.rows.means + c, MEAN_LOW, MEAN_HIGH)

    def mean_error(self, c: int) -> Narrow:
        """Pixel minus mean."""
        return self.get(self.rows.errors + c, -MEAN_HIGH, LARGEST_MEAN_ERROR)

    def prediction(self, c: int) -> Narrow:
        """The adaptive unit's prediction."""
        return self.get(self.rows.predictions + c, 0, LARGEST_PREDICTION)

    def tap(self, c: int, i: int) -> Narrow:
        """A scaled neighbour."""
        return self.get(self.rows.taps + c * self.rows.spec.taps + i, -INPUT_LIMIT, INPUT_LIMIT)

    def quad(self, row: int, further: ir.Value | None = None) -> Narrow:
        """A row of quads, `further` quads behind `row`."""
        # Quads take two rows of 16 bits, and `row` is even.
        index = (self._scratch_start + row * self.builder.width) >> 1
        if further is not None:
            index = index + Index(self.builder.ir, further) * self.builder.width
        return self.builder.load(self.frame.pointer("scratch"), index.value, I32)

    def put_quad(self, row: int, value: Narrow) -> None:
        """Write a row of quads."""
        index = (self._scratch_start + row * self.builder.width) >> 1
        self.builder.store(value, self.frame.pointer("scratch"), index.value, I32)

    def put_quads(self, row: int, values: Sequence[Narrow]) -> None:
        """Write values in ``[-127, 127]`` as quads, plus `SIGNED_OFFSET`, the last filled up."""
        for first in range(0, len(values), QUAD):
            signed = [_as_signed(value) for value in values[first : first + QUAD]]
            self.put_quad(row + 2 * (first // QUAD), self.builder.pack_bytes(signed))

    def replace_last_byte(self, row: int, value: Narrow) -> None:
        """Write a value in ``[-127, 127]`` plus `SIGNED_OFFSET` into the last byte of a row of quads."""
        kept = self.quad(row) & 0x00FFFFFF
        byte = value + SIGNED_OFFSET
        self.put_quad(row, kept | (self.builder.wide(byte.in_bits(32)) << 24))

    def parameter(self, position: int, further: ir.Value | None = None) -> Narrow:
        """One parameter in every lane."""
        index: ir.Value = I64(position)
        if further is not None:
            index = self.builder.ir.add(index, further)
        return self.builder.load_scalar(self.frame.pointer("parameters"), index)


def _as_signed(value: Narrow) -> Narrow:
    # Inputs that are never negative go with signed ones; the interval says only what must fit a byte.
    return Narrow(value.builder, value.value, min(value.low, -1), value.high)

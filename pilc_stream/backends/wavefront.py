"""The CPU backend's walk over a gang of tiles: kernels, symbols and padding, step by step (Numba).

See `kernels` for the gang's skewed ring. Everything here is about one step of the wavefront: which rows it has, where
the padding lies, and the rANS lanes; the arithmetic of pixels is in the vector kernels, that of states in `arith.rans`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from pilc_stream.arith import rans as rans_source
from pilc_stream.arith.context import BEFORE_FIRST, CHANNELS, ROWS_ABOVE
from pilc_stream.arith.perceptron import mean_centre as mean_centre_source
from pilc_stream.arith.perceptron import residual_symbol as residual_symbol_source
from pilc_stream.arith.perceptron import symbol_pixel as symbol_pixel_source
from pilc_stream.arith.predictor import SUB_PREDICTORS
from pilc_stream.backends.kernels import ARGUMENTS, SLOTS, STATE_SLOTS

_compiled = njit(cache=True)
encode_symbol = _compiled(rans_source.encode_symbol)
must_emit = _compiled(rans_source.must_emit)
decode_advance = _compiled(rans_source.decode_advance)
mean_centre = _compiled(mean_centre_source)
residual_symbol = _compiled(residual_symbol_source)
symbol_pixel = _compiled(symbol_pixel_source)

STATE_LOW = rans_source.STATE_LOW
WORD_BITS = rans_source.WORD_BITS
SLOT_MASK = rans_source.SLOT_MASK
SUB_PLANES = CHANNELS * SUB_PREDICTORS
FINE = 16
"""A CDF row is searched in two looks of 16 entries: every 16th, then the 16 from there."""


@intrinsic
def _call_kernel(
    context: Any, address: Any, pixels: Any, subs: Any, errors: Any, states: Any, stride: Any, gang: Any, step: Any,
    first: Any, count: Any, scratch: Any, parameters: Any
) -> Any:  # fmt: skip
    """Call a compiled kernel by its address; arrays are given as addresses."""

    def generate(_: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> None:
        kind = ir.FunctionType(ir.VoidType(), ARGUMENTS)
        pointer = ir.PointerType()
        arguments = [
            builder.inttoptr(value, pointer) if argument == pointer else value
            for value, argument in zip(values[1:], ARGUMENTS, strict=True)
        ]
        callee = builder.inttoptr(values[0], kind.as_pointer())
        builder.call(callee, arguments)

    return types.void(*[types.int64] * 12), generate


@njit(inline="always", cache=True)
def run_kernel(
    kernel: int, ring: Any, gang: int, step: int, first: int, count: int, scratch: Any, parameters: Any
) -> None:
    """Run a kernel on `count` elements of a step from `first` on."""
    pixels, sub_errors, errors, states, _ = ring
    _call_kernel(  # type: ignore[call-arg]
        kernel, pixels.ctypes.data, sub_errors.ctypes.data, errors.ctypes.data, states.ctypes.data, pixels.shape[2],
        gang, step, first, count, scratch.ctypes.data, parameters.ctypes.data
    )  # fmt: skip


@intrinsic
def _count_at_most(context: Any, address: Any, value: Any) -> Any:
    """How many of the 16 uint16 at `address` are at most `value`: a search without branches."""

    def generate(_: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        word, row = ir.IntType(16), ir.VectorType(ir.IntType(16), FINE)
        entries = builder.load(builder.inttoptr(values[0], ir.PointerType()), typ=row, align=2)
        needle = builder.trunc(values[1], word)
        single = builder.insert_element(ir.Constant(row, ir.Undefined), needle, ir.IntType(32)(0))
        order = ir.Constant(ir.VectorType(ir.IntType(32), FINE), [0] * FINE)
        needles = builder.shuffle_vector(single, ir.Constant(row, ir.Undefined), order)
        bits = builder.bitcast(builder.icmp_unsigned("<=", entries, needles), word)
        return builder.zext(builder.ctpop(bits), ir.IntType(64))

    return types.int64(types.int64, types.int64), generate


@njit(inline="always", cache=True)
def search(table: Any, entry: Any, value: Any) -> Any:
    """Which of the 16 sorted entries of a uint16 table from `entry` on is the last that is at most `value`."""
    return _count_at_most(table.ctypes.data + 2 * entry, value) - 1  # type: ignore[call-arg]


@njit(inline="always", cache=True)
def step_rows(step: int, height: int, width: int) -> tuple[int, int]:
    """First row and number of rows of a step."""
    first = max(0, (step - width + 2) // 2)
    return first, max(0, min(height - 1, step // 2) + 1 - first)


@njit(inline="always", cache=True)
def scratch_place(element: int, rows: int, vector_log2: int) -> int:
    """Where row 0 of an element of the step lies in scratch."""
    block = element >> vector_log2
    return (block * rows << vector_log2) + element - (block << vector_log2)


@njit(cache=True)
def pad_pixels(pixels: Any, gang: int, step: int, height: int, width: int) -> None:
    """The padding rule of `arith.context` for the cells around the step's pixels, once these are known."""
    slot, before = step % SLOTS, (step - 1) % SLOTS
    # Right of a row: its last pixel, carried from step to step.
    for beyond in range(3):
        if (step - width - beyond) % 2 == 0:
            y = (step - width - beyond) // 2
            if 0 <= y < height:
                at = (y + ROWS_ABOVE) * gang
                for c in range(CHANNELS):
                    pixels[slot, c, at : at + gang] = pixels[before, c, at : at + gang]
    # Left of a row: the first pixel of the row above, decoded at this step (two cells) or the last (one cell).
    y = step // 2
    if y + 1 < height:
        above, below = (y + ROWS_ABOVE) * gang, (y + 1 + ROWS_ABOVE) * gang
        for c in range(CHANNELS):
            if step % 2 == 0:
                first = pixels[slot, c, above : above + gang]
                pixels[slot, c, below : below + gang] = first
                pixels[before, c, below : below + gang] = first
            else:
                pixels[slot, c, below : below + gang] = pixels[before, c, above : above + gang]
    # Above the first row: row 0, two pixels later per row, which is the same step.
    if step < width + 3:
        row0 = ROWS_ABOVE * gang
        for c in range(CHANNELS):
            for row in range(ROWS_ABOVE):
                pixels[slot, c, row * gang : (row + 1) * gang] = pixels[slot, c, row0 : row0 + gang]


@njit(cache=True)
def pad_recorded(ring: Any, gang: int, step: int, height: int, width: int) -> None:
    """What pixels outside the tile have recorded: no error, and the initial state of the adaptive units."""
    _, sub_errors, errors, states, initial = ring
    y = (step - width) // 2
    if (step - width) % 2 == 0 and 0 <= y < height:
        # Right of a row that has ended: the ring still holds what was recorded a turn of the ring ago.
        at = (y + ROWS_ABOVE) * gang
        sub_errors[step % SLOTS, :, at : at + gang] = 0
        errors[step % SLOTS, :, at : at + gang] = 0
        _reset_state(states, initial, step, at, gang)
    if step % 2 == 1 and (step + 1) // 2 < height:
        # Left of the row that begins with the next step.
        _reset_state(states, initial, step, ((step + 1) // 2 + ROWS_ABOVE) * gang, gang)


@njit(inline="always", cache=True)
def _reset_state(states: Any, initial: Any, step: int, at: int, gang: int) -> None:
    for plane in range(len(initial)):
        states[step % STATE_SLOTS, plane, at : at + gang] = initial[plane]


@njit(cache=True)
def reset_ring(ring: Any) -> None:
    """The ring before the first step."""
    pixels, sub_errors, errors, states, initial = ring
    pixels[:] = BEFORE_FIRST
    sub_errors[:] = 0
    errors[:] = 0
    for plane in range(len(initial)):
        states[:, plane] = initial[plane]


@njit(nogil=True, cache=True)
def decode_gang(
    kernels: Any, parameters: Any, row_of: Any, cdf: Any, coarse: Any, ring: Any, scratch: Any, rows: int, means: int,
    indices: int, vector_log2: int, states: Any, words: Any, word_at: Any, word_end: Any, order: Any, out: Any
) -> bool:  # fmt: skip
    """Decode a gang into `out` uint8 `(gang, h, w, channels)`; False where words ran out.

    `states` uint32 `(gang, lanes)`, `words` uint16 with the gang's streams from `word_at` to `word_end`, which
    `word_at` has moved to when all words were used; at least one word in all. `cdf` uint16 `(rows, 256)`, `coarse` its
    every 16th column.
    """
    pixels = ring[0]
    gang, height, width, channels = out.shape
    lane_mask = states.shape[1] - 1
    last_word = len(words) - 1
    update = 4 if channels == CHANNELS else 5
    reset_ring(ring)
    for step in range(width + 2 * height - 2):
        slot = step % SLOTS
        y0, count = step_rows(step, height, width)
        first = (y0 + ROWS_ABOVE) * gang
        if count:
            run_kernel(kernels[0], ring, gang, step, first, count * gang, scratch, parameters)
        for c in range(channels if count else 0):
            run_kernel(kernels[1 + c], ring, gang, step, first, count * gang, scratch, parameters)
            for k in range(count):
                lane = k & lane_mask
                for g in range(gang):
                    element = k * gang + g
                    at = scratch_place(element, rows, vector_log2)
                    mean = np.int64(scratch[at + ((means + c) << vector_log2)])
                    row = np.int64(row_of[scratch[at + ((indices + c) << vector_log2)]])
                    state = np.int64(states[g, lane])
                    # Two looks of 16 entries find the symbol whose interval holds the slot.
                    slot_value = state & SLOT_MASK
                    group = search(coarse, row * FINE, slot_value)
                    within = search(cdf, row * 256 + group * FINE, slot_value)
                    symbol = group * FINE + within
                    start = np.int64(cdf[row, symbol])
                    end = np.int64(cdf[row, symbol + 1]) if symbol < 255 else np.int64(SLOT_MASK + 1)
                    state = decode_advance(state, start, end - start)
                    # Whether a word is needed is as good as random: no branch. Behind the stream's end any word will
                    # do, since the count tells.
                    more = state << WORD_BITS | np.int64(words[min(word_at[g], last_word)])
                    needed = state < STATE_LOW
                    states[g, lane] = more if needed else state
                    word_at[g] += needed
                    value = symbol_pixel(symbol, mean_centre(mean))
                    out[g, y0 + k, step - 2 * (y0 + k), order[c]] = value
                    pixels[slot, c, first + element] = value
                    if channels == 1:
                        pixels[slot, 1, first + element] = value
                        pixels[slot, 2, first + element] = value
            for g in range(gang):
                if word_at[g] > word_end[g]:
                    return False
        pad_pixels(pixels, gang, step, height, width)
        if count:
            run_kernel(kernels[update], ring, gang, step, first, count * gang, scratch, parameters)
        pad_recorded(ring, gang, step, height, width)
    return True


@njit(inline="always", cache=True)
def fill_pixels(pixels: Any, gang: int, step: int, y0: int, count: int, order: Any, tiles: Any) -> None:
    """Put the step's pixels into the ring; grey stands three times."""
    for c in range(CHANNELS):
        source = order[c] if tiles.shape[3] == CHANNELS else 0
        for k in range(count):
            y = y0 + k
            for g in range(gang):
                pixels[step % SLOTS, c, (y + ROWS_ABOVE) * gang + g] = tiles[g, y, step - 2 * y, source]


@njit(inline="always", cache=True)
def known_step(
    kernels: Any, parameters: Any, ring: Any, scratch: Any, step: int, order: Any, tiles: Any
) -> tuple[int, int]:
    """Run all kernels on a step whose pixels are known; its first row and number of rows."""
    gang, height, width, channels = tiles.shape
    update = 4 if channels == CHANNELS else 5
    y0, count = step_rows(step, height, width)
    first = (y0 + ROWS_ABOVE) * gang
    fill_pixels(ring[0], gang, step, y0, count, order, tiles)
    pad_pixels(ring[0], gang, step, height, width)
    if count:
        for kernel in range(1 + channels):
            run_kernel(kernels[kernel], ring, gang, step, first, count * gang, scratch, parameters)
        run_kernel(kernels[update], ring, gang, step, first, count * gang, scratch, parameters)
    pad_recorded(ring, gang, step, height, width)
    return y0, count


@njit(nogil=True, cache=True)
def model_gang(
    kernels: Any, parameters: Any, row_of: Any, cdf: Any, ring: Any, scratch: Any, rows: int, means: int, indices: int,
    vector_log2: int, order: Any, tiles: Any, starts: Any, frequencies: Any
) -> None:  # fmt: skip
    """The intervals of all symbols of a gang in coding order: `starts`, `frequencies` uint16 `(gang, h w channels)`.

    A frequency of 65536 cannot occur: every symbol has at least 1 of 65536.
    """
    pixels = ring[0]
    gang, height, width, channels = tiles.shape
    reset_ring(ring)
    done = 0
    for step in range(width + 2 * height - 2):
        slot = step % SLOTS
        y0, count = known_step(kernels, parameters, ring, scratch, step, order, tiles)
        first = (y0 + ROWS_ABOVE) * gang
        for c in range(channels):
            for k in range(count):
                for g in range(gang):
                    element = k * gang + g
                    at = scratch_place(element, rows, vector_log2)
                    mean = np.int64(scratch[at + ((means + c) << vector_log2)])
                    row = np.int64(row_of[scratch[at + ((indices + c) << vector_log2)]])
                    symbol = residual_symbol(np.int64(pixels[slot, c, first + element]), mean_centre(mean))
                    start = np.int64(cdf[row, symbol])
                    end = np.int64(cdf[row, symbol + 1]) if symbol < 255 else np.int64(SLOT_MASK + 1)
                    starts[g, done + k] = start
                    frequencies[g, done + k] = end - start
            done += count


@njit(nogil=True, cache=True)
def context_gang(
    kernels: Any, parameters: Any, ring: Any, scratch: Any, rows: int, vector_log2: int, order: Any, tiles: Any,
    input_rows: Any, bits: Any, offset: int, value_rows: Any, inputs: Any, values: Any
) -> None:  # fmt: skip
    """The context of all pixels of a gang, as the kernels see it, without coding anything.

    `inputs` int8 `(gang, h, w, n)`: input `i` is the byte from bit `bits[i]` on of scratch row `input_rows[i]`, minus
    `offset`. `values` int16 `(gang, h, w, m)`: the scratch rows `value_rows`.
    """
    gang, height, width, _ = tiles.shape
    reset_ring(ring)
    for step in range(width + 2 * height - 2):
        y0, count = known_step(kernels, parameters, ring, scratch, step, order, tiles)
        for k in range(count):
            y = y0 + k
            for g in range(gang):
                element = k * gang + g
                at = scratch_place(element, rows, vector_log2)
                for i in range(len(input_rows)):
                    quad = scratch[at + (input_rows[i] << vector_log2)]
                    inputs[g, y, step - 2 * y, i] = (quad >> bits[i] & 255) - offset
                for i in range(len(value_rows)):
                    values[g, y, step - 2 * y, i] = scratch[at + (value_rows[i] << vector_log2)]


@njit(nogil=True, cache=True)
def encode_lanes(starts: Any, frequencies: Any, height: int, width: int, channels: int, states: Any, words: Any) -> int:
    """Code one tile's intervals, last symbol first; words fill `words` from its end; returns where they begin."""
    lane_mask = len(states) - 1
    states[:] = STATE_LOW
    at, position = len(words), len(starts)
    for step in range(width + 2 * height - 3, -1, -1):
        _, count = step_rows(step, height, width)
        for _ in range(channels):
            for k in range(count - 1, -1, -1):
                position -= 1
                lane = k & lane_mask
                state, frequency = np.uint64(states[lane]), np.uint64(frequencies[position])
                if must_emit(state, frequency):
                    at -= 1
                    words[at] = state & np.uint64(SLOT_MASK)
                    state = state >> np.uint64(WORD_BITS)
                states[lane] = encode_symbol(state, np.uint64(starts[position]), frequency)
    return at

"""The compiled loops of the codec `pilc` on the CPU (Numba): sums of residuals, choices, lanes, the undoing.

Products with weights are left to BLAS in float32 (`cpu.py`): exact, as every sum is below ``2**24``. Loops here run in
64-bit integers. Arrays of pixels are `(channels, h + 3, w + 6)` with the padding of `arith.context` around them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from pilc_stream.arith.blocks import (
    BLOCK_LOG2,
    HIGHEST,
    MID_GREY,
    MIDDLE_CLASS,
    QUARTER_LOG2,
    QUARTER_PIXELS,
    QUARTERS,
    WEIGHT_BITS,
)
from pilc_stream.arith.context import BEFORE_FIRST, COLUMNS_AROUND, ROWS_ABOVE
from pilc_stream.arith.rans import PRECISION_BITS, SLOT_MASK, STATE_LOW, WORD_BITS

HALF = 1 << (WEIGHT_BITS - 1)
OUT_OF_WORDS = -1


@njit(inline="always", cache=True)
def _predicted(total: Any) -> Any:
    value = ((total + HALF) >> WEIGHT_BITS) + MID_GREY
    return min(max(value, 0), HIGHEST)


@njit(nogil=True, cache=True)
def gather(surrounded: Any, taps: Any, out: Any) -> None:
    """Neighbours less mid grey of a channel: `taps` int64 `(n, 3)`; `out` float32 `(h * w, n)`."""
    width = surrounded.shape[2] - 2 * COLUMNS_AROUND
    for place in range(out.shape[0]):
        y = place // width + ROWS_ABOVE
        x = place % width + COLUMNS_AROUND
        for i in range(taps.shape[0]):
            out[place, i] = np.int32(surrounded[taps[i, 0], y + taps[i, 1], x + taps[i, 2]]) - MID_GREY


@njit(nogil=True, cache=True)
def add_residuals(totals: Any, bias: Any, plane: Any, sums: Any) -> None:
    """Add absolute residuals under every predictor: `totals` float32 `(h * w, m)`, `bias` int32 `(m,)`, `plane`
    `(h, w)`, `sums` int32 `(rows, columns, 4, m)`."""
    height, width = plane.shape
    for y in range(height):
        for x in range(width):
            quarter = (y >> QUARTER_LOG2 & 1) * 2 + (x >> QUARTER_LOG2 & 1)
            into = sums[y >> BLOCK_LOG2, x >> BLOCK_LOG2, quarter]
            values = totals[y * width + x]
            pixel = np.int32(plane[y, x]) - np.int32(MID_GREY)
            for k in range(bias.shape[0]):
                value = (np.int32(values[k]) + bias[k] + np.int32(HALF)) >> np.int32(WEIGHT_BITS)
                value = min(max(value, np.int32(-MID_GREY)), np.int32(HIGHEST - MID_GREY))
                into[k] += abs(pixel - value)


@njit(nogil=True, cache=True)
def choose_blocks(
    sums: Any, counts: Any, log: Any, predictor_bits: Any, slope: Any, level: Any, code_bits: Any, choices: Any
) -> None:
    """Each block's predictor and code: `sums` int32 `(channels, rows, columns, 4, m)`, `counts` `(rows, columns, 4)`,
    `choices` `(2, rows, columns)`: codes, then predictors."""
    channels, rows, columns, _, predictors = sums.shape
    cost = np.empty(predictors, np.int64)
    for y in range(rows):
        for x in range(columns):
            for k in range(predictors):
                cost[k] = predictor_bits[k]
            for c in range(channels):
                for quarter in range(QUARTERS):
                    count = counts[y, x, quarter]
                    if count == QUARTER_PIXELS:
                        for k in range(predictors):
                            cost[k] += QUARTER_PIXELS * log[sums[c, y, x, quarter, k]]
                    elif count:
                        for k in range(predictors):
                            cost[k] += count * log[QUARTER_PIXELS * sums[c, y, x, quarter, k] // count]
            best = 0
            for k in range(1, predictors):
                if cost[k] < cost[best]:
                    best = k
            lowest, code = np.int64(0), -1
            for n in range(code_bits.shape[0]):
                total = np.int64(code_bits[n])
                for c in range(channels):
                    for quarter in range(QUARTERS):
                        part = c * QUARTERS + quarter
                        total += sums[c, y, x, quarter, best] * slope[n, part]
                        total += counts[y, x, quarter] * level[n, part]
                if code < 0 or total < lowest:
                    lowest, code = total, n
            choices[0, y, x] = code
            choices[1, y, x] = best


@njit(inline="always", cache=True)
def _total(surrounded: Any, y: int, x: int, taps: Any, weight: Any, bias: Any) -> Any:
    total = np.int64(bias)
    for i in range(taps.shape[0]):
        value = np.int64(surrounded[taps[i, 0], y + ROWS_ABOVE + taps[i, 1], x + COLUMNS_AROUND + taps[i, 2]])
        total += weight[i] * (value - MID_GREY)
    return total


@njit(nogil=True, cache=True)
def residuals(surrounded: Any, channel: int, taps: Any, weight: Any, bias: Any, predictors: Any, out: Any) -> None:
    """Residuals of a channel under the chosen predictors, int16 `(h, w)`."""
    height, width = out.shape
    for y in range(height):
        for x in range(width):
            k = predictors[y >> BLOCK_LOG2, x >> BLOCK_LOG2]
            predicted = _predicted(_total(surrounded, y, x, taps, weight[k], bias[k]))
            out[y, x] = np.int64(surrounded[channel, y + ROWS_ABOVE, x + COLUMNS_AROUND]) - predicted


@njit(nogil=True, cache=True)
def undo(surrounded: Any, channel: int, taps: Any, weight: Any, bias: Any, predictors: Any, found: Any) -> None:
    """The inverse, in raster order; fills a channel of `surrounded` with its padding. `found` uint8 `(h, w)`."""
    height, width = found.shape
    plane = surrounded[channel]
    wide = plane.shape[1]
    plane[:, :] = BEFORE_FIRST
    for y in range(height):
        row = plane[y + ROWS_ABOVE]
        if y:
            row[:COLUMNS_AROUND] = plane[y + ROWS_ABOVE - 1, COLUMNS_AROUND]
        for x in range(width):
            k = predictors[y >> BLOCK_LOG2, x >> BLOCK_LOG2]
            predicted = _predicted(_total(surrounded, y, x, taps, weight[k], bias[k]))
            value = (predicted + found[y, x]) & HIGHEST
            row[x + COLUMNS_AROUND] = value
            if y == 0:
                # A row above the first is the first, moved right by two pixels for each.
                for above in range(1, ROWS_ABOVE + 1):
                    place = x + COLUMNS_AROUND + 2 * above
                    if place < wide:
                        plane[ROWS_ABOVE - above, place] = value
        last = row[width + COLUMNS_AROUND - 1]
        row[width + COLUMNS_AROUND :] = last
        if y == 0:
            for above in range(1, ROWS_ABOVE + 1):
                plane[ROWS_ABOVE - above, min(width + COLUMNS_AROUND + 2 * above, wide) :] = last


@njit(inline="always", cache=True)
def _code_row(classes: Any, codes: Any, y: int, x: int) -> Any:
    if x == 0 and y == 0:
        return np.int64(2 * MIDDLE_CLASS)
    west = codes[y, x - 1] if x else codes[y - 1, x]
    north = codes[y - 1, x] if y else codes[y, x - 1]
    return np.int64(classes[west]) + np.int64(classes[north])


@njit(inline="always", cache=True)
def _predictor_row(predictors: Any, count: int, y: int, x: int) -> Any:
    if x:
        return np.int64(predictors[y, x - 1])
    if y:
        return np.int64(predictors[y - 1, x])
    return np.int64(count)


@njit(nogil=True, cache=True)
def block_intervals(classes: Any, code_cdf: Any, predictor_cdf: Any, choices: Any, starts: Any, sizes: Any) -> None:
    """Start and frequency of each symbol of the blocks: two for a block, in raster order."""
    rows, columns = choices.shape[1:]
    number = 0
    for y in range(rows):
        for x in range(columns):
            _interval(code_cdf, _code_row(classes, choices[0], y, x), choices[0, y, x], starts, sizes, number)
            row = _predictor_row(choices[1], predictor_cdf.shape[1], y, x)
            _interval(predictor_cdf, row, choices[1, y, x], starts, sizes, number + 1)
            number += 2


@njit(inline="always", cache=True)
def _interval(cdf: Any, row: Any, symbol: Any, starts: Any, sizes: Any, number: int) -> None:
    start = np.int64(cdf[row, symbol])
    end = np.int64(cdf[row, symbol + 1]) if symbol + 1 < cdf.shape[1] else 1 << PRECISION_BITS
    starts[number] = start
    sizes[number] = end - start


@njit(nogil=True, cache=True)
def residual_intervals(cdf: Any, rows: Any, centres: Any, values: Any, starts: Any, sizes: Any) -> None:
    """Start and frequency of each residual's symbol; all flat, `values` int16."""
    for i in range(values.shape[0]):
        symbol = (np.int64(values[i]) - np.int64(centres[i]) + MID_GREY) & HIGHEST
        _interval(cdf, rows[i], symbol, starts, sizes, i)


@njit(nogil=True, cache=True)
def encode_lanes(starts: Any, sizes: Any, blocks: int, states: Any, words: Any) -> int:
    """Code the symbols backwards into `states` (uint32, initial) and the end of `words`; how many words there are.

    The first `blocks` symbols are the blocks', the rest the residuals: each kind counts its lanes from 0.
    """
    lanes = states.shape[0]
    used = 0
    for i in range(starts.shape[0] - 1, -1, -1):
        lane = (i if i < blocks else i - blocks) % lanes
        state = np.int64(states[lane])
        size = np.int64(sizes[i])
        if state >= size << WORD_BITS:
            used += 1
            words[words.shape[0] - used] = state & SLOT_MASK
            state >>= WORD_BITS
        quotient = state // size
        states[lane] = (quotient << PRECISION_BITS) + (state - quotient * size) + np.int64(starts[i])
    return used


@njit(inline="always", cache=True)
def _symbol(cdf: Any, row: Any, slot: Any) -> int:
    low, high = 0, cdf.shape[1]
    while high - low > 1:
        middle = (low + high) >> 1
        if np.int64(cdf[row, middle]) <= slot:
            low = middle
        else:
            high = middle
    return low


@njit(inline="always", cache=True)
def _take(cdf: Any, row: Any, lane: int, states: Any, words: Any, used: int) -> tuple[int, int]:
    """A symbol of a lane, and the words used then; `OUT_OF_WORDS` where one is missing."""
    state = np.int64(states[lane])
    slot = state & SLOT_MASK
    symbol = _symbol(cdf, row, slot)
    start = np.int64(cdf[row, symbol])
    end = np.int64(cdf[row, symbol + 1]) if symbol + 1 < cdf.shape[1] else 1 << PRECISION_BITS
    state = (end - start) * (state >> PRECISION_BITS) + slot - start
    if state < STATE_LOW:
        if used >= words.shape[0]:
            return symbol, OUT_OF_WORDS
        state = state << WORD_BITS | np.int64(words[used])
        used += 1
    states[lane] = state
    return symbol, used


@njit(nogil=True, cache=True)
def decode_blocks(classes: Any, code_cdf: Any, predictor_cdf: Any, states: Any, words: Any, choices: Any) -> int:
    """Fill in codes and predictors; the words used, or `OUT_OF_WORDS`."""
    rows, columns = choices.shape[1:]
    lanes = states.shape[0]
    number, used = 0, 0
    for y in range(rows):
        for x in range(columns):
            row = _code_row(classes, choices[0], y, x)
            choices[0, y, x], used = _take(code_cdf, row, number % lanes, states, words, used)
            if used < 0:
                return used
            row = _predictor_row(choices[1], predictor_cdf.shape[1], y, x)
            choices[1, y, x], used = _take(predictor_cdf, row, (number + 1) % lanes, states, words, used)
            if used < 0:
                return used
            number += 2
    return used


@njit(nogil=True, cache=True)
def decode_residuals(cdf: Any, rows: Any, centres: Any, states: Any, words: Any, used: int, out: Any) -> int:
    """Residuals modulo 256 in the order of `rows`, flat uint8; the words used, or `OUT_OF_WORDS`."""
    lanes = states.shape[0]
    lane = 0
    for i in range(out.shape[0]):
        symbol, used = _take(cdf, rows[i], lane, states, words, used)
        if used < 0:
            return used
        out[i] = (symbol + np.int64(centres[i]) - MID_GREY) & HIGHEST
        lane += 1
        if lane == lanes:
            lane = 0
    return used

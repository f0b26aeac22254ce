"""The CUDA kernels of the codec `pilc`: choices, convolutions, lanes, and the undoing along the wavefront.

Tiles of a launch have one shape. `planes` are uint8 `(tiles, channels, h, w)` in coding order; `choices` uint8
`(tiles, 2, rows, columns)`: codes, then predictors. Products with weights are summed in 32-bit integers.
"""

from __future__ import annotations

from typing import Any

from pilc_stream.arith.blocks import (
    BLOCK,
    BLOCK_LOG2,
    HIGHEST,
    MID_GREY,
    MIDDLE_CLASS,
    QUARTER_LOG2,
    QUARTER_PIXELS,
    QUARTERS,
    WEIGHT_BITS,
)
from pilc_stream.arith.context import BEFORE_FIRST, CHANNELS
from pilc_stream.arith.perceptron import ACTIVATION_LIMIT, FRACTIONS
from pilc_stream.arith.rans import PRECISION_BITS, SLOT_MASK, STATE_LOW, WORD_BITS
from pilc_stream.backends.cuda.shim import ballot, bit_count, cuda, device_function, int64
from pilc_stream.backends.pilc.base import MEAN_LIMIT
from pilc_stream.models.pilc import OUTPUTS

HALF = 1 << (WEIGHT_BITS - 1)
FRACTION_BITS = 4
OUT_OF_WORDS = -1


@device_function
def neighbour(plane: Any, y: Any, x: Any) -> Any:
    """A pixel of a plane `(h, w)`, by the padding rule outside it, less mid grey."""
    if y < 0:
        x += 2 * y
        y = 0
    if x < 0:
        if y == 0:
            return BEFORE_FIRST - MID_GREY
        y -= 1
        x = 0
    return int(plane[y, min(x, plane.shape[1] - 1)]) - MID_GREY


@device_function
def predicted(planes: Any, y: Any, x: Any, taps: Any, weight: Any, bias: Any) -> Any:
    """The grey level that a predictor gives a sub-pixel; `planes` `(channels, h, w)`, `weight` `(taps,)`."""
    total = int(bias)
    for i in range(taps.shape[0]):
        place_y, place_x = y + int(taps[i, 1]), x + int(taps[i, 2])
        total += int(weight[i]) * neighbour(planes[taps[i, 0]], place_y, place_x)
    value = ((total + HALF) >> WEIGHT_BITS) + MID_GREY
    return min(max(value, 0), HIGHEST)


def add_residuals(planes: Any, channel: Any, taps: Any, weight: Any, bias: Any, sums: Any) -> None:
    """A thread for each tile, block and predictor: `sums` int32 `(tiles, rows, columns, 4 channels, predictors)`."""
    number = cuda.grid(1)
    predictors = weight.shape[0]
    rows, columns = sums.shape[1], sums.shape[2]
    block, k = number // predictors, number % predictors
    tile, row, column = block // (rows * columns), block // columns % rows, block % columns
    if tile >= sums.shape[0]:
        return
    of_tile = planes[tile]
    height, width = planes.shape[2], planes.shape[3]
    for y in range(row * BLOCK, min((row + 1) * BLOCK, height)):
        for x in range(column * BLOCK, min((column + 1) * BLOCK, width)):
            quarter = ((y >> QUARTER_LOG2) & 1) * 2 + ((x >> QUARTER_LOG2) & 1)
            residual = int(of_tile[channel, y, x]) - predicted(of_tile, y, x, taps, weight[k], bias[k])
            sums[tile, row, column, channel * QUARTERS + quarter, k] += abs(residual)


def choose(
    sums: Any, counts: Any, log: Any, predictor_bits: Any, slope: Any, level: Any, code_bits: Any, choices: Any
) -> None:
    """A thread for each tile and block; `counts` int32 `(rows, columns, 4)`: pixels of each quarter."""
    number = cuda.grid(1)
    rows, columns, parts = sums.shape[1], sums.shape[2], sums.shape[3]
    tile, row, column = number // (rows * columns), number // columns % rows, number % columns
    if tile >= sums.shape[0]:
        return
    best, lowest = 0, 0
    for k in range(sums.shape[4]):
        cost = int(predictor_bits[k])
        for part in range(parts):
            count = int(counts[row, column, part % QUARTERS])
            if count > 0:
                cost += count * int(log[QUARTER_PIXELS * int(sums[tile, row, column, part, k]) // count])
        if k == 0 or cost < lowest:
            best, lowest = k, cost
    code = 0
    for n in range(code_bits.shape[0]):
        cost = int(code_bits[n])
        for part in range(parts):
            cost += int(sums[tile, row, column, part, best]) * int(slope[n, part])
            cost += int(counts[row, column, part % QUARTERS]) * int(level[n, part])
        if n == 0 or cost < lowest:
            code, lowest = n, cost
    choices[tile, 0, row, column] = code
    choices[tile, 1, row, column] = best


def embed(choices: Any, code: Any, predictor: Any, out: Any) -> None:
    """What each block puts into the network: `out` uint8 `(tiles, rows, columns, features)`; a thread per number."""
    number = cuda.grid(1)
    features = out.shape[3]
    place, i = number // features, number % features
    rows, columns = out.shape[1], out.shape[2]
    tile, row, column = place // (rows * columns), place // columns % rows, place % columns
    if tile >= out.shape[0]:
        return
    if i < code.shape[1]:
        out[tile, row, column, i] = code[choices[tile, 0, row, column], i]
    else:
        out[tile, row, column, i] = predictor[choices[tile, 1, row, column], i - code.shape[1]]


@device_function
def unit_sum(values: Any, y: Any, x: Any, reach: Any, weight: Any) -> Any:
    """The products of a unit with the places around `(y, x)` of `values` `(h, w, channels)`, 0 outside."""
    total, i = 0, 0
    channels = values.shape[2]
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if 0 <= y + dy < values.shape[0] and 0 <= x + dx < values.shape[1]:
                for channel in range(channels):
                    total += int(weight[i + channel]) * int(values[y + dy, x + dx, channel])
            i += channels
    return total


def convolve(values: Any, reach: Any, weight: Any, bias: Any, shift: Any, split: Any, out: Any) -> None:
    """A layer: `values`, `out` uint8 `(tiles, h, w, channels)`; `reach` 1 for 3 x 3, 0 for 1 x 1; a thread per unit.

    With `split` of 2, the units are four groups, for the four places that each place becomes.
    """
    number = cuda.grid(1)
    units = weight.shape[0]
    place, unit = number // units, number % units
    rows, columns = values.shape[1], values.shape[2]
    tile, y, x = place // (rows * columns), place // columns % rows, place % columns
    if tile >= values.shape[0]:
        return
    total = unit_sum(values[tile], y, x, reach, weight[unit]) + int(bias[unit])
    value = min(max(total >> int(shift[unit]), 0), ACTIVATION_LIMIT)
    channels = out.shape[3]
    group, channel = unit // channels, unit % channels
    out[tile, split * y + group // split, split * x + group % split, channel] = value


def distribute(
    values: Any, weight: Any, bias: Any, shift: Any, choices: Any, code: Any, predictor: Any, row_of: Any, rows: Any,
    centres: Any,
) -> None:  # fmt: skip
    """The last layer, and what follows from it: table rows uint16 and centres int16 `(tiles, 3, h, w)`.

    A thread per sub-pixel; `values` `(tiles, rows, columns, channels)` at half the resolution.
    """
    number = cuda.grid(1)
    height, width = rows.shape[2], rows.shape[3]
    x, y, c = number % width, number // width % height, number // (width * height) % CHANNELS
    tile = number // (width * height * CHANNELS)
    if tile >= rows.shape[0]:
        return
    group = ((y & 1) * 2 + (x & 1)) * OUTPUTS
    unit = group + c
    total = unit_sum(values[tile], y >> 1, x >> 1, 0, weight[unit]) + int(bias[unit])
    mean = min(max(total >> int(shift[unit]), -MEAN_LIMIT), MEAN_LIMIT) + FRACTIONS // 2
    unit = group + CHANNELS + c
    total = unit_sum(values[tile], y >> 1, x >> 1, 0, weight[unit]) + int(bias[unit])
    scale = total >> int(shift[unit])
    scale += int(code[choices[tile, 0, y >> BLOCK_LOG2, x >> BLOCK_LOG2], c])
    scale += int(predictor[choices[tile, 1, y >> BLOCK_LOG2, x >> BLOCK_LOG2], c])
    scale = min(max(scale, 0), row_of.shape[0] - 1)
    rows[tile, c, y, x] = row_of[scale, mean & (FRACTIONS - 1)]
    centres[tile, c, y, x] = mean >> FRACTION_BITS


@device_function
def code_row(classes: Any, codes: Any, y: Any, x: Any) -> Any:
    """The row of the code tables of a block."""
    if x == 0 and y == 0:
        return int64(2 * MIDDLE_CLASS)
    west = codes[y, x - 1] if x > 0 else codes[y - 1, x]
    north = codes[y - 1, x] if y > 0 else codes[y, x - 1]
    # int64 throughout: a sum of two bytes would be unsigned, and with a signed number a float.
    return int64(classes[west]) + int64(classes[north])


@device_function
def predictor_row(predictors: Any, count: Any, y: Any, x: Any) -> Any:
    """The row of the predictor tables of a block."""
    if x > 0:
        return int64(predictors[y, x - 1])
    if y > 0:
        return int64(predictors[y - 1, x])
    return int64(count)


@device_function
def put_interval(cdf: Any, row: Any, symbol: Any, intervals: Any, place: Any) -> None:
    """A symbol's start and frequency."""
    start = int(cdf[row, symbol])
    end = 1 << PRECISION_BITS
    if symbol + 1 < cdf.shape[1]:
        end = int(cdf[row, symbol + 1])
    intervals[place, 0] = start
    intervals[place, 1] = end - start


def block_intervals(choices: Any, classes: Any, code_cdf: Any, predictor_cdf: Any, intervals: Any) -> None:
    """A thread per tile and block: its two symbols' `intervals` int32 `(tiles, symbols, 2)`."""
    number = cuda.grid(1)
    rows, columns = choices.shape[2], choices.shape[3]
    tile, row, column = number // (rows * columns), number // columns % rows, number % columns
    if tile >= choices.shape[0]:
        return
    codes, predictors = choices[tile, 0], choices[tile, 1]
    place = 2 * (row * columns + column)
    put_interval(code_cdf, code_row(classes, codes, row, column), int(codes[row, column]), intervals[tile], place)
    table_row = predictor_row(predictors, predictor_cdf.shape[1], row, column)
    put_interval(predictor_cdf, table_row, int(predictors[row, column]), intervals[tile], place + 1)


def residual_intervals(
    planes: Any, channel: Any, taps: Any, weight: Any, bias: Any, choices: Any, cdf: Any, rows: Any, centres: Any,
    first: Any, intervals: Any,
) -> None:  # fmt: skip
    """A thread per pixel of a channel: its residual's interval, behind the `first` ones of the blocks."""
    number = cuda.grid(1)
    height, width = planes.shape[2], planes.shape[3]
    tile, y, x = number // (height * width), number // width % height, number % width
    if tile >= planes.shape[0]:
        return
    of_tile = planes[tile]
    k = int(choices[tile, 1, y >> BLOCK_LOG2, x >> BLOCK_LOG2])
    residual = int(of_tile[channel, y, x]) - predicted(of_tile, y, x, taps, weight[k], bias[k])
    symbol = (residual - int(centres[tile, channel, y, x]) + MID_GREY) & HIGHEST
    place = first + (channel * height + y) * width + x
    put_interval(cdf, int(rows[tile, channel, y, x]), symbol, intervals[tile], place)


def encode_lanes(intervals: Any, first: Any, lanes_log2: Any, states: Any, words: Any, used: Any) -> None:
    """A warp per tile, a thread per lane, backwards: `states` int64 `(tiles, lanes)`; the words end `words`
    `(tiles, symbols)`; `used` int32 `(tiles,)`: how many there are."""
    tile, lane = cuda.blockIdx.x, cuda.threadIdx.x
    lanes = 1 << lanes_log2
    state = STATE_LOW
    at = words.shape[1]
    # The residuals from the last turn of the lanes to the first, then the blocks.
    for kind in range(2):
        begin = first if kind == 0 else 0
        count = intervals.shape[1] - first if kind == 0 else first
        for turn in range((count - 1) >> lanes_log2, -1, -1):
            position = (turn << lanes_log2) + lane
            busy = lane < lanes and position < count
            emit, word, start, size = False, 0, 0, 1
            if busy:
                start, size = int(intervals[tile, begin + position, 0]), int(intervals[tile, begin + position, 1])
                emit = state >= size << WORD_BITS
                if emit:
                    word = state & SLOT_MASK
                    state >>= WORD_BITS
            leaving = ballot(emit)
            at -= bit_count(leaving)
            if emit:
                words[tile, at + bit_count(leaving & ((1 << lane) - 1))] = word
            if busy:
                quotient = state // size
                state = (quotient << PRECISION_BITS) + (state - quotient * size) + start
    if lane < lanes:
        states[tile, lane] = state
    if lane == 0:
        used[tile] = words.shape[1] - at


@device_function
def table_symbol(cdf: Any, row: Any, slot: Any) -> Any:
    """The symbol whose interval a slot lies in."""
    low, high = 0, cdf.shape[1]
    while high - low > 1:
        middle = (low + high) >> 1
        if int(cdf[row, middle]) <= slot:
            low = middle
        else:
            high = middle
    return low


@device_function
def advanced(cdf: Any, row: Any, symbol: Any, state: Any) -> Any:
    """The state after a symbol, which may need a word."""
    start = int(cdf[row, symbol])
    end = 1 << PRECISION_BITS
    if symbol + 1 < cdf.shape[1]:
        end = int(cdf[row, symbol + 1])
    return (end - start) * (state >> PRECISION_BITS) + (state & SLOT_MASK) - start


def decode_blocks(
    classes: Any, code_cdf: Any, predictor_cdf: Any, lanes_log2: Any, words: Any, ends: Any, states: Any, used: Any,
    choices: Any,
) -> None:  # fmt: skip
    """A thread per tile: codes and predictors, one after the other, as each is the next one's context.

    Tile `i` has the words from ``ends[i]`` up to ``ends[i + 1]``; `used` becomes `OUT_OF_WORDS` where one is missing.
    """
    tile = cuda.grid(1)
    if tile >= choices.shape[0]:
        return
    at, end = ends[tile], ends[tile + 1]
    codes, predictors = choices[tile, 0], choices[tile, 1]
    columns = choices.shape[3]
    for number in range(2 * choices.shape[2] * columns):
        lane = number & ((1 << lanes_log2) - 1)
        row, column = (number >> 1) // columns, (number >> 1) % columns
        state = int(states[tile, lane])
        if number & 1 == 0:
            table_row = code_row(classes, codes, row, column)
            symbol = table_symbol(code_cdf, table_row, state & SLOT_MASK)
            codes[row, column] = symbol
            state = advanced(code_cdf, table_row, symbol, state)
        else:
            table_row = predictor_row(predictors, predictor_cdf.shape[1], row, column)
            symbol = table_symbol(predictor_cdf, table_row, state & SLOT_MASK)
            predictors[row, column] = symbol
            state = advanced(predictor_cdf, table_row, symbol, state)
        if state < STATE_LOW:
            if at >= end:
                used[tile] = OUT_OF_WORDS
                return
            state = (state << WORD_BITS) | int(words[at])
            at += 1
        states[tile, lane] = state
    used[tile] = at - ends[tile]


def decode_residuals(
    cdf: Any, rows: Any, centres: Any, lanes_log2: Any, words: Any, ends: Any, states: Any, used: Any, found: Any
) -> None:
    """A warp per tile, a thread per lane: residuals modulo 256, uint8 `(tiles, channels, h, w)`."""
    tile, lane = cuda.blockIdx.x, cuda.threadIdx.x
    lanes = 1 << lanes_log2
    if used[tile] < 0:
        return
    at, end = ends[tile] + used[tile], ends[tile + 1]
    height, width = found.shape[2], found.shape[3]
    count = found.shape[1] * height * width
    state = STATE_LOW
    if lane < lanes:
        state = int(states[tile, lane])
    for turn in range((count + lanes - 1) >> lanes_log2):
        position = (turn << lanes_log2) + lane
        needy = False
        if lane < lanes and position < count:
            c, y, x = position // (height * width), position // width % height, position % width
            table_row = int(rows[tile, c, y, x])
            symbol = table_symbol(cdf, table_row, state & SLOT_MASK)
            state = advanced(cdf, table_row, symbol, state)
            found[tile, c, y, x] = (symbol + int(centres[tile, c, y, x]) - MID_GREY) & HIGHEST
            needy = state < STATE_LOW
        needing = ballot(needy)
        if at + bit_count(needing) > end:
            # The same for all lanes of the tile.
            if lane == 0:
                used[tile] = OUT_OF_WORDS
            return
        if needy:
            state = (state << WORD_BITS) | int(words[at + bit_count(needing & ((1 << lane) - 1))])
        at += bit_count(needing)
    if lane < lanes:
        states[tile, lane] = state
    if lane == 0:
        used[tile] = at - ends[tile]


def undo(
    found: Any, choices: Any, taps_0: Any, weight_0: Any, bias_0: Any, taps_1: Any, weight_1: Any, bias_1: Any,
    taps_2: Any, weight_2: Any, bias_2: Any,
) -> None:  # fmt: skip
    """A block per tile, a thread per row of the wavefront: residuals become pixels in place."""
    planes = found[cuda.blockIdx.x]
    predictors = choices[cuda.blockIdx.x, 1]
    channels, height, width = planes.shape
    for step in range(width + 2 * height - 2):
        for y in range(cuda.threadIdx.x, height, cuda.blockDim.x):
            x = step - 2 * y
            if 0 <= x < width:
                k = int(predictors[y >> BLOCK_LOG2, x >> BLOCK_LOG2])
                value = predicted(planes, y, x, taps_0, weight_0[k], bias_0[k])
                planes[0, y, x] = (value + int(planes[0, y, x])) & HIGHEST
                if channels == CHANNELS:
                    value = predicted(planes, y, x, taps_1, weight_1[k], bias_1[k])
                    planes[1, y, x] = (value + int(planes[1, y, x])) & HIGHEST
                    value = predicted(planes, y, x, taps_2, weight_2[k], bias_2[k])
                    planes[2, y, x] = (value + int(planes[2, y, x])) & HIGHEST
        cuda.syncthreads()

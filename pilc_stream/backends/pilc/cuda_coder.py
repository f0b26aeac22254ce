"""The kernels around the network, alike for all architectures: blocks' symbols, and the rANS lanes either way.

The tiles of a launch have one shape; `jobs` says where each lies (`backends.cuda.jobs`). Of a launch's tiles, in their
order: `choices` uint8, a tile's codes, then its predictors; `tables` int32, channel by channel, a sub-pixel's row of
the CDF and its centre as halves; `intervals` int32, the blocks' two symbols each, then the sub-pixels'.

Encoding: `choose`, the network, `block_intervals`, `residual_intervals`, `lanes`. Decoding: `blocks`, the network,
`residuals`, `undo`. The network: `embed`, a `convolution` for each layer, `distribute`.
"""

from __future__ import annotations

from typing import Any

from pilc_stream.arith.blocks import MIDDLE_CLASS
from pilc_stream.arith.rans import PRECISION_BITS, SLOT_MASK, STATE_LOW
from pilc_stream.backends.cuda.jobs import BAD_END, BAD_START, WORD_AT, WORD_END, WORDS_LEFT, WORDS_SHORT
from pilc_stream.backends.cuda.lanes import encode_lane, refill_lane
from pilc_stream.backends.cuda.shim import (
    WARP,
    ballot,
    bit_count,
    cuda,
    device_function,
    int64,
    narrow,
    shared_words,
    syncwarp,
)
from pilc_stream.backends.cuda.symbols import decode_stage, refill_stage
from pilc_stream.backends.pilc.stages import advance_stage, interval_stage, residual_stage

WARP_LOG2 = WARP.bit_length() - 1


@device_function
def code_row(choices: Any, at: Any, classes: Any, row: Any, column: Any, columns: Any) -> Any:
    """The row of the code tables for the block at `at`."""
    if row == 0 and column == 0:
        return int64(2 * MIDDLE_CLASS)
    west = choices[at - 1] if column > 0 else choices[at - columns]
    north = choices[at - columns] if row > 0 else choices[at - 1]
    # int64 throughout: a sum of two bytes would be unsigned, and with a signed number a float.
    return int64(classes[west]) + int64(classes[north])


@device_function
def predictor_row(choices: Any, at: Any, predictors: Any, row: Any, column: Any, columns: Any) -> Any:
    """The row of the predictor tables for the block at `at`."""
    if column > 0:
        return int64(choices[at - 1])
    if row > 0:
        return int64(choices[at - columns])
    return int64(predictors)


@device_function
def found_symbol(cdf: Any, first: Any, symbols: Any, slot: Any, lane: Any) -> Any:
    """The symbol that a slot lies in, by a warp in two looks: at every so many entries, then at those from there."""
    stride = (symbols + WARP - 1) >> WARP_LOG2
    at = lane * stride
    group = bit_count(ballot(at < symbols and cdf[first + min(at, symbols - 1)] <= slot)) - 1
    at = group * stride + lane
    within = ballot(lane < stride and at < symbols and cdf[first + min(at, symbols - 1)] <= slot)
    return int64(group * stride + bit_count(within) - 1)


def blocks(jobs: Any, lanes_log2: Any, rows: Any, columns: Any, classes: Any, code_cdf: Any, codes: Any,
           predictor_cdf: Any, predictors: Any, words: Any, choices: Any, states: Any, places: Any,
           status: Any) -> None:  # fmt: skip
    """Codes and predictors, by a warp for each tile: each symbol is the next one's context, so that its threads search
    one row together. Leaves the lanes' `states` int32, ``[tile][lane]``, and in `places` each tile's next word."""
    shared = shared_words()
    lane, warp = narrow(cuda.threadIdx.x & (WARP - 1)), narrow(cuda.threadIdx.x >> WARP_LOG2)
    tile = cuda.blockIdx.x * (cuda.blockDim.x >> WARP_LOG2) + warp
    if tile >= jobs.shape[0]:
        return
    lanes = 1 << lanes_log2
    at, end = narrow(jobs[tile, WORD_AT]), narrow(jobs[tile, WORD_END])
    own = narrow(warp * WARP)
    if lane < lanes:
        high = words[at + 2 * lane + 1]
        shared[own + lane] = refill_stage((words,), (high, words[at + 2 * lane]))[0]
        if high == 0:
            cuda.atomic.max(status, tile, BAD_START)
    at = narrow(at + 2 * lanes)
    syncwarp()
    size = rows * columns
    for number in range(2 * size):
        block = number >> 1
        row, column = block // columns, block % columns
        place = (2 * tile + (number & 1)) * size + block
        state = shared[own + (number & (lanes - 1))]
        slot = state & SLOT_MASK
        end_of_cdf = 1 << PRECISION_BITS
        if number & 1 == 0:
            first = code_row(choices, place, classes, row, column, columns) * codes
            symbol = found_symbol(code_cdf, first, codes, slot, lane)
            start = int64(code_cdf[first + symbol])
            behind = int64(code_cdf[first + symbol + 1]) if symbol + 1 < codes else end_of_cdf
        else:
            first = predictor_row(choices, place, predictors, row, column, columns) * predictors
            symbol = found_symbol(predictor_cdf, first, predictors, slot, lane)
            start = int64(predictor_cdf[first + symbol])
            behind = int64(predictor_cdf[first + symbol + 1]) if symbol + 1 < predictors else end_of_cdf
        state, need = advance_stage((words,), (state, start, behind - start))
        if need != 0:
            state = refill_stage((words,), (state, words[at] if at < end else 0))[0]
            at = narrow(at + 1)
        # All have read the lane's state: their votes came after it.
        if lane == 0:
            shared[own + (number & (lanes - 1))] = state
            choices[place] = symbol
        syncwarp()
    if lane < lanes:
        states[(tile << lanes_log2) + lane] = shared[own + lane]
    if lane == 0:
        places[tile] = at


def residuals(jobs: Any, lanes_log2: Any, size: Any, depth: Any, coarse: Any, cdf: Any, words: Any, tables: Any,
              states: Any, places: Any, found: Any, status: Any) -> None:  # fmt: skip
    """The residuals of tiles of `size` pixels, a thread for each lane: bytes of `found`, four for each pixel.

    The lanes of a tile are neighbours in a warp.
    """
    number = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    tile, k = number >> lanes_log2, narrow(number & ((1 << lanes_log2) - 1))
    lane, lanes = narrow(cuda.threadIdx.x & (WARP - 1)), narrow(1 << lanes_log2)
    members = (1 << (1 << lanes_log2)) - 1
    count, at, end, state = narrow(0), narrow(0), narrow(0), narrow(STATE_LOW)
    if tile < jobs.shape[0]:
        count = narrow(size * depth)
        at, end = places[tile], narrow(jobs[tile, WORD_END])
        state = states[number]
    first = tile * size * depth
    position, pixel, channel = k, k, narrow(0)
    table = tables[first + position] if position < count else 0
    for _ in range((size * depth + lanes - 1) >> lanes_log2):
        need = 0
        # Asked for before it is needed: what a state becomes does not change it.
        following = narrow(position + lanes)
        next_table = tables[first + following] if following < count else 0
        if position < count:
            while pixel >= size:
                pixel, channel = narrow(pixel - size), narrow(channel + 1)
            symbol, state, need = decode_stage((coarse, cdf), (table & 0xFFFF, state))
            found[4 * (tile * size + pixel) + channel] = residual_stage((words,), (symbol, table))[0]
        state, at = refill_lane(words, at, end, state, need, k, lane, members)
        position, pixel, table = following, narrow(pixel + lanes), next_table
    if tile < jobs.shape[0]:
        if at > end:
            cuda.atomic.max(status, tile, WORDS_SHORT)
        elif at < end:
            cuda.atomic.max(status, tile, WORDS_LEFT)
        elif state != STATE_LOW:
            cuda.atomic.max(status, tile, BAD_END)


def lanes(jobs: Any, lanes_log2: Any, first: Any, symbols: Any, intervals: Any, words: Any, states: Any,
          lengths: Any) -> None:  # fmt: skip
    """Code the symbols of each tile from the last to the first; the words fill the tile's room from its end.

    Of its `symbols` the `first` ones are the blocks'. A thread is a lane; the lanes of a tile are neighbours in a warp.
    `states` `(tiles, lanes)`: the stream's first states; `lengths` `(tiles,)`: its 16-bit words, states and all.
    """
    number = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    tile, k = number >> lanes_log2, number & ((1 << lanes_log2) - 1)
    lane = cuda.threadIdx.x & (WARP - 1)
    members = (1 << (1 << lanes_log2)) - 1
    inside = tile < jobs.shape[0]
    at = jobs[tile, WORD_END] if inside else 0
    state = STATE_LOW
    for part in range(2):
        begin, count = (first, symbols - first) if part == 0 else (0, first)
        for turn in range((count - 1) >> lanes_log2, -1, -1):
            position = (turn << lanes_log2) + k
            busy = inside and position < count
            interval = intervals[tile * symbols + begin + position] if busy else 0
            state, at = encode_lane(words, at, state, interval, busy, k, lane, members)
    if inside:
        states[tile, k] = state
        if k == 0:
            jobs[tile, WORD_AT] = at
            lengths[tile] = jobs[tile, WORD_END] - at + (2 << lanes_log2)


def block_intervals(choices: Any, tiles: Any, rows: Any, columns: Any, symbols: Any, classes: Any, code_cdf: Any,
                    codes: Any, predictor_cdf: Any, predictors: Any, intervals: Any) -> None:  # fmt: skip
    """Both symbols of a block; a thread for each tile and block. A tile has so many `symbols`."""
    number = cuda.grid(1)
    blocks = rows * columns
    tile, block = number // blocks, number % blocks
    if tile >= tiles:
        return
    row, column = block // columns, block % columns
    at = 2 * tile * blocks + block
    table = code_row(choices, at, classes, row, column, columns)
    place = tile * symbols + 2 * block
    intervals[place] = interval_stage((code_cdf,), (table * codes, choices[at], codes))[0]
    at += blocks
    table = predictor_row(choices, at, predictors, row, column, columns)
    intervals[place + 1] = interval_stage((predictor_cdf,), (table * predictors, choices[at], predictors))[0]


__all__ = ["block_intervals", "blocks", "lanes", "residuals"]

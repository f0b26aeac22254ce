"""The kernels of the lossy lanes: values from words, words from intervals, and checksums of latents.

The nets in between are torch's (`card`), so that a pass of a batch is one launch of `values`; what it leaves in
`cursors` and `states` the next pass goes on with.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from pilc_stream.arith.rans import STATE_LOW
from pilc_stream.backends.cuda.jobs import WORD_AT, WORD_END
from pilc_stream.backends.cuda.lanes import encode_lane, refill_lane
from pilc_stream.backends.cuda.shim import WARP, ballot, bit_count, cuda, int64, narrow
from pilc_stream.backends.cuda.symbols import decode_stage
from pilc_stream.backends.lossy.base import OFFSET
from pilc_stream.models.lossy import ESCAPE
from pilc_stream.models.lossy_spec import SCALE_COUNT

ROW_BITS = (SCALE_COUNT - 1).bit_length()
"""What is listed to be decoded is a place, and in so many low bits its table row."""

ROW_MASK = (1 << ROW_BITS) - 1
POLYNOMIAL = 0x82F63B78
"""CRC-32C; as in all words of such checksums, the highest bit is the lowest power."""


class Cursor(IntEnum):
    """Columns of what is kept of a tile between passes: how many values are decoded, the next word and escape."""

    NUMBER = 0
    NEXT_WORD = 1
    LAST_WORD = 2
    NEXT_ESCAPE = 3
    LAST_ESCAPE = 4


CURSOR_COLUMNS = len(Cursor)
NUMBER, NEXT_WORD, LAST_WORD = int(Cursor.NUMBER), int(Cursor.NEXT_WORD), int(Cursor.LAST_WORD)
NEXT_ESCAPE, LAST_ESCAPE = int(Cursor.NEXT_ESCAPE), int(Cursor.LAST_ESCAPE)


def values(cursors: Any, lanes_log2: Any, listed: Any, counts: Any, coarse: Any, cdf: Any, words: Any, escapes: Any,
           states: Any, found: Any) -> None:  # fmt: skip
    """The values of a pass that are coded, to their places in `found` int32 `(tiles, places)`.

    A thread is a lane; the lanes of a tile are neighbours in a warp. `listed` int32 `(tiles, ...)`: place and row of
    the `counts` `(tiles,)` coded ones, in order. `states` `(tiles, lanes)`.
    """
    number = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    tile, k = number >> lanes_log2, narrow(number & ((1 << lanes_log2) - 1))
    lane, lanes = narrow(cuda.threadIdx.x & (WARP - 1)), narrow(1 << lanes_log2)
    members = (1 << (1 << lanes_log2)) - 1
    count, position, before, state = narrow(0), narrow(0), narrow(0), narrow(STATE_LOW)
    at, end, escape, last_escape = narrow(0), narrow(0), narrow(0), narrow(0)
    if tile < cursors.shape[0]:
        count, before, state = counts[tile], cursors[tile, NUMBER], states[tile, k]
        at, end = cursors[tile, NEXT_WORD], cursors[tile, LAST_WORD]
        escape, last_escape = cursors[tile, NEXT_ESCAPE], cursors[tile, LAST_ESCAPE]
        # Below 0 where this lane has had its value of the turn in the pass before.
        position = narrow(k - (before & (lanes - 1)))
    while ballot(position < count) != 0:
        need, symbol, place = 0, 0, 0
        busy = position >= 0 and position < count
        if busy:
            entry = listed[tile, position]
            place = entry >> ROW_BITS
            symbol, state, need = decode_stage((coarse, cdf), (entry & ROW_MASK, state))
        state, at = refill_lane(words, at, end, state, need, k, lane, members)
        outside = (ballot(busy and symbol == ESCAPE) >> (lane - k)) & members
        if busy:
            value = symbol - OFFSET
            if symbol == ESCAPE:
                own = escape + bit_count(outside & ((1 << k) - 1))
                value = escapes[own] if own < last_escape else 0
            found[tile, place] = value
        escape = narrow(escape + bit_count(outside))
        position = narrow(position + lanes)
    if tile < cursors.shape[0]:
        states[tile, k] = state
        if k == 0:
            cursors[tile, NUMBER] = before + count
            cursors[tile, NEXT_WORD], cursors[tile, NEXT_ESCAPE] = at, escape


def lanes(jobs: Any, lanes_log2: Any, turns: Any, intervals: Any, words: Any, states: Any, lengths: Any) -> None:
    """Code each tile's intervals from the last to the first; they, and the room for its words, which fill it from its
    end, are those from its `WORD_AT` to its `WORD_END`.

    A thread is a lane; the lanes of a tile are neighbours in a warp. `turns`: of the tile with most. `states`
    `(tiles, lanes)`: the stream's first states; `lengths` `(tiles,)`: its 16-bit words, states and all.
    """
    number = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    tile, k = number >> lanes_log2, number & ((1 << lanes_log2) - 1)
    lane = cuda.threadIdx.x & (WARP - 1)
    members = (1 << (1 << lanes_log2)) - 1
    first, at, state = 0, 0, STATE_LOW
    if tile < jobs.shape[0]:
        first, at = jobs[tile, WORD_AT], jobs[tile, WORD_END]
    end = at
    for turn in range(turns - 1, -1, -1):
        position = first + (turn << lanes_log2) + k
        busy = position < end
        interval = intervals[position] if busy else 0
        state, at = encode_lane(words, at, state, interval, busy, k, lane, members)
    if tile < jobs.shape[0]:
        states[tile, k] = state
        if k == 0:
            jobs[tile, WORD_AT] = at
            lengths[tile] = end - at + (2 << lanes_log2)


def checksums(latents: Any, steps: Any, shares: Any, found: Any) -> None:
    """CRC-32C of each row of `latents` int32 `(tiles, n)`, by a block for each; but for the inversion at its end.

    A thread takes every so many words, up to one of the last. `steps` int64 `(4, 256)`: what each byte of a checksum
    becomes from one of its words to the next; `shares` int64 `(threads,)`: by what the words behind its last multiply
    a thread's. `found` int64 `(tiles,)`: zeros before.
    """
    tile, thread, threads = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
    count = latents.shape[1]
    # What lies before the first word counts as zeros, which change no checksum that begins with 0.
    at = thread - (threads - count % threads) % threads
    total = 0
    while at < count:
        total = steps[0, total & 255] ^ steps[1, total >> 8 & 255] ^ steps[2, total >> 16 & 255] ^ steps[3, total >> 24]
        if at >= 0:
            total ^= int64(latents[tile, at]) & 0xFFFFFFFF
        if at == 0:
            total ^= 0xFFFFFFFF
        at += threads
    product, factor = 0, shares[thread]
    for bit in range(31, -1, -1):
        if total >> bit & 1:
            product ^= factor
        factor = (factor >> 1) ^ (POLYNOMIAL if factor & 1 else 0)
    cuda.atomic.xor(found, tile, product)


__all__ = ["checksums", "lanes", "values"]

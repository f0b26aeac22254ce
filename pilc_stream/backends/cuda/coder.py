"""The kernels behind the model, alike for all architectures: rANS lanes backwards, and streams put side by side."""

from __future__ import annotations

from typing import Any

from pilc_stream.arith.rans import STATE_LOW
from pilc_stream.backends.cuda.jobs import DEPTH, HEIGHT, LANES, PIXEL_AT, WIDTH, WORD_AT, WORD_END, step_rows
from pilc_stream.backends.cuda.lanes import encode_lane
from pilc_stream.backends.cuda.shim import WARP, ballot, cuda, int64


def lanes(jobs: Any, lanes_log2: Any, intervals: Any, total: Any, words: Any, states: Any, lengths: Any) -> None:
    """Code the symbols of each tile from the last to the first; the words fill the tile's room from its end.

    A thread is a lane; the lanes of a tile are neighbours in a warp. `states` `(tiles, lanes)`: the stream's first
    states; `lengths` `(tiles,)`: the stream's 16-bit words, states and all.
    """
    number = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    tile, k = number >> lanes_log2, number & ((1 << lanes_log2) - 1)
    lane = cuda.threadIdx.x & (WARP - 1)
    members = (1 << (1 << lanes_log2)) - 1
    height, width, depth, step, pixel_at, at = 1, 1, 1, -1, 0, 0
    if tile < jobs.shape[0]:
        job = jobs[tile]
        height, width, depth = job[HEIGHT], job[WIDTH], job[DEPTH]
        step = width + 2 * height - 3
        pixel_at, at = job[PIXEL_AT] + height * width, job[WORD_END]
    _, count = step_rows(step, height, width)
    pixel_at -= count
    channel, turn = depth - 1, (count - 1) >> lanes_log2
    state = STATE_LOW
    while ballot(step >= 0) != 0:
        position = (turn << lanes_log2) + k
        busy = step >= 0 and position < count
        interval = intervals[channel * total + pixel_at + position] if busy else 0
        state, at = encode_lane(words, at, state, interval, busy, k, lane, members)
        # Backwards: turns of the lanes, channels, steps (in tiles of one column, every other step is empty).
        if turn > 0:
            turn -= 1
        elif channel > 0:
            channel -= 1
            turn = (count - 1) >> lanes_log2
        elif step >= 0:
            step -= 1
            _, count = step_rows(step, height, width)
            if count == 0:
                step -= 1
                _, count = step_rows(step, height, width)
            pixel_at -= count
            channel, turn = depth - 1, (count - 1) >> lanes_log2
    if tile < jobs.shape[0]:
        states[tile, k] = state
        if k == 0:
            words_used = jobs[tile, WORD_END] - at
            jobs[tile, WORD_AT] = at
            lengths[tile] = words_used + (2 << lanes_log2)


def offsets(lengths: Any, ends: Any) -> None:
    """Running sums of `lengths` in order of tiles, by one block of `threads`: `ends` `(tiles,)` int64."""
    sums = cuda.shared.array(0, int64)
    thread, threads = cuda.threadIdx.x, cuda.blockDim.x
    tiles = lengths.shape[0]
    share = (tiles + threads - 1) // threads
    total = 0
    for tile in range(thread * share, min(tiles, (thread + 1) * share)):
        total += lengths[tile]
    sums[thread] = total
    cuda.syncthreads()
    before = 0
    for other in range(thread):
        before += sums[other]
    for tile in range(thread * share, min(tiles, (thread + 1) * share)):
        before += lengths[tile]
        ends[tile] = before


def assemble(jobs: Any, words: Any, states: Any, ends: Any, out: Any) -> None:
    """One block per tile: its first states and its words to where the stream before it ends, 16 bits at a time."""
    tile, thread, threads = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
    lanes_count, first, end = jobs[tile, LANES], jobs[tile, WORD_AT], jobs[tile, WORD_END]
    at = ends[tile] - (end - first) - 2 * lanes_count
    for i in range(thread, 2 * lanes_count, threads):
        out[at + i] = (states[tile, i >> 1] >> (16 * (i & 1))) & 0xFFFF
    at += 2 * lanes_count
    for i in range(thread, end - first, threads):
        out[at + i] = words[first + i]


def clear(numbers: Any) -> None:
    """Zero int32 numbers."""
    for i in range(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, numbers.shape[0],
                   cuda.blockDim.x * cuda.gridDim.x):  # fmt: skip
        numbers[i] = 0


__all__ = ["assemble", "clear", "lanes", "offsets"]

"""The kernels that predict pixels: an encoder's choices and residuals, and the undoing (see `cuda_coder`)."""

# ruff: noqa: RUF005 - Numba types the sum of two tuples, not a display with stars.

from __future__ import annotations

from typing import Any, NamedTuple

from pilc_stream.arith.blocks import BLOCK, BLOCK_LOG2, QUARTER_LOG2, QUARTERS
from pilc_stream.arith.context import CHANNELS
from pilc_stream.backends.cuda.jobs import PIXELS_AT, ROW_BYTES, step_rows
from pilc_stream.backends.cuda.shim import WARP, cuda, int64, narrow, shared_words, team_barrier
from pilc_stream.backends.pilc.plan import PilcPlan
from pilc_stream.backends.pilc.stages import (
    STEPS_KEPT,
    PilcStages,
    colour_code_stage,
    grey_code_stage,
    quarter_stage,
    zeros_stage,
)

WARP_LOG2 = WARP.bit_length() - 1
QUARTER = 1 << QUARTER_LOG2
BLOCK_PIXELS = BLOCK * BLOCK
NUMBER_BITS = 8
"""Of a predictor's or code's number, below what it costs: the least of both together is the first with the least."""


class PixelKernels(NamedTuple):
    """The kernels of one architecture, not compiled."""

    choose: Any
    residual_intervals: Any
    undo: Any


def make_pixel_kernels(plan: PilcPlan) -> PixelKernels:
    """The kernels of an architecture."""
    stages = PilcStages(plan)
    stash, load_predictor, add_residuals = stages.stash, stages.load_predictor, stages.add_residuals
    intervals_of, undone = stages.residual_intervals, stages.undo
    predictor_words, pixel_words = plan.predictor_words, plan.pixel_words
    predictors, codes = plan.spec.predictors, plan.spec.codes

    def choose(jobs: Any, height: Any, width: Any, depth: Any, pixels: Any, weights: Any, bits: Any,
               predictor_bits: Any, slope: Any, level: Any, code_bits: Any, choices: Any) -> None:  # fmt: skip
        """A CUDA block for each tile and block of pixels. `slope`, `level`: ``[part][code]``, flat."""
        shared = shared_words()
        least = cuda.shared.array(2, int64)
        thread, threads = narrow(cuda.threadIdx.x), narrow(cuda.blockDim.x)
        columns = narrow((width + BLOCK - 1) >> BLOCK_LOG2)
        blocks = narrow(((height + BLOCK - 1) >> BLOCK_LOG2) * columns)
        tile, block = narrow(cuda.blockIdx.x // blocks), narrow(cuda.blockIdx.x % blocks)
        top, left = narrow(block // columns * BLOCK), narrow(block % columns * BLOCK)
        first, row_bytes = narrow(jobs[tile, PIXELS_AT]), narrow(jobs[tile, ROW_BYTES])
        sums_at = BLOCK_PIXELS * pixel_words
        if thread < 2:
            least[thread] = int64(1) << 62
        for p in range(thread, BLOCK_PIXELS, threads):
            y, x = top + (p >> BLOCK_LOG2), left + (p & (BLOCK - 1))
            if y < height and x < width:
                stash((pixels, shared), (first, row_bytes, depth, y, x, width, p * pixel_words))
        cuda.syncthreads()
        for k in range(thread, predictors, threads):
            words = load_predictor((weights,), (k * predictor_words,))
            cost = int64(predictor_bits[k])
            for quarter in range(QUARTERS):
                y0, x0 = narrow((quarter >> 1) * QUARTER), narrow((quarter & 1) * QUARTER)
                rows, places = min(QUARTER, height - top - y0), min(QUARTER, width - left - x0)
                sums = zeros_stage((shared,), (0,))
                for y in range(y0, y0 + rows):
                    for x in range(x0, x0 + places):
                        sums = add_residuals((shared,), words + ((y * BLOCK + x) * pixel_words,) + sums)
                count = rows * places if rows > 0 and places > 0 else 0
                at = sums_at + quarter * predictors + k
                shared[at] = sums[0]
                shared[at + QUARTERS * predictors] = sums[1]
                shared[at + 2 * QUARTERS * predictors] = sums[2]
                if count > 0:
                    cost += quarter_stage((bits,), (sums[0], count))[0]
                    if depth == CHANNELS:
                        cost += quarter_stage((bits,), (sums[1], count))[0]
                        cost += quarter_stage((bits,), (sums[2], count))[0]
            cuda.atomic.min(least, 0, cost * (1 << NUMBER_BITS) + k)
        cuda.syncthreads()
        best = narrow(least[0] & ((1 << NUMBER_BITS) - 1))
        upper, lower = min(QUARTER, height - top), max(0, min(QUARTER, height - top - QUARTER))
        west, east = min(QUARTER, width - left), max(0, min(QUARTER, width - left - QUARTER))
        counts = (upper * west, upper * east, lower * west, lower * east)
        for n in range(thread, codes, threads):
            about = (n, codes, sums_at + best, predictors)
            if depth == CHANNELS:
                total = colour_code_stage((shared, code_bits, slope, level), about + counts)[0]
            else:
                total = grey_code_stage((shared, code_bits, slope, level), about + counts)[0]
            cuda.atomic.min(least, 1, int64(total) * (1 << NUMBER_BITS) + n)
        cuda.syncthreads()
        if thread < 2:
            # Codes first; least[0] is the predictor's.
            choices[(2 * tile + thread) * blocks + block] = least[1 - thread] & ((1 << NUMBER_BITS) - 1)

    def residual_intervals(jobs: Any, height: Any, width: Any, depth: Any, pixels: Any, weights: Any, cdf: Any,
                           choices: Any, tables: Any, intervals: Any) -> None:  # fmt: skip
        """The symbols of a pixel; a thread for each pixel of each tile."""
        number = cuda.grid(1)
        size = height * width
        tile, pixel = number // size, number % size
        if tile >= jobs.shape[0]:
            return
        y, x = pixel // width, pixel % width
        columns = (width + BLOCK - 1) >> BLOCK_LOG2
        blocks = ((height + BLOCK - 1) >> BLOCK_LOG2) * columns
        k = choices[(2 * tile + 1) * blocks + (y >> BLOCK_LOG2) * columns + (x >> BLOCK_LOG2)]
        job = jobs[tile]
        at = tile * depth * size + pixel
        # Of a grey tile the first channel counts; the others are asked for what it has.
        step = size if depth == CHANNELS else 0
        place = (job[PIXELS_AT], job[ROW_BYTES], depth, y, x, width)
        where = (k * predictor_words, at, at + step, at + 2 * step)
        found = intervals_of((pixels, weights, cdf, tables), place + where)
        at = tile * (2 * blocks + depth * size) + 2 * blocks + pixel
        intervals[at] = found[0]
        if depth == CHANNELS:
            intervals[at + size] = found[1]
            intervals[at + 2 * size] = found[2]

    def undo(jobs: Any, team_log2: Any, height: Any, width: Any, depth: Any, choices: Any, weights: Any, found: Any,
             pixels: Any) -> None:  # fmt: skip
        """A team of ``2**team_log2`` threads for each tile, along the wavefront: residuals `found` become pixels.

        A thread has the rows that are its number modulo the team's size: of those only one is under way.
        """
        shared = shared_words()
        team_threads = narrow(1 << team_log2)
        wide = team_log2 > WARP_LOG2
        mask = narrow(team_threads - 1)
        team, k = narrow(cuda.threadIdx.x >> team_log2), narrow(cuda.threadIdx.x & mask)
        tile = narrow(cuda.blockIdx.x * (cuda.blockDim.x >> team_log2) + team)
        slots = narrow(team * STEPS_KEPT * team_threads)
        columns = narrow((width + BLOCK - 1) >> BLOCK_LOG2)
        blocks = narrow(((height + BLOCK - 1) >> BLOCK_LOG2) * columns)
        first, row_bytes = narrow(0), narrow(0)
        if tile < jobs.shape[0]:
            first, row_bytes = narrow(jobs[tile, PIXELS_AT]), narrow(jobs[tile, ROW_BYTES])
        for step in range(width + 2 * height - 2):
            y0, count = step_rows(step, height, width)
            y = narrow(y0 + ((k - y0) & mask))
            if y - y0 < count and tile < jobs.shape[0]:
                x = narrow(step - 2 * y)
                block = (y >> BLOCK_LOG2) * columns + (x >> BLOCK_LOG2)
                predictor = choices[(2 * tile + 1) * blocks + block] * predictor_words
                residual = found[(tile * height + y) * width + x]
                at = first + y * row_bytes + x * depth
                place = (slots, mask, y, x, width, predictor, residual)
                p0, p1, p2 = undone((shared, weights), place)
                if depth == CHANNELS:
                    pixels[at + 1], pixels[at], pixels[at + 2] = p0, p1, p2
                else:
                    pixels[at] = p0
            team_barrier(wide)

    return PixelKernels(choose, residual_intervals, undo)

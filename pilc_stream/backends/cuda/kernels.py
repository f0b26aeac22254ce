"""The kernels: how threads walk tiles. What they do for a pixel is in `stages`.

`decode`: a team of threads decodes a tile, step by step of its wavefront; the k-th thread has the step's k-th pixel.
Encoding: `walk` does the same for what is recursive (the adaptive units) and saves each pixel's context; `model` runs
the perceptron over all pixels at once; `lanes` runs the rANS lanes backwards; `offsets` and `assemble` put the streams
side by side.

Pixels are numbered in coding order over the tiles of a batch, symbols channel by channel: symbol
``channel * pixels + pixel``. A *job* is a row of int64, see `Job`.
"""

# ruff: noqa: RUF005 - Numba types the sum of two tuples, not a display with stars.

from __future__ import annotations

from typing import Any, NamedTuple

from pilc_stream.arith.context import CHANNELS
from pilc_stream.arith.rans import STATE_LOW
from pilc_stream.backends.cuda.jobs import (
    BAD_END,
    BAD_START,
    DEPTH,
    HEIGHT,
    LANES,
    PIXEL_AT,
    PIXELS_AT,
    ROW_BYTES,
    WIDTH,
    WORD_AT,
    WORD_END,
    WORDS_LEFT,
    WORDS_SHORT,
    clear_ring,
    step_rows,
)
from pilc_stream.backends.cuda.lanes import refill_lane
from pilc_stream.backends.cuda.network import make_network
from pilc_stream.backends.cuda.plan import ERROR_WORDS, RECORDED_STEPS, SUB_WORDS, Plan
from pilc_stream.backends.cuda.shim import (
    WARP,
    ballot,
    cuda,
    device_function,
    int32,
    narrow,
    shared_words,
    team_barrier,
)
from pilc_stream.backends.cuda.stages import Stages
from pilc_stream.backends.cuda.symbols import decode_stage, interval_stage, pixel_stage, refill_stage

WARP_LOG2 = 5


class Kernels(NamedTuple):
    """The kernels of one architecture, not compiled: the bodies that `cuda.jit` takes."""

    decode: Any
    walk: Any
    model: Any


def make_kernels(plan: Plan) -> Kernels:
    """The kernels of an architecture."""
    stages = Stages(plan)
    context, adaptive_1, adaptive_2 = stages.context, stages.adaptive_1, stages.adaptive_2
    prepare, first, own_1, later_1, own_2, later_2, head_0, head_1, head_2 = make_network(plan, stages)
    leave_grey, leave_colour = stages.leave_grey, stages.leave_colour
    begin_row, carry_on, end_row = stages.begin_row, stages.carry_on, stages.end_row
    save_grey, save_colour, load_context = stages.save_grey, stages.save_colour, stages.load_context
    parameter_words, slots, padding = plan.shared_parameters, plan.pixel_slots, plan.padding
    hidden_words, kept_words = plan.hidden_words, plan.thread_words(decoding=True)
    shared_kept_words = 0 if plan.local else kept_words
    ring_planes = RECORDED_STEPS * (SUB_WORDS + ERROR_WORDS) + slots + len(plan.initial_state)
    # Where `context` and `load_context` give predictions, pixels, the number of channels.
    at_a0, at_a1, at_a2 = (plan.inputs + 1 + CHANNELS + c for c in range(CHANNELS))
    at_p0, at_p1, at_p2 = (at_a2 + 1 + c for c in range(CHANNELS))
    at_depth = at_p2 + 1

    if parameter_words:

        @device_function
        def ready_parameters(shared: Any, parameters: Any) -> Any:
            """The parameters, copied to shared memory by the threads of the block."""
            for i in range(cuda.threadIdx.x, parameter_words, cuda.blockDim.x):
                shared[i] = parameters[i]
            return shared

    else:

        @device_function
        def ready_parameters(shared: Any, parameters: Any) -> Any:
            """The parameters where they are."""
            return parameters

    if plan.local:

        @device_function
        def keep(shared: Any) -> Any:
            """Where a thread keeps its words."""
            return cuda.local.array(kept_words, int32)

        @device_function
        def kept_place(thread: Any, threads: Any) -> Any:
            """The first of them, and how far the next is."""
            return narrow(0), narrow(1)

    else:

        @device_function
        def keep(shared: Any) -> Any:
            """Where a thread keeps its words."""
            return shared

        @device_function
        def kept_place(thread: Any, threads: Any) -> Any:
            """The first of them, and how far the next is."""
            return narrow(parameter_words + thread), narrow(threads + padding)

    if plan.stashed_words:
        stashing_context, stashed = stages.stashing_context, stages.stashed

        @device_function
        def begin_pixel(shared: Any, kept: Any, place: Any, by: Any) -> Any:
            """The context without the states, which are put by."""
            return stashing_context((shared, kept), place + by)

        @device_function
        def whole(kept: Any, known: Any, by: Any) -> Any:
            """What `context` would have given."""
            return known + stashed((kept,), by)

    else:

        @device_function
        def begin_pixel(shared: Any, kept: Any, place: Any, by: Any) -> Any:
            """The context."""
            return context((shared,), place)

        @device_function
        def whole(kept: Any, known: Any, by: Any) -> Any:
            """What `context` gave."""
            return known

    @device_function
    def end_rows(shared: Any, base: Any, rows: Any, step: Any, y0: Any, top: Any, slot: Any, job: Any) -> None:
        """What stands right of the rows that have ended, by one thread."""
        beyond = step - job[WIDTH]
        if beyond >= 0 and y0 >= 1:
            column = top - 1 + (rows if top < 1 else 0)
            carry_on((shared,), (base, rows, step, y0 - 1, column, slot))
            if beyond & 1 == 0:
                end_row((shared,), (base, rows, step, y0 - 1, column, slot))
                if y0 >= 2:
                    column = top - 2 + (rows if top < 2 else 0)
                    carry_on((shared,), (base, rows, step, y0 - 2, column, slot))

    @device_function
    def decode_lanes(shared: Any, exchange: Any, coarse: Any, cdf: Any, words: Any, k: Any, lanes: Any, members: Any,
                     count: Any, state: Any, at: Any, end: Any) -> Any:  # fmt: skip
        """One channel of a step by the first warp of a team: table rows from `exchange` on become symbols."""
        lane = cuda.threadIdx.x & (WARP - 1)
        position = narrow(k)
        while True:
            busy = k < lanes and position < count
            if ballot(busy) == 0:
                break
            need = 0
            if busy:
                symbol, state, need = decode_stage((coarse, cdf), (shared[exchange + position], state))
                shared[exchange + position] = symbol
            state, at = refill_lane(words, at, end, state, need, k, lane, members)
            position = narrow(position + lanes)
        return state, at

    def decode(jobs: Any, team_log2: Any, parameters: Any, initial: Any, row_of: Any, coarse: Any, cdf: Any,
               words: Any, pixels: Any, status: Any) -> None:  # fmt: skip
        shared = shared_words()
        thread, threads = narrow(cuda.threadIdx.x), narrow(cuda.blockDim.x)
        team_threads = narrow(1 << team_log2)
        wide = team_log2 > WARP_LOG2
        team, k = narrow(thread >> team_log2), narrow(thread & (team_threads - 1))
        rows = narrow(((team_threads + 8) >> 2) << 2)
        lane = narrow(thread & (WARP - 1))
        base = narrow(parameter_words + shared_kept_words * (threads + padding)
                      + team * (ring_planes * rows + team_threads))  # fmt: skip
        exchange = narrow(base + ring_planes * rows)
        kept, (hidden, stride) = keep(shared), kept_place(thread, threads)
        warp, by = narrow(hidden - lane), (narrow(hidden + hidden_words * stride), stride)
        index = cuda.blockIdx.x * (threads >> team_log2) + team
        weights = ready_parameters(shared, parameters)
        clear_ring(shared, base, rows, slots, initial, k, team_threads)

        height, width, depth, lanes = narrow(0), narrow(0), narrow(0), narrow(1)
        steps, at, end = narrow(0), narrow(0), narrow(0)
        state = 0
        if index < jobs.shape[0]:
            job = jobs[index]
            height, width, depth = narrow(job[HEIGHT]), narrow(job[WIDTH]), narrow(job[DEPTH])
            lanes, steps = narrow(job[LANES]), narrow(width + 2 * height - 2)
            at, end = narrow(job[WORD_AT]), narrow(job[WORD_END])
            if k < lanes:
                state = refill_stage((words,), (words[at + 2 * k + 1], words[at + 2 * k]))[0]
                if words[at + 2 * k + 1] == 0:
                    cuda.atomic.max(status, index, BAD_START)
            # Lanes beyond the team's threads never have a pixel.
            for other in range(k + team_threads, lanes, team_threads):
                if words[at + 2 * other] != 0 or words[at + 2 * other + 1] != 1:
                    cuda.atomic.max(status, index, BAD_END)
            at = narrow(at + 2 * lanes)
        members = (1 << min(lanes, team_threads)) - 1
        cuda.syncthreads()

        step, slot, top, before = narrow(0), narrow(0), narrow(0), narrow(0)
        while ballot(step < steps) != 0:
            y0, count = step_rows(step, height, width)
            if y0 > before:
                top = narrow(top + 1 if top + 1 < rows else 0)
                before = y0
            active = k < count and step < steps
            y = narrow(y0 + k)
            column = narrow(top + k - (rows if top + k >= rows else 0))
            place = (base, rows, step, y, column, slot)
            step_count = narrow(count if step < steps else 0)
            colour_count = narrow(step_count if depth == CHANNELS else 0)
            p0, p1, p2 = 0, 0, 0
            if active:
                known = begin_pixel(shared, kept, place, by)
                prepare(kept, weights, known + (hidden, stride))
            first(kept, weights, active, (warp, stride, lane))
            if active:
                mean0, row = head_0((kept, weights, row_of), known + (known[at_a0], hidden, stride))
                shared[exchange + k] = row
            team_barrier(wide)
            if k < WARP:
                state, at = decode_lanes(shared, exchange, coarse, cdf, words, k, lanes, members,
                                         step_count, state, at, end)  # fmt: skip
            team_barrier(wide)
            colour = active and depth == CHANNELS
            if active:
                p0 = pixel_stage((shared,), (shared[exchange + k], mean0))[0]
                p1, p2 = p0, p0
            if colour:
                a1 = adaptive_1((shared,), whole(kept, known, by) + (p0,))[0]
                own_1(kept, known + (mean0, p0, a1, hidden, stride))
            later_1(kept, weights, colour, (warp, stride, lane))
            if colour:
                mean1, row = head_1((kept, weights, row_of), known + (mean0, p0, a1, hidden, stride))
                shared[exchange + k] = row
            team_barrier(wide)
            if k < WARP:
                state, at = decode_lanes(shared, exchange, coarse, cdf, words, k, lanes, members,
                                         colour_count, state, at, end)  # fmt: skip
            team_barrier(wide)
            if colour:
                p1 = pixel_stage((shared,), (shared[exchange + k], mean1))[0]
                a2 = adaptive_2((shared,), whole(kept, known, by) + (p0, p1))[0]
                own_2(kept, known + (mean0, p0, mean1, p1, a2, hidden, stride))
            later_2(kept, weights, colour, (warp, stride, lane))
            if colour:
                mean2, row = head_2((kept, weights, row_of), known + (mean0, p0, mean1, p1, a2, hidden, stride))
                shared[exchange + k] = row
            team_barrier(wide)
            if k < WARP:
                state, at = decode_lanes(shared, exchange, coarse, cdf, words, k, lanes, members,
                                         colour_count, state, at, end)  # fmt: skip
            team_barrier(wide)
            if active:
                out = job[PIXELS_AT] + y * job[ROW_BYTES] + (step - 2 * y) * depth
                full = whole(kept, known, by)
                if colour:
                    p2 = pixel_stage((shared,), (shared[exchange + k], mean2))[0]
                    pixel = leave_colour((shared,), full + (a1, a2, p0, p1, p2) + place)[0]
                    pixels[out + 1], pixels[out], pixels[out + 2] = p0, p1, p2
                else:
                    pixel = leave_grey((shared,), full + (0, 0, p0, p1, p2) + place)[0]
                    pixels[out] = p0
                if step == 2 * y:
                    begin_row((shared,), (pixel,) + place)
            if k == team_threads - 1 and step < steps:
                end_rows(shared, base, rows, step, y0, top, slot, job)
            step = narrow(step + 1)
            slot = narrow(slot + 1 if slot + 1 < slots else 0)
            team_barrier(wide)

        if index < jobs.shape[0] and k < lanes:
            if at > end:
                cuda.atomic.max(status, index, WORDS_SHORT)
            elif at < end:
                cuda.atomic.max(status, index, WORDS_LEFT)
            elif state != STATE_LOW:
                cuda.atomic.max(status, index, BAD_END)

    def walk(jobs: Any, team_log2: Any, initial: Any, pixels: Any, contexts: Any, total: Any) -> None:
        shared = shared_words()
        thread, threads = narrow(cuda.threadIdx.x), narrow(cuda.blockDim.x)
        team_threads = narrow(1 << team_log2)
        wide = team_log2 > WARP_LOG2
        team, k = narrow(thread >> team_log2), narrow(thread & (team_threads - 1))
        rows = narrow(((team_threads + 8) >> 2) << 2)
        base = narrow(team * (ring_planes * rows + team_threads))
        index = cuda.blockIdx.x * (threads >> team_log2) + team
        clear_ring(shared, base, rows, slots, initial, k, team_threads)
        height, width, depth, steps, number = narrow(0), narrow(0), narrow(0), narrow(0), narrow(0)
        if index < jobs.shape[0]:
            job = jobs[index]
            height, width, depth = narrow(job[HEIGHT]), narrow(job[WIDTH]), narrow(job[DEPTH])
            steps, number = narrow(width + 2 * height - 2), narrow(job[PIXEL_AT])
        cuda.syncthreads()

        step, slot, top, before = narrow(0), narrow(0), narrow(0), narrow(0)
        while ballot(step < steps) != 0:
            y0, count = step_rows(step, height, width)
            if y0 > before:
                top = narrow(top + 1 if top + 1 < rows else 0)
                before = y0
            active = k < count and step < steps
            y = narrow(y0 + k)
            column = narrow(top + k - (rows if top + k >= rows else 0))
            place = (base, rows, step, y, column, slot)
            p0, p1, p2 = 0, 0, 0
            if active:
                at = job[PIXELS_AT] + y * job[ROW_BYTES] + (step - 2 * y) * depth
                known = context((shared,), place)
                if depth == CHANNELS:
                    p0, p1, p2 = pixels[at + 1], pixels[at], pixels[at + 2]
                    a1 = adaptive_1((shared,), known + (p0,))[0]
                    a2 = adaptive_2((shared,), known + (p0, p1))[0]
                    save_colour((contexts,), known + (a1, a2, p0, p1, p2, number + k, total))
                else:
                    p0 = pixels[at]
                    p1, p2 = p0, p0
                    save_grey((contexts,), known + (0, 0, p0, p1, p2, number + k, total))
            team_barrier(wide)
            if active:
                if depth == CHANNELS:
                    pixel = leave_colour((shared,), known + (a1, a2, p0, p1, p2) + place)[0]
                else:
                    pixel = leave_grey((shared,), known + (0, 0, p0, p1, p2) + place)[0]
                if step == 2 * y:
                    begin_row((shared,), (pixel,) + place)
            if k == team_threads - 1 and step < steps:
                end_rows(shared, base, rows, step, y0, top, slot, job)
            number = narrow(number + count)
            step = narrow(step + 1)
            slot = narrow(slot + 1 if slot + 1 < slots else 0)
            team_barrier(wide)

    def model(contexts: Any, total: Any, parameters: Any, row_of: Any, cdf: Any, intervals: Any) -> None:
        shared = shared_words()
        thread, threads = cuda.threadIdx.x, cuda.blockDim.x
        lane = thread & (WARP - 1)
        weights = ready_parameters(shared, parameters)
        cuda.syncthreads()
        kept, (hidden, stride) = keep(shared), kept_place(thread, threads)
        warp = hidden - lane
        # All threads of a warp go round together.
        for begin in range(cuda.blockIdx.x * threads + thread - lane, total, threads * cuda.gridDim.x):
            number = begin + lane
            active = number < total
            colour = False
            if active:
                known = load_context((contexts,), (number, total))
                # Behind inputs, exponent and bases: three predictions, three pixels, the number of channels.
                a0, a1, a2 = known[at_a0], known[at_a1], known[at_a2]
                p0, p1, p2 = known[at_p0], known[at_p1], known[at_p2]
                colour = known[at_depth] == CHANNELS
                prepare(kept, weights, known + (hidden, stride))
            first(kept, weights, active, (warp, stride, lane))
            if active:
                mean0, row = head_0((kept, weights, row_of), known + (a0, hidden, stride))
                intervals[number] = interval_stage((cdf,), (mean0, row, p0))[0]
            if colour:
                own_1(kept, known + (mean0, p0, a1, hidden, stride))
            later_1(kept, weights, colour, (warp, stride, lane))
            if colour:
                mean1, row = head_1((kept, weights, row_of), known + (mean0, p0, a1, hidden, stride))
                intervals[total + number] = interval_stage((cdf,), (mean1, row, p1))[0]
                own_2(kept, known + (mean0, p0, mean1, p1, a2, hidden, stride))
            later_2(kept, weights, colour, (warp, stride, lane))
            if colour:
                mean2, row = head_2((kept, weights, row_of), known + (mean0, p0, mean1, p1, a2, hidden, stride))
                intervals[2 * total + number] = interval_stage((cdf,), (mean2, row, p2))[0]

    return Kernels(decode, walk, model)

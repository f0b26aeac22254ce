"""Jobs, what becomes of them, and how a team begins: what all kernels that walk tiles share."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from pilc_stream.arith.context import BEFORE_FIRST
from pilc_stream.backends.cuda.plan import ERROR_WORDS, RECORDED_STEPS, SUB_WORDS
from pilc_stream.backends.cuda.shim import device_function, narrow

FIRST_PIXELS = BEFORE_FIRST * 0x010101


class Job(IntEnum):
    """Columns of a job."""

    HEIGHT = 0
    WIDTH = 1
    CHANNELS = 2
    LANES = 3
    PIXELS_AT = 4
    """First byte of the tile in the pixels' buffer."""
    ROW_BYTES = 5
    """From one row of the tile to the next, there."""
    WORD_AT = 6
    """First 16-bit word of the tile's stream (decoding), or of the room for its words (encoding)."""
    WORD_END = 7
    PIXEL_AT = 8
    """Number of the tile's first pixel (encoding)."""


JOB_COLUMNS = len(Job)


class Status(IntEnum):
    """What a tile's decoding found."""

    GOOD = 0
    BAD_START = 1
    WORDS_SHORT = 2
    WORDS_LEFT = 3
    BAD_END = 4


HEIGHT, WIDTH, DEPTH, LANES = int(Job.HEIGHT), int(Job.WIDTH), int(Job.CHANNELS), int(Job.LANES)
PIXELS_AT, ROW_BYTES = int(Job.PIXELS_AT), int(Job.ROW_BYTES)
WORD_AT, WORD_END, PIXEL_AT = int(Job.WORD_AT), int(Job.WORD_END), int(Job.PIXEL_AT)
BAD_START, WORDS_SHORT = int(Status.BAD_START), int(Status.WORDS_SHORT)
WORDS_LEFT, BAD_END = int(Status.WORDS_LEFT), int(Status.BAD_END)


@device_function
def step_rows(step: Any, height: Any, width: Any) -> Any:
    """First row and number of rows of a step."""
    first = narrow(max(0, (step - width + 2) >> 1))
    return first, narrow(max(0, min(height - 1, step >> 1) + 1 - first))


@device_function
def clear_ring(shared: Any, base: Any, rows: Any, slots: Any, initial: Any, k: Any, threads: Any) -> None:
    """The ring before the first step, by the threads of a team."""
    recorded = RECORDED_STEPS * (SUB_WORDS + ERROR_WORDS) * rows
    for i in range(k, recorded, threads):
        shared[base + i] = 0
    for i in range(k, slots * rows, threads):
        shared[base + recorded + i] = FIRST_PIXELS
    for plane in range(initial.shape[0]):
        for i in range(k, rows, threads):
            shared[base + recorded + (slots + plane) * rows + i] = initial[plane]

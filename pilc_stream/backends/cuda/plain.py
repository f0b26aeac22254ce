"""What a stage (see `trace`) works with in the simulator: its operations and its memory, on Python integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pilc_stream.backends.cuda.shim import gather, syncwarp


class PlainOps:
    """The operations of a stage on Python integers."""

    def dot(self, total: int, values: int, weights: int, signed: bool) -> int:
        """``total`` plus the products of four bytes with four signed bytes; `signed`: what the first four are."""
        for shift in (0, 8, 16, 24):
            value = self.signed_byte(values, shift) if signed else values >> shift & 255
            total += value * self.signed_byte(weights, shift)
        return total

    def pair_dot(self, total: int, pair: int, values: int, high: bool) -> int:
        """``total`` plus the products of two signed halves with two signed bytes of `values`, low or `high`."""
        first = 16 if high else 0
        return total + sum(self.signed_half(pair, 16 * i) * self.signed_byte(values, first + 8 * i) for i in range(2))

    def signed_byte(self, word: int, shift: int) -> int:
        """The signed byte from bit `shift` on."""
        return ((word >> shift & 255) ^ 128) - 128

    def signed_half(self, word: int, shift: int) -> int:
        """The signed 16 bits from bit `shift` (0 or 16) on."""
        return ((word >> shift & 0xFFFF) ^ 0x8000) - 0x8000

    def pack_bytes(self, a: int, b: int, c: int, d: int) -> int:
        """The low bytes of four values as one word, the first lowest."""
        return self.signed(a & 255 | (b & 255) << 8 | (c & 255) << 16 | (d & 255) << 24)

    def pack_halves(self, low: int, high: int) -> int:
        """The low 16 bits of two values as one word."""
        return self.signed(low & 0xFFFF | (high & 0xFFFF) << 16)

    def choose(self, condition: int, yes: int, no: int) -> int:
        """`yes` where the comparison `condition` holds, else `no`."""
        return yes if condition else no

    def unsigned(self, word: int) -> int:
        """The word's 32 bits as a number from 0 on: shifts, comparisons and ``//`` are unsigned from there."""
        return word & 0xFFFFFFFF

    def signed(self, number: int) -> int:
        """The inverse of `unsigned`; numbers beyond 32 bits are an error of the stage."""
        if not 0 <= number < 1 << 32:
            raise OverflowError(f"{number} leaves 32 bits")
        return number - (number >> 31 << 32)

    def repeat(self, count: int, body: Callable[[int], None]) -> None:
        """``for i in range(count): body(i)``; what it computes goes by way of memory."""
        for i in range(count):
            body(i)

    # By all threads of a warp together.

    def sync_warp(self) -> None:
        """Wait for the threads of the warp; what they wrote can be read."""
        syncwarp()

    def multiply(
        self, sums: Sequence[int], values: Sequence[int], weights: Sequence[int], signed: bool
    ) -> Sequence[int]:
        """`sums` plus a product of matrices, 16 x 32 bytes by 32 x 8 signed bytes: ``mma.m16n8k32`` of the PTX manual.

        Each thread holds four sums, four words of the first matrix and two of the second; see `multiplied`.
        """
        lane, everything = gather([*values, *weights])
        return multiplied(lane, sums, everything, signed)

    def pack_saturated(self, low: int, high: int) -> int:
        """Two values, limited to ``[0, 255]``, as the low two bytes of a word."""
        return min(max(low, 0), 255) | min(max(high, 0), 255) << 8


def multiplied(lane: int, sums: Sequence[int], everything: Sequence[Sequence[int]], signed: bool) -> list[int]:
    """What a thread gets from `PlainOps.multiply`. `everything`: the six words of each thread of the warp.

    In the words of the PTX manual, a thread's `group` is ``lane >> 2``. Its sums are those of the rows ``group`` (two)
    and ``group + 8`` in the columns ``2 (lane % 4)`` and the next; its words of the first matrix are those of these
    rows at the bytes from ``4 (lane % 4)`` on, then the same 16 bytes on; those of the second matrix, likewise, are of
    the column ``group``.
    """
    byte = PlainOps().signed_byte
    out = []
    for i, total in enumerate(sums):
        row, column = (lane >> 2) + 8 * (i >> 1), 2 * (lane & 3) + (i & 1)
        for k in range(32):
            quarter, far, shift = (k & 15) >> 2, k >> 4, 8 * (k & 3)
            value = everything[4 * (row & 7) + quarter][(row >> 3) + 2 * far]
            weight = everything[4 * column + quarter][4 + far]
            total += (byte(value, shift) if signed else value >> shift & 255) * byte(weight, shift)
        out.append(total)
    return out


class PlainMemory:
    """An array of a simulated kernel as stages see it."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __getitem__(self, index: int) -> int:
        return int(self._array[index])

    def __setitem__(self, index: int, value: int) -> None:
        # NumPy refuses a Python integer that the element type cannot hold.
        self._array[index] = value

    def put_half(self, index: int, half: int, value: int) -> None:
        """Write the low (0) or high (1) 16 bits of a word."""
        self._array.view(np.uint16)[2 * index + half] = value

    def vector(self, index: int) -> list[int]:
        """Four consecutive words, from a multiple of four on."""
        if index % 4:
            raise IndexError(f"word {index} is not at a multiple of 16 bytes")
        return [self[index + i] for i in range(4)]

    def put_vector(self, index: int, values: Sequence[int]) -> None:
        """Write four consecutive words, from a multiple of four on."""
        if index % 4:
            raise IndexError(f"word {index} is not at a multiple of 16 bytes")
        for i, value in enumerate(values):
            self[index + i] = value

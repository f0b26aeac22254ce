"""The kernels of the lossy lanes with their launches, and a model's code tables on a card."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.backends.cuda.program import BLOCK_LOG2, I32, JOBS, NUMBER, U16
from pilc_stream.backends.cuda.shim import Kernel, cuda, types
from pilc_stream.backends.cuda.store import with_store
from pilc_stream.backends.cuda.symbols import FINE
from pilc_stream.backends.lossy import cuda_coder
from pilc_stream.backends.lossy.cuda_coder import POLYNOMIAL

THREADS = 1 << BLOCK_LOG2
ONE = 1 << 31
"""The polynomial 1 in a checksum's order of bits."""

WORD_POWER = 32
_I32_2, _I64, _I64_2 = types.int32[:, ::1], types.int64[::1], types.int64[:, ::1]

SIGNATURES = {
    "values": (_I32_2, NUMBER, _I32_2, I32, I32, I32, U16, I32, _I32_2, _I32_2),
    "lanes": (JOBS, NUMBER, NUMBER, I32, U16, _I32_2, I32),
    "checksums": (_I32_2, _I64_2, _I64, _I64),
}
"""The types of each kernel's arguments."""


@cache
def _kernels() -> dict[str, Kernel]:
    return {
        name: Kernel(
            getattr(cuda_coder, name), SIGNATURES[name], partial(with_store, name=f"lossy-{name}", about="coder")
        )
        for name in cuda_coder.__all__
    }


class LanesProgram:
    """Code tables on the card. Its methods queue kernels on a stream; arrays are as the kernels take them."""

    def __init__(self, starts: NDArray[np.int32]) -> None:
        """`starts`: as `LossyModel.starts`; of the row 0, which nothing is coded by, all that 16 bits hold."""
        table = np.minimum(starts[:, :-1], 0xFFFF).astype(np.uint16)
        self._coarse = cuda.to_device(np.ascontiguousarray(table[:, ::FINE]).reshape(-1).view(np.int32))
        self._cdf = cuda.to_device(table.reshape(-1).view(np.int32))
        self._steps, self._shares = (cuda.to_device(each) for each in checksum_tables(THREADS))
        # These copies are in the order of the default stream, for which other streams do not wait.
        cuda.synchronize()

    def values(self, stream: Any, cursors: Any, lanes_log2: int, listed: Any, counts: Any, *arrays: Any) -> None:
        """Decode a pass: words, escapes, states, found."""
        blocks, threads = _lane_grid(cursors.shape[0], lanes_log2)
        _kernels()["values"].launch(
            blocks, threads, stream, 0, cursors, lanes_log2, listed, counts, self._coarse, self._cdf, *arrays
        )

    def lanes(self, stream: Any, jobs: Any, lanes_log2: int, *arguments: Any) -> None:
        """Code: turns, intervals, words, states, lengths."""
        blocks, threads = _lane_grid(jobs.shape[0], lanes_log2)
        _kernels()["lanes"].launch(blocks, threads, stream, 0, jobs, lanes_log2, *arguments)

    def checksums(self, stream: Any, latents: Any, found: Any) -> None:
        """Of each tile's latents."""
        _kernels()["checksums"].launch(latents.shape[0], THREADS, stream, 0, latents, self._steps, self._shares, found)


def _lane_grid(tiles: int, lanes_log2: int) -> tuple[int, int]:
    """Blocks, and threads of each, that hold all lanes."""
    threads = max(THREADS, 1 << lanes_log2)
    return -(-(tiles << lanes_log2) // threads), threads


def checksum_tables(threads: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What `cuda_coder.checksums` takes for blocks of so many threads: `steps`, `shares`."""
    powers = [_times(ONE, WORD_POWER)]
    for _ in range(threads - 1):
        powers.append(_times(powers[-1], WORD_POWER))
    bits = [powers[-1]]
    for _ in range(WORD_POWER - 1):
        bits.append(_times(bits[-1], 1))
    # bits[i] is the product of the power with the word that has the bit 31 - i alone.
    steps = np.zeros((4, 256), np.int64)
    for byte in range(4):
        for value in range(256):
            for bit in range(8):
                if value >> bit & 1:
                    steps[byte, value] ^= bits[31 - 8 * byte - bit]
    return steps, np.array(powers[::-1], np.int64)


def _times(word: int, power: int) -> int:
    """A polynomial times x to that power, modulo that of the checksum."""
    for _ in range(power):
        word = (word >> 1) ^ (POLYNOMIAL if word & 1 else 0)
    return word

"""A model's distributions as the coder reads them.

A table row is kept as the last slot of each symbol's interval, all rows one after the other and a 65535 before the
first: an interval begins behind the last slot of the symbol before it, and 0 is what comes behind 65535. The symbol of
a slot is found through its high byte, which says where to begin (`symbols`), and a look at the next three intervals;
the few slots beyond them are searched sixteen intervals at a time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.rans import PRECISION_BITS, SLOT_MASK

SYMBOL_BITS = 8
SYMBOLS = 1 << SYMBOL_BITS
FRACTION_BITS = 4
BUCKET_BITS = 8
"""Slots are looked up by so many of their high bits."""

LOOK_AHEAD = 16
"""Intervals searched at once beyond the first look."""

LARGEST_INDEX = (SYMBOLS << FRACTION_BITS) - 1


OCTAVE_BITS = 7
"""Bits of a table index below its octave: eight scales of sixteen fractions."""

OCTAVES = 32


class Tables:
    """A model's distributions.

    `rows` int32 `(scales * 16,)`: the first entry of the table row of a scale and fraction. `steps` uint16
    `(2, OCTAVES)` says the same without a look into memory for each: in octave `o` the row of index `i` is
    ``(i >> steps[0, o]) + steps[1, o]``, modulo ``2**16``. `lasts` uint16: see above.
    `symbols` uint8: for each row and high byte of a slot, the symbol of the first slot with that byte.
    """

    def __init__(self, cdf: NDArray[np.uint16], row_of: NDArray[np.uint16]) -> None:
        rows = row_of.reshape(-1)
        if _steps(rows) is None:
            # In another order than training lays them: a row for each index.
            cdf, rows = cdf[rows], np.arange(rows.size, dtype=np.uint16)
        steps = _steps(rows)
        assert steps is not None
        self.steps = steps
        count = len(cdf)
        ends = np.concatenate([cdf[:, 1:].astype(np.int64), np.full((count, 1), 1 << PRECISION_BITS)], axis=1)
        # A first look and a search read behind the last row, whatever stands there.
        self.lasts = np.concatenate([[SLOT_MASK], (ends - 1).reshape(-1), np.zeros(LOOK_AHEAD + 4)]).astype(np.uint16)
        firsts = np.arange(0, 1 << PRECISION_BITS, 1 << (PRECISION_BITS - BUCKET_BITS))
        symbols = np.stack([np.searchsorted(row, firsts, side="right") - 1 for row in cdf.astype(np.int64)])
        self.symbols = np.concatenate([symbols.reshape(-1), np.zeros(4)]).astype(np.uint8)
        self.rows = rows.astype(np.int32) * SYMBOLS


def _steps(rows: NDArray[np.uint16]) -> NDArray[np.uint16] | None:
    """`Tables.steps`, if there are such."""
    steps = np.zeros((2, OCTAVES), np.uint16)
    for octave, first in enumerate(range(0, len(rows), 1 << OCTAVE_BITS)):
        index = np.arange(first, min(first + (1 << OCTAVE_BITS), len(rows)))
        for shift in range(FRACTION_BITS + 1):
            offsets = rows[index].astype(np.int64) - (index >> shift)
            if (offsets == offsets[0]).all():
                steps[:, octave] = shift, offsets[0] % (1 << 16)
                break
        else:
            return None
    return steps

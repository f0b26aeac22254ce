"""The rows of a model's tables as the CPU backend finds them: by steps, whatever order a model has them in."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pilc_stream.backends.tables import FRACTION_BITS, OCTAVE_BITS, SYMBOLS, Tables
from pilc_stream.models.model import load_model
from pilc_stream.models.shipped import preset_bytes

SCALES = 20


def any_rows(count: int) -> NDArray[np.uint16]:
    """Tables of which each differs from the others."""
    symbols = np.arange(SYMBOLS)
    return np.stack([np.minimum(symbols * (1 + k % 200), 60000 + symbols) for k in range(count)]).astype(np.uint16)


def by_steps(tables: Tables, index: NDArray[np.int64]) -> NDArray[np.int64]:
    shift, offset = tables.steps.astype(np.int64)[:, index >> OCTAVE_BITS]
    return ((index >> shift) + offset) % (1 << 16)


@pytest.mark.parametrize("order", ["in steps", "in any order"])
def test_steps_lead_to_the_row_of_an_index(order: str) -> None:
    size = SCALES << FRACTION_BITS
    index = np.arange(size)
    rows = np.where(index < 128, index, 128 + ((index - 128) >> 2))
    if order == "in any order":
        rows = np.random.default_rng(3).permutation(rows)
    cdf = any_rows(int(rows.max()) + 1)
    tables = Tables(cdf, rows.astype(np.uint16).reshape(SCALES, -1))
    ours = by_steps(tables, index)
    assert (tables.rows == ours * SYMBOLS).all()
    ends = tables.lasts[1 : 1 + (int(ours.max()) + 1) * SYMBOLS].reshape(-1, SYMBOLS)
    expected = np.concatenate([cdf[rows, 1:].astype(np.int64) - 1, np.full((size, 1), 65535)], axis=1)
    assert (ends[ours] == expected).all()


def test_the_shipped_tables_are_in_steps() -> None:
    model = load_model(preset_bytes("fast"))
    tables = Tables(model.cdf, model.row_of)
    assert len(tables.lasts) < (len(model.cdf) + 1) * SYMBOLS
    assert (by_steps(tables, np.arange(model.row_of.size)) == model.row_of.reshape(-1)).all()

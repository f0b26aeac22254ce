"""The work list: tiles in the order in which a card should begin them, cut to batches that its memory holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pilc_stream.backends.cuda.plan import team_log2

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Shapes:
    """What the work list needs of tiles: int64 `(tiles,)` each. Whole columns, as there may be 100,000 tiles."""

    height: Ints
    width: Ints
    channels: Ints
    lanes_log2: Ints

    @staticmethod
    def of(*columns: Sequence[int]) -> Shapes:
        """From heights, widths, channels and lanes, one each for every tile."""
        return Shapes(*(np.array(column, np.int64) for column in columns))

    def __len__(self) -> int:
        return len(self.height)

    def take(self, members: Ints) -> Shapes:
        """Some of the tiles, in this order."""
        return Shapes(self.height[members], self.width[members], self.channels[members], self.lanes_log2[members])

    @cached_property
    def pixels(self) -> Ints:
        """Pixels of each tile."""
        return self.height * self.width

    @cached_property
    def symbols(self) -> Ints:
        """Sub-pixels of each tile, and its bytes."""
        return self.pixels * self.channels

    @property
    def row_bytes(self) -> Ints:
        """Bytes of a row of each tile."""
        return self.width * self.channels

    @cached_property
    def steps(self) -> Ints:
        """Steps of its wavefront: how long it takes."""
        return self.width + 2 * self.height - 2

    @cached_property
    def team_log2(self) -> Ints:
        """How many threads share it, as a power of two."""
        return np.asarray(team_log2(self.height, self.width), np.int64)

    @cached_property
    def kinds(self) -> Ints:
        """A number for each shape: equal for tiles of equal height, width and channels."""
        return (self.height << 32) | (self.width << 4) | self.channels


class Run(NamedTuple):
    """Consecutive jobs of a batch that are alike in `kind`: those from `first` to before `last`."""

    first: int
    last: int
    kind: int


def batches(shapes: Shapes, costs: Ints, budget_bytes: int) -> Iterator[Ints]:
    """The tiles by number, in batches whose costs in bytes stay within the budget (or that have one tile).

    Within a batch tiles of equal teams stand together, the largest teams first, and of those the longest first: a card
    that begins with what takes longest ends with short tiles on all its multiprocessors.
    """
    spent = np.cumsum(costs)
    first = 0
    while first < len(shapes):
        before = int(spent[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(spent, before + budget_bytes, side="right")))
        some = slice(first, last)
        order = np.lexsort((shapes.kinds[some], -shapes.steps[some], shapes.lanes_log2[some], -shapes.team_log2[some]))
        yield first + order
        first = last


def runs(kinds: Ints) -> Iterator[Run]:
    """The runs of equal kinds."""
    ends = [*(np.flatnonzero(np.diff(kinds)) + 1).tolist(), len(kinds)]
    first = 0
    for last in ends:
        if last > first:
            yield Run(first, last, int(kinds[first]))
        first = last


def side_by_side(sizes: Ints) -> Ints:
    """Where each of some parts begins, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])

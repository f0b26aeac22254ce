"""The work list: tiles in the order in which a card should begin them, cut to batches that its memory holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from pilc_stream.backends.cuda.plan import team_log2


class TileShape(NamedTuple):
    """What the work list needs of a tile."""

    height: int
    width: int
    channels: int
    lanes_log2: int

    @property
    def pixels(self) -> int:
        """Pixels of the tile."""
        return self.height * self.width

    @property
    def steps(self) -> int:
        """Steps of its wavefront: how long it takes."""
        return self.width + 2 * self.height - 2

    @property
    def team_log2(self) -> int:
        """How many threads share it, as a power of two."""
        return team_log2(self.height, self.width)


class Run(NamedTuple):
    """Consecutive jobs of a batch that one launch takes: those from `first` to before `last`, alike in `kind`."""

    first: int
    last: int
    kind: int


def batches(shapes: Sequence[TileShape], cost: Callable[[int], int], budget_bytes: int) -> list[list[int]]:
    """The tiles by number, in batches whose `cost` in bytes stays within the budget (or that have one tile).

    Within a batch tiles of equal teams stand together, the largest teams first, and of those the longest first: a card
    that begins with what takes longest ends with short tiles on all its multiprocessors.
    """
    out: list[list[int]] = []
    spent = 0
    for index in range(len(shapes)):
        if not out or spent + cost(index) > budget_bytes:
            out.append([])
            spent = 0
        out[-1].append(index)
        spent += cost(index)
    for batch in out:
        batch.sort(key=lambda i: (-shapes[i].team_log2, shapes[i].lanes_log2, -shapes[i].steps, i))
    return out


def runs(kinds: Sequence[int]) -> Iterator[Run]:
    """The runs of equal kinds."""
    first = 0
    for kind, members in groupby(kinds):
        last = first + sum(1 for _ in members)
        yield Run(first, last, kind)
        first = last

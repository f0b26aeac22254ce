"""The order in which an epoch is read: pure functions of sizes, seed, epoch, rank, world and worker.

The global order of an epoch depends on the shard sizes, the seed, the epoch and the `Mixing`, and on nothing else:
ranks and workers only divide it. So a run that stops at global position p can go on with other numbers of ranks and
workers and still see every remaining sample once.

How an epoch is shuffled
    1. The shards are permuted and cut into groups of about `group_shards` (256). Only the shards of one group are in
       use at a time; most data sets are one group.
    2. Each shard of a group is cut into blocks of `block_rows` consecutive rows, from a phase drawn for each epoch so
       that the same rows do not travel together for ever. All blocks of the group are permuted.
    3. The block sequence is cut into windows of about `window_rows` rows, and the rows of each window are permuted.

A reader fetches a window by reading whole blocks, one request each, so storage sees long sequential reads, while
the rows of neighbouring samples come from everywhere in the group.

How well it mixes
    `effective_batch(rows, batch)` compares batches with those of a full shuffle: 1.0 is a full shuffle, 1 / batch is
    no shuffle at all. It is the factor by which batches behave as if they were smaller on a data set that is sorted
    by label, which is how a folder of class folders comes out. Measured at a million rows in 20 shards:

    | mean payload | block, window rows | batch 64 | batch 256 | batch 1024 |
    |---|---|---|---|---|
    | 2 kB | 128, 32768 | 0.82 | 0.53 | 0.22 |
    | 20 kB | 12, 3276 | 0.83 | 0.54 | 0.25 |
    | 100 kB | 2, 655 | 0.92 | 0.75 | 0.56 |
    | 250 kB and more | 1, ... | 1.0 | 1.0 | 1.0 |
    | any, shuffle=False | | 0.016 | 0.004 | 0.001 |
    This is the worst case: about 1 / (1 + batch / blocks per window) while a label lasts longer than a block. Rows
    stored in random order mix fully under any `Mixing`.

Randomness
    A counter-based hash (the SplitMix64 finaliser over key + counter) and sorting by it. Both are written here on
    uint64, whose arithmetic NumPy defines exactly, because NumPy promises equal streams of `Generator.shuffle` and
    `permutation` only for one build (NEP 19). `ORDER_VERSION` names this definition; it changes with the order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pilc_stream.errors import UsageError

ORDER_VERSION = 1
"""Version of the definition of the global order. A saved position is valid only under the version it was made with."""

Tail = Literal["pad", "drop", "ragged"]
"""What happens to the samples that do not divide by the ranks: repeat some, drop some, or give some ranks one less."""

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB

_SLAB_ROWS = 1 << 20

# Words that keep the draws for different purposes apart.
_SHARDS, _PHASE, _BLOCKS, _ROWS = 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class Mixing:
    """How far rows are mixed: larger windows mix better, larger blocks read faster.

    `block_rows` consecutive rows are read together, about `window_rows` rows are held to be mixed, and about
    `group_shards` shards are in use at one time. All at least 1, `block_rows <= window_rows`; else UsageError.
    """

    block_rows: int = 32
    window_rows: int = 8192
    group_shards: int = 256

    def __post_init__(self) -> None:
        if not 1 <= self.block_rows <= self.window_rows or self.group_shards < 1:
            raise UsageError(f"{self}: give 1 <= block_rows <= window_rows and 1 <= group_shards.")

    @classmethod
    def for_payloads(cls, mean_payload_bytes: float) -> Mixing:
        """The mixing for images of this mean stored size: blocks of about 256 kB in windows of about 64 MB.

        At 100 ms latency 20 reads of 256 kB in flight keep a line of 50 MB/s busy; 256 blocks a window mix well.
        """
        mean = max(1.0, mean_payload_bytes)
        block_rows = int(min(256.0, max(1.0, 2**18 / mean)))
        window_rows = int(min(65536.0, max(1.0, 2**26 / mean)))
        return cls(block_rows=block_rows, window_rows=window_rows)


class Window(NamedTuple):
    """A run of the global order: `rows` (int64, global row numbers) stand at positions `start`, `start + 1`, ..."""

    start: int
    rows: NDArray[np.int64]

    @property
    def stop(self) -> int:
        """The position after the last row."""
        return self.start + len(self.rows)


@dataclass(frozen=True)
class EpochOrder:
    """The global order of one epoch: a permutation of the rows `0 .. total - 1`, computed group by group on demand.

    Row numbers run through the shards in their stored order: shard 0 holds rows `0 .. sizes[0] - 1`, and so on.
    `sizes`: rows of each shard, each at least 0. `seed` in `[0, 2**64)`, `epoch >= 0`; else UsageError.
    `shuffle=False` gives the stored order, in the same windows.
    """

    sizes: Sequence[int]
    seed: int = 0
    epoch: int = 0
    shuffle: bool = True
    mixing: Mixing = Mixing()

    def __post_init__(self) -> None:
        if any(size < 0 for size in self.sizes):
            raise UsageError(f"Shard sizes hold {min(self.sizes)}: a shard has 0 rows or more.")
        if not 0 <= self.seed <= _MASK:
            raise UsageError(f"The seed is {self.seed}: give an integer in [0, 2**64).")
        if self.epoch < 0:
            raise UsageError(f"The epoch is {self.epoch}: epochs count from 0.")

    @cached_property
    def total(self) -> int:
        """Rows of all shards together."""
        return sum(self.sizes)

    def rows(self) -> NDArray[np.int64]:
        """The whole order, int64 `(total,)`."""
        return np.concatenate([np.empty(0, np.int64), *(window.rows for window in self.windows())])

    def windows(self, start: int = 0, stop: int | None = None) -> Iterator[Window]:
        """The windows that cover the positions `start <= p < stop`, cut to them.

        `stop` may lie beyond `total` (its default): position p then holds the row of position `p % total`.
        """
        stop = self.total if stop is None else stop
        while self.total and start < stop:
            lap = start - start % self.total
            for window in self._lap(start - lap, min(stop - lap, self.total)):
                yield Window(window.start + lap, window.rows)
            start = lap + self.total

    def _lap(self, start: int, stop: int) -> Iterator[Window]:
        """`windows` within one epoch: `0 <= start < stop <= total`."""
        for group_start, shards in self._groups():
            if group_start >= stop:
                return
            if group_start + int(self._sizes[shards].sum()) <= start:
                continue
            for window in self._group_windows(group_start, shards, start):
                low, high = max(window.start, start), min(window.stop, stop)
                if low < high:
                    yield Window(low, window.rows[low - window.start : high - window.start])

    @cached_property
    def _sizes(self) -> NDArray[np.int64]:
        return np.asarray(self.sizes, dtype=np.int64).reshape(-1)

    @cached_property
    def _first_rows(self) -> NDArray[np.int64]:
        return np.cumsum(self._sizes) - self._sizes

    def _key(self, *words: int) -> int:
        return stream_key(self.seed, self.epoch, *words)

    def _groups(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Position of the first row, and the shards, of each group in turn. Empty shards are in none."""
        shards = np.flatnonzero(self._sizes)
        if self.shuffle:
            shards = shards[permutation(len(shards), self._key(_SHARDS))]
        starts = np.cumsum(self._sizes[shards]) - self._sizes[shards]
        for low, high in _runs(_share_evenly(np.arange(len(shards)), len(shards), self.mixing.group_shards)):
            yield int(starts[low]), shards[low:high]

    def _group_windows(self, group_start: int, shards: NDArray[np.int64], start: int) -> Iterator[Window]:
        """The windows of one group, from the one that holds position `start` or the group's first on."""
        starts, lengths = self._blocks(shards)
        # The first shard names the group: no two groups of an epoch share one.
        name = int(shards[0])
        if self.shuffle:
            mixed = permutation(len(starts), self._key(_BLOCKS, name))
            starts, lengths = starts[mixed], lengths[mixed]
        ends = np.cumsum(lengths)
        window_of = _share_evenly(ends - lengths, int(ends[-1]), self.mixing.window_rows)
        # Slabs of whole windows bound the memory; the order does not depend on them.
        slab_of = window_of // max(1, _SLAB_ROWS // self.mixing.window_rows)
        for low, high in _runs(slab_of):
            first, last = int(ends[low] - lengths[low]), int(ends[high - 1])
            if group_start + last <= start:
                continue
            rows = np.arange(first, last) + np.repeat((starts - (ends - lengths))[low:high], lengths[low:high])
            windows = np.repeat(window_of[low:high] - window_of[low], lengths[low:high])
            if self.shuffle:
                bits = int(windows[-1]).bit_length()
                draws = _draws(first, last, self._key(_ROWS, name)) >> np.uint64(bits)
                if bits:
                    draws |= windows.astype(np.uint64) << np.uint64(64 - bits)
                # Stable, because shortened draws can be equal and ties must not be left to the sorting algorithm.
                rows = rows[np.argsort(draws, kind="stable")]
            for window_low, window_high in _runs(windows):
                yield Window(group_start + first + window_low, rows[window_low:window_high])

    def _blocks(self, shards: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First row and length of each block of these shards, in stored order, without empty ones."""
        block = self.mixing.block_rows
        sizes = self._sizes[shards]
        phases = np.zeros(len(shards), np.int64)
        if self.shuffle:
            phases = (_draws(0, len(self._sizes), self._key(_PHASE))[shards] % np.uint64(block)).astype(np.int64)
        # Block k of a shard covers the rows from phase + (k - 1) * block to phase + k * block; block 0 is the piece
        # before the phase.
        counts = np.maximum(0, -(-(sizes - phases) // block)) + 1
        shard = np.repeat(np.arange(len(shards)), counts)
        k = np.arange(len(shard)) - np.repeat(np.cumsum(counts) - counts, counts)
        low = np.maximum(0, phases[shard] + (k - 1) * block)
        high = np.minimum(sizes[shard], phases[shard] + k * block)
        kept = low < high
        return (self._first_rows[shards][shard] + low)[kept], (high - low)[kept]


@dataclass(frozen=True, slots=True)
class Split:
    """Who reads what: this reader is worker `worker` of `workers` in rank `rank` of `world`.

    From a position `begin` on, sample i goes to rank `i % world`. The samples of a rank go to its workers in whole
    batches of `batch_size`, in turn: batch j to worker `j % workers`, which is the order in which a torch DataLoader
    asks its workers. So the batches of a rank are the same for every number of workers, and after any batch the
    samples seen by all ranks are a prefix of the global order.
    """

    rank: int = 0
    world: int = 1
    worker: int = 0
    workers: int = 1
    batch_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise UsageError(f"Rank {self.rank} of {self.world}: ranks count from 0 up to the world size.")
        if not 0 <= self.worker < self.workers:
            raise UsageError(f"Worker {self.worker} of {self.workers}: workers count from 0 up to their number.")
        if self.batch_size < 1:
            raise UsageError(f"The batch size is {self.batch_size}: give 1 or more.")

    def end(self, begin: int, total: int, tail: Tail) -> int:
        """The position where reading from `begin` ends, over all ranks; beyond `total` where "pad" repeats samples."""
        left = max(0, total - begin)
        if tail == "pad":
            return begin + -(-left // self.world) * self.world
        if tail == "drop":
            return begin + left // self.world * self.world
        return begin + left

    def rank_samples(self, begin: int, total: int, tail: Tail) -> int:
        """How many samples this rank reads from `begin` on. Equal on all ranks unless `tail` is "ragged"."""
        return max(0, -(-(self.end(begin, total, tail) - begin - self.rank) // self.world))

    def positions(self, begin: int, start: int, stop: int) -> NDArray[np.int64]:
        """The positions in `[start, stop)` that this reader reads when reading began at `begin <= start`; ascending."""
        first = start + (begin + self.rank - start) % self.world
        positions = np.arange(first, stop, self.world, dtype=np.int64)
        batches = (positions - begin) // (self.world * self.batch_size)
        mine: NDArray[np.int64] = positions[batches % self.workers == self.worker]
        return mine


def stream_key(*words: int) -> int:
    """A 64-bit key for a stream of draws, a hash of all the words (each in `[0, 2**64)`) and of their order."""
    key = 0
    for word in words:
        key = int(_mix(np.array([((key + _GOLDEN) & _MASK) ^ word], np.uint64))[0])
    return key


def permutation(count: int, key: int) -> NDArray[np.int64]:
    """A permutation of `0 .. count - 1`, int64, the same for the same key on every platform and NumPy version."""
    return np.argsort(_draws(0, count, key), kind="stable").astype(np.int64, copy=False)


def effective_batch(rows: NDArray[np.int64], batch: int) -> float:
    """How well an order mixes: the effective size of its batches, as a share of `batch`.

    `rows`: a permutation of `0 .. n - 1`. The variance, over the full batches, of the mean row number of a batch is
    compared with what a full shuffle has: `(n * n - 1) / 12 / batch * (n - batch) / (n - 1)`. The result is expected
    over observed variance: about 1 for a full shuffle (above or below it by chance), `1 / batch` for the stored order.
    Raises UsageError where `rows` has fewer than two full batches.
    """
    n = len(rows)
    if batch < 1 or n < 2 * batch:
        raise UsageError(f"{n} rows hold fewer than two batches of {batch}: give more rows or a smaller batch.")
    means = rows[: n // batch * batch].reshape(-1, batch).mean(axis=1)
    expected = (n * n - 1) / 12 / batch * (n - batch) / (n - 1)
    return float(expected / np.mean((means - (n - 1) / 2) ** 2))


def _draws(start: int, stop: int, key: int) -> NDArray[np.uint64]:
    """Draws `start` to `stop - 1` of the stream `key`: 64 bits each, a function of the key and the draw's number."""
    # Times an odd constant, plus the key, and the mixing are bijections: no two draws of a stream are equal.
    counters = np.arange(start + 1, stop + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    return _mix(counters + np.array([key], np.uint64))


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The SplitMix64 finaliser of each word. Arrays only: NumPy warns when scalars wrap around."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(_MIX_1)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(_MIX_2)
    return words ^ (words >> np.uint64(31))


def _share_evenly(starts: NDArray[np.int64], total: int, target: int) -> NDArray[np.int64]:
    """Which of `round(total / target)` equal parts (at least one) each piece begins in; `starts` are its positions."""
    parts = max(1, round(total / target))
    return starts * parts // max(1, total)


def _runs(labels: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Begin and end of each run of equal labels."""
    cuts = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    return pairwise(cuts) if len(labels) else iter(())

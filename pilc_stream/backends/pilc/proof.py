"""The codec's kernels through PTX and ptxas, without a card: what they take, and what they do for a pixel.

Counts of instructions are PTX's, each as often as the loops around it go round. Code for borders is counted with the
rest, and work that a block does once is shared by the pixels that a thread of it sees, in a batch of `BATCH_PIXELS`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pilc_stream.arith.blocks import QUARTERS
from pilc_stream.arith.context import CHANNELS
from pilc_stream.backends.cuda.proof import BRANCH, Resources, Work, assembled, basic_blocks
from pilc_stream.backends.cuda.shim import WARP, cuda
from pilc_stream.backends.pilc.cuda_pixels import BLOCK_PIXELS, QUARTER
from pilc_stream.backends.pilc.cuda_program import (
    CHOOSE_THREADS,
    LAYER_BLOCKS,
    THREADS,
    bodies,
    shared_bytes,
    signature,
)
from pilc_stream.backends.pilc.plan import PilcPlan
from pilc_stream.errors import DeviceError

BATCH_PIXELS = 1 << 24
"""About 50 MB of raw pixels."""

UNROLLED = 4
"""Copies of a short loop's body that the compiler makes, beside one for what is left over."""

_ACCESS = re.compile(r"^(ld|st)\.(?:volatile\.)?(shared|global)(?:\.nc)?(?:\.v(\d))?\.[usfb](\d+)")


@dataclass(frozen=True)
class Census:
    """How often a kernel's code runs for a pixel: its loops' rounds in the order in which they begin, the threads that
    a pixel takes, and of how many pixels' work what stands outside the loop `main` is shared."""

    threads: float
    rounds: Sequence[float]
    main: int | None = None
    share: float = 1.0
    waits: bool = False
    """Whether each round of the loop `main` waits for the one before, over a whole tile."""


@lru_cache(maxsize=64)
def ptx_of(plan: PilcPlan, kernel: str, capability: tuple[int, int]) -> str:
    """A kernel as PTX."""
    text, _ = cuda.compile_ptx(bodies(plan)[kernel], signature(kernel), cc=capability)
    return str(text)


def resources(plan: PilcPlan, kernel: str, capability: tuple[int, int]) -> Resources:
    """What a kernel takes. DeviceError where ptxas is missing or refuses it."""
    return assembled(ptx_of(plan, kernel, capability), kernel, capability, shared_bytes(plan, kernel))


def block_threads(kernel: str) -> int:
    """Threads of a kernel's block."""
    return CHOOSE_THREADS if kernel == "choose" else THREADS


def census(plan: PilcPlan, kernel: str) -> Census:
    """How often the parts of a kernel run."""
    for index, layer in enumerate(plan.layers):
        if layer.name == kernel:
            splits = sum(each.splits for each in plan.layers[:index])
            pixels = BLOCK_PIXELS >> 2 * splits
            share = max(1.0, BATCH_PIXELS / pixels / (LAYER_BLOCKS * THREADS))
            taps = [layer.taps] if layer.taps > 1 else []
            return Census(layer.groups / pixels, [*_copying(layer.group_size), 1, *taps], 2, share)
    per_thread = -(-plan.spec.predictors // CHOOSE_THREADS), -(-plan.spec.codes // CHOOSE_THREADS)
    known = {
        # The last loop is that of grey tiles.
        "choose": Census(
            CHOOSE_THREADS / BLOCK_PIXELS,
            [BLOCK_PIXELS / CHOOSE_THREADS, per_thread[0], QUARTERS, QUARTER, QUARTER, per_thread[1], 0],
        ),
        "embed": Census(1 / BLOCK_PIXELS, []),
        "distribute": Census(1 / 4, [*_copying(4 * plan.head_size), 1, 4], 2, 1.0),
        "block_intervals": Census(1 / BLOCK_PIXELS, []),
        "residual_intervals": Census(1, []),
        "undo": Census(1, [1], 0, float("inf"), True),
        # All threads of a warp for each of two symbols of a block.
        "blocks": Census(2 * WARP / BLOCK_PIXELS, [1], 0, float("inf"), True),
        "residuals": Census(CHANNELS, [1, 0], 0, float("inf"), True),
        "lanes": Census(CHANNELS, [1, 2 / BLOCK_PIXELS / CHANNELS], 0, float("inf"), True),
    }
    return known[kernel]


def _copying(words: int) -> list[float]:
    """Rounds of the two loops by which a block copies parameters."""
    rounds = -(-words // THREADS)
    return [rounds % UNROLLED, rounds // UNROLLED]


def work(plan: PilcPlan, kernel: str, capability: tuple[int, int]) -> tuple[Work, int]:
    """What a kernel does for a pixel, and the instructions of one round of its loop where the next one waits for it
    (else 0).

    Raises DeviceError where the loops are not those of `census`: the compiler has changed them.
    """
    found = census(plan, kernel)
    blocks = list(basic_blocks(ptx_of(plan, kernel, capability)))
    labels = {label: index for index, (label, _) in enumerate(blocks)}
    loops = sorted(
        (labels[target], index)
        for index, (_, block) in enumerate(blocks)
        for line in block
        for target in BRANCH.findall(line)
        if labels[target] <= index
    )
    if len(loops) != len(found.rounds):
        raise DeviceError(
            f"the kernel {kernel} has {len(loops)} loops, not {len(found.rounds)}; the compiler changed them"
        )
    totals, chain = dict.fromkeys(("instructions", "dp4a", "dp2a", "shared", "global"), 0.0), 0
    for index, (_, block) in enumerate(blocks):
        inside = [number for number, (first, last) in enumerate(loops) if first <= index <= last]
        times = found.threads
        for number in inside:
            times *= found.rounds[number]
        if found.main is not None and all(number < found.main for number in inside):
            times /= found.share
        if found.main in inside:
            chain += found.waits * len(block)
        for what, count in _counts(block).items():
            totals[what] += times * count
    products = round(totals["dp4a"] + totals["dp2a"])
    return (
        Work(kernel, round(totals["instructions"]), products, 0, round(totals["shared"]), round(totals["global"])),
        chain,
    )


def _counts(block: Sequence[str]) -> Mapping[str, int]:
    counts = {"instructions": len(block), "shared": 0, "global": 0}
    counts |= {name: sum(line.startswith(name) for line in block) for name in ("dp4a", "dp2a")}
    for line in block:
        access = _ACCESS.match(line)
        if access:
            counts[access[2]] += int(access[3] or 1) * int(access[4]) // 8
    return counts

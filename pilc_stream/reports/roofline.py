"""What the CUDA kernels could reach on a card, from what they take and what the card has: no card is needed.

Four bounds on pixels per second, each from counts of PTX instructions and bytes per pixel (`backends.cuda.proof`):

- *integer*: every instruction through the integer lanes, at the share of a warp's threads that have a pixel;
- *tensor*: the products of matrices, where the card's kernels use them;
- *memory*: the kernel's bytes of device memory at the card's bandwidth;
- *latency* (of kernels that walk tiles): the blocks that a multiprocessor holds, each finishing a step of the wavefront
  after its instructions at `CYCLES_PER_INSTRUCTION`, and after the turns of its rANS lanes, which one warp takes.

The prediction is `REALISTIC` of the lowest. Encoding is `walk` then `model`: their times add. The lanes of an encoder
and the copies run beside other batches and are left out. Rates are raw RGB, three bytes a pixel. A single picture has
too few tiles to fill a card: its time is that of the steps of its tiles, one after the other, at both ends of what an
instruction may take. `backends/cuda/ROOFLINE.md` reads the table aloud.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pilc_stream.arith.context import CHANNELS
from pilc_stream.backends.cuda.plan import Plan
from pilc_stream.backends.cuda.proof import MODEL_KERNELS, Resources, Work, resources, work
from pilc_stream.backends.cuda.shim import TENSOR_CAPABILITY
from pilc_stream.backends.cuda.tensor_plan import TensorPlan
from pilc_stream.models.spec import WaveSpec
from pilc_stream.records.tiling import DEFAULT_TILE_LOG2, Tiling, default_lanes_log2

CYCLES_PER_INSTRUCTION = 6
"""Of one warp: four cycles to a dependent integer instruction on Volta and later, and loads and barriers on top."""

FEWEST_CYCLES = 2
"""Of one warp's integer instruction where none waits for another: 16 lanes for 32 threads."""

LANE_INSTRUCTIONS = 120
"""Of one turn of the lanes: the search in two looks, the state's step, votes and the word."""

REALISTIC = 0.5
"""The share of its lowest bound that a kernel is taken to reach."""

WARP = 32
BLOCK = 128
MACS_PER_PRODUCT = 16 * 8 * 32
"""Of one `mma` of a warp."""

PICTURE = (1365, 2048)
"""Height and width of the single picture whose time is told."""


@dataclass(frozen=True)
class Ceilings:
    """What a card has. Rates per second; registers, shared memory, integer lanes, and products of bytes per cycle on
    tensor cores (0: none, or none for bytes), per multiprocessor."""

    capability: Sequence[int]
    multiprocessors: int
    clock_hz: float
    integer_lanes: int
    tensor_macs: int
    registers: int
    shared_bytes: int
    memory_bytes_per_s: float
    host_bytes_per_s: float
    source: str


@dataclass(frozen=True)
class Wavefront:
    """A tile's steps: their number, pixels, threads of the warps that have any, and turns of the lanes per channel."""

    steps: int
    pixels: int
    threads: int
    turns: int


@dataclass(frozen=True)
class KernelRoof:
    """A kernel on a card: what it takes, blocks per multiprocessor, pixels per second by bound."""

    card: str
    resources: Resources
    work: Work
    blocks: int
    bounds: Mapping[str, float]

    @property
    def pixels_per_s(self) -> float:
        """The prediction."""
        return REALISTIC * min(self.bounds.values())

    def to_json(self) -> dict[str, Any]:
        """The fields and the prediction as JSON values."""
        return {**asdict(self), "predicted_mb_per_s": self.pixels_per_s * CHANNELS / 1e6}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> KernelRoof:
        """The inverse of `to_json`."""
        taken = {**values["resources"], "capability": tuple(values["resources"]["capability"])}
        return KernelRoof(
            values["card"], Resources(**taken), Work(**values["work"]), values["blocks"], values["bounds"]
        )


@dataclass(frozen=True)
class Roofline:
    """All kernels of a profile on a card."""

    card: str
    profile: str
    kernels: Mapping[str, KernelRoof]

    @property
    def picture_seconds(self) -> tuple[float, float]:
        """Decoding a single `PICTURE`, at the fewest and at the assumed cycles per instruction."""
        low, high = (picture_seconds(self.kernels["decode"], cycles) for cycles in CYCLES)
        return low, high

    @property
    def decode_mb_per_s(self) -> float:
        """Predicted decoding inside the device, MB/s of raw RGB."""
        return self.kernels["decode"].pixels_per_s * CHANNELS / 1e6

    @property
    def encode_mb_per_s(self) -> float:
        """Predicted encoding inside the device, MB/s of raw RGB."""
        seconds = sum(1 / self.kernels[name].pixels_per_s for name in ("walk", "model"))
        return CHANNELS / seconds / 1e6

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "card": self.card,
            "profile": self.profile,
            "kernels": {name: roof.to_json() for name, roof in self.kernels.items()},
            "decode_mb_per_s": self.decode_mb_per_s,
            "encode_mb_per_s": self.encode_mb_per_s,
            "picture": {"height": PICTURE[0], "width": PICTURE[1], "decode_seconds": self.picture_seconds},
        }

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Roofline:
        """The inverse of `to_json`."""
        kernels = {name: KernelRoof.from_json(one) for name, one in values["kernels"].items()}
        return Roofline(values["card"], values["profile"], kernels)


@cache
def ceilings() -> dict[str, Ceilings]:
    """The cards of `ceilings.json`."""
    data = json.loads((Path(__file__).with_name("ceilings.json")).read_text())
    return {name: Ceilings(**values) for name, values in data.items()}


def wavefront(height: int, width: int, lanes: int) -> Wavefront:
    """The steps of a tile."""
    steps = width + 2 * height - 2
    counts = [max(0, min(height - 1, t // 2) + 1 - max(0, (t - width + 2) // 2)) for t in range(steps)]
    threads = sum(-(-count // WARP) * WARP for count in counts)
    return Wavefront(steps, sum(counts), threads, sum(-(-count // lanes) for count in counts))


def roof(card: str, taken: Resources, done: Work, edge: int = 1 << DEFAULT_TILE_LOG2) -> KernelRoof:
    """A kernel's bounds on a card, for square tiles of `edge` pixels."""
    has = ceilings()[card]
    lanes = 1 << default_lanes_log2(Tiling(edge, edge, DEFAULT_TILE_LOG2))
    walk = wavefront(edge, edge, lanes)
    # Registers are given to a thread in eights.
    blocks = min(has.registers // (-(-taken.registers // 8) * 8 * BLOCK), has.shared_bytes // taken.shared_bytes)
    cycles = has.multiprocessors * has.clock_hz
    fill = walk.pixels / walk.threads if taken.kernel != "model" else 1.0
    bounds = {
        "integer": cycles * has.integer_lanes / done.instructions * fill,
        "memory": has.memory_bytes_per_s / done.global_bytes,
    }
    if done.mma:
        bounds["tensor"] = cycles * has.tensor_macs * WARP / (done.mma * MACS_PER_PRODUCT)
    if taken.kernel != "model":
        bounds["latency"] = (
            cycles * blocks * walk.pixels / _tile_cycles(taken.kernel, done, walk, CYCLES_PER_INSTRUCTION)
        )
    return KernelRoof(card, taken, done, blocks, bounds)


def _tile_cycles(kernel: str, done: Work, walk: Wavefront, cycles: float) -> float:
    """How long a tile takes, in cycles."""
    turns = CHANNELS * walk.turns * LANE_INSTRUCTIONS if kernel == "decode" else 0
    return cycles * (walk.steps * done.instructions + turns)


def picture_seconds(one: KernelRoof, cycles: float) -> float:
    """Decoding a single `PICTURE`, whose tiles run side by side, at so many cycles per instruction."""
    has, tiling = ceilings()[one.card], Tiling(*PICTURE, DEFAULT_TILE_LOG2)
    walk = wavefront(tiling.tile_height, tiling.tile_width, 1 << default_lanes_log2(tiling))
    rounds = -(-tiling.count // (has.multiprocessors * max(1, one.blocks)))
    return rounds * _tile_cycles("decode", one.work, walk, cycles) / has.clock_hz


def roofline(card: str, profile: str, spec: WaveSpec) -> Roofline:
    """The roofline of a profile on a card of `ceilings`. Compiles its kernels, for half a minute or more."""
    first, second = ceilings()[card].capability
    capability = first, second
    plan = TensorPlan(spec) if capability >= TENSOR_CAPABILITY else Plan(spec)
    kernels = {
        name: roof(card, resources(plan, name, capability), work(plan, name, capability)) for name in MODEL_KERNELS
    }
    return Roofline(card, profile, kernels)


def table(rooflines: Sequence[Roofline]) -> str:
    """The figures as a Markdown table: one row per card, profile and kernel, and the predictions below."""
    lines = [
        "| card | profile | kernel | registers | spills | shared memory | blocks | instructions | DP4A | MMA "
        "| device bytes | integer | tensor | memory | latency | predicted |",
        "|" + "---|" * 16,
    ]
    for line in rooflines:
        for name, one in line.kernels.items():
            bounds = [f"{one.bounds[kind] * CHANNELS / 1e6:,.0f}" if kind in one.bounds else "" for kind in BOUNDS]
            taken, done = one.resources, one.work
            cells = [line.card, line.profile, name, taken.registers, taken.spill_bytes, taken.shared_bytes, one.blocks]
            cells += [done.instructions, done.dp4a, done.mma, done.global_bytes, *bounds]
            lines.append("| " + " | ".join(map(str, cells)) + f" | {one.pixels_per_s * CHANNELS / 1e6:,.0f} |")
    lines += [
        "",
        "Counts are per pixel (MMA: of a warp, for 32); bounds and predictions in MB/s of raw RGB inside the device.",
        "",
    ]
    lines += ["| card | profile | in, MB/s | out, MB/s | decoding one picture, ms |", "|---|---|---|---|---|"]
    for line in rooflines:
        low, high = (f"{1e3 * seconds:.1f}" for seconds in line.picture_seconds)
        rates = f"{line.encode_mb_per_s:,.0f} | {line.decode_mb_per_s:,.0f}"
        lines.append(f"| {line.card} | {line.profile} | {rates} | {low} to {high} |")
    lines += [
        "",
        f"The picture has {PICTURE[1]} x {PICTURE[0]} pixels; {CYCLES[0]} to {CYCLES[1]} cycles an instruction.",
    ]
    return "\n".join(lines)


BOUNDS = ("integer", "tensor", "memory", "latency")
CYCLES = (FEWEST_CYCLES, CYCLES_PER_INSTRUCTION)

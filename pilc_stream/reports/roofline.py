"""What the CUDA kernels could reach on a card, from what they take and what the card has: no card is needed.

Four bounds on pixels per second, each from counts of PTX instructions and bytes per pixel (`backends.cuda.proof`,
`backends.pilc.proof`):

- *integer*: every instruction through the integer lanes, at the share of a warp's threads that have a pixel;
- *tensor*: the products of matrices, where the card's kernels use them;
- *memory*: the kernel's bytes of device memory at the card's bandwidth;
- *latency* (of kernels in which a step of a tile waits for the one before): the tiles that a multiprocessor holds, each
  finishing its *chain* of instructions at `CYCLES_PER_INSTRUCTION`.

The prediction is `REALISTIC` of the lowest. What one direction takes are several kernels, one after the other: their
times add. Of the wave codec's encoder the lanes, and of both codecs the copies, run beside other batches and are left
out. Rates are raw RGB, three bytes a pixel. A single picture has too few tiles to fill a card: its time is that of the
chains of its tiles, at both ends of what an instruction may take, and of the kernels without chains at their rate.
`backends/cuda/ROOFLINE.md` reads the table aloud.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pilc_stream.arith.context import CHANNELS
from pilc_stream.backends.cuda.plan import team_log2
from pilc_stream.backends.cuda.program import block_threads, launch_bytes, layouts
from pilc_stream.backends.cuda.proof import MODEL_KERNELS, Resources, Work, resources, work
from pilc_stream.backends.cuda.shim import TENSOR_CAPABILITY, WARP
from pilc_stream.backends.pilc import proof as pilc_proof
from pilc_stream.backends.pilc.base import block_grid
from pilc_stream.backends.pilc.plan import PilcPlan
from pilc_stream.models.model import WaveModel, load_model
from pilc_stream.models.pilc import PilcModel, is_pilc_model, load_pilc_model
from pilc_stream.records.tiling import DEFAULT_TILE_LOG2, Tiling, default_lanes_log2

CYCLES_PER_INSTRUCTION = 6
"""Of one warp: four cycles to a dependent integer instruction on Volta and later, and loads and barriers on top."""

FEWEST_CYCLES = 2
"""Of one warp's integer instruction where none waits for another: 16 lanes for 32 threads."""

LANE_INSTRUCTIONS = 120
"""Of one turn of the lanes: the search in two looks, the state's step, votes and the word."""

REALISTIC = 0.5
"""The share of its lowest bound that a kernel is taken to reach."""

BLOCK = 128
MACS_PER_PRODUCT = 16 * 8 * 32
"""Of one `mma` of a warp."""

THREADS_OF_MULTIPROCESSOR = 2048
KEPT_BYTES = 1 << 10
"""Of shared memory, per block."""

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

    @property
    def block_bytes(self) -> int:
        """Shared memory that a block may have: all, but for what Ampere and later keep of each block."""
        return self.shared_bytes - (KEPT_BYTES if tuple(self.capability) >= TENSOR_CAPABILITY else 0)


@dataclass(frozen=True)
class Wavefront:
    """A tile's steps: their number, pixels, threads of the warps that have any, and turns of the lanes per channel."""

    steps: int
    pixels: int
    threads: int
    turns: int


@dataclass(frozen=True)
class KernelRoof:
    """A kernel on a card: what it takes, blocks per multiprocessor (0: none fits), pixels per second by bound, and how
    many instructions a tile of the `PICTURE` waits for, one after the other (0: none waits)."""

    card: str
    resources: Resources
    work: Work
    blocks: int
    bounds: Mapping[str, float]
    picture_chain: float = 0.0

    @property
    def pixels_per_s(self) -> float:
        """The prediction."""
        return REALISTIC * min(self.bounds.values()) if self.blocks else 0.0

    def picture_seconds(self, tile_log2: int, cycles: float) -> float | None:
        """What a single `PICTURE` takes at so many cycles per instruction; None where no block fits."""
        if not self.blocks:
            return None
        if not self.picture_chain:
            return PICTURE[0] * PICTURE[1] / self.pixels_per_s
        has = ceilings()[self.card]
        rounds = -(-Tiling(*PICTURE, tile_log2).count // (has.multiprocessors * self.blocks))
        return rounds * cycles * self.picture_chain / has.clock_hz

    def to_json(self) -> dict[str, Any]:
        """The fields and the prediction as JSON values."""
        return {**asdict(self), "predicted_mb_per_s": self.pixels_per_s * CHANNELS / 1e6}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> KernelRoof:
        """The inverse of `to_json`."""
        taken = {**values["resources"], "capability": tuple(values["resources"]["capability"])}
        return KernelRoof(
            values["card"], Resources(**taken), Work(**values["work"]), values["blocks"], values["bounds"],
            values["picture_chain"]
        )  # fmt: skip


@dataclass(frozen=True)
class Roofline:
    """All kernels of a profile on a card, and those that each direction takes."""

    card: str
    profile: str
    tile_log2: int
    kernels: Mapping[str, KernelRoof]
    encoding: Sequence[str]
    decoding: Sequence[str]

    @property
    def picture_seconds(self) -> tuple[float, float] | None:
        """Decoding a single `PICTURE`, at the fewest and at the assumed cycles per instruction; None if it cannot."""
        both = []
        for cycles in CYCLES:
            found = [self.kernels[name].picture_seconds(self.tile_log2, cycles) for name in self.decoding]
            seconds = [one for one in found if one is not None]
            if len(seconds) < len(found):
                return None
            both.append(sum(seconds))
        return both[0], both[1]

    @property
    def decode_mb_per_s(self) -> float:
        """Predicted decoding inside the device, MB/s of raw RGB; 0 where a kernel does not fit."""
        return self._mb_per_s(self.decoding)

    @property
    def encode_mb_per_s(self) -> float:
        """Predicted encoding inside the device, MB/s of raw RGB; 0 where a kernel does not fit."""
        return self._mb_per_s(self.encoding)

    def mb_per_s(self, names: Sequence[str]) -> float:
        """What these kernels, one after the other, are predicted to do, MB/s of raw RGB."""
        return self._mb_per_s([name for name in names if name in self.kernels])

    def _mb_per_s(self, names: Sequence[str]) -> float:
        rates = [self.kernels[name].pixels_per_s for name in names]
        return CHANNELS / sum(1 / rate for rate in rates) / 1e6 if all(rates) else 0.0

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "card": self.card,
            "profile": self.profile,
            "tile_log2": self.tile_log2,
            "kernels": {name: roof.to_json() for name, roof in self.kernels.items()},
            "encoding": list(self.encoding),
            "decoding": list(self.decoding),
            "decode_mb_per_s": self.decode_mb_per_s,
            "encode_mb_per_s": self.encode_mb_per_s,
            "picture": {"height": PICTURE[0], "width": PICTURE[1], "decode_seconds": self.picture_seconds},
        }

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Roofline:
        """The inverse of `to_json`."""
        kernels = {name: KernelRoof.from_json(one) for name, one in values["kernels"].items()}
        return Roofline(
            values["card"], values["profile"], values["tile_log2"], kernels, values["encoding"], values["decoding"]
        )


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


def roof(
    card: str,
    taken: Resources,
    done: Work,
    *,
    threads: int = BLOCK,
    tiles: int = 1,
    fill: float = 1.0,
    chain: float = 0.0,
    pixels: int = 0,
    picture_chain: float = 0.0,
) -> KernelRoof:
    """A kernel's bounds on a card, in blocks of so many threads of which `fill` have a pixel.

    Where a tile waits: the instructions of its `chain`, its `pixels`, and how many `tiles` a block has.
    """
    has = ceilings()[card]
    # Registers are given to a thread in eights.
    blocks = has.registers // (-(-taken.registers // 8) * 8 * threads)
    if taken.shared_bytes:
        blocks = min(blocks, has.shared_bytes // taken.shared_bytes)
    blocks = min(blocks, THREADS_OF_MULTIPROCESSOR // threads)
    cycles = has.multiprocessors * has.clock_hz
    bounds = {"integer": cycles * has.integer_lanes / done.instructions * fill}
    if done.global_bytes:
        bounds["memory"] = has.memory_bytes_per_s / done.global_bytes
    if done.mma:
        bounds["tensor"] = cycles * has.tensor_macs * WARP / (done.mma * MACS_PER_PRODUCT)
    if chain:
        bounds["latency"] = cycles * blocks * tiles * pixels / (CYCLES_PER_INSTRUCTION * chain)
    return KernelRoof(card, taken, done, blocks, bounds, picture_chain)


def roofline(card: str, profile: str, data: bytes) -> Roofline:
    """The roofline of a model's file on a card of `ceilings`. Compiles its kernels, for half a minute or more."""
    first, second = ceilings()[card].capability
    if is_pilc_model(data):
        return _pilc_roofline(card, profile, load_pilc_model(data), (first, second))
    return _wave_roofline(card, profile, load_model(data), (first, second))


def _wave_roofline(card: str, profile: str, model: WaveModel, capability: tuple[int, int]) -> Roofline:
    plans = layouts(model.spec, tensor_cores=capability >= TENSOR_CAPABILITY)
    edge = 1 << model.tile_log2
    team = int(team_log2(edge, edge))
    threads = block_threads(plans[0], team)
    fits = [plan for plan in plans if launch_bytes(plan, team, perceptron=True) <= ceilings()[card].block_bytes]
    kernels = {}
    for name in MODEL_KERNELS:
        plan = [*fits, plans[-1]][0] if name == "decode" else plans[0]
        size = threads if name != "model" else BLOCK
        taken, done = resources(plan, name, capability, size), work(plan, name, capability)
        kernels[name] = wave_roof(card, taken, done, model.tile_log2, size)
    return Roofline(card, profile, model.tile_log2, kernels, ("walk", "model"), ("decode",))


def wave_roof(card: str, taken: Resources, done: Work, tile_log2: int, threads: int = BLOCK) -> KernelRoof:
    """A kernel of the wave codec for square tiles of ``2**tile_log2`` pixels a side."""
    if taken.kernel == "model":
        return roof(card, taken, done, threads=threads)
    edge, picture = 1 << tile_log2, Tiling(*PICTURE, tile_log2)
    chains, walks = [], []
    for tiling in (Tiling(edge, edge, tile_log2), picture):
        walk = wavefront(tiling.tile_height, tiling.tile_width, 1 << default_lanes_log2(tiling))
        turns = CHANNELS * walk.turns * LANE_INSTRUCTIONS if taken.kernel == "decode" else 0
        chains.append(walk.steps * done.instructions + turns)
        walks.append(walk)
    fill = walks[0].pixels / walks[0].threads
    return roof(card, taken, done, threads=threads, fill=fill, chain=chains[0], pixels=walks[0].pixels,
                picture_chain=chains[1])  # fmt: skip


PILC_ENCODING = ("choose", "network", "block_intervals", "residual_intervals", "lanes")
PILC_DECODING = ("blocks", "network", "residuals", "undo")
"""Kernels of the codec `pilc` in order of use; `network` stands for its kernels."""


def _pilc_roofline(card: str, profile: str, model: PilcModel, capability: tuple[int, int]) -> Roofline:
    plan, tile_log2 = PilcPlan(model.spec), DEFAULT_TILE_LOG2
    network = network_kernels(plan)
    encoding, decoding = (
        [kernel for name in names for kernel in (network if name == "network" else (name,))]
        for names in (PILC_ENCODING, PILC_DECODING)
    )
    square = Tiling(1 << tile_log2, 1 << tile_log2, tile_log2)
    kernels = {}
    for name in dict.fromkeys([*encoding, *decoding]):
        taken, (done, waiting) = pilc_proof.resources(plan, name, capability), pilc_proof.work(plan, name, capability)
        chain, picture = (waiting * pilc_rounds(name, tiling) for tiling in (square, Tiling(*PICTURE, tile_log2)))
        walk = wavefront(square.tile_height, square.tile_width, 1)
        threads = pilc_proof.block_threads(name)
        tiles = {"blocks": threads // WARP, "undo": 1}.get(name, threads >> default_lanes_log2(square))
        fill = walk.pixels / walk.threads if name == "undo" else 1.0
        kernels[name] = roof(card, taken, done, threads=threads, tiles=tiles, fill=fill, chain=chain,
                             pixels=walk.pixels, picture_chain=picture)  # fmt: skip
    return Roofline(card, profile, tile_log2, kernels, encoding, decoding)


def network_kernels(plan: PilcPlan) -> tuple[str, ...]:
    """The kernels of the codec's network in order of use."""
    return ("embed", *(layer.name for layer in plan.layers), "distribute")


def pilc_rounds(kernel: str, tiling: Tiling) -> int:
    """How often a kernel's loop goes round for a tile, each time after the other; 0 where none waits."""
    height, width = tiling.tile_height, tiling.tile_width
    rows, columns = block_grid(height, width)
    rounds = {
        "blocks": 2 * rows * columns,
        "undo": width + 2 * height - 2,
        "residuals": CHANNELS * height * width >> default_lanes_log2(tiling),
    }
    return rounds.get("residuals" if kernel == "lanes" else kernel, 0)


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
            lines.append("| " + " | ".join(map(str, cells)) + f" | {_rate(one.pixels_per_s * CHANNELS / 1e6)} |")
    lines += [
        "",
        "Counts are per pixel (MMA: of a warp, for 32); bounds and predictions in MB/s of raw RGB inside the device.",
        "",
    ]
    lines += [
        "| card | profile | tiles | in, MB/s | out, MB/s | decoding one picture, ms |",
        "|---|---|---|---|---|---|",
    ]
    for line in rooflines:
        seconds = line.picture_seconds
        picture = f"{1e3 * seconds[0]:.1f} to {1e3 * seconds[1]:.1f}" if seconds else TOO_LARGE
        rates = f"{_rate(line.encode_mb_per_s)} | {_rate(line.decode_mb_per_s)}"
        lines.append(f"| {line.card} | {line.profile} | {1 << line.tile_log2} | {rates} | {picture} |")
    lines += [
        "",
        f"The picture has {PICTURE[1]} x {PICTURE[0]} pixels; {CYCLES[0]} to {CYCLES[1]} cycles an instruction.",
    ]
    return "\n".join(lines)


def _rate(mb_per_s: float) -> str:
    return f"{mb_per_s:,.0f}" if mb_per_s else TOO_LARGE


TOO_LARGE = "no block fits"
BOUNDS = ("integer", "tensor", "memory", "latency")
CYCLES = (FEWEST_CYCLES, CYCLES_PER_INSTRUCTION)

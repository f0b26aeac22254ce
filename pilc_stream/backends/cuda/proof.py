"""Every kernel through PTX and ptxas for any card, without one: what it takes, and what it does for a pixel.

Counts of instructions are PTX's, of the walk over one RGB pixel: each instruction once, those of a dense layer's loop
once per group of units. Code for grey tiles, for borders and before the first step is counted with the rest, so the
counts are a little too high.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pilc_stream.backends.cuda import coder
from pilc_stream.backends.cuda.kernels import make_kernels
from pilc_stream.backends.cuda.plan import FEW_REGISTERS, Plan, words_of
from pilc_stream.backends.cuda.program import BLOCK_LOG2, MANY_THREADS, SIGNATURES
from pilc_stream.backends.cuda.shim import cuda
from pilc_stream.backends.cuda.tensor_plan import TensorPlan
from pilc_stream.errors import DeviceError

CAPABILITIES = ((7, 0), (8, 0), (9, 0))
"""Volta, Ampere, Hopper."""

MODEL_KERNELS = ("decode", "walk", "model")
"""Those that differ between architectures; the others are in `coder`."""

_LABEL = re.compile(r"^\$L\w+:")
BRANCH = re.compile(r"bra(?:\.uni)?\s+(\$L\w+);")
_MEMORY = re.compile(r"^(ld|st)\.(?:volatile\.)?(shared|global|local)(?:\.nc)?(?:\.v(\d))?\.[usfb](\d+)")


@dataclass(frozen=True)
class Resources:
    """What ptxas says of a kernel on one capability: registers per thread, bytes of stack and of spills."""

    kernel: str
    capability: tuple[int, int]
    registers: int
    stack_bytes: int
    spill_bytes: int
    shared_bytes: int
    """Dynamic shared memory of a block."""


@dataclass(frozen=True)
class Work:
    """What a kernel does for one RGB pixel: PTX instructions, of them `dp4a` and `mma` (of a warp, for 32 pixels), and
    bytes of memory (not of weights); local memory counts as the card's, as if no cache held it."""

    kernel: str
    instructions: int
    dp4a: int
    mma: int
    shared_bytes: int
    global_bytes: int

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


@lru_cache(maxsize=32)
def ptx_of(plan: Plan | None, kernel: str, capability: tuple[int, int]) -> str:
    """A kernel of an architecture (or, without one, of the coder) as PTX."""
    body = getattr(make_kernels(plan), kernel) if plan else getattr(coder, kernel)
    text, _ = cuda.compile_ptx(body, SIGNATURES[kernel], cc=capability)
    return str(text)


def resources(plan: Plan | None, kernel: str, capability: tuple[int, int], threads: int = 1 << BLOCK_LOG2) -> Resources:
    """Compile a kernel to machine code, for blocks of so many threads. DeviceError where ptxas is missing or refuses
    it."""
    most = FEW_REGISTERS if plan and threads >= MANY_THREADS else plan.most_registers if plan else None
    shared = shared_bytes(plan, kernel, threads) if plan else 0
    return assembled(ptx_of(plan, kernel, capability), kernel, capability, shared, most)


def assembled(
    ptx: str, kernel: str, capability: tuple[int, int], shared: int, most_registers: int | None = None
) -> Resources:
    """What ptxas says of a kernel's PTX. `shared`: bytes of dynamic shared memory of a block."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        architecture = f"sm_{capability[0]}{capability[1]}"
        command = [_ptxas(), "-v", f"-arch={architecture}", str(source), "-o", str(Path(folder) / "kernel.cubin")]
        command += [f"--maxrregcount={most_registers}"] if most_registers else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DeviceError(f"ptxas refuses the kernel {kernel} for {architecture}: {done.stderr.strip()}")
    registers = re.search(r"Used (\d+) registers", done.stderr)
    frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    if registers is None or frame is None:
        raise DeviceError(f"ptxas does not say what the kernel {kernel} takes: {done.stderr.strip()}")
    return Resources(kernel, capability, int(registers[1]), int(frame[1]), int(frame[2]) + int(frame[3]), shared)


def shared_bytes(plan: Plan, kernel: str, threads: int = 1 << BLOCK_LOG2) -> int:
    """Shared memory of a block with one team (`model`: with none)."""
    return 4 * plan.shared_words(threads, 0 if kernel == "model" else 1, perceptron=kernel != "walk")


def _ptxas() -> str:
    spec = find_spec("nvidia.cuda_nvcc")
    for folder in spec.submodule_search_locations or [] if spec else []:
        beside = Path(folder) / "bin" / "ptxas"
        if beside.exists():
            return str(beside)
    found = shutil.which("ptxas")
    if found is None:
        raise DeviceError("ptxas is not installed; pip install nvidia-cuda-nvcc-cu12, or a CUDA toolkit of version 12")
    return found


def work(plan: Plan, kernel: str, capability: tuple[int, int] = CAPABILITIES[0]) -> Work:
    """What `decode`, `walk` or `model` does for a pixel."""
    layers = plan.spec.layers()
    names = [name for name in layers if name.startswith("trunk") or name.endswith("hidden")]
    left = iter(names if kernel != "walk" else [])
    totals = {"instructions": 0, "dp4a": 0, "mma": 0, "shared": 0, "global": 0}
    rest = 0
    blocks = basic_blocks(ptx_of(plan, kernel, capability))
    for part, loops in (one for label, block in blocks for one in _around_loop(label, block)):
        counts, times = _counts(part), 1
        if counts["mma"] and (rest or not loops):
            # What the rounds of an unrolled loop leave over: tiles, or none.
            times, rest = rest, 0
        elif loops and (counts["mma"] or counts["dp4a"]):
            name = next(left, "")
            times, rest = _rounds(plan, name, layers[name][0], counts["mma"]) if name else (0, 1)
        for what, count in counts.items():
            totals[what] += times * count
    if rest or next(left, None) is not None:
        raise DeviceError(
            f"the loops of the kernel {kernel} are not one for each of {names}; the compiler changed them"
        )
    return Work(kernel, totals["instructions"], totals["dp4a"], totals["mma"], totals["shared"], totals["global"])


def _around_loop(label: str, block: list[str]) -> list[tuple[list[str], bool]]:
    """A block up to the branch that goes round it, if any, and what runs once behind that; whether each goes round."""
    for number, line in enumerate(block, 1):
        if label in BRANCH.findall(line):
            return [(block[:number], True), (block[number:], False)]
    return [(block, False)]


def _rounds(plan: Plan, name: str, outputs: int, products: int) -> tuple[int, int]:
    """How often the loop of a layer goes round, and how many of its tiles are left then. `products`: in one round."""
    if not isinstance(plan, TensorPlan):
        return words_of(outputs), 0
    # Two halves of the warp's pixels.
    return divmod(plan.tiles(name), products // (2 * plan.products(name)))


def basic_blocks(ptx: str) -> Iterator[tuple[str, list[str]]]:
    """The basic blocks of a kernel: label (empty for the first) and instructions."""
    label, block = "", list[str]()
    for line in (line.strip() for line in ptx.split("{", 1)[1].splitlines()):
        if _LABEL.match(line):
            yield label, block
            label, block = line.rstrip(":"), []
        elif line.endswith(";") and not line.startswith(("//", ".")):
            block.append(re.sub(r"^@!?%p\d+\s+", "", line))
    yield label, block


def _counts(block: Sequence[str]) -> Mapping[str, int]:
    counts = {"instructions": len(block), "shared": 0, "global": 0}
    counts |= {name: sum(line.startswith(name) for line in block) for name in ("dp4a", "mma")}
    for line in block:
        access = _MEMORY.match(line)
        # Weights that are not in shared memory: the same for all warps, from the cache of the multiprocessor.
        if access and not ((counts["dp4a"] or counts["mma"]) and line.startswith("ld.global.v4")):
            kind = "shared" if access[2] == "shared" else "global"
            counts[kind] += int(access[3] or 1) * int(access[4]) // 8
    return counts

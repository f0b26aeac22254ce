"""Kernels with their launches: a model on a card, and the coder that all models share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from pilc_stream.backends.cuda import coder
from pilc_stream.backends.cuda.kernels import make_kernels
from pilc_stream.backends.cuda.plan import FEW_REGISTERS, Plan
from pilc_stream.backends.cuda.shim import SIMULATED, WARP, Kernel, cuda, types
from pilc_stream.backends.cuda.store import with_store
from pilc_stream.backends.cuda.tensor_plan import TensorPlan
from pilc_stream.errors import DeviceError
from pilc_stream.models.model import WaveModel
from pilc_stream.models.spec import WaveSpec

BLOCK_LOG2 = 3 if SIMULATED else 7
"""Threads of a block, as a power of two, unless one team needs more; few where each is a Python thread."""

WARP_LOG2 = WARP.bit_length() - 1
MANY_THREADS = 512
"""Blocks of so many threads launch only where each has 128 registers at most."""

COPY_BLOCKS = 4096

I32, I64, U16, U8 = (kind[::1] for kind in (types.int32, types.int64, types.uint16, types.uint8))
JOBS = types.int64[:, ::1]
NUMBER = types.int64

SIGNATURES = {
    "decode": (JOBS, NUMBER, I32, I32, U16, I32, I32, U16, U8, I32),
    "walk": (JOBS, NUMBER, I32, U8, I32, NUMBER),
    "model": (I32, NUMBER, I32, U16, U16, I32),
    "lanes": (JOBS, NUMBER, I32, NUMBER, U16, types.int32[:, ::1], I32),
    "offsets": (I32, I64),
    "assemble": (JOBS, U16, types.int32[:, ::1], I64, U16),
    "clear": (I32,),
}
"""The types of each kernel's arguments."""


def block_log2(plan: Plan) -> int:
    """Threads of a block at least, as a power of two; on tensor cores whole warps."""
    return max(BLOCK_LOG2, WARP_LOG2) if isinstance(plan, TensorPlan) else BLOCK_LOG2


def block_threads(plan: Plan, team_log2: int) -> int:
    """Threads of a block: one team if its threads are more than a warp, else as many teams as fit."""
    return 1 << (team_log2 if team_log2 > WARP_LOG2 else max(team_log2, block_log2(plan)))


def layouts(spec: WaveSpec, *, tensor_cores: bool) -> list[Plan]:
    """The layouts of an architecture that a card can decode by, the fastest first; each needs less than the last."""
    return [*([TensorPlan(spec)] if tensor_cores else []), Plan(spec), Plan(spec, local=True)]


def launch_bytes(plan: Plan, team_log2: int, *, perceptron: bool) -> int:
    """Shared memory of a block whose teams have ``2**team_log2`` threads; `perceptron`: when decoding."""
    threads = block_threads(plan, team_log2)
    return 4 * plan.shared_words(threads, threads >> team_log2, perceptron=perceptron)


def fitting(plans: Sequence[Plan], team_log2: int, block_bytes: int, *, perceptron: bool) -> Plan:
    """The first of the layouts whose block fits into so many bytes of shared memory. Raises DeviceError without one."""
    needed = [launch_bytes(plan, team_log2, perceptron=perceptron) for plan in plans]
    for plan, each in zip(plans, needed, strict=True):
        if each <= block_bytes:
            return plan
    edge, cpu = 2 << team_log2, "use 'cpu', whose payloads are the same"
    raise DeviceError(
        f"cuda: to {'decode' if perceptron else 'encode'} tiles of up to {edge} x {edge} pixels with this model a "
        f"block needs {min(needed)} bytes of shared memory, of which the card gives it {block_bytes}; "
        f"{cpu if perceptron else f'choose smaller tiles, or {cpu}'}"
    )


class Walks(NamedTuple):
    """The kernels of an architecture, for blocks of fewer than `MANY_THREADS` threads or of as many."""

    decode: Kernel
    walk: Kernel
    model: Kernel


@lru_cache(maxsize=16)
def _walks(plan: Plan, many_threads: bool) -> Walks:
    bodies = make_kernels(plan)
    most = FEW_REGISTERS if many_threads else plan.most_registers
    about = f"{plan} {most}"
    return Walks(
        *(
            Kernel(getattr(bodies, name), SIGNATURES[name], partial(with_store, name=name, about=about), most)
            for name in Walks._fields
        )
    )


class Program:
    """A model on the card. Its methods queue kernels on a stream, and raise DeviceError where no block fits."""

    def __init__(self, model: WaveModel, *, tensor_cores: bool, block_bytes: int) -> None:
        """`block_bytes`: the shared memory that the card gives a block."""
        self._layouts = layouts(model.spec, tensor_cores=tensor_cores)
        self.plan = self._layouts[0]
        self._block_bytes = block_bytes
        cdf = np.ascontiguousarray(model.cdf)
        # Of each kind of layout: `local` changes no place of a parameter.
        kinds = {type(plan): plan for plan in self._layouts}
        self._parameters = {kind: cuda.to_device(plan.pack(model)) for kind, plan in kinds.items()}
        self._initial = cuda.to_device(np.array(self.plan.initial_state, np.int32))
        self._row_of = cuda.to_device(np.ascontiguousarray(model.row_of).reshape(-1))
        self._coarse = cuda.to_device(np.ascontiguousarray(cdf[:, ::16]).reshape(-1).view(np.int32))
        self._cdf = cuda.to_device(cdf.reshape(-1))
        self._cdf_words = self._cdf.view(np.int32)
        # These copies are in the order of the default stream, for which those of batches do not wait.
        cuda.synchronize()

    def _launch(self, stream: Any, jobs: Any, plan: Plan, team_log2: int, *, perceptron: bool) -> Any:
        threads = block_threads(plan, team_log2)
        blocks = -(-jobs.shape[0] // (threads >> team_log2))
        shared_bytes = launch_bytes(plan, team_log2, perceptron=perceptron)
        return _walks(plan, threads >= MANY_THREADS), (blocks, threads, stream, shared_bytes)

    def decode(self, stream: Any, jobs: Any, team_log2: int, words: Any, pixels: Any, status: Any) -> None:
        """Decode jobs whose teams have ``2**team_log2`` threads."""
        plan = fitting(self._layouts, team_log2, self._block_bytes, perceptron=True)
        walks, launch = self._launch(stream, jobs, plan, team_log2, perceptron=True)
        walks.decode.launch(
            *launch, jobs, team_log2, self._parameters[type(plan)], self._initial, self._row_of, self._coarse,
            self._cdf_words, words, pixels, status
        )  # fmt: skip

    def walk(self, stream: Any, jobs: Any, team_log2: int, pixels: Any, contexts: Any, total: int) -> None:
        """Save the context of every pixel of such jobs."""
        plan = fitting([self.plan], team_log2, self._block_bytes, perceptron=False)
        walks, launch = self._launch(stream, jobs, plan, team_log2, perceptron=False)
        walks.walk.launch(*launch, jobs, team_log2, self._initial, pixels, contexts, total)

    def model(self, stream: Any, contexts: Any, total: int, intervals: Any) -> None:
        """The interval of every symbol."""
        threads = 1 << block_log2(self.plan)
        shared_bytes = 4 * self.plan.shared_words(threads, 0)
        blocks = min(-(-total // threads), COPY_BLOCKS)
        _walks(self.plan, False).model.launch(
            blocks, threads, stream, shared_bytes, contexts, total, self._parameters[type(self.plan)], self._row_of,
            self._cdf, intervals
        )  # fmt: skip


class Coder:
    """The kernels that need no model."""

    def __init__(self) -> None:
        self._kernels = {
            name: Kernel(getattr(coder, name), SIGNATURES[name], partial(with_store, name=name, about="coder"))
            for name in coder.__all__
        }

    def lanes(self, stream: Any, jobs: Any, lanes_log2: int, *arrays: Any) -> None:
        """Code the symbols of jobs of ``2**lanes_log2`` lanes: intervals, pixels, words, states, lengths."""
        threads = max(1 << BLOCK_LOG2, 1 << lanes_log2)
        blocks = -(-(jobs.shape[0] << lanes_log2) // threads)
        self._kernels["lanes"].launch(blocks, threads, stream, 0, jobs, lanes_log2, *arrays)

    def offsets(self, stream: Any, lengths: Any, ends: Any) -> None:
        """Where each stream ends, in 16-bit words."""
        threads = 2 << BLOCK_LOG2
        self._kernels["offsets"].launch(1, threads, stream, 8 * threads, lengths, ends)

    def assemble(self, stream: Any, jobs: Any, *arrays: Any) -> None:
        """Put the streams side by side: words, states, ends, streams."""
        self._kernels["assemble"].launch(jobs.shape[0], 1 << (BLOCK_LOG2 - 1), stream, 0, jobs, *arrays)

    def clear(self, stream: Any, numbers: Any) -> None:
        """Zero int32 numbers."""
        threads = 1 << BLOCK_LOG2
        self._kernels["clear"].launch(min(-(-numbers.shape[0] // threads), COPY_BLOCKS), threads, stream, 0, numbers)


CODER = Coder()

"""Numba-CUDA behind one door: the compiler or its simulator, and the warp functions that the simulator lacks.

`numba-cuda` is in maintenance and its heir has another name, so the rest of this package takes it from here.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from numba import cuda as numba_cuda
from numba import int32, int64, types
from numba.core import config

from pilc_stream.errors import DeviceError

cuda: Any = numba_cuda
SIMULATED = bool(config.ENABLE_CUDASIM)  # type: ignore[attr-defined]
"""Whether kernels run as Python threads; set by NUMBA_ENABLE_CUDASIM=1 before the first import of Numba."""

WARP = 32
ALL_LANES = 0xFFFFFFFF
LOWEST_CAPABILITY = (7, 0)
TENSOR_CAPABILITY = (8, 0)
"""From here on cards multiply matrices of bytes as ``mma.m16n8k32``."""

OLDEST_DRIVER = (12, 0)
OUT_OF_MEMORY = 2
CUDA_MODULES = ("cuda.", "numba.cuda.cudadrv")
"""Where the exceptions of the driver's two faces are defined: of CUDA's own bindings and of Numba's."""

DEFAULT_SHARED_BYTES = 48 << 10
V100_BLOCK_BYTES = 96 << 10

Function = TypeVar("Function", bound=Callable[..., Any])


def device_function(body: Function) -> Function:
    """Decorates what kernels call; always inlined."""
    options = {} if SIMULATED else {"inline": "always"}
    decorated: Function = cuda.jit(device=True, **options)(body)
    return decorated


if SIMULATED:
    _lock = threading.Lock()

    def _warp() -> tuple[int, threading.Barrier, list[Any]]:
        """This thread's lane, its warp's barrier and its warp's votes."""
        thread: Any = threading.current_thread()
        manager, index = thread._manager, thread.threadIdx.x // WARP
        with _lock:
            warps = manager.__dict__.setdefault("warps", {})
            if index not in warps:
                size = min(WARP, manager._block_dim[0] - index * WARP)
                warps[index] = threading.Barrier(size), [False] * WARP
        return thread.threadIdx.x % WARP, *warps[index]

    def syncwarp() -> None:
        """Wait for the threads of the warp."""
        _warp()[1].wait()

    def gather(value: Any) -> tuple[int, list[Any]]:
        """The thread's lane, and what each thread of the warp gives; all of them call."""
        lane, barrier, votes = _warp()
        votes[lane] = value
        barrier.wait()
        values = list(votes)
        barrier.wait()
        return lane, values

    def ballot(condition: Any) -> Any:
        """The threads of the warp, as bits, that call with a true condition; all of them call."""
        return sum(bool(vote) << lane for lane, vote in enumerate(gather(condition)[1]))

    def bit_count(bits: Any) -> Any:
        """How many bits are set."""
        return int(bits).bit_count()

    def narrow(value: Any) -> Any:
        """A number of 32 bits: Numba makes 64 of every sum, which takes two registers."""
        return value

    @device_function
    def shared_words() -> Any:
        """The block's dynamic shared memory as int32, from a multiple of 16 bytes on."""
        return cuda.shared.array(0, int32)

else:

    @device_function
    def syncwarp() -> None:
        """Wait for the threads of the warp."""
        cuda.syncwarp(ALL_LANES)

    def gather(value: Any) -> tuple[int, list[Any]]:
        """The simulator's alone."""
        raise NotImplementedError

    @device_function
    def ballot(condition: Any) -> Any:
        """The threads of the warp, as bits, that call with a true condition; all of them call."""
        return cuda.ballot_sync(ALL_LANES, condition)

    @device_function
    def bit_count(bits: Any) -> Any:
        """How many bits are set."""
        return cuda.popc(bits)

    @device_function
    def narrow(value: Any) -> Any:
        """A number of 32 bits: Numba makes 64 of every sum, which takes two registers."""
        return int32(value)

    @device_function
    def shared_words() -> Any:
        """The block's dynamic shared memory as int32, from a multiple of 16 bytes on."""
        return cuda.shared.array(0, int32, alignment=16)


@device_function
def team_barrier(wide: Any) -> None:
    """Wait for the threads that share a tile: the block's if it has one tile, else the warp's."""
    if wide:
        cuda.syncthreads()
    else:
        syncwarp()


def new_stream() -> Any:
    """A stream that does not wait for the default stream, nor that for it, unless told to."""
    if SIMULATED:
        return cuda.stream()
    from numba.cuda.cudadrv.driver import binding, driver  # type: ignore[attr-defined]

    # The driver keeps it until the process ends; an engine has a few, for good.
    cuda.current_context()
    return cuda.external_stream(int(driver.cuStreamCreate(binding.CUstream_flags.CU_STREAM_NON_BLOCKING.value)))


def give_back() -> None:
    """Free the memory of arrays that are gone, which Numba puts off."""
    if not SIMULATED:
        cuda.current_context().deallocations.clear()


def stream_of(handle: int) -> Any:
    """Another library's stream by its handle, 0 for the default one, as kernels are queued on it."""
    return cuda.external_stream(handle) if handle else 0


def follow(stream: Any, handle: int) -> None:
    """Let what is queued on `stream` from now on wait for what another library has queued on its stream `handle`."""
    if SIMULATED:
        return
    reached = cuda.event(timing=False)
    reached.record(stream_of(handle))
    reached.wait(stream)


Compile = Callable[[Any, tuple[Any, ...]], Any]
"""A dispatcher and a signature -> the dispatcher with a kernel for it."""


class Kernel:
    """A kernel, compiled when first launched."""

    def __init__(
        self, body: Any, signature: tuple[Any, ...], compiled: Compile, most_registers: int | None = None
    ) -> None:
        """`signature`: the types of its arguments; `most_registers`: per thread, for blocks of many threads."""
        self._body, self._signature, self._compile, self._most_registers = body, signature, compiled, most_registers
        self._compiled: Any = None
        self._allowed: dict[int, int] = {}

    def launch(self, blocks: int, threads: int, stream: Any, shared_bytes: int, *arguments: Any) -> None:
        """Queue it on a stream."""
        if self._compiled is None:
            limits = {} if SIMULATED or self._most_registers is None else {"max_registers": self._most_registers}
            dispatcher = cuda.jit(**limits)(self._body)
            self._compiled = dispatcher if SIMULATED else self._compile(dispatcher, self._signature)
        if shared_bytes > DEFAULT_SHARED_BYTES and not SIMULATED:
            self._allow(shared_bytes)
        with warnings.catch_warnings():
            # Numba warns of every small grid; a single picture has no other.
            warnings.filterwarnings("ignore", "Grid size")
            launch = self._compiled[blocks, threads, stream, shared_bytes]
        launch(*arguments)

    def _allow(self, shared_bytes: int) -> None:
        # More than 48 KiB of dynamic shared memory must be asked for, on each device.
        device = cuda.get_current_device()
        if shared_bytes <= self._allowed.get(device.id, 0):
            return
        from numba.cuda.cudadrv.driver import CudaAPIError, binding, driver  # type: ignore[attr-defined]

        function = self._compiled.overloads[self._signature]._codelibrary.get_cufunc()
        attribute = binding.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        try:
            driver.cuKernelSetAttribute(attribute, shared_bytes, function.handle, device.id)
        except CudaAPIError as error:
            raise DeviceError(
                f"cuda: {_name(device)} gives a block no {shared_bytes} bytes of shared memory ({error}), which tiles "
                "of this size need; use 'cpu', whose payloads are the same"
            ) from error
        self._allowed[device.id] = shared_bytes


def as_array(pixels: Any) -> Any:
    """Device memory of another library, by its ``__cuda_array_interface__``, as kernels take it; nothing waits."""
    return pixels if SIMULATED else cuda.as_cuda_array(pixels, sync=False)


def check_device(number: int | None = None) -> int:
    """The number of a card that the kernels run on: `number`, or of the current one. Raises DeviceError without it."""
    if SIMULATED:
        return number or 0
    elsewhere = "use 'cpu', whose payloads are the same"
    if not cuda.is_available():
        raise DeviceError(f"device 'cuda': no CUDA driver with a card was found ({_driver_trouble()}); {elsewhere}")
    try:
        return _checked(number, elsewhere)
    except Exception as error:
        if not is_cuda_error(error):
            raise
        raise DeviceError(f"device 'cuda': the card or its driver failed ({error}); {elsewhere}") from error


def _checked(number: int | None, elsewhere: str) -> int:
    if number is not None and number >= len(cuda.gpus):
        raise DeviceError(f"device 'cuda:{number}': the driver lists {len(cuda.gpus)} cards, from 0 on; {elsewhere}")
    version = cuda.cudadrv.driver.get_version()
    if version < OLDEST_DRIVER:
        raise DeviceError(
            f"device 'cuda': the driver knows CUDA {version[0]}.{version[1]}, the kernels need {OLDEST_DRIVER[0]}."
            f"{OLDEST_DRIVER[1]}; update the NVIDIA driver, or {elsewhere}"
        )
    device = cuda.get_current_device() if number is None else cuda.gpus[number]
    if device.compute_capability < LOWEST_CAPABILITY:
        found = ".".join(map(str, device.compute_capability))
        raise DeviceError(
            f"device 'cuda': {_name(device)} has compute capability {found}, the kernels need 7.0 (Volta) or "
            f"newer; {elsewhere}"
        )
    return int(device.id)


def has_tensor_cores(number: int) -> bool:
    """Whether a card multiplies matrices of bytes."""
    return not SIMULATED and cuda.gpus[number].compute_capability >= TENSOR_CAPABILITY


def most_block_bytes(number: int) -> int:
    """Bytes of shared memory that a card gives a block which asks for them; the simulator as many as a V100."""
    return V100_BLOCK_BYTES if SIMULATED else int(cuda.gpus[number].MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)


def _name(device: Any) -> str:
    name = device.name
    return name.decode() if isinstance(name, bytes) else str(name)


def _driver_trouble() -> str:
    reason = cuda.cuda_error()
    return " ".join(str(reason).split()) if reason else "the driver lists none"


def is_cuda_error(error: BaseException) -> bool:
    """Whether an exception comes from the driver or its bindings, not from this package."""
    return type(error).__module__.startswith(CUDA_MODULES)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a CUDA call found too little memory on the card or of the host's pinned kind."""
    return getattr(error, "code", None) == OUT_OF_MEMORY or "OUT_OF_MEMORY" in str(error)


__all__ = [
    "SIMULATED",
    "WARP",
    "Kernel",
    "as_array",
    "ballot",
    "bit_count",
    "check_device",
    "cuda",
    "device_function",
    "follow",
    "gather",
    "give_back",
    "has_tensor_cores",
    "int32",
    "int64",
    "is_cuda_error",
    "is_out_of_memory",
    "most_block_bytes",
    "narrow",
    "new_stream",
    "shared_words",
    "stream_of",
    "syncwarp",
    "team_barrier",
    "types",
]

"""Decoded images that stay on the card, as torch tensors: their memory is torch's, and the kernels write to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pilc_stream.backends.cuda.shim import SIMULATED, as_array, stream_of
from pilc_stream.errors import DeviceError


def usable() -> bool:
    """Whether this torch can use a card."""
    return SIMULATED or torch.cuda.is_available()


def room(byte_count: int, device: int) -> tuple[torch.Tensor, Any, int]:
    """An uninitialised uint8 tensor `(byte_count,)` on a device; itself as kernels take it; the handle of the caller's
    current stream there, on which its memory may still be in use. Raises DeviceError where there is no room."""
    if SIMULATED:
        simulated = torch.zeros(byte_count, dtype=torch.uint8)
        return simulated, simulated.numpy(), 0
    try:
        tensor = torch.empty(byte_count, dtype=torch.uint8, device=f"cuda:{device}")
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"cuda: no room for {byte_count} bytes of decoded pixels ({error}); decode fewer images at a time"
        ) from error
    return tensor, tensor, torch.cuda.current_stream(device).cuda_stream


def torch_device(number: int) -> torch.device:
    """The device of that number as torch knows it."""
    return torch.device("cpu") if SIMULATED else torch.device("cuda", number)


def kernel_array(tensor: torch.Tensor) -> Any:
    """A contiguous tensor, of at least one element, as kernels take it; nothing waits."""
    return tensor.numpy() if SIMULATED else as_array(tensor)


def current_stream(device: torch.device) -> Any:
    """The caller's current stream of torch, as kernels are queued on it."""
    return stream_of(0 if SIMULATED else torch.cuda.current_stream(device).cuda_stream)


def from_host(image: NDArray[Any], number: str) -> torch.Tensor:
    """A copy on the device of that number (of the current one where it is empty), of the caller's current stream."""
    tensor = torch.from_numpy(np.ascontiguousarray(image))
    return tensor.clone() if SIMULATED else tensor.to(f"cuda:{number}" if number else "cuda")

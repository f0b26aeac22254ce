"""The family's networks in torch: on a card, or on the host to prove that they give equal latents.

Whole numbers are multiplied as float64, which holds every sum, and never as convolutions of cuDNN, which may choose
Winograd's or Fourier's way; the transforms may, without TF32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pilc_stream.errors import DeviceError


def card_machine(number: int | None = None) -> TorchMachine:
    """The machine of a card. Raises DeviceError where torch has none."""
    if not torch.cuda.is_available():
        raise DeviceError(
            "device 'cuda': this torch finds no card; use 'cpu', whose payloads are the same, or install a torch that "
            "fits the driver"
        )
    return TorchMachine("cuda" if number is None else f"cuda:{number}")


class TorchMachine:
    """Torch tensors on a device; as `Machine`."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)

    def integers(self, values: NDArray[Any]) -> Tensor:
        """int64."""
        return torch.from_numpy(values.astype(np.int64)).to(self._device)

    def factors(self, values: NDArray[Any]) -> Tensor:
        """float64."""
        return torch.from_numpy(values.astype(np.float64)).to(self._device)

    def floats(self, values: NDArray[Any]) -> Tensor:
        """float32."""
        return torch.from_numpy(values.astype(np.float32)).to(self._device)

    def host(self, values: Tensor) -> NDArray[Any]:
        """As a NumPy array."""
        found: NDArray[Any] = values.cpu().numpy()
        return found

    def product(self, values: Tensor, factors: Tensor) -> Tensor:
        """Exact."""
        return (values.to(torch.float64) @ factors.to(torch.float64)).to(torch.int64)

    def joined(self, parts: Sequence[Tensor], axis: int) -> Tensor:
        """Concatenated."""
        return torch.cat(list(parts), axis)

    def padded(self, values: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
        """Filled up."""
        return functional.pad(values, (0, 0, *columns, *rows))

    def rolled(self, values: Tensor, by: int) -> Tensor:
        """Rolled."""
        return torch.roll(values, (by, by), (0, 1))

    def largest(self, values: Tensor) -> Tensor:
        """Maxima."""
        return values.amax(-1)

    def where(self, condition: Tensor, values: Any, otherwise: Any) -> Tensor:
        """Chosen."""
        return torch.where(condition, values, otherwise)

    def root(self, values: Tensor) -> Tensor:
        """Whole roots."""
        found = values.to(torch.float64).sqrt().to(torch.int64)
        # Whatever the square root of floats rounds to, the result is defined.
        found = found - (found * found > values).to(torch.int64)
        return found + ((found + 1) * (found + 1) <= values).to(torch.int64)

    def exp(self, values: Tensor) -> Tensor:
        """Exponentials."""
        return values.exp()

    def gelu(self, values: Tensor) -> Tensor:
        """Torch's own."""
        return functional.gelu(values)

    def kernel(self, weight: NDArray[Any], transposed: bool) -> Tensor:
        """As torch has it."""
        return self.floats(weight)

    def convolved(self, values: Tensor, kernel: Any, edge: int, stride: int) -> Tensor:
        """By torch, and on a card by cuDNN."""
        with torch.backends.cudnn.flags(allow_tf32=False):
            found = functional.conv2d(values.permute(2, 0, 1)[None], kernel, stride=stride, padding=edge // 2)
        return found[0].permute(1, 2, 0)

    def widened(self, values: Tensor, kernel: Any) -> Tensor:
        """By torch, and on a card by cuDNN."""
        half = kernel.shape[2] // 2
        with torch.backends.cudnn.flags(allow_tf32=False):
            found = functional.conv_transpose2d(
                values.permute(2, 0, 1)[None], kernel, stride=2, padding=half, output_padding=1
            )
        return found[0].permute(1, 2, 0)

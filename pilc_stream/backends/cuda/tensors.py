"""Decoded images that stay on the card, as torch tensors without a copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pilc_stream.backends.cuda.shim import SIMULATED


def as_tensor(image: Any) -> torch.Tensor:
    """The tensor of a device array; it keeps the memory alive. Of an array in host memory, a copy on the card.

    The image is complete, so the tensor may be used on any stream.
    """
    if SIMULATED:
        return torch.from_numpy(np.array(image))
    return torch.as_tensor(image, device="cuda")

"""The networks of the codec `lossy` in torch: on a card, or on the host to prove that they give equal latents.

Sums of the entropy nets are whole numbers below ``2**24``, which float32 holds exactly in every order: as matrix
products without TF32, and never as convolutions of cuDNN, which may choose Winograd's or Fourier's way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pilc_stream.arith.perceptron import ACTIVATION_LIMIT
from pilc_stream.backends.base import Tile
from pilc_stream.backends.lossy.base import Ints
from pilc_stream.backends.lossy.cpu import Synthesis
from pilc_stream.backends.lossy.network import HYPER_LAYERS, SHUFFLED
from pilc_stream.backends.lossy.transforms import MID_GREY, blend
from pilc_stream.errors import DeviceError
from pilc_stream.models.lossy import GAIN_BITS, LossyModel
from pilc_stream.models.lossy_spec import LEVEL_STRIDES, MEAN_STEPS, UNIT


def card_arithmetic(number: int | None = None) -> tuple[CardArithmetic, Synthesis]:
    """Entropy nets and synthesis on a card. Raises DeviceError where torch has none."""
    if not torch.cuda.is_available():
        raise DeviceError(
            "device 'cuda': this torch finds no card; use 'cpu', whose payloads are the same, or install a torch that "
            "fits the driver"
        )
    arithmetic = CardArithmetic("cuda" if number is None else f"cuda:{number}")
    return arithmetic, arithmetic.synthesise


class CardArithmetic:
    """The networks on a torch device."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._tensors: dict[tuple[str, str], torch.Tensor] = {}

    def hyper_features(self, model: LossyModel, inputs: Ints) -> torch.Tensor:
        """Features float32 `(4 h, 4 w, hyper_width)`, whole numbers."""
        values = torch.from_numpy(inputs.astype(np.float32)).to(self._device)
        for index in range(HYPER_LAYERS):
            values = self._hidden(model, f"hyper.{index}", values)
            if index in SHUFFLED:
                values = _shuffled(values, 2)
        return values

    def outputs(
        self, model: LossyModel, number: int, context: Ints | None, features: torch.Tensor, quality: Ints
    ) -> tuple[Ints, Ints]:
        """Means and scales of a pass before the gain."""
        wide = torch.from_numpy(quality.astype(np.float32)).to(self._device).expand(*features.shape[:2], -1)
        parts = [features, wide]
        if context is not None:
            known = torch.from_numpy(context.astype(np.float32)).to(self._device)
            parts.insert(0, self._hidden(model, f"pass.{number}.context", known))
        hidden = self._hidden(model, f"pass.{number}.hidden", torch.cat(parts, 2))
        out = self._total(model, f"pass.{number}.out", hidden).to(torch.int64).cpu().numpy()
        return out[..., : out.shape[2] // 2], out[..., out.shape[2] // 2 :]

    def synthesise(self, model: LossyModel, latents: NDArray[np.int32], quality: int, height: int, width: int) -> Tile:
        """As `transforms.synthesise`."""
        gain = torch.from_numpy(model.quality(quality).gain.astype(np.float32)).to(self._device) / (1 << GAIN_BITS)
        values = torch.from_numpy(latents.astype(np.float32)).to(self._device) / (gain * MEAN_STEPS)
        share = torch.from_numpy(blend(quality)).to(self._device)
        blocks = model.spec.residual_blocks("synthesis")
        for level in reversed(range(len(LEVEL_STRIDES))):
            for name, _, _ in blocks:
                if name.startswith(f"synthesis.{level}."):
                    values = self._through(model, name, values, share)
            values = _shuffled(values @ self._float(model, f"synthesis.{level}.matrix").T, LEVEL_STRIDES[level])
        levels = torch.round(values[:height, :width] * UNIT + MID_GREY).clamp(0, 255)
        tile: Tile = levels.to(torch.uint8).cpu().numpy()
        return tile

    def _through(self, model: LossyModel, name: str, values: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        parts = {
            part: self._float(model, f"{name}.{part}")
            for part in ("spread", "first", "first_bias", "second", "second_bias")
        }
        hidden = _surroundings(values / parts["spread"]) @ parts["first"].T + share @ parts["first_bias"]
        return values + torch.relu(hidden) @ parts["second"].T + parts["second_bias"]

    def _hidden(self, model: LossyModel, name: str, values: torch.Tensor) -> torch.Tensor:
        return self._total(model, name, values).clamp(0, ACTIVATION_LIMIT)

    def _total(self, model: LossyModel, name: str, values: torch.Tensor) -> torch.Tensor:
        """The sums scaled down, float32 whole numbers."""
        layer = model.layers[name]
        inputs = _surroundings(values) if model.spec.layers()[name][2] == 3 else values
        weight = self._kept(model, f"{name}.weight", layer.weight.astype(np.float32))
        bias = self._kept(model, f"{name}.bias", layer.bias.astype(np.int64))
        shift = self._kept(model, f"{name}.shift", layer.shift.astype(np.int64))
        total = (inputs @ weight.T).to(torch.int64) + bias
        return (total >> shift).to(torch.float32)

    def _float(self, model: LossyModel, name: str) -> torch.Tensor:
        return self._kept(model, name, model.floats[name])

    def _kept(self, model: LossyModel, name: str, values: NDArray[Any]) -> torch.Tensor:
        key = model.sha256, name
        if key not in self._tensors:
            self._tensors[key] = torch.from_numpy(np.array(values)).to(self._device)
        return self._tensors[key]


def _surroundings(values: torch.Tensor) -> torch.Tensor:
    """`(h, w, c)` -> `(h, w, 9 c)`: each place with its eight neighbours, 0 outside."""
    height, width, _ = values.shape
    wide = torch.nn.functional.pad(values, (0, 0, 1, 1, 1, 1))
    return torch.cat([wide[y : y + height, x : x + width] for y in range(3) for x in range(3)], 2)


def _shuffled(values: torch.Tensor, stride: int) -> torch.Tensor:
    """`(h, w, c stride**2)` -> `(stride h, stride w, c)`."""
    height, width, count = values.shape
    groups = values.reshape(height, width, count // stride**2, stride, stride).permute(0, 3, 1, 4, 2)
    return groups.reshape(stride * height, stride * width, count // stride**2)

"""The family's transforms: networks in float32, whose rounding may differ between devices."""

from __future__ import annotations

from typing import Any

from pilc_stream.backends.lossy.family.network import Network, position_index
from pilc_stream.models.family_spec import ATTENTION_BLOCKS, Part

MASKED = -100.0
NORM_FLOOR = 1e-5
BETA_FLOOR = 1e-6
GATE_LIMIT = 60.0
"""Beyond it a sigmoid is 0 or 1, and its exponential might be too large."""


class FloatNetwork(Network):
    """Computes with the model's floats."""

    def after(self, part: Part, values: Any) -> Any:
        """Values after a part, also of the kinds that only transforms have."""
        if part.kind in ("gdn", "inverse gdn"):
            return self._divided(part.name, values, part.kind != "gdn")
        if part.kind == "residual":
            return self._residual(part.name, values)
        if part.kind == "attention":
            return self._gated(part.name, values)
        return super().after(part, values)

    def _divided(self, name: str, values: Any, inverse: bool) -> Any:
        """Generalised divisive normalisation: over, or times, the root of `beta + gamma values²`."""
        root_gamma, root_beta = self._float(f"{name}.root_gamma"), self._float(f"{name}.root_beta")
        squares = (values * values).reshape(-1, values.shape[-1]) @ (root_gamma * root_gamma).T
        energy = (squares + (root_beta * root_beta + BETA_FLOOR)).reshape(values.shape) ** 0.5
        return values * energy if inverse else values / energy

    def _residual(self, name: str, values: Any) -> Any:
        hidden = self.convolved(f"{name}.layers.0", values, 1).clip(0, None)
        hidden = self.convolved(f"{name}.layers.2", hidden, 1).clip(0, None)
        return values + self.convolved(f"{name}.layers.4", hidden, 1)

    def _gated(self, name: str, values: Any) -> Any:
        trunk, gate = values, values
        for number in range(ATTENTION_BLOCKS):
            trunk = self._residual(f"{name}.trunk.{number}", trunk)
            gate = self._residual(f"{name}.gate.{number}", gate)
        gate = self.convolved(f"{name}.gate.{ATTENTION_BLOCKS}", gate, 1)
        # Values and the trunk times the sigmoid of the gate.
        return values + trunk / (self.machine.exp((-gate).clip(-GATE_LIMIT, GATE_LIMIT)) + 1)

    def convolved(self, name: str, values: Any, stride: int) -> Any:
        """Products of float32."""
        weight = self.model.floats[f"{name}.weight"]
        kernel = self.kept(name, "kernel", lambda: self.machine.kernel(weight, False))
        return self.machine.convolved(values, kernel, weight.shape[2], stride) + self._float(f"{name}.bias")

    def widened(self, name: str, values: Any) -> Any:
        """Products of float32."""
        weight = self.model.floats[f"{name}.weight"]
        kernel = self.kept(name, "kernel", lambda: self.machine.kernel(weight, True))
        return self.machine.widened(values, kernel) + self._float(f"{name}.bias")

    def linear(self, name: str, values: Any) -> Any:
        """Products of float32."""
        weight = self._float(f"{name}.weight")
        flat = values.reshape(-1, values.shape[-1]) @ weight.T
        return flat.reshape(*values.shape[:-1], len(weight)) + self._float(f"{name}.bias")

    def normalised(self, name: str, values: Any) -> Any:
        """To mean 0 and deviation 1, then scaled and moved."""
        apart = values - values.mean(-1)[..., None]
        deviation = ((apart * apart).mean(-1) + NORM_FLOOR) ** 0.5
        return apart / deviation[..., None] * self._float(f"{name}.weight") + self._float(f"{name}.bias")

    def gelu(self, values: Any) -> Any:
        """Floats."""
        return self.machine.gelu(values)

    def added(self, values: Any, change: Any) -> Any:
        """Floats."""
        return values + change

    def position_bias(self, name: str, window: int) -> Any:
        """Floats."""
        return self.machine.floats(self.model.floats[f"{name}.position_bias"][:, position_index(window)])

    def mixed(self, query: Any, key: Any, value: Any, bias: Any, mask: Any | None) -> Any:
        """By softmax."""
        scores = query @ key.swapaxes(-1, -2) * query.shape[-1] ** -0.5 + bias
        if mask is not None:
            scores = self.machine.where(mask, scores + MASKED, scores)
        weights = self.machine.exp(scores - self.machine.largest(scores)[..., None])
        return weights @ value / weights.sum(-1)[..., None]

    def _float(self, name: str) -> Any:
        return self.kept(name, "float", lambda: self.machine.floats(self.model.floats[name]))

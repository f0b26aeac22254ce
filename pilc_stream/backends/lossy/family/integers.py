"""The networks that decide on code tables: whole numbers, the same on every device.

Activations count 256ths and are limited to ``[-LIMIT, LIMIT]``; sums stay below ``2**53``, as a model's loading proves.
"""

from __future__ import annotations

import math
from typing import Any

from pilc_stream.backends.lossy.family.network import Network, position_index
from pilc_stream.backends.lossy.family.sweep import convolution_taps, interleaved, phase_taps, swept
from pilc_stream.models.family import ACTIVATION_LIMIT, CURVE_LIMIT, CURVE_STEPS, FRACTION_BITS, NORM_BITS

NORM_FLOOR = 168
"""A hundred-thousandth, where variances count ``2**-24``."""

ROOT_BITS = 12
MASKED = -(1 << 60)


class IntegerNetwork(Network):
    """Computes with the model's integers."""

    def convolved(self, name: str, values: Any, stride: int) -> Any:
        """Exact products."""
        height, width, _ = values.shape
        places = -(-height // stride), -(-width // stride)
        taps, matrix = self.kept(name, "kernel", lambda: self._kernel(name))
        return self._scaled(name, swept(self.machine, self.machine.product, values, matrix, taps, stride, places))

    def widened(self, name: str, values: Any) -> Any:
        """Exact products."""
        phases = self.kept(name, "kernel", lambda: self._phases(name))
        found = [
            swept(self.machine, self.machine.product, values, matrix, taps, 1, values.shape[:2])
            for taps, matrix in phases
        ]
        return self._scaled(name, interleaved(self.machine, found))

    def linear(self, name: str, values: Any) -> Any:
        """Exact products."""
        matrix = self.kept(name, "matrix", lambda: self.machine.factors(self.model.tensors[f"{name}.weight"].T))
        flat = self.machine.product(values.reshape(-1, values.shape[-1]), matrix)
        return self._scaled(name, flat.reshape(*values.shape[:-1], matrix.shape[1]))

    def normalised(self, name: str, values: Any) -> Any:
        """To mean 0 and deviation 1 in 4096ths, then scaled and moved."""
        count, finer = values.shape[-1], NORM_BITS - FRACTION_BITS
        apart = (values << finer) - ((values.sum(-1) << finer) // count)[..., None]
        deviation = self.machine.root((apart * apart).sum(-1) // count + NORM_FLOOR)
        return self._scaled(name, ((apart << NORM_BITS) // deviation[..., None]) * self._integer(f"{name}.weight"))

    def gelu(self, values: Any) -> Any:
        """By its table; beyond, 0 or the value itself."""
        inside = self._curve("table.gelu", values)
        return self.machine.where(values >= CURVE_LIMIT, values, self.machine.where(values < -CURVE_LIMIT, 0, inside))

    def half_tangent(self, values: Any) -> Any:
        """Half the hyperbolic tangent, by its table."""
        return self._curve("table.tanh", values)

    def added(self, values: Any, change: Any) -> Any:
        """Limited."""
        return (values + change).clip(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)

    def position_bias(self, name: str, window: int) -> Any:
        """256ths."""
        return self.machine.integers(self.model.tensors[f"{name}.position_bias"][:, position_index(window)])

    def mixed(self, query: Any, key: Any, value: Any, bias: Any, mask: Any | None) -> Any:
        """By a table of exponentials, and whole division."""
        factor = math.isqrt((1 << 2 * ROOT_BITS) // query.shape[-1])
        scores = self.machine.product(query, key.swapaxes(-1, -2)) >> FRACTION_BITS
        scores = ((scores * factor + (1 << (ROOT_BITS - 1))) >> ROOT_BITS) + bias
        if mask is not None:
            scores = self.machine.where(mask, MASKED, scores)
        below = (self.machine.largest(scores)[..., None] - scores).clip(0, CURVE_STEPS - 1)
        weights = self._integer("table.exp")[below]
        total = weights.sum(-1)[..., None]
        return (self.machine.product(weights, value) + (total >> 1)) // total

    def _curve(self, name: str, values: Any) -> Any:
        return self._integer(name)[values.clip(-CURVE_LIMIT, CURVE_LIMIT - 1) + CURVE_LIMIT]

    def _scaled(self, name: str, totals: Any) -> Any:
        found = (totals + self._integer(f"{name}.bias")) >> self._integer(f"{name}.shift")
        return found.clip(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)

    def _kernel(self, name: str) -> Any:
        taps, matrix = convolution_taps(self.model.tensors[f"{name}.weight"])
        return taps, self.machine.factors(matrix)

    def _phases(self, name: str) -> Any:
        return [
            (taps, self.machine.factors(matrix)) for taps, matrix in phase_taps(self.model.tensors[f"{name}.weight"])
        ]

    def _integer(self, name: str) -> Any:
        return self.kept(name, "integer", lambda: self.machine.integers(self.model.tensors[name]))

"""What moves the weights: Muon for the hidden layers, Adam for the rest, one learning rate for both.

Muon (Jordan 2024) replaces the mean gradient of a weight matrix by the nearest matrix whose singular values are all
about 1, so that every direction of the layer learns at the same speed. The inputs here are neighbours of one pixel,
strongly correlated, which starves all but a few directions under Adam: Muon reaches in 1,500 steps what Adam reaches in
more than 10,000 (`EXPERIMENTS.md`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pilc_stream.training.network import WaveNet

MOMENTUM = 0.95
ITERATIONS = 5
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""A quintic whose iteration drives singular values from (0, 1] to about 1; of Jordan's blog post on Muon."""

ADAM_SHARE = 0.2
"""Adam's learning rate, as a share of Muon's."""

ADAM_BETAS = (0.9, 0.99)


def orthogonalised(matrix: Tensor) -> Tensor:
    """A matrix of the same singular vectors whose singular values lie near 1; float `(m, n)`."""
    a, b, c = NEWTON_SCHULZ
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / (wide.norm() + 1e-9)
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    result: Tensor = x.T if matrix.shape[0] > matrix.shape[1] else x
    return result


class Muon(torch.optim.Optimizer):
    """Orthogonalised steps along Nesterov's momentum, for weight matrices."""

    def __init__(self, matrices: list[nn.Parameter], lr: float) -> None:
        super().__init__(matrices, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move each matrix once."""
        for group in self.param_groups:
            for matrix in group["params"]:
                state = self.state[matrix]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(matrix)
                state["momentum"].lerp_(matrix.grad, 1 - MOMENTUM)
                direction = orthogonalised(matrix.grad.lerp(state["momentum"], MOMENTUM))
                tall = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
                matrix.add_(direction, alpha=-group["lr"] * tall)


class Optimisers:
    """The two optimisers of a network as one."""

    def __init__(self, net: WaveNet) -> None:
        hidden = [net.layer(name).weight for name in net.spec.layers() if net.layer(name).hidden]
        others = [p for p in net.parameters() if all(p is not matrix for matrix in hidden)]
        self._muon = Muon(hidden, lr=0.0)
        self._adam = torch.optim.Adam(others, lr=0.0, betas=ADAM_BETAS)

    def step(self, loss: Tensor, rate: float) -> None:
        """One step down the gradient of `loss` at this learning rate."""
        for optimiser, share in ((self._muon, 1.0), (self._adam, ADAM_SHARE)):
            optimiser.zero_grad()
            for group in optimiser.param_groups:
                group["lr"] = rate * share
        loss.backward()  # type: ignore[no-untyped-call]
        self._muon.step()
        self._adam.step()

    def state_dict(self) -> dict[str, Any]:
        """The state of both; `load_state_dict` is the inverse."""
        return {"muon": self._muon.state_dict(), "adam": self._adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state; ValueError or KeyError where it is of another network."""
        self._muon.load_state_dict(state["muon"])
        self._adam.load_state_dict(state["adam"])

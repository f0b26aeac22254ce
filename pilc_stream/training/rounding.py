"""From float weights to int8 weights that cost few bits.

Rounding each weight to the nearest integer costs 1 % of the bits; rounding a layer's weights one after the other, each
time letting those not yet rounded make up for the error (Frantar et al. 2023, GPTQ, from Hassibi and Stork's optimal
brain surgeon), costs a fraction of that, and no training (`EXPERIMENTS.md`). Inputs of a layer are strongly correlated,
being neighbours of one pixel, so that there is much to make up with.

How much an error of an output matters differs from pixel to pixel: not at all where the unit rests at 0, much where
the picture is smooth. So each output's errors are weighted by the squared gradient of the bits (the diagonal of the
empirical Fisher information), and each output gets a rounding of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pilc_stream.training.data import PixelRows
from pilc_stream.training.network import WEIGHT_LIMIT, PixelBatch, WaveNet

CALIBRATION_ROWS = 40_000
DAMPING = 0.003
"""Added to the diagonal of the inputs' second moments, as a share of its mean: inputs may be constant."""

EVENNESS = 0.1
"""Added to each pixel's importance, as a share of its mean: no pixel is without any."""


class OutputMoments(NamedTuple):
    """Of one output, over weighted pixels, float64: `covariance` `(n, n)` and `mean` `(n,)` of the inputs,
    `wanted_mean` `()` of the wanted output, `cross` `(n,)` covariance of inputs and wanted output."""

    covariance: Tensor
    mean: Tensor
    wanted_mean: Tensor
    cross: Tensor


def round_weights(net: WaveNet, rows: PixelRows, loss: Callable[[WaveNet, PixelBatch], Tensor]) -> None:
    """Round all weights of `net` in place, layer by layer, to fit what the layers see on the first of `rows`.

    `loss` gives the mean bits of a batch. Each layer sees what the rounded layers before it give; its weights are
    fitted anew to the float network's outputs, then rounded, and its bias makes up for the mean error that is left.
    Afterwards the network rounds (`WaveNet.quantise`).
    """
    batch = rows.batch(0, min(CALIBRATION_ROWS, len(rows)))
    net.eval()
    net.quantise(False)
    wanted, importance = _outputs_and_importance(net, batch, loss)
    for name in net.spec.layers():
        layer, inputs = net.layer(name), _inputs_of(net, name, batch)
        factor = torch.exp2(layer.shifts().double())
        for i, moments in enumerate(_output_moments(inputs, wanted[name], importance[name])):
            fitted = refitted(layer.weight[i].detach().double(), moments)
            with torch.no_grad():
                layer.weight[i] = compensated(fitted * factor[i], moments.covariance) / factor[i]
                layer.bias[i] = moments.wanted_mean - layer.weight[i].double() @ moments.mean
        layer.quantised = True
    net.train()


def refitted(weight: Tensor, moments: OutputMoments) -> Tensor:
    """The weights `(n,)` that give the wanted output best, near the given ones where the inputs leave a choice."""
    missing = moments.cross - moments.covariance @ weight
    change: Tensor = torch.linalg.solve(_damped(moments.covariance), missing)
    return weight + change


def compensated(weight: Tensor, covariance: Tensor) -> Tensor:
    """Integers in ``[-127, 127]`` whose products with the inputs are near those of `weight`, but for a constant.

    `weight` `(n,)` and the inputs' `covariance` `(n, n)` are float64. Rounded in the order of the inputs' power.
    """
    order = torch.argsort(covariance.diagonal(), descending=True, stable=True)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(_damped(covariance)[order][:, order]))
    factor = torch.linalg.cholesky(inverse, upper=True)
    rest, rounded = weight[order].clone(), torch.empty_like(weight)
    for place in range(len(order)):
        integer = torch.round(rest[place]).clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT)
        rounded[order[place]] = integer
        rest[place:] -= (rest[place] - integer) / factor[place, place] * factor[place, place:]
    return rounded


def _damped(covariance: Tensor) -> Tensor:
    return covariance + torch.eye(len(covariance)).double() * (DAMPING * covariance.diagonal().mean() + 1e-9)


def _output_moments(inputs: Tensor, wanted: Tensor, importance: Tensor) -> Iterator[OutputMoments]:
    """Of each output; `inputs` `(rows, n)`, `wanted` and `importance` `(rows, outputs)`."""
    for target, weight in zip(wanted.T, importance.T, strict=True):
        share = (weight + EVENNESS * weight.mean() + 1e-12).double()
        share = (share / share.sum()).float()
        mean, wanted_mean = share @ inputs, share @ target
        centred = inputs - mean
        weighted = centred * share[:, None]
        yield OutputMoments(
            (weighted.T @ centred).double(),
            mean.double(),
            wanted_mean.double(),
            (weighted.T @ (target - wanted_mean)).double(),
        )


def _outputs_and_importance(
    net: WaveNet, batch: PixelBatch, loss: Callable[[WaveNet, PixelBatch], Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What each layer gives, and the squared gradient of the bits after it, both `(rows, outputs)`."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> object:
        def hook(_module: object, _given: object, output: Tensor) -> None:
            output.retain_grad()
            outputs[name] = output

        return net.layer(name).register_forward_hook(hook)

    hooks = [keep(name) for name in net.spec.layers()]
    with torch.enable_grad():
        loss(net, batch).backward()  # type: ignore[no-untyped-call]
    for hook in hooks:
        hook.remove()  # type: ignore[attr-defined]
    net.zero_grad()
    importance = {
        name: torch.zeros_like(output) if output.grad is None else output.grad.square()
        for name, output in outputs.items()
    }
    return {name: output.detach() for name, output in outputs.items()}, importance


def _inputs_of(net: WaveNet, name: str, batch: PixelBatch) -> Tensor:
    """What a layer is given for the pixels of the batch."""
    given: list[Tensor] = []
    hook = net.layer(name).register_forward_pre_hook(lambda _, values: given.append(values[0]))
    with torch.no_grad():
        net(batch)
    hook.remove()
    return given[0]

"""From float weights to int8 weights that give nearly the same outputs.

Rounding each weight to the nearest integer costs 1 % of the bits; rounding a layer's weights one after the other, each
time letting those not yet rounded make up for the error (Frantar et al. 2023, GPTQ, from Hassibi and Stork's optimal
brain surgeon), costs a tenth of that, and no training (`EXPERIMENTS.md`). Inputs of a layer are strongly correlated,
being neighbours of one pixel, so that there is much to make up with.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pilc_stream.training.data import PixelRows
from pilc_stream.training.network import WEIGHT_LIMIT, PixelBatch, WaveNet

CALIBRATION_ROWS = 60_000
DAMPING = 0.003
"""Added to the diagonal of the inputs' second moments, as a share of its mean: inputs may be constant."""


def round_weights(net: WaveNet, rows: PixelRows) -> None:
    """Round all weights of `net` in place, layer by layer, to fit what the layers see on the first of `rows`.

    Each layer sees what the rounded layers before it give, and its bias makes up for the mean error that is left.
    Afterwards the network rounds (`WaveNet.quantise`).
    """
    batch = rows.batch(0, min(CALIBRATION_ROWS, len(rows)))
    net.eval()
    net.quantise(False)
    wanted = {name: _outputs(net, name, inputs) for name, inputs in _layer_inputs(net, batch).items()}
    with torch.no_grad():
        for name in net.spec.layers():
            layer, inputs = net.layer(name), _layer_inputs(net, batch)[name]
            factor = torch.exp2(layer.shifts().double())[:, None]
            layer.weight.copy_(compensated(layer.weight.double() * factor, inputs) / factor)
            layer.bias.add_((wanted[name] - _outputs(net, name, inputs)).mean(0))
            layer.quantised = True
    net.train()


def compensated(weight: Tensor, inputs: Tensor) -> Tensor:
    """Integers in ``[-127, 127]`` whose products with `inputs` are close to those of `weight`, both float64.

    `weight` `(outputs, n)`; `inputs` `(rows, n)`. Columns are rounded in the order of their inputs' power.
    """
    values = inputs.double()
    moments = values.T @ values / len(values)
    moments += torch.eye(len(moments)).double() * (DAMPING * moments.diagonal().mean() + 1e-9)
    order = torch.argsort(moments.diagonal(), descending=True, stable=True)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments[order][:, order]))
    factor = torch.linalg.cholesky(inverse, upper=True)
    rest, rounded = weight[:, order].clone(), torch.empty_like(weight)
    for column in range(len(order)):
        rounded[:, order[column]] = torch.round(rest[:, column]).clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT)
        error = (rest[:, column] - rounded[:, order[column]]) / factor[column, column]
        rest[:, column:] -= error[:, None] * factor[column, column:]
    return rounded


def _outputs(net: WaveNet, name: str, inputs: Tensor) -> Tensor:
    layer = net.layer(name)
    with torch.no_grad():
        return torch.nn.functional.linear(inputs, layer.weight, layer.bias)


def _layer_inputs(net: WaveNet, batch: PixelBatch) -> dict[str, Tensor]:
    """What each layer is given for the pixels of the batch."""
    inputs: dict[str, Tensor] = {}

    def keep(name: str) -> object:
        return net.layer(name).register_forward_pre_hook(lambda _, given: inputs.__setitem__(name, given[0]))

    hooks = [keep(name) for name in net.spec.layers()]
    with torch.no_grad():
        net(batch)
    for hook in hooks:
        hook.remove()  # type: ignore[attr-defined]
    return inputs

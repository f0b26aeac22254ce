"""Predictors and code book by clustering: each block goes where it costs the fewest bits, then each place is fitted.

Generalised Lloyd iterations (Linde, Buzo and Gray 1980) with coded bits as the distance, so that no gradient passes
through a choice; predictors or codes that hardly any block chooses begin again from the crowded ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pilc_stream.arith.blocks import BLOCK, QUARTER_PIXELS, QUARTERS, WEIGHT_BITS
from pilc_stream.arith.context import CHANNELS
from pilc_stream.models.pilc import ENCODER_LIMIT, PilcSpec
from pilc_stream.training.augment import Pixels
from pilc_stream.training.vq.data import block_features

PIXELS = BLOCK * BLOCK
CHUNK = 1024
LEAST_MEMBERS = 16
SOFTENING = 0.3
"""Grey levels added to mean residuals before their logarithm: no residual is finer than a rounded level."""

FITS = 2
BIAS_UNIT = 8.0
"""The value of the constant input while fitting."""

LAPLACE = float(np.log2(np.e))
COST_UNIT = 256
CODE_ROUNDS = 15


class Blocks(NamedTuple):
    """Blocks of 64 pixels: per channel int8 `(blocks, 64, taps + 1)`, the sub-pixel last."""

    features: list[Tensor]

    def __len__(self) -> int:
        return len(self.features[0])

    def values(self, channel: int, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Inputs float `(n, 64, taps + 1)`, the last one constant, and the sub-pixels `(n, 64)`."""
        picked = self.features[channel][rows].float()
        targets = picked[..., -1].clone()
        picked[..., -1] = BIAS_UNIT
        return picked, targets


class Codebook(NamedTuple):
    """`weights`: per channel float `(predictors, taps + 1)`; `predictor_bits` `(predictors,)`; `sizes` `(codes, 12)`:
    mean absolute residuals of each quarter of each channel; `code_bits` `(codes,)`."""

    weights: list[Tensor]
    predictor_bits: Tensor
    sizes: Tensor
    code_bits: Tensor


def gather_blocks(tiles: Sequence[Pixels], spec: PilcSpec, count: int) -> Blocks:
    """About `count` blocks from the first of `tiles`."""
    parts: list[list[np.ndarray]] = []
    total = 0
    for tile in tiles:
        parts.append(block_features(tile, list(spec.taps)))
        total += len(parts[-1][0])
        if total >= count:
            break
    return Blocks([torch.from_numpy(np.concatenate([part[c] for part in parts])) for c in range(CHANNELS)])


def fit_codebook(
    blocks: Blocks, spec: PilcSpec, rounds: int, seed: int, progress: Callable[[int, float], None]
) -> Codebook:
    """Cluster `blocks`; `progress` gets each round's number and its bits per sub-pixel, by the encoder's estimate."""
    generator = torch.Generator().manual_seed(seed)
    weights = _first_weights(blocks, spec.predictors, generator)
    predictor_bits = torch.zeros(spec.predictors)
    chosen, sums = torch.zeros(0), torch.zeros(0)
    for number in range(rounds):
        chosen, sums, bits = _choose(blocks, weights, predictor_bits)
        progress(number, bits / (PIXELS * CHANNELS))
        counts = torch.bincount(chosen, minlength=spec.predictors)
        predictor_bits = -torch.log2((counts + 1.0) / (len(blocks) + spec.predictors))
        for k in range(spec.predictors):
            if counts[k] < LEAST_MEMBERS:
                crowded = int(counts.argmax())
                counts[crowded] //= 2
                for weight in weights:
                    weight[k] = weight[crowded] + 0.02 * torch.randn(weight.shape[1], generator=generator)
                continue
            members = torch.nonzero(chosen == k)[:, 0]
            for c in range(CHANNELS):
                weights[c][k] = _fitted(*blocks.values(c, members), weights[c][k])
    chosen, sums, _ = _choose(blocks, weights, predictor_bits)
    sizes, code_bits = _cluster_sizes(sums, spec.codes, generator)
    return Codebook(weights, predictor_bits, sizes, code_bits)


def integer_tensors(codebook: Codebook) -> dict[str, np.ndarray]:
    """The predictors and the encoder's numbers of a `PilcModel`."""
    one = 1 << WEIGHT_BITS
    tensors = {}
    for c, weight in enumerate(codebook.weights):
        tensors[f"predictor.{c}.weight"] = torch.round(weight[:, :-1] * one).clamp(-32767, 32767).numpy()
        tensors[f"predictor.{c}.bias"] = torch.round(weight[:, -1] * BIAS_UNIT * one).numpy()
    sums = torch.arange(QUARTER_PIXELS * 255 + 1)
    tensors["encoder.log"] = torch.round(COST_UNIT * torch.log2(sums / QUARTER_PIXELS + SOFTENING)).numpy()
    tensors["encoder.predictor"] = torch.round(COST_UNIT * codebook.predictor_bits).numpy()
    tensors["encoder.slope"] = torch.round(COST_UNIT * LAPLACE / codebook.sizes).numpy()
    tensors["encoder.level"] = torch.round(COST_UNIT * torch.log2(2 * codebook.sizes)).numpy()
    tensors["encoder.code"] = torch.round(COST_UNIT * codebook.code_bits).numpy()
    limited = {
        name: np.clip(values, 1 - ENCODER_LIMIT, ENCODER_LIMIT - 1) if name.startswith("encoder") else values
        for name, values in tensors.items()
    }
    return {name: values.astype(np.int16 if name.endswith("weight") else np.int32) for name, values in limited.items()}


def _first_weights(blocks: Blocks, count: int, generator: torch.Generator) -> list[Tensor]:
    """One fit to many blocks, and from it one for each of `count` stretches of blocks at random."""
    sample = torch.randperm(len(blocks), generator=generator)[:4000]
    starts = torch.randint(0, max(1, len(blocks) - 4), (count,), generator=generator)
    out = []
    for c in range(CHANNELS):
        values, targets = blocks.values(c, sample)
        common = torch.zeros(values.shape[-1])
        for _ in range(4):
            common = _fitted(values, targets, common)
        weights = common.repeat(count, 1)
        for k in range(1, count):
            values, targets = blocks.values(c, slice(int(starts[k]), int(starts[k]) + 4))
            inputs = values.flatten(0, 1)
            rest = (targets - values @ common).flatten()
            moments = inputs.T @ inputs + 50.0 * len(rest) * torch.eye(inputs.shape[1])
            weights[k] += torch.linalg.solve(moments, inputs.T @ rest)
        out.append(weights)
    return out


def _fitted(values: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """Weights that lower the sum over blocks of the logarithm of the mean absolute error: reweighted least squares."""
    inputs = values.flatten(0, 1)
    for _ in range(FITS):
        error = targets - values @ weight
        size = error.abs().mean(1, keepdim=True) + SOFTENING
        share = (1 / (size * torch.sqrt(error**2 + size**2 / 4))).flatten()
        weighted = inputs * share[:, None]
        moments = (weighted.T @ inputs).double()
        moments += 1e-6 * moments.diagonal().mean() * torch.eye(len(moments)).double()
        weight = torch.linalg.solve(moments, (weighted.T @ targets.flatten()).double()).float()
    return weight


def _choose(blocks: Blocks, weights: list[Tensor], predictor_bits: Tensor) -> tuple[Tensor, Tensor, float]:
    """For each block its predictor, the sums of absolute residuals by channel and quarter, and the mean bits."""
    chosen, sums, bits = [], [], 0.0
    half = BLOCK // 2
    for start in range(0, len(blocks), CHUNK):
        parts = []
        for c, weight in enumerate(weights):
            values, targets = blocks.values(c, slice(start, start + CHUNK))
            error = (targets[..., None] - torch.round(values @ weight.T)).abs()
            by_quarter = error.reshape(-1, 2, half, 2, half, weight.shape[0]).sum((2, 4))
            parts.append(by_quarter.flatten(1, 2))
        total = torch.cat(parts, 1)
        cost = QUARTER_PIXELS * torch.log2(total / QUARTER_PIXELS + SOFTENING).sum(1) + predictor_bits
        best, place = cost.min(1)
        bits += float(best.sum())
        chosen.append(place)
        sums.append(total.gather(2, place[:, None, None].expand(-1, total.shape[1], 1))[..., 0])
    return torch.cat(chosen), torch.cat(sums), bits / len(blocks)


def code_costs(sums: Tensor, sizes: Tensor, code_bits: Tensor) -> Tensor:
    """Bits of each block under each code, of residuals with Laplace distributions: float `(blocks, codes)`."""
    level = QUARTER_PIXELS * torch.log2(2 * sizes).sum(1) + code_bits
    return sums @ (LAPLACE / sizes).T + level


def _cluster_sizes(sums: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    sizes = sums[torch.randperm(len(sums), generator=generator)[:count]] / QUARTER_PIXELS + 0.1
    code_bits = torch.zeros(count)
    for _ in range(CODE_ROUNDS):
        chosen = torch.cat([code_costs(part, sizes, code_bits).argmin(1) for part in torch.split(sums, 8 * CHUNK)])
        counts = torch.bincount(chosen, minlength=count).float()
        totals = torch.zeros(count, CHANNELS * QUARTERS).index_add_(0, chosen, sums)
        sizes = totals / counts.clamp(min=1)[:, None] / QUARTER_PIXELS + 0.02
        dead = counts < LEAST_MEMBERS / 4
        again = torch.randperm(len(sums), generator=generator)[: int(dead.sum())]
        sizes[dead] = sums[again] / QUARTER_PIXELS + 0.1
        code_bits = -torch.log2((counts + 1) / (len(sums) + count))
    return sizes, code_bits

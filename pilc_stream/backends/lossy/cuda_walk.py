"""The walk of `base` for batches of tiles of one size, in torch: in integers, so equal to that of a single tile."""

from __future__ import annotations

import torch

from pilc_stream.backends.lossy.base import HYPER_PER_LATENT, STEPS_LOG2, pass_places
from pilc_stream.backends.lossy.card import BatchTables, CardNets, Encoded
from pilc_stream.backends.lossy.cuda_lanes import CardReader, CardWriter
from pilc_stream.models.lossy import GAIN_BITS, MEAN_LIMIT, SCALE_BITS, LossyModel
from pilc_stream.models.lossy_spec import (
    CONTEXT_LIMIT,
    HYPER_INPUT,
    LATENT_STRIDE,
    MEAN_STEPS,
    SCALE_COUNT,
    CodingPass,
    LossySpec,
)

BYTES_PER_UNIT = 128
"""Of device memory for each latent and hidden unit of a place, at most: activations, their surroundings, indices."""


BYTES_PER_PIXEL = 64
"""Likewise: its source, what is decoded, and their difference."""


def place_bytes(spec: LossySpec) -> int:
    """Device memory that a batch takes for each place of latents."""
    units = spec.latents + spec.hyper_width + spec.context_width + spec.hidden_width
    return BYTES_PER_UNIT * units + BYTES_PER_PIXEL * LATENT_STRIDE**2


def code_batch(
    model: LossyModel, tables: BatchTables, nets: CardNets, writer: CardWriter, grid: tuple[int, int], found: Encoded
) -> torch.Tensor:
    """Code tiles of a `grid` of latents: these, decoded, int32 `(tiles, rows, columns, latents)`."""
    return _walk(model, tables, nets, _Coder(writer, found), grid)


def decode_batch(
    model: LossyModel, tables: BatchTables, nets: CardNets, reader: CardReader, grid: tuple[int, int]
) -> torch.Tensor:
    """Decode tiles: their latents."""
    return _walk(model, tables, nets, _Coder(reader, None), grid)


class _Coder:
    """A reader, or a writer with what it is to write."""

    def __init__(self, coder: CardReader | CardWriter, found: Encoded | None) -> None:
        self._coder, self._found = coder, found

    def hyper(self, rows: torch.Tensor) -> torch.Tensor:
        """The values of all hyper latents by these rows uint8 `(tiles, ...)`."""
        wanted = self._found.hyper.to(torch.float64) if self._found else None
        return self._values(rows, wanted)

    def latents(
        self, rows: torch.Tensor, places: tuple[torch.Tensor, ...], own: slice, mean: torch.Tensor
    ) -> torch.Tensor:
        """The values of the latents at some places."""
        wanted = None
        if self._found:
            latents = self._found.latents[:, places[0], places[1], own].to(torch.float64)
            wanted = latents - mean.to(torch.float64) / MEAN_STEPS
        return self._values(rows, wanted)

    def _values(self, rows: torch.Tensor, wanted: torch.Tensor | None) -> torch.Tensor:
        flat = rows.flatten(1)
        if isinstance(self._coder, CardReader):
            return self._coder.values(flat).view(rows.shape)
        assert wanted is not None
        return self._coder.values(flat, wanted.flatten(1)).view(rows.shape)


def _walk(model: LossyModel, tables: BatchTables, nets: CardNets, coder: _Coder, grid: tuple[int, int]) -> torch.Tensor:
    spec, device, tiles = model.spec, tables.gain.device, len(tables.gain)
    rows, columns = grid
    hyper = -(-rows // HYPER_PER_LATENT), -(-columns // HYPER_PER_LATENT)
    of_hyper = _scale_rows(torch.zeros_like(tables.hyper), tables.hyper)
    values = coder.hyper(of_hyper[:, None, None].expand(-1, *hyper, -1))
    planes = tables.features[:, None, None].expand(-1, *hyper, -1)
    inputs = torch.cat([(values * HYPER_INPUT).clamp(-CONTEXT_LIMIT, CONTEXT_LIMIT), planes], 3)
    features = nets.hyper_features(model, inputs)[:, :rows, :columns]
    unit = torch.from_numpy(model.tensors["context.unit"]).to(device).long()
    decoded = torch.zeros((tiles, rows, columns, spec.latents), dtype=torch.int32, device=device)
    for number, each in enumerate(spec.passes()):
        known, own = slice(0, each.known), slice(each.start, each.stop)
        context = _context_inputs(decoded[..., known], unit[known], tables.gain[:, known]) if each.known else None
        means, scales = nets.outputs(model, number, context, features, tables.features)
        places = _places(each, rows, columns, device)
        mean = _scaled_means(means[:, places[0], places[1]], tables.gain[:, None, own])
        index = _scale_rows(scales[:, places[0], places[1]], tables.scale[:, None, own])
        found = coder.latents(index, places, own, mean)
        decoded[:, places[0], places[1], own] = (found << STEPS_LOG2) + mean
    return decoded


def _places(each: CodingPass, rows: int, columns: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    ys, xs = (torch.from_numpy(axis).to(device) for axis in pass_places(each, rows, columns))
    return ys, xs


def _context_inputs(decoded: torch.Tensor, unit: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """As `base.context_inputs`."""
    wide = gain[:, None, None].long()
    quotient = torch.div(decoded * unit + (wide >> 1), wide, rounding_mode="floor")
    return quotient.clamp(-CONTEXT_LIMIT, CONTEXT_LIMIT)


def _scaled_means(outputs: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """As `base.scaled_means`: both factors have 16 bits, so that 32 hold the product."""
    return (outputs.clamp(-MEAN_LIMIT, MEAN_LIMIT) * gain + (1 << (GAIN_BITS - 1))) >> GAIN_BITS


def _scale_rows(outputs: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """As `base.scale_indices`, uint8."""
    limited = outputs.clamp(-MEAN_LIMIT, MEAN_LIMIT)
    total = ((limited << SCALE_BITS) + offset + (1 << (SCALE_BITS - 1))) >> SCALE_BITS
    return total.clamp(0, SCALE_COUNT - 1).to(torch.uint8)

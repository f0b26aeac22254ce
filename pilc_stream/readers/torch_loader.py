"""A torch DataLoader over images of any sizes: batches that are tensors where they can be and lists where not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from pilc_stream.readers.torch import StreamingImages


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Samples of `StreamingImages` to one batch, field by field.

    Tensors of one shape and type are stacked, `(N, C, H, W)`; everything else, so images of different sizes too,
    stays a list of N.
    """
    batch: dict[str, Any] = {}
    for name in samples[0]:
        values = [sample[name] for sample in samples]
        tensors = [value for value in values if isinstance(value, torch.Tensor)]
        alike = len({(value.shape, value.dtype) for value in tensors}) == 1
        batch[name] = torch.stack(tensors) if alike and len(tensors) == len(values) else values
    return batch


def image_loader(images: StreamingImages, batch_size: int, workers: int = 0) -> DataLoader[dict[str, Any]]:
    """A DataLoader of `images` that collates as above. Give `StreamingImages` the same `batch_size`."""
    return DataLoader(images, batch_size=batch_size, num_workers=workers, collate_fn=collate)

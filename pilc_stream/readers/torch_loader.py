"""A torch DataLoader over images of any sizes that knows where it stands, and the collation of batches."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from pilc_stream.errors import UsageError
from pilc_stream.readers.torch import StreamingImages

Batch = dict[str, Any]


def collate(samples: Sequence[dict[str, Any]]) -> Batch:
    """Samples of `StreamingImages` to one batch, field by field.

    Tensors of one shape and type are stacked, `(N, C, H, W)`; everything else, so images of different sizes too,
    stays a list of N.
    """
    batch: Batch = {}
    for name in samples[0]:
        values = [sample[name] for sample in samples]
        tensors = [value for value in values if isinstance(value, torch.Tensor)]
        alike = len({(value.shape, value.dtype) for value in tensors}) == 1
        batch[name] = torch.stack(tensors) if alike and len(tensors) == len(values) else values
    return batch


class CropCollate:
    """Collates as `collate`, with all images cut to one size: "image" is always a tensor `(N, C, H, W)`.

    An image that is larger is cut about its middle or, with `random`, anywhere; one that is smaller is padded with
    zeros on the right and at the bottom. Grey images become `channels` equal ones where they are one of several.
    """

    def __init__(self, height: int, width: int, *, random: bool = False, channels: int = 3) -> None:
        """`random` draws from torch's generator, which a DataLoader seeds in each worker."""
        if min(height, width, channels) < 1:
            raise UsageError(f"CropCollate({height}, {width}, channels={channels}): give 1 or more of each.")
        self.height, self.width, self.random, self.channels = height, width, random, channels

    def __call__(self, samples: Sequence[dict[str, Any]]) -> Batch:
        """Raises UsageError for an image of another number of channels than 1 and `channels`."""
        return collate([{**sample, "image": self.crop(sample["image"], sample.get("key"))} for sample in samples])

    def crop(self, image: torch.Tensor, key: str | None = None) -> torch.Tensor:
        """One image `(C, H, W)` cut and padded."""
        if image.shape[0] not in (1, self.channels):
            raise UsageError(
                f"The image {key!r} has {image.shape[0]} channels, a batch of {self.channels} takes 1 or "
                f"{self.channels}: convert it with a transform, or collate with other channels."
            )
        top, left = (self._start(image.shape[1], self.height), self._start(image.shape[2], self.width))
        part = image[:, top : top + self.height, left : left + self.width]
        out = image.new_zeros((self.channels, self.height, self.width))
        out[:, : part.shape[1], : part.shape[2]] = part
        return out

    def _start(self, have: int, want: int) -> int:
        room = max(0, have - want)
        return int(torch.randint(room + 1, ())) if self.random else room // 2


class ImageLoader:
    """A DataLoader with a state: `state_dict()` after any batch, `load_state_dict()` on any ranks and workers.

        loader = ImageLoader(StreamingImages("s3://bucket/photos", batch_size=64), workers=4)
        if saved: loader.load_state_dict(saved)
        while loader.epoch < 10:
            for batch in loader: ...

    A full pass moves it on to the next epoch. Batches have the `batch_size` of `images`, fewer where samples were
    skipped, so that all ranks stay in step; the last one of a pass may be short, on all ranks alike.
    """

    def __init__(
        self,
        images: StreamingImages,
        workers: int = 0,
        *,
        collate: Callable[[Sequence[dict[str, Any]]], Any] = collate,
        **options: Any,
    ) -> None:
        """`workers`: processes that read and decode; they stay for all passes. `options` go to torch's DataLoader
        (pin_memory, persistent_workers=False, ...).

        Raises UsageError where `images` have no `batch_size`, and for `in_order=False`.
        """
        if not options.get("in_order", True):
            raise UsageError("in_order=False gives batches as they come, and nobody could tell where a pass stands.")
        if images.batch_size is None:
            raise UsageError("An ImageLoader needs to know how large batches are: give StreamingImages a batch_size.")
        self.images = images
        self.batch_size = images.batch_size
        options = {"persistent_workers": workers > 0, **options}
        self.loader = DataLoader(
            _Batches(images), batch_size=None, num_workers=workers, collate_fn=_CollateSome(collate), **options
        )
        context = self.loader.multiprocessing_context or multiprocessing.get_context()
        self._forks = workers > 0 and context.get_start_method() == "fork"
        self._warm = False
        # Batches of this epoch taken in this pass, and in the passes before it whose state was loaded.
        self._taken = self._before = 0

    @property
    def epoch(self) -> int:
        """The epoch that is being read, or that the next pass reads."""
        return self.images.epoch

    def set_epoch(self, epoch: int) -> None:
        """Read `epoch` in the next pass, from its beginning; where it is set already, nothing changes."""
        if epoch != self.epoch:
            self._taken = self._before = 0
        self.images.set_epoch(epoch)

    def __len__(self) -> int:
        """Batches of the epoch: those that were taken before the state that was loaded, and those of the next pass."""
        return self._before - (-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        """One pass, from where the state that was loaded was taken. Raises as reading from `Dataset` does."""
        self._taken = 0
        if self._forks and not self._warm:
            self.images.warm_up()
            self._warm = True
        for batch in self.loader:
            self._taken += 1
            if batch is not None:
                yield batch
        self.set_epoch(self.epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        """Where this pass stands: the state of `StreamingImages`, of all ranks together, and the `batches` of each."""
        return {**self.images.state_dict(batches=self._taken), "batches": self._before + self._taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken, as `StreamingImages.load_state_dict` does."""
        self.images.load_state_dict(state)
        self._taken, self._before = 0, int(state.get("batches", 0))


class _Batches(IterableDataset[list[dict[str, Any]]]):
    """What an `ImageLoader` has a DataLoader read."""

    def __init__(self, images: StreamingImages) -> None:
        self._images = images

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        return self._images.iter_batches()


class _CollateSome:
    """Collates, but for a batch of which nothing could be read: that is None."""

    def __init__(self, collate: Callable[[Sequence[dict[str, Any]]], Any]) -> None:
        self._collate = collate

    def __call__(self, samples: Sequence[dict[str, Any]]) -> Any:
        return self._collate(samples) if samples else None

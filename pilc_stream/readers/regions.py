"""Parts of images: of a large payload only its head and the tiles that a region touches are read.

A payload begins with a directory of its tiles, so a region costs two rounds of requests, of few bytes, where the whole
image costs one. Small payloads, kept source files and pixels stored as they are come whole.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pilc_stream.codecs.base import check_region
from pilc_stream.errors import FormatError, UsageError
from pilc_stream.readers.cache import PayloadCache
from pilc_stream.readers.fetch import GAP_BYTES, fetch
from pilc_stream.readers.pieces import Pieces
from pilc_stream.records.payload import tile_ranges
from pilc_stream.records.tiling import Region
from pilc_stream.storage import Store

Wanted = Sequence[int] | Callable[[int, int], Sequence[int]]
"""A region `(y, x, height, width)` in pixels, or what gives one for an image of this height and width."""

HEAD_BYTES = 1 << 14
"""Bytes of a large payload that are read first: its header and directory. Metadata longer than that is rare."""

HEAD_SHARE_LOG2 = 9
"""Of very large payloads this share: two bytes of directory for each tile of 1 KB."""

_TRIES = 10


class RandomResizedCrop:
    """Gives a random region of an image, as torchvision's transform of this name chooses it; resizing is yours.

    `scale`: the share of the image's area, from and to; `ratio`: width over height, from and to, drawn evenly on a
    logarithmic scale. Draws from Python's `random`, which a torch DataLoader seeds in each worker.
    """

    def __init__(self, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)) -> None:
        if not (0 < scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1]):
            raise UsageError(
                f"RandomResizedCrop(scale={scale}, ratio={ratio}): give shares in (0, 1] and ratios above 0."
            )
        self.scale, self.ratio = scale, ratio

    def __call__(self, height: int, width: int) -> Region:
        """The region for an image of this size."""
        for _ in range(_TRIES):
            area = height * width * random.uniform(*self.scale)
            ratio = math.exp(random.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                y, x = random.randint(0, height - crop_height), random.randint(0, width - crop_width)
                return Region(y, x, crop_height, crop_width)
        # As large as the ratio allows, in the middle.
        crop_width = max(1, min(width, round(height * self.ratio[1])))
        crop_height = max(1, min(height, round(width / self.ratio[0])))
        return Region((height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width)


def region_of(wanted: Wanted, height: int, width: int) -> Sequence[int]:
    """The region that is wanted of an image of this size."""
    return wanted(height, width) if callable(wanted) else wanted


def fetch_regions(
    store: Store, pieces: Pieces, wanted: Sequence[Wanted | None], cache: PayloadCache | None = None
) -> tuple[list[bytes | memoryview], list[Wanted | None]]:
    """The payloads, of large ones only what their region needs, and what is wanted of each.

    What `cache` has is taken whole from there. A payload of which parts are missing has anything in their place; what
    is wanted of it has become one region.
    Raises StorageError.
    """
    is_large = np.array([part is not None for part in wanted], np.bool_) & (pieces.length > GAP_BYTES)
    if cache is not None:
        is_large &= ~cache.holds(pieces)
    large = np.flatnonzero(is_large)
    heads = np.maximum(HEAD_BYTES, pieces.length >> HEAD_SHARE_LOG2)
    lengths, rows = np.where(is_large, heads, pieces.length), np.where(is_large, -1, pieces.row)
    first = Pieces(pieces.paths, pieces.path, pieces.offset, lengths, rows)
    payloads: list[bytes | memoryview] = list(fetch(store, first, cache))
    wanted = list(wanted)
    tiles: list[NDArray[np.int64]] = []
    for index in large.tolist():
        region = wanted[index]
        if region is not None:
            ranges, wanted[index] = _needed(payloads[index], int(pieces.length[index]), region)
            tiles.append(np.column_stack((np.full(len(ranges), index), ranges)))
    if not tiles:
        return payloads, wanted
    owner, at, length = np.concatenate(tiles).T
    whole = {index: bytearray(int(pieces.length[index])) for index in large.tolist()}
    for index, data in whole.items():
        data[: len(payloads[index])] = payloads[index]
    second = Pieces(pieces.paths, pieces.path[owner], pieces.offset[owner] + at, length, np.full(len(owner), -1))
    parts = fetch(store, second)
    for index, start, part in zip(owner.tolist(), at.tolist(), parts, strict=True):
        whole[index][start : start + len(part)] = part
    for index, data in whole.items():
        payloads[index] = memoryview(data)
    return payloads, wanted


def _needed(head: bytes | memoryview, payload_bytes: int, wanted: Wanted) -> tuple[NDArray[np.int64], Wanted]:
    """Offset and length `(n, 2)` of what must be read of a payload besides its head, and the region."""
    everything = np.array([[0, payload_bytes]], np.int64)
    try:
        header, ranges = tile_ranges(head, payload_bytes)
        region = check_region(region_of(wanted, header.height, header.width), header.height, header.width)
    except (FormatError, UsageError):
        # More metadata or tiles than the head holds; or damage, or a wrong region, which decoding will tell apart.
        return everything, wanted
    if not header.tile_log2:
        return everything, region
    return np.array([ranges[index] for index in header.tiling.touching(region)], np.int64), region

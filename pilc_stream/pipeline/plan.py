"""From a sorted listing to shards: which images share a shard, and what makes one job the same as another.

Both are pure functions of the listing and the settings. A restarted job cuts the same shards, so the commits that are
there already name finished work; a job that would cut others is refused by its fingerprint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pilc_stream.errors import UsageError
from pilc_stream.images import DEFAULT_MAX_STREAMED_PIXELS, Keep
from pilc_stream.pipeline.sources import Part

PLAN_VERSION = 1
"""Version of the rules by which shards are cut and records are made; a job never mixes two."""

DEFAULT_SHARD_BYTES = 128 << 20
"""Source bytes of a shard unless told otherwise."""

MAX_SHARD_IMAGES = 65_536
"""Images of a shard at most: a million tiny ones fit into any byte limit, but not into a worker's memory."""


@dataclass(frozen=True, slots=True)
class ShardTask:
    """The work of one shard: its index from 0 and its parts in key order. Picklable."""

    index: int
    items: tuple[Part, ...]

    @property
    def source_bytes(self) -> int:
        """Bytes of the parts as they were listed."""
        return sum(item.size for item in self.items)


@dataclass(frozen=True, slots=True)
class Listing:
    """What a fingerprint keeps of a listing: number of images, their bytes, and a digest (hex) of keys and sizes.

    `images` is None where a part does not know how many it has.
    """

    images: int | None
    source_bytes: int
    sha256: str


def plan_shards(
    parts: Iterable[Part], shard_bytes: int = DEFAULT_SHARD_BYTES, max_images: int = MAX_SHARD_IMAGES
) -> Iterator[ShardTask]:
    """Cut a listing into shards of at most `shard_bytes` source bytes and `max_images` images, in its order.

    A part is never cut: one that exceeds a limit gets a shard of its own, and one that does not know its images counts
    as one. One shard is held in memory at a time.
    Raises UsageError for limits below 1 and for parts that are not in strictly rising key order.
    """
    _check_limits(shard_bytes, max_images)
    index, items, filled_bytes, filled_images = 0, list[Part](), 0, 0
    previous: str | None = None
    for part in parts:
        if previous is not None and part.key <= previous:
            raise UsageError(
                f"plan: key {part.key!r} follows {previous!r}, but parts must come sorted by key and without doubles, "
                "as sources list them"
            )
        previous = part.key
        images = 1 if part.images is None else part.images
        if items and (filled_bytes + part.size > shard_bytes or filled_images + images > max_images):
            yield ShardTask(index, tuple(items))
            index, items, filled_bytes, filled_images = index + 1, [], 0, 0
        items.append(part)
        filled_bytes += part.size
        filled_images += images
    if items:
        yield ShardTask(index, tuple(items))


def survey(parts: Iterable[Part]) -> Listing:
    """Read a listing through once and keep what identifies it."""
    digest, source_bytes = hashlib.sha256(), 0
    images: int | None = 0
    for part in parts:
        # Lengths first: no key can be mistaken for the end of another.
        key = part.key.encode("utf-8", "surrogatepass")
        digest.update(f"{len(key)} {part.size} ".encode() + key)
        images = None if images is None or part.images is None else images + part.images
        source_bytes += part.size
    return Listing(images, source_bytes, digest.hexdigest())


def job_fingerprint(
    listing: Listing,
    *,
    codec: str,
    profile: str,
    model_sha256: str,
    max_pixels: int,
    max_streamed_pixels: int = DEFAULT_MAX_STREAMED_PIXELS,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    max_images: int = MAX_SHARD_IMAGES,
    columns: Mapping[str, str] | None = None,
    keep: Keep = "display",
) -> dict[str, Any]:
    """What must be equal for a job to go on where another stopped: everything that decides the bytes of a shard.

    Devices, threads, batches and verification are left out: they change how fast the same bytes come. The values are
    JSON scalars, compared field by field under these names; `columns`, the names and types of the user's own columns,
    is left out where there are none, `keep` and `max_streamed_pixels` where they are the usual ones.
    """
    _check_limits(shard_bytes, max_images)
    return {
        "plan_version": PLAN_VERSION,
        "codec": codec,
        "profile": profile,
        "model_sha256": model_sha256,
        "shard_bytes": shard_bytes,
        "shard_images": max_images,
        "max_pixels": max_pixels,
        "images": listing.images,
        "source_bytes": listing.source_bytes,
        "listing_sha256": listing.sha256,
        **({"columns": dict(columns)} if columns else {}),
        **({"max_streamed_pixels": max_streamed_pixels} if max_streamed_pixels != DEFAULT_MAX_STREAMED_PIXELS else {}),
        **({"keep": keep} if keep != "display" else {}),
    }


def _check_limits(shard_bytes: int, max_images: int) -> None:
    if shard_bytes < 1 or max_images < 1:
        raise UsageError(f"plan: shards of {shard_bytes} bytes and {max_images} images; both must be at least 1")

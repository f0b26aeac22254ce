"""Golden cases of the lossy family: models of two kinds of network, a payload of each and its latents.

The models are files, as training makes no two alike. `small_family`, which needs torch, made them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pictures import scene

from pilc_stream.backends.base import TileJob
from pilc_stream.backends.lossy.family import open_family_engine
from pilc_stream.codecs.lossy import HEAD_BYTES, LossyCodec
from pilc_stream.models.family import FamilyModel, load_family_model
from pilc_stream.records.payload import parse_payload

FAMILIES = {"family-conv": "Conv", "family-charm": "CHARM merged and split"}
"""Names of golden files, and of networks in `small_family`."""

TILE_LOG2 = 6


def pixels() -> NDArray[np.uint8]:
    """The image, of two tiles."""
    return scene(50, 90, 3)


def family_model(folder: Path, name: str) -> FamilyModel:
    """The model, from its golden file once that is there."""
    path = folder / f"{name}.safetensors"
    if path.exists():
        return load_family_model(path.read_bytes())
    from small_family import small_family_model

    return small_family_model(FAMILIES[name])


def family_payload(folder: Path, name: str) -> bytes:
    """The payload, the golden one once it is there: its bytes depend on the rounding of float32 where it was made."""
    path = folder / f"{name}.pilc"
    if path.exists():
        return path.read_bytes()
    codec = LossyCodec(family_model(folder, name), open_family_engine("reference"), tile_log2=TILE_LOG2)
    return codec.encode([pixels()])[0]


def lossy_jobs(payload: bytes) -> list[TileJob]:
    """The tiles of a payload of the codec `lossy` as an engine takes them."""
    parsed = parse_payload(payload)
    return [
        TileJob(tile[HEAD_BYTES:], place.height, place.width, 3, parsed.header.lanes_log2)
        for tile, place in zip(parsed.tiles, parsed.header.tiling.tiles(), strict=True)
    ]


def family_latents(folder: Path, name: str) -> NDArray[np.int32]:
    """All latents of the payload, one tile after the other."""
    jobs = lossy_jobs(family_payload(folder, name))
    found = open_family_engine("reference").decode_latents(family_model(folder, name), jobs)
    return np.concatenate([latents.reshape(-1) for _, latents in found])


def family_files(
    folder: Path, only: str | None, npy_bytes: Callable[[NDArray[np.int32]], bytes]
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Every golden file, or those of one model: its name, and what makes its content."""
    for name in FAMILIES:
        if only in (None, name):
            yield f"{name}.safetensors", lambda name=name: family_model(folder, name).file_bytes
            yield f"{name}.pilc", lambda name=name: family_payload(folder, name)
            yield f"{name}-latents.npy", lambda name=name: npy_bytes(family_latents(folder, name))

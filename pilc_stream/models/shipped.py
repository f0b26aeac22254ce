"""The profiles that ship with the package: one model file each under `presets/`, never edited once released."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources

from pilc_stream.errors import ModelNotFoundError
from pilc_stream.models.lossy import is_lossy_model
from pilc_stream.models.pilc import is_pilc_model
from pilc_stream.records.payload import MODEL_DIGEST_BYTES

SUFFIX = ".safetensors"


def preset_names() -> list[str]:
    """The names of the shipped profiles, sorted."""
    return sorted(file.name.removesuffix(SUFFIX) for file in _folder().iterdir() if file.name.endswith(SUFFIX))


def wave_preset_names() -> list[str]:
    """The names of those whose codec is `wave`."""
    return [name for name in lossless_preset_names() if not is_pilc_model(preset_bytes(name))]


def lossless_preset_names() -> list[str]:
    """The names of those that give back every pixel."""
    return [name for name in preset_names() if not is_lossy_model(preset_bytes(name))]


def preset_bytes(name: str) -> bytes:
    """The model file of a shipped profile; ModelNotFoundError listing the known ones otherwise."""
    if name not in preset_names():
        known = ", ".join(preset_names())
        raise ModelNotFoundError(f"profile {name!r} does not ship with this release; known: {known}")
    return _folder().joinpath(name + SUFFIX).read_bytes()


@cache
def preset_digests() -> dict[bytes, str]:
    """Short digest, as payloads name models -> profile name."""
    return {hashlib.sha256(preset_bytes(name)).digest()[:MODEL_DIGEST_BYTES]: name for name in preset_names()}


def _folder() -> resources.abc.Traversable:
    return resources.files("pilc_stream.models") / "presets"

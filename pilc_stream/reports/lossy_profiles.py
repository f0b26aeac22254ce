"""What is measured for the lossy report: the shipped lossy profiles as users get them, and the peers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.codecs import open_codec, shared_decoder
from pilc_stream.errors import UsageError
from pilc_stream.models.shipped import preset_bytes, preset_names
from pilc_stream.reports.lossy_measure import LossyCodec
from pilc_stream.reports.lossy_peers import LossyPeer

PREFIX = "lossy-"
QUALITIES = (5, 15, 25, 35, 45, 55, 65, 75, 85, 95)

Pixels = NDArray[np.uint8]


def lossy_profile_names() -> list[str]:
    """The lossy profiles that ship."""
    return [name for name in preset_names() if name.startswith(PREFIX)]


def profile_codecs(names: Sequence[str], device: str, threads: int) -> list[LossyCodec]:
    """These lossy profiles, or all that ship. Raises UsageError for one that does not."""
    shipped = lossy_profile_names()
    for name in names:
        if name not in shipped:
            raise UsageError(f"{name!r} is no lossy profile; known: {', '.join(shipped) or 'none in this release'}")
    return [profile_codec(name, device, threads) for name in names or shipped]


def profile_codec(name: str, device: str, threads: int) -> LossyCodec:
    """A profile of variable quality: whole payloads, as users get them."""

    def encode(images: Sequence[Pixels], quality: float) -> list[bytes]:
        options: dict[str, Any] = {"quality": int(quality)}
        return open_codec(name, device, threads, **options).encode(images)

    def decode(payloads: Sequence[bytes]) -> list[Pixels]:
        return [np.asarray(image, np.uint8) for image in shared_decoder(device, threads, None).decode(payloads)]

    version = hashlib.sha256(preset_bytes(name)).hexdigest()
    return LossyCodec(name, version, False, device, QUALITIES, encode, decode)


def peer_codec(peer: LossyPeer) -> LossyCodec:
    """A peer, an image after the other."""
    return LossyCodec(
        peer.name,
        peer.settings,
        True,
        "cpu",
        peer.qualities,
        lambda images, quality: [peer.encode(image, quality) for image in images],
        lambda files: [peer.decode(file) for file in files],
    )

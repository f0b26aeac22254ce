"""What one codec did on one set: the figures that records hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple


class Key(NamedTuple):
    """What was measured on what; `version`: the digest of a profile's model, the settings of a peer."""

    codec: str
    device: str
    threads: int
    version: str

    @property
    def slot(self) -> tuple[str, str, int]:
        """The place that a new version takes over from an old one."""
        return self.codec, self.device, self.threads


@dataclass(frozen=True, kw_only=True)
class Figures:
    """`payload_bytes` are whole payloads, `bpsp` their bits per sample. `*_mb_per_s` are 1e6 bytes of raw samples per
    second: medians of `rounds`."""

    device: str
    threads: int
    images: int
    pixels: int
    raw_bytes: int
    payload_bytes: int
    bpsp: float
    encode_mb_per_s: float
    decode_mb_per_s: float
    rounds: int

    @property
    def key(self) -> Key:
        """What was measured on what."""
        raise NotImplementedError

    @property
    def encode_mp_per_s(self) -> float:
        """Megapixels in per second."""
        return self.encode_mb_per_s * self.pixels / self.raw_bytes

    @property
    def decode_mp_per_s(self) -> float:
        """Megapixels out per second."""
        return self.decode_mb_per_s * self.pixels / self.raw_bytes

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class ProfileFigures(Figures):
    """A profile of ours: `model_sha256` is "" where it has no model, and `macs_per_pixel` is then empty."""

    profile: str
    model_sha256: str
    macs_per_pixel: Mapping[str, int]

    @property
    def key(self) -> Key:
        """The profile with its model."""
        return Key(self.profile, self.device, self.threads, self.model_sha256)


@dataclass(frozen=True, kw_only=True)
class PeerFigures(Figures):
    """A peer: `settings` are its library and what was asked of it. It encodes once; only its decoding is a median."""

    peer: str
    settings: str

    @property
    def key(self) -> Key:
        """The peer with its settings."""
        return Key(self.peer, self.device, self.threads, self.settings)

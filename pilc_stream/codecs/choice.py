"""The choice per image: what the profile's codec does not take is taken apart, and of all ways the smallest stays.

A photograph is coded once, by the profile. Only what a glance shows to be drawn, to have gaps in its histogram, alpha
or 16 bits is also tried by the stock codec, as planes or with indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.codecs.base import Codec, check_image
from pilc_stream.codecs.deep import DeepCodec
from pilc_stream.codecs.planes import Split, indexed, pack_planes, split
from pilc_stream.codecs.raw import RawCodec
from pilc_stream.codecs.traits import Traits, traits_of
from pilc_stream.codecs.webp import WebpCodec

EASY_BITS = 1.25
HARD_BITS = 5.0
"""Bits a sub-pixel by the profile below which a picture repeats itself more than a glance shows, and above which it is
noise, that the codec `deep` may adapt to."""

SAMPLES_TO_ADAPT = 1 << 14
"""Of fewer samples `deep` learns too little to win: never on CIFAR-10 or ImageNet 64, for a quarter of the time."""

ICON_PIXELS = 1 << 14
"""So small pictures with alpha are drawn more often than not."""

WORTHWHILE_VALUES = 1 << 13
"""Longer tables of values cost more than they save."""


@dataclass(slots=True)
class _Leaf:
    """An image to code by one codec. `by`: names of codecs; `payload`: the smallest so far."""

    image: NDArray[Any]
    extras: bytes | None
    by: set[str]
    payload: bytes | None = None

    def offer(self, payload: bytes) -> None:
        if self.payload is None or len(payload) < len(self.payload):
            self.payload = payload


@dataclass(slots=True)
class _Way:
    """One way to code an image: as a single leaf, or as the parts of a split."""

    leaves: list[_Leaf]
    whole: Split | None = None


@dataclass(slots=True)
class _Choice:
    image: NDArray[Any]
    extras: bytes | None
    ways: list[_Way] = field(default_factory=list)


class ChoosingCodec:
    """Encodes every image, by the codec of a profile and whatever is smaller."""

    def __init__(self, main: Codec) -> None:
        self.main, self._webp, self._deep, self._raw = main, WebpCodec(), DeepCodec(), RawCodec()

    @property
    def name(self) -> str:
        """The profile's codec."""
        return self.main.name

    @property
    def profile(self) -> str:
        """The profile."""
        return self.main.profile

    @property
    def model_sha256(self) -> str:
        """The digest of the model file in hex."""
        return self.main.model_sha256

    @property
    def model_bytes(self) -> bytes:
        """The model file."""
        return self.main.model_bytes

    def refuses(self, image: NDArray[Any]) -> str | None:
        """Never."""
        return None

    def encode(self, images: Sequence[NDArray[Any]], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
        """One payload per image, the smallest that was found. UsageError for arrays that are no images."""
        choices = [_Choice(*each) for each in zip(images, extras or [None] * len(images), strict=True)]
        for choice in choices:
            check_image(choice.image)
        narrow = [choice for choice in choices if choice.image.dtype == np.uint8]
        for choice, traits in zip(narrow, traits_of([choice.image for choice in narrow]), strict=True):
            choice.ways = list(self._ways(choice, traits))
        for choice in choices:
            if choice.image.dtype != np.uint8:
                choice.ways = self._deep_ways(choice)
        self._code([leaf for choice in choices for way in choice.ways for leaf in way.leaves])
        return [min((_finished(choice, way) for way in choice.ways), key=len) for choice in choices]

    def _ways(self, choice: _Choice, traits: Traits) -> list[_Way]:
        """Ways to code 8-bit samples."""
        image = choice.image
        has_alpha = image.ndim == 3 and image.shape[2] in (2, 4)
        is_icon = has_alpha and image.shape[0] * image.shape[1] <= ICON_PIXELS
        stock = {"webp"} if traits.repetitive or is_icon else set()
        if self.main.refuses(image) is None and not traits.grey and not traits.gaps:
            return [_Way([_Leaf(image, choice.extras, {"main"} | stock)])]
        ways, whole = [], split(image)
        if self.main.refuses(image) is None or stock:
            by = stock | ({"main"} if self.main.refuses(image) is None and not whole.layout else set())
            ways += [_Way([_Leaf(image, choice.extras, by)])] if by else []
        # A mask or a constant is not seen at a glance at the whole.
        narrow = {"webp"} if has_alpha else stock
        if len(whole.parts) > 1 or whole.layout or not ways:
            ways.append(_way(whole, [{"main"} | stock, {"main"} | narrow]))
        if traits.gaps:
            ways.append(_way(indexed(whole), [{"main"} | stock, {"main"} | narrow]))
        return ways

    def _deep_ways(self, choice: _Choice) -> list[_Way]:
        """Ways to code 16-bit samples."""
        ways, whole = [_Way([_Leaf(choice.image, choice.extras, {"deep"})])], split(choice.image)
        few = indexed(whole)
        values = len(few.tables[0])
        if whole.layout or whole.alpha is not None:
            ways.append(_way(whole, [{"deep"}, {"deep"}]))
        if values <= WORTHWHILE_VALUES:
            # A main codec takes no 16 bits, so it is named for indices of 8 alone.
            narrow = [{"main", "webp", "deep"} if part.dtype == np.uint8 else {"deep"} for part in few.parts]
            ways.append(_way(few, narrow))
        return ways

    def _code(self, leaves: Sequence[_Leaf]) -> None:
        """Code each leaf by the codecs that it names, and by others where the result invites it."""
        main = [leaf for leaf in leaves if "main" in leaf.by]
        payloads = self.main.encode([leaf.image for leaf in main], [leaf.extras for leaf in main])
        for leaf, payload in zip(main, payloads, strict=True):
            leaf.offer(payload)
            bits = 8 * len(payload) / leaf.image.size
            if bits <= EASY_BITS:
                leaf.by.add("webp")
            if bits >= HARD_BITS:
                leaf.by |= {"deep"} if leaf.image.size >= SAMPLES_TO_ADAPT else set()
                # One channel that nothing predicts may be the indices of a palette.
                leaf.by |= {"webp"} if leaf.image.size == leaf.image.shape[0] * leaf.image.shape[1] else set()
        for leaf in leaves:
            for codec in (self._webp, self._deep):
                if codec.name in leaf.by and codec.refuses(leaf.image) is None:
                    leaf.offer(codec.encode([leaf.image], [leaf.extras])[0])
            if leaf.payload is None or len(leaf.payload) > leaf.image.nbytes:
                leaf.offer(self._raw.encode([leaf.image], [leaf.extras])[0])


def _way(whole: Split, by: Sequence[set[str]]) -> _Way:
    return _Way([_Leaf(part, None, set(names)) for part, names in zip(whole.parts, by, strict=False)], whole)


def _finished(choice: _Choice, way: _Way) -> bytes:
    parts = [leaf.payload or b"" for leaf in way.leaves]
    if way.whole is None:
        return parts[0]
    return pack_planes(choice.image, way.whole, parts, choice.extras)

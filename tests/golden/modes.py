"""Golden cases of the codecs without a profile: images of all modes by `planes`, `deep` and `webp`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pictures import Image, checker, deep_scene, drawing, masked, one_bit, same, scene, solid
from small_model import small_model

from pilc_stream.backends import Engine
from pilc_stream.codecs.deep import DeepCodec
from pilc_stream.codecs.planes import indexed, pack_planes, split
from pilc_stream.codecs.raw import RawCodec
from pilc_stream.codecs.wave import WaveCodec
from pilc_stream.codecs.webp import WebpCodec
from pilc_stream.images.metadata import Chunk, pack_extras
from pilc_stream.records.payload import pack_payload, parse_payload


@dataclass(frozen=True)
class ModeCase:
    """An image and how it is coded.

    `parts`: codecs of the parts, for `planes` alone. `few`: by indices into tables, which zlib makes short. `zeros` are
    put behind the stream of `webp`.
    """

    name: str
    pixels: Callable[[], Image]
    parts: tuple[str, ...] = ()
    few: bool = False
    tile_log2: int = 10
    extras: bytes = b""
    zeros: int = 0

    @property
    def codec(self) -> str:
        """The codec that the case is for."""
        return self.name.split("-", 1)[0]

    @property
    def library(self) -> bool:
        """Whether a library decides about the payload's bytes: libwebp, or zlib about tables."""
        return self.codec == "webp" or self.few

    def encode(self, engine: Engine) -> bytes:
        """The payload."""
        image = self.pixels()
        if self.codec == "deep":
            return DeepCodec(self.tile_log2).encode([image], [self.extras])[0]
        if self.codec == "webp":
            parsed = parse_payload(WebpCodec(self.tile_log2).encode([image], [self.extras])[0])
            return pack_payload(parsed.header, [bytes(tile) + bytes(self.zeros) for tile in parsed.tiles])
        whole = indexed(split(image)) if self.few else split(image)
        codecs = {"wave": WaveCodec(small_model(), engine), "deep": DeepCodec(), "raw": RawCodec()}
        parts = [codecs[name].encode([part])[0] for name, part in zip(self.parts, whole.parts, strict=True)]
        return pack_planes(image, whole, parts, self.extras)


PALETTE = pack_extras([Chunk(b"PLTE", bytes(range(30))), Chunk(b"tRNS", b"\x00\x80")])

MODE_CASES = [
    ModeCase("planes-grey-alpha", lambda: scene(13, 17, 2), ("wave", "wave")),
    ModeCase("planes-rgba", lambda: masked(scene(14, 15, 4)), ("wave", "deep")),
    ModeCase("planes-rgba-opaque", lambda: solid(scene(12, 16, 4), 255), ("wave",)),
    ModeCase("planes-grey-as-rgb", lambda: same(scene(16, 11, 3)), ("wave",), extras=b"a scan"),
    ModeCase("planes-grey-as-rgba", lambda: same(masked(scene(11, 13, 4))), ("wave", "raw")),
    ModeCase("planes-one-bit", lambda: one_bit(20, 21), ("deep",), few=True),
    ModeCase("planes-levels", lambda: (scene(17, 14, None) // 4 * 4).astype(np.uint8), ("wave",), few=True),
    ModeCase("planes-palette", lambda: (scene(15, 18, 1) % 10).astype(np.uint8), ("deep",), few=True, extras=PALETTE),
    ModeCase("planes-16-grey", lambda: scene(16, 17, None).astype(np.uint16) * 257, ("wave",), few=True),
    ModeCase("planes-16-grey-alpha", lambda: masked(deep_scene(15, 16, 2)), ("deep", "deep")),
    ModeCase("planes-16-rgb", lambda: same(deep_scene(14, 13, 3)), ("deep",)),
    ModeCase("planes-16-rgba", lambda: solid(deep_scene(18, 19, 4), 40000), ("deep",), few=True),
    ModeCase(
        "planes-16-rgba-tables", lambda: masked(scene(13, 12, 4).astype(np.uint16) * 9), ("wave", "raw"), few=True
    ),
    ModeCase("deep-grey", lambda: scene(20, 17, None)),
    ModeCase("deep-grey-alpha", lambda: masked(scene(16, 18, 2))),
    ModeCase("deep-rgb", lambda: scene(15, 16, 3)),
    ModeCase("deep-rgba", lambda: scene(15, 14, 4)),
    ModeCase("deep-one-bit", lambda: one_bit(20, 21) // 255),
    ModeCase("deep-16-grey", lambda: deep_scene(17, 19, None)),
    ModeCase("deep-16-grey-three-axes", lambda: deep_scene(13, 14, 1), extras=b"taken at noon"),
    ModeCase("deep-16-grey-alpha", lambda: masked(deep_scene(14, 15, 2))),
    ModeCase("deep-16-rgb", lambda: deep_scene(16, 13, 3)),
    ModeCase("deep-16-rgba", lambda: deep_scene(13, 16, 4)),
    ModeCase("deep-16-tiles", lambda: deep_scene(35, 40, 3), tile_log2=4),
    ModeCase("deep-16-row", lambda: deep_scene(1, 60, 3)),
    ModeCase("deep-16-column", lambda: deep_scene(60, 1, 3)),
    ModeCase("deep-16-checker", lambda: checker(24, 25).astype(np.uint16) * 257),
    ModeCase("webp-grey", lambda: drawing(20, 21, 1)),
    ModeCase("webp-grey-alpha", lambda: masked(drawing(20, 21, 2))),
    ModeCase("webp-rgb", lambda: drawing(19, 23, 3)),
    ModeCase("webp-rgba", lambda: masked(drawing(21, 18, 4)), extras=b"an icon"),
    ModeCase("webp-one-bit", lambda: one_bit(24, 25)),
    ModeCase("webp-palette", lambda: drawing(16, 17, 1) // 90, extras=PALETTE),
    ModeCase("webp-tiles", lambda: drawing(40, 35, 3), tile_log2=4),
    ModeCase("webp-zeros", lambda: drawing(18, 17, 3), zeros=3),
]

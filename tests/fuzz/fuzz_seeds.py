"""Small payloads of all kinds, a shard and the documents of a data set: what tests damage and fuzzing starts from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from small_lossy import small_lossy_model
from small_model import small_model
from small_pilc import small_pilc_model

from pilc_stream.backends import open_engine
from pilc_stream.backends.lossy import open_lossy_engine
from pilc_stream.backends.pilc import open_pilc_engine
from pilc_stream.codecs import Decoder
from pilc_stream.codecs.choice import ChoosingCodec
from pilc_stream.codecs.deep import DeepCodec
from pilc_stream.codecs.lossy import LossyCodec
from pilc_stream.codecs.pilc import PilcCodec
from pilc_stream.codecs.planes import indexed, pack_planes, split
from pilc_stream.codecs.raw import RawCodec
from pilc_stream.codecs.view_search import ViewSearch
from pilc_stream.codecs.wave import WaveCodec
from pilc_stream.codecs.webp import WebpCodec
from pilc_stream.images.metadata import Chunk, pack_extras
from pilc_stream.models.lossy import LossyModel, load_lossy_model
from pilc_stream.models.shipped import preset_bytes
from pilc_stream.records.build import build_shard
from pilc_stream.records.payload import parse_header
from pilc_stream.records.record import Record

Image = NDArray[Any]
SHAPES = ((1, 1), (3, 5), (9, 7), (18, 17))
PALETTE = pack_extras([Chunk(b"PLTE", bytes(range(12))), Chunk(b"tRNS", b"\x00\x80")])


@cache
def model_files() -> dict[bytes, bytes]:
    """The models of the payloads, by short digest."""
    made = (small_model(), small_pilc_model(), small_lossy_model())
    return {model.short_digest: model.file_bytes for model in made}


def models(digest: bytes) -> bytes | None:
    """A model of the payloads."""
    return model_files().get(digest)


def pictures(height: int, width: int) -> Iterator[tuple[str, Image]]:
    """Images of all modes at one size: smooth, drawn, with constant and with changing alpha, of few and many values."""
    for channels in (None, 1, 2, 3, 4):
        y, x, c = np.indices((height, width, channels or 1))
        smooth = 126 + x + y - 2 * c + (x * y) % 3
        drawn = ((x // 2 + y // 3) % 2) * 200 + 10 * c
        masked = smooth.copy()
        masked[:, :, -1] = 255 * (x[:, :, -1] > y[:, :, -1])
        solid = smooth.copy()
        solid[:, :, -1] = 7
        same = np.repeat(smooth[:, :, :1], smooth.shape[2], axis=2)
        kinds = {"smooth": smooth, "drawn": drawn, "masked": masked, "solid": solid, "same": same}
        for name, samples in kinds.items():
            for bits, factor in ((8, 1), (16, 257), (16, 97)):
                image = (samples * factor).astype(np.uint8 if bits == 8 else np.uint16)
                yield f"{name} {channels} {bits} {factor}", image if channels else image[:, :, 0]


@cache
def payloads() -> dict[str, tuple[Image, bytes]]:
    """Payloads with their pixels: of every codec, and of what the choice makes of all pictures."""
    wave, webp, deep, raw = WaveCodec(small_model(), open_engine("cpu")), WebpCodec(4), DeepCodec(4), RawCodec()
    tiled = WaveCodec(small_model(), open_engine("cpu"), 4)
    viewed = WaveCodec(small_model(), open_engine("cpu"), 4, ViewSearch(small_model(), orders=True))
    choice, blocks = ChoosingCodec(wave), PilcCodec(small_pilc_model(), open_pilc_engine("cpu"), 4)
    lossy = LossyCodec(small_lossy_model(), open_lossy_engine("cpu"), quality=1, tile_log2=4)
    made: dict[str, tuple[Image, bytes]] = {}
    for shape in SHAPES:
        for number, (name, image) in enumerate(pictures(*shape)):
            label, extras = f"{name} {shape}", b"words" if number % 7 == 0 else None
            made[f"choice {label}"] = image, choice.encode([image], [extras])[0]
            if number % 5 == 0:
                made[f"deep {label}"] = image, deep.encode([image], [extras])[0]
                made[f"raw {label}"] = image, raw.encode([image], [extras])[0]
            if number % 5 == 1 and image.dtype == np.uint8:
                made[f"webp {label}"] = image, webp.encode([image], [extras])[0]
                made[f"wave {label}"] = image, (raw if tiled.refuses(image) else tiled).encode([image], [extras])[0]
            if viewed.refuses(image) is None and number % 3 == 0:
                made[f"views {label}"] = image, viewed.encode([image], [extras])[0]
            if blocks.refuses(image) is None and number % 2 == 0:
                made[f"pilc {label}"] = image, blocks.encode([image], [extras])[0]
            if lossy.refuses(image) is None and number % 4 == 0:
                payload = lossy.encode([image], [extras])[0]
                made[f"lossy {label}"] = Decoder("cpu", models=models).decode([payload])[0], payload
            if image.ndim == 3 and image.shape[2] in (2, 4) and number % 3 == 0:
                whole = indexed(split(image))
                parts = [deep.encode([part])[0] for part in whole.parts]
                made[f"planes {label}"] = image, pack_planes(image, whole, parts, extras)
    indices = (np.indices((5, 6)).sum(axis=0) % 4).astype(np.uint8)
    made["palette"] = indices, choice.encode([indices], [PALETTE])[0]
    return made


@cache
def light_payloads() -> list[bytes]:
    """Small payloads of the shipped lossy-light: smooth and drawn, grey and in colour, of one tile and of several; with
    escapes, too."""
    model, engine = light_model(), open_lossy_engine("cpu")
    made = set()
    for height, width in ((3, 5), (16, 16), (33, 40), (64, 47)):
        wanted = [image for name, image in pictures(height, width) if name.endswith("8 1")][::2]
        stripes = np.repeat(255 * (np.indices((height, width, 1)).sum(axis=0) % 2), 3, 2).astype(np.uint8)
        for quality in (1, 50, 100):
            for tile_log2 in (5, 10):
                codec = LossyCodec(model, engine, quality, tile_log2=tile_log2)
                made |= set(codec.encode([image for image in [*wanted, stripes] if codec.refuses(image) is None]))
    return [payload for payload in sorted(made) if len(payload) <= 1000 and parse_header(payload).codec == "lossy"]


@cache
def light_model() -> LossyModel:
    """The shipped model of lossy-light."""
    return load_lossy_model(preset_bytes("lossy-light"))


@cache
def shard() -> tuple[bytes, list[tuple[int, int]]]:
    """A shard of some of the payloads, and where they lie."""
    records = []
    for key, (image, payload) in list(payloads().items())[:12]:
        digest = hashlib.sha256(payload).digest()
        channels = 1 if image.ndim == 2 else image.shape[2]
        sizes = (*image.shape[1::-1], channels, 8 * image.itemsize)
        records.append(
            Record(key, payload, "raw", "", *sizes, "L", image.nbytes, len(payload), digest, digest, {"label": 3})
        )
    return build_shard(records)

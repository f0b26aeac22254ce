"""What a CUDA card does with each profile: every stage alone, and the whole path from host memory to host memory.

Stages are timed with the batch already where the stage needs it, by the host's clock around work that has ended, with
medians of `rounds`, or of as many as fit `STAGE_SECONDS`. Batches are synthetic photographs, each image different. The
cheapest profile comes first, the batches in the order of `SIZES`; what `MOST_SECONDS` do not suffice for is left out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.context import CHANNELS
from pilc_stream.backends.base import Tile, TileJob
from pilc_stream.backends.cuda.batch import EncodingBatch
from pilc_stream.backends.cuda.engine import CardEngine, CudaEngine
from pilc_stream.backends.cuda.memory import Slot
from pilc_stream.backends.cuda.shim import check_device
from pilc_stream.backends.cuda.work import Shapes
from pilc_stream.backends.pilc.cuda import PilcCudaEngine
from pilc_stream.codecs import Decoder
from pilc_stream.codecs.modelled import ModelCodec
from pilc_stream.codecs.pilc import PilcCodec
from pilc_stream.codecs.view_search import search_for
from pilc_stream.codecs.wave import WaveCodec
from pilc_stream.errors import VerifyError
from pilc_stream.models.model import WaveModel, load_model
from pilc_stream.models.pilc import PilcModel, is_pilc_model, load_pilc_model
from pilc_stream.models.shipped import preset_bytes
from pilc_stream.records.tiling import Tiling, default_lanes_log2
from pilc_stream.reports.card_peers import peers

Progress = Callable[[str], None]


class BatchSize(NamedTuple):
    """So many images of one size."""

    height: int
    width: int
    images: int


SIZES = (
    BatchSize(32, 32, 100_000),
    BatchSize(64, 64, 25_000),
    BatchSize(512, 768, 256),
    BatchSize(2048, 1365, 36),
    BatchSize(2048, 1365, 1),
)
"""About 300 MB each, and a single large image."""


STAGE_SECONDS = 4.0
"""After so many, a stage is not repeated."""

MOST_SECONDS = 300.0
"""After so many, no profile is begun on another batch."""

SHARE_BYTES = 64 << 20
"""Of a batch, whose stages are timed alone."""


@dataclass(frozen=True)
class Stage:
    """A stage's median seconds for a batch of `raw_bytes`."""

    name: str
    seconds: float
    raw_bytes: int

    def to_json(self) -> dict[str, Any]:
        """The fields and the rate as JSON values."""
        return {"stage": self.name, "seconds": self.seconds, "mb_per_s": self.raw_bytes / self.seconds / 1e6}


@dataclass(frozen=True)
class CardFigures:
    """A profile on batches of one size."""

    profile: str
    size: BatchSize
    bpsp: float
    stages: Sequence[Stage]

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {
            "profile": self.profile,
            "size": self.size._asdict(),
            "bits_per_sub_pixel": self.bpsp,
            "stages": [stage.to_json() for stage in self.stages],
        }


def bench_card(
    profiles: Sequence[str],
    sizes: Sequence[BatchSize] = SIZES,
    rounds: int = 5,
    progress: Progress = lambda _: None,
    most_seconds: float = MOST_SECONDS,
) -> list[CardFigures]:
    """Every profile on every size, and behind them what else there is on this machine (`card_peers`) on the same
    images. DeviceError without a card, VerifyError where pixels do not come back."""
    check_device()
    end, out = time.monotonic() + most_seconds, list[CardFigures]()
    models = {name: _model(preset_bytes(name)) for name in profiles}
    by_cost = sorted(models, key=lambda name: models[name].spec.macs_per_pixel()["network"])
    tasks = [(name, size) for name in [*by_cost, *peers()] for size in sizes]
    for name, size in tasks:
        what = f"{name}: {size.images} images of {size.height} x {size.width}"
        if time.monotonic() > end:
            progress(f"{what}: left out, the time is up")
            continue
        progress(what)
        images = pictures(size)
        if name in models:
            out.append(_bench(name, models[name], size, images, rounds))
        else:
            try:
                out.append(_bench_peer(name, size, images, rounds))
            except Exception as error:
                # Another's library: of whatever version, for whatever driver. Our own figures do not hang on it.
                progress(f"{what}: left out, {error!r}")
    return out


def pictures(size: BatchSize) -> list[NDArray[np.uint8]]:
    """Different images of one size: waves of light, an edge and a little noise, cut from one larger picture."""
    random = np.random.default_rng(size)
    height, width = size.height + 64, size.width + 4096
    y, x = np.mgrid[:height, :width]
    light = 110 + 60 * np.sin(x / 23) * np.cos(y / 17) + 40 * (x % 311 > y)
    noise = random.normal(0, 2.5, (height, width, CHANNELS))
    whole = np.clip(light[:, :, None] + noise + 9 * np.arange(CHANNELS), 0, 255).astype(np.uint8)
    starts = zip(random.integers(0, 64, size.images), random.integers(0, 4096, size.images), strict=True)
    return [whole[top : top + size.height, left : left + size.width] for top, left in starts]


def _model(data: bytes) -> WaveModel | PilcModel:
    return load_pilc_model(data) if is_pilc_model(data) else load_model(data)


def _codec(model: WaveModel | PilcModel) -> tuple[ModelCodec[Any], CardEngine[Any]]:
    """The model's codec alone (what else may be smaller is the host's to find), and its engine."""
    if isinstance(model, PilcModel):
        pilc_engine = PilcCudaEngine()
        return PilcCodec(model, pilc_engine), pilc_engine
    engine = CudaEngine()
    return WaveCodec(model, engine, search=search_for(model.spec)), engine


def _tiles(images: Sequence[Tile], size: BatchSize, tile_log2: int) -> tuple[list[Tile], list[int]]:
    tiling = Tiling(size.height, size.width, tile_log2)
    tiles = [image[y : y + h, x : x + w] for image in images for y, x, h, w in tiling.tiles()]
    return tiles, [default_lanes_log2(tiling)] * len(tiles)


def _bench(
    profile: str,
    model: WaveModel | PilcModel,
    size: BatchSize,
    images: Sequence[NDArray[np.uint8]],
    rounds: int,
) -> CardFigures:
    raw_bytes = size.height * size.width * CHANNELS * size.images
    tiles, lanes = _tiles(images, size, model.tile_log2)
    (codec, engine), stages = _codec(model), list[Stage]()

    def timed(name: str, work: Callable[[], Any], of_bytes: int = raw_bytes) -> Any:
        result, seconds = _timed(work, rounds)
        stages.append(Stage(name, seconds, of_bytes))
        return result

    streams = timed("encode tiles, host to host", lambda: engine.encode_tiles(model, tiles, lanes))
    jobs = [
        TileJob(memoryview(stream), tile.shape[0], tile.shape[1], tile.shape[2], log2)
        for stream, tile, log2 in zip(streams, tiles, lanes, strict=True)
    ]
    decoded = timed("decode tiles, host to host", lambda: engine.decode_tiles(model, jobs))
    if not all(np.array_equal(ours, tile) for ours, tile in zip(decoded, tiles, strict=True)):
        raise VerifyError(f"{profile}: tiles of {size} did not come back from the card")

    # The stages alone, on a share of the batch that one slot holds; rates are by that share.
    share = slice(0, max(1, min(len(tiles), SHARE_BYTES // tiles[0].size)))
    some, some_bytes = tiles[share], sum(tile.size for tile in tiles[share])
    program = engine.load(model)
    shapes = Shapes.of(*zip(*[tile.shape for tile in some], strict=True), lanes[share])
    for direction, batch in (
        ("encode", engine.encoding(Slot(), program, shapes, some)),
        ("decode", engine.decoding(Slot(), program, shapes, [job.stream for job in jobs[share]])),
    ):
        for name, work in batch.stages.items():
            timed(f"{direction}: {name}", partial(_finished, batch.slot, work), some_bytes)
        if isinstance(batch, EncodingBatch):
            timed("encode: download", batch.download, some_bytes)

    decoder = Decoder("cuda")
    payloads = timed("payloads from images", lambda: codec.encode(images))
    timed("images from payloads", lambda: decoder.decode(payloads))
    if _torch_is_usable():
        timed("tensors from payloads", lambda: decoder.decode_tensors(payloads))
    bits = 8 * sum(len(payload) for payload in payloads) / raw_bytes
    return CardFigures(profile, size, bits, stages)


def _timed(work: Callable[[], Any], rounds: int) -> tuple[Any, float]:
    """A result and the median of the seconds that it took, after one round that is not counted."""
    result, seconds = work(), list[float]()
    while len(seconds) < rounds and (not seconds or sum(seconds) < STAGE_SECONDS):
        begin = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - begin)
    return result, statistics.median(seconds)


def _bench_peer(name: str, size: BatchSize, images: Sequence[NDArray[np.uint8]], rounds: int) -> CardFigures:
    raw_bytes, peer = size.height * size.width * CHANNELS * size.images, peers()[name]()
    coded, encode_seconds = _timed(lambda: peer.encode(images), rounds)
    decoded, decode_seconds = _timed(lambda: peer.decode(coded), rounds)
    if not all(np.array_equal(ours, image) for ours, image in zip(peer.fetch(decoded), images, strict=True)):
        raise VerifyError(f"{name}: images of {size} did not come back from the card")
    stages = [Stage("encode on the card", encode_seconds, raw_bytes)]
    stages += [Stage("decode on the card", decode_seconds, raw_bytes)]
    return CardFigures(name, size, 8 * peer.coded_bytes(coded) / raw_bytes, stages)


def _torch_is_usable() -> bool:
    if find_spec("torch") is None:
        return False
    from pilc_stream.backends.cuda.tensors import usable

    return usable()


def _finished(slot: Slot, work: Callable[[], None]) -> None:
    work()
    slot.stream.synchronize()


def card_table(figures: Sequence[CardFigures]) -> str:
    """The figures as a Markdown table."""
    lines = ["| profile | pictures | stage | ms | MB/s |", "|---|---|---|---|---|"]
    for one in figures:
        pictures_named = f"{one.size.images} of {one.size.height} x {one.size.width}"
        for stage in one.stages:
            rate = stage.raw_bytes / stage.seconds / 1e6
            lines.append(
                f"| {one.profile} | {pictures_named} | {stage.name} | {stage.seconds * 1e3:.3f} | {rate:,.0f} |"
            )
    return "\n".join([*lines, "", "MB/s are of raw RGB, whatever the stage moves."])

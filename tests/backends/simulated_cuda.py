"""Run the CUDA backend in its simulator: ``NUMBA_ENABLE_CUDASIM=1 python simulated_cuda.py CASE``.

A program of its own, because the simulator has to be chosen before Numba is imported for the first time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from contents import CONTENTS, Tile
from small_model import SPECS, random_model, small_model

import pilc_stream as pilc
from pilc_stream.backends.base import TileJob
from pilc_stream.backends.cuda.engine import SMALLEST_BUDGET_BYTES, CudaEngine
from pilc_stream.backends.cuda.memory import Slot
from pilc_stream.backends.reference import ReferenceEngine
from pilc_stream.errors import DeviceError, FormatError, UsageError
from pilc_stream.models.model import WaveModel
from pilc_stream.reports.card import BatchSize, bench_card, card_table

SHAPES = [(1, 1), (1, 9), (6, 1), (2, 2), (3, 5), (9, 4), (7, 12)]
"""In teams of four and of eight threads; rings wrap in tiles of nine rows and more."""


def tiles_of(shapes: Sequence[tuple[int, int]]) -> tuple[list[Tile], list[int]]:
    makers, tiles = list(CONTENTS.values()), []
    for number, (height, width) in enumerate(shapes):
        for channels in (1, 3):
            turn = 2 * number + channels
            tiles.append(makers[turn % len(makers)](height, width, channels, turn))
    return tiles, [number % 6 for number in range(len(tiles))]


def jobs_of(streams: Sequence[bytes], tiles: Sequence[Tile], lanes: Sequence[int]) -> list[TileJob]:
    return [TileJob(memoryview(s), *t.shape, n) for s, t, n in zip(streams, tiles, lanes, strict=True)]


def check(model: WaveModel, tiles: Sequence[Tile], lanes: Sequence[int], budget_bytes: int = 1 << 30) -> None:
    engine = CudaEngine(budget_bytes)
    streams = engine.encode_tiles(model, tiles, lanes)
    expected = ReferenceEngine().encode_tiles(model, tiles, lanes)
    for tile, ours, theirs in zip(tiles, streams, expected, strict=True):
        assert ours == theirs, f"encoded otherwise: {tile.shape}"
    decoded = engine.decode_tiles(model, jobs_of(streams, tiles, lanes))
    for tile, back in zip(tiles, decoded, strict=True):
        assert np.array_equal(back, tile), f"decoded otherwise: {tile.shape}"


def shapes() -> None:
    check(small_model(), *tiles_of(SHAPES))


def batches() -> None:
    # A batch for nearly every tile, in two slots by turns.
    check(small_model(), *tiles_of(SHAPES[:4]), budget_bytes=4000)


def architectures(*, at_the_bound: bool) -> None:
    for name, spec in SPECS.items():
        model = random_model(spec, seed=23, at_the_bound=at_the_bound)
        number = 2 * len(name) + at_the_bound
        make = list(CONTENTS.values())[number % len(CONTENTS)]
        check(model, [make(5, 7, 3, number), make(3, 4, 1, number)], [number % 3, 1])


def wide() -> None:
    # More rows at once than a warp has threads: the barrier is the block's.
    check(small_model(), [CONTENTS["photo"](33, 66, 1, 3)], [5])


def long() -> None:
    # Many more rows than the ring has columns; the second tile in the same warp ends long before.
    check(small_model(), [CONTENTS["photo"](40, 3, 3, 3), CONTENTS["noise"](2, 5, 3, 1)], [0, 1])


def damage() -> None:
    model, tile = small_model(), CONTENTS["photo"](5, 6, 3, 2)
    engine, lanes = CudaEngine(), 1
    good = engine.encode_tiles(model, [tile], [lanes])[0]
    for data in (good[:-2], good + b"\0\0", good[:8], good + good[8:], bytes(4) + good[4:], good[:-1], good[:3]):
        with pytest.raises(FormatError, match=r"^tile: "):
            engine.decode_tiles(model, jobs_of([data], [tile], [lanes]))
    # An engine that has refused a stream still works; lanes without a pixel must end as they began.
    assert np.array_equal(engine.decode_tiles(model, jobs_of([good], [tile], [lanes]))[0], tile)
    one = CONTENTS["photo"](1, 1, 3, 2)
    many = bytearray(engine.encode_tiles(model, [one], [5])[0])
    many[4 * 31] ^= 1
    with pytest.raises(FormatError, match="does not end in the state"):
        engine.decode_tiles(model, jobs_of([bytes(many)], [one], [5]))


def on_device() -> None:
    model, tiles = small_model(), [CONTENTS["photo"](4, 5, 3, 2), CONTENTS["photo"](4, 3, 3, 7)]
    engine = CudaEngine()
    streams = engine.encode_tiles(model, tiles, [1, 0])
    # Two tiles side by side in an image of 4 x 8.
    places = [(0, 24), (15, 24)]
    pixels = engine.decode_on_device(model, jobs_of(streams, tiles, [1, 0]), places, 96).copy_to_host()
    assert np.array_equal(pixels.reshape(4, 8, 3), np.concatenate(tiles, axis=1))


def out_of_memory() -> None:
    model, (tiles, lanes) = small_model(), tiles_of(SHAPES[2:4])
    plain, refusals = Slot.device, [3]

    def scarce(self: Slot, name: str, count: int, dtype: object) -> object:
        if refusals[0]:
            refusals[0] -= 1
            raise MemoryError("CUDA_ERROR_OUT_OF_MEMORY")
        return plain(self, name, count, dtype)  # type: ignore[arg-type]

    Slot.device = scarce  # type: ignore[assignment, method-assign]
    check(model, tiles, lanes)
    refusals[0] = 10**6
    with pytest.raises(DeviceError, match="out of memory with batches of"):
        CudaEngine(8 * SMALLEST_BUDGET_BYTES).encode_tiles(model, tiles, lanes)
    assert 10**6 - refusals[0] == 4, "the batch is halved three times, from eight times the smallest"


def front_door() -> None:
    images = [CONTENTS["photo"](5, 7, 3, 1), CONTENTS["photo"](20, 4, 1, 2)[:, :, 0], np.full((2, 2), 300, np.uint16)]
    payloads = pilc.compress_batch(images, device="cuda")
    assert payloads == pilc.compress_batch(images, device="reference")
    for image, back in zip(images, pilc.decompress_batch(payloads, device="cuda"), strict=True):
        assert np.array_equal(image, back)
        assert image.dtype == back.dtype
    regions = [None, (3, 1, 9, 2), None]
    tensors = pilc.decompress_batch(payloads, regions=regions, device="cuda", out="torch")
    assert np.array_equal(tensors[0].numpy(), images[0])
    assert np.array_equal(tensors[1].numpy(), images[1][3:12, 1:3])
    assert np.array_equal(tensors[2].numpy(), images[2])
    with pytest.raises(DeviceError, match="for the device 'cuda'"):
        pilc.decompress_batch(payloads, device="cpu", out="torch")
    with pytest.raises(UsageError, match="'numpy' arrays or 'torch' tensors"):
        pilc.decompress_batch(payloads, device="cuda", out="jax")


def card_figures() -> None:
    sizes = [BatchSize(3, 5, 2), BatchSize(4, 4, 1)]
    figures = bench_card(["fast"], sizes, rounds=1)
    assert [one.size for one in figures] == sizes
    for one in figures:
        names = [stage.name for stage in one.stages]
        assert {"encode: upload", "encode: network", "encode: coding", "encode: assembly"} < set(names)
        assert {"decode: coding and network", "decode: download", "images from payloads"} < set(names)
        assert all(stage.seconds > 0 for stage in one.stages)
    assert card_table(figures).count("decode: download") == 2


CASES: dict[str, Callable[[], None]] = {
    "shapes": shapes,
    "batches": batches,
    "architectures": lambda: architectures(at_the_bound=False),
    "architectures at the bound": lambda: architectures(at_the_bound=True),
    "wide": wide,
    "long": long,
    "damage": damage,
    "on the device": on_device,
    "out of memory": out_of_memory,
    "front door": front_door,
    "figures of a card": card_figures,
}

if __name__ == "__main__":
    # The simulator's threads mostly wait for one another.
    sys.setswitchinterval(2e-5)
    CASES[sys.argv[1]]()

"""Run the CUDA backend in its simulator: ``NUMBA_ENABLE_CUDASIM=1 python simulated_cuda.py CASE``.

A program of its own, because the simulator has to be chosen before Numba is imported for the first time.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from contents import CONTENTS, Tile
from PIL import Image
from small_model import SPECS, random_model, small_model

import pilc_stream as pilc
from pilc_stream.backends.base import TileJob
from pilc_stream.backends.cuda.engine import SMALLEST_BUDGET_BYTES, CudaEngine
from pilc_stream.backends.cuda.memory import Sizes, Slot
from pilc_stream.backends.cuda.plan import Plan
from pilc_stream.backends.cuda.program import fitting, launch_bytes, layouts
from pilc_stream.backends.cuda.tensor_plan import TensorPlan
from pilc_stream.backends.reference import ReferenceEngine
from pilc_stream.codecs import Decoder
from pilc_stream.errors import DeviceError, FormatError, UsageError
from pilc_stream.models.model import WaveModel
from pilc_stream.readers.torch_gpu import GpuDecoder
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


def check(
    model: WaveModel,
    tiles: Sequence[Tile],
    lanes: Sequence[int],
    budget_bytes: int = 1 << 30,
    *,
    tensor_cores: bool = False,
    block_bytes: int | None = None,
) -> None:
    engine = CudaEngine(budget_bytes, tensor_cores=tensor_cores, block_bytes=block_bytes)
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


def tensor_cores(*, at_the_bound: bool) -> None:
    # All threads of a warp multiply together: several tiles of both kinds and of unequal lengths share one.
    for name in ("six", "one then many"):
        model = random_model(SPECS[name], seed=29, at_the_bound=at_the_bound)
        make = list(CONTENTS.values())[len(name) % len(CONTENTS)]
        check(model, [make(5, 4, 3, 1), make(3, 3, 1, 2), make(1, 2, 3, 3)], [1, 0, 0], tensor_cores=True)


def tensor_cores_wide() -> None:
    # The second warp of a team begins later than the first and ends before it.
    check(small_model(), [CONTENTS["photo"](34, 66, 1, 3)], [5], tensor_cores=True)


def stashed() -> None:
    # Many neighbours and taps: the states wait in shared memory.
    model = random_model(SPECS["all neighbours"], seed=7)
    check(model, [CONTENTS["photo"](4, 6, 3, 3), CONTENTS["photo"](3, 3, 1, 5)], [1, 0])


def local_memory() -> None:
    # A block gets so little that threads keep what is their own, states and hidden units, elsewhere.
    tiles, team_log2 = [CONTENTS["photo"](4, 6, 3, 3), CONTENTS["noise"](3, 5, 1, 5)], 2
    for name in ("all neighbours", "one then many"):
        model = random_model(SPECS[name], seed=17)
        block_bytes = launch_bytes(Plan(model.spec, local=True), team_log2, perceptron=True)
        found = fitting(layouts(model.spec, tensor_cores=False), team_log2, block_bytes, perceptron=True)
        assert found.local
        assert (found.stashed_words > 0) == (name == "all neighbours")
        check(model, tiles, [1, 0], block_bytes=block_bytes)


def without_room_for_tensor_cores() -> None:
    # Decoding goes by threads where encoding still goes by warps: parameters of both kinds are at hand.
    model, team_log2 = random_model(SPECS["six"], seed=19), 2
    plans = layouts(model.spec, tensor_cores=True)
    block_bytes = launch_bytes(plans[0], team_log2, perceptron=False)
    assert not isinstance(fitting(plans, team_log2, block_bytes, perceptron=True), TensorPlan)
    check(model, [CONTENTS["photo"](3, 4, 3, 3)], [1], tensor_cores=True, block_bytes=block_bytes)


def no_block_fits() -> None:
    model, tile = small_model(), CONTENTS["photo"](4, 5, 3, 2)
    stream = CudaEngine().encode_tiles(model, [tile], [1])[0]
    scarce = CudaEngine(block_bytes=1000)
    with pytest.raises(DeviceError, match=r"encode tiles of up to 8 x 8 pixels .* gives it 1000; choose smaller tiles"):
        scarce.encode_tiles(model, [tile], [1])
    with pytest.raises(DeviceError, match=r"decode tiles of up to 8 x 8 pixels .* the card gives it 1000; use 'cpu'"):
        scarce.decode_tiles(model, jobs_of([stream], [tile], [1]))


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


def after_damage() -> None:
    # Two batches are under way when the first turns out damaged; what they leave behind harms nothing.
    model, (tiles, lanes) = small_model(), tiles_of(SHAPES[3:6])
    engine = CudaEngine(4000)
    streams = engine.encode_tiles(model, tiles, lanes)
    with pytest.raises(FormatError, match=r"^tile: "):
        engine.decode_tiles(model, jobs_of([streams[0] + b"\0\0", *streams[1:]], tiles, lanes))
    for tile, back in zip(tiles, engine.decode_tiles(model, jobs_of(streams, tiles, lanes)), strict=True):
        assert np.array_equal(back, tile)
    assert engine.encode_tiles(model, [], []) == []
    assert engine.decode_tiles(model, []) == []


def on_device() -> None:
    model, tiles = small_model(), [CONTENTS["photo"](4, 5, 3, 2), CONTENTS["photo"](4, 3, 3, 7)]
    engine = CudaEngine()
    streams = engine.encode_tiles(model, tiles, [1, 0])
    # Two tiles side by side in an image of 4 x 8.
    places = [(0, 24), (15, 24)]
    pixels = engine.decode_to_tensor(model, jobs_of(streams, tiles, [1, 0]), places, 96)
    assert np.array_equal(pixels.numpy().reshape(4, 8, 3), np.concatenate(tiles, axis=1))


def out_of_memory() -> None:
    model, (tiles, lanes) = small_model(), tiles_of(SHAPES[2:4])
    plain, refusals = Slot.lay_out, [3]

    def scarce(self: Slot, device: Sizes, pinned: Sizes, limit_bytes: int) -> None:
        if refusals[0]:
            refusals[0] -= 1
            raise MemoryError("CUDA_ERROR_OUT_OF_MEMORY")
        plain(self, device, pinned, limit_bytes)

    Slot.lay_out = scarce  # type: ignore[method-assign]
    check(model, tiles, lanes)
    refusals[0] = 10**6
    engine = CudaEngine(8 * SMALLEST_BUDGET_BYTES)
    for _ in range(2):
        # What did not help the first time is not kept: the second call begins with the whole budget again.
        before = refusals[0]
        with pytest.raises(DeviceError, match="out of memory with batches of"):
            engine.encode_tiles(model, tiles, lanes)
        assert before - refusals[0] == 4, "the batch is halved three times, from eight times the smallest"
    refusals[0] = 0
    assert len(engine.encode_tiles(model, tiles, lanes)) == len(tiles)


def failing_card() -> None:
    # What the driver says becomes a sentence; what is not the driver's stays what it is.
    model, (tiles, lanes) = small_model(), tiles_of(SHAPES[2:4])

    class LaunchFailure(Exception):
        pass

    LaunchFailure.__module__ = "cuda.bindings.driver"
    plain = Slot.lay_out
    for error, expected in [(LaunchFailure("an illegal address"), DeviceError), (KeyError("a bug"), KeyError)]:

        def failing(self: Slot, *_: object, error: Exception = error) -> None:
            raise error

        Slot.lay_out = failing  # type: ignore[method-assign]
        with pytest.raises(expected, match=r"an illegal address\); such an error stays|a bug"):
            CudaEngine().encode_tiles(model, tiles, lanes)
    Slot.lay_out = plain  # type: ignore[method-assign]


def within_budget() -> None:
    # Tiles of many sizes: no slot takes more than its share, in either direction.
    model, (tiles, lanes) = small_model(), tiles_of(SHAPES)
    budget = 60_000
    engine = CudaEngine(budget)
    streams = engine.encode_tiles(model, tiles, lanes)
    used = [slot.device_bytes for slot in engine._slots]
    assert 0 < sum(used) <= budget, used
    engine.decode_tiles(model, jobs_of(streams, tiles, lanes))
    assert sum(slot.device_bytes for slot in engine._slots) <= budget


def front_door() -> None:
    images = [CONTENTS["photo"](5, 7, 3, 1), CONTENTS["photo"](20, 4, 1, 2)[:, :, 0], np.full((2, 2), 300, np.uint16)]
    payloads = pilc.compress_batch(images, device="cuda")
    assert payloads == pilc.compress_batch(images, device="reference")
    for image, back in zip(images, pilc.decompress_batch(payloads, device="cuda"), strict=True):
        assert np.array_equal(image, back)
        assert image.dtype == back.dtype
    regions = [None, (3, 1, 9, 2), None]
    tensors = pilc.decompress_batch(payloads, regions=regions, device="cuda:0", out="torch")
    assert np.array_equal(tensors[0].numpy(), images[0])
    assert np.array_equal(tensors[1].numpy(), images[1][3:12, 1:3])
    assert np.array_equal(tensors[2].numpy(), images[2])
    with pytest.raises(DeviceError, match="for the device 'cuda'"):
        pilc.decompress_batch(payloads, device="cpu", out="torch")
    with pytest.raises(UsageError, match="'numpy' arrays or 'torch' tensors"):
        pilc.decompress_batch(payloads, device="cuda", out="jax")


def loader_batches() -> None:
    # What GpuDecoder does on a card: tensors of the kernels, kept sources beside them, damage that costs one sample.
    images = [CONTENTS["photo"](5, 7, 3, n) for n in (1, 2)]
    payloads = pilc.compress_batch(images, device="reference")
    kept = io.BytesIO()
    Image.fromarray(images[0]).save(kept, "PNG")
    decoder = GpuDecoder([], "cpu", on_error="skip")
    decoder._decoder, decoder._on_card = Decoder("cuda"), True
    damaged = payloads[0][:-3] + b"abc"
    batch = {"key": ["a", "b", "c", "d"], "payload": [payloads[0], damaged, kept.getvalue(), payloads[1]]}
    found = decoder.decode(batch)
    assert found["key"] == ["a", "c", "d"]
    assert found["image"].shape == (3, 3, 5, 7)
    for tensor, image in zip(found["image"], [images[0], images[0], images[1]], strict=True):
        assert np.array_equal(tensor.permute(1, 2, 0).numpy(), image)


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
    "tensor cores": lambda: tensor_cores(at_the_bound=False),
    "tensor cores at the bound": lambda: tensor_cores(at_the_bound=True),
    "tensor cores, wide": tensor_cores_wide,
    "states in shared memory": stashed,
    "local memory": local_memory,
    "without room for tensor cores": without_room_for_tensor_cores,
    "no block fits": no_block_fits,
    "wide": wide,
    "long": long,
    "damage": damage,
    "after damage": after_damage,
    "on the device": on_device,
    "out of memory": out_of_memory,
    "a failing card": failing_card,
    "within the budget": within_budget,
    "front door": front_door,
    "batches of a loader": loader_batches,
    "figures of a card": card_figures,
}

if __name__ == "__main__":
    # The simulator's threads mostly wait for one another.
    sys.setswitchinterval(2e-5)
    CASES[sys.argv[1]]()

"""Run the CUDA backend of `lossy` in the simulator: ``NUMBA_ENABLE_CUDASIM=1 python simulated_lossy.py CASE``.

Torch computes on the host there, and the kernels run as Python threads on its memory.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import google_crc32c
import numpy as np
import pytest
import torch
from contents import CONTENTS, Tile
from small_lossy import small_lossy_model

import pilc_stream as pilc
from pilc_stream.backends.base import TileJob
from pilc_stream.backends.cuda.engine import SMALLEST_BUDGET_BYTES
from pilc_stream.backends.lossy.base import EncodedTile, open_tile, pack_tile
from pilc_stream.backends.lossy.card import BatchTables, CardNets, Encoded
from pilc_stream.backends.lossy.cpu import LossyCpuEngine
from pilc_stream.backends.lossy.cuda import CHUNK_PLACES, LossyCudaEngine
from pilc_stream.backends.lossy.cuda_lanes import code_tables, latent_checksums
from pilc_stream.backends.lossy.reference import LossyReferenceEngine
from pilc_stream.backends.lossy.transforms import analyse
from pilc_stream.codecs import Decoder
from pilc_stream.codecs.lossy import LossyCodec, payload_psnr
from pilc_stream.errors import ChecksumError, DeviceError, FormatError
from pilc_stream.models.lossy import LossyModel
from pilc_stream.readers.torch_gpu import GpuDecoder
from pilc_stream.records.payload import pack_payload, parse_header, parse_payload
from pilc_stream.reports.card import BatchSize
from pilc_stream.reports.lossy_card import bench_lossy_card
from pilc_stream.reports.lossy_report import CODER

SIZES = [(1, 1), (1, 40), (17, 9), (40, 33), (38, 35), (66, 20)]
"""The fourth and the fifth have as many latents; the last has hyper latents of two rows."""


class HostAnalysis(CardNets):
    """Analysis as other backends compute it, to the last bit: then streams must be the same."""

    def analyse(self, model: LossyModel, tiles: torch.Tensor, tables: BatchTables) -> Encoded:
        qualities = [self.qualities.pop(0) for _ in tiles]
        found = [analyse(model, tile.numpy(), quality) for tile, quality in zip(tiles, qualities, strict=True)]
        return Encoded(*(torch.from_numpy(np.stack(part)) for part in zip(*found, strict=True)))

    qualities: list[int]


def picture(height: int, width: int, seed: int) -> Tile:
    return CONTENTS["photo"](height, width, 3, seed)


def job_of(stream: bytes, tile: Tile, lanes_log2: int) -> TileJob:
    return TileJob(memoryview(stream), *tile.shape, lanes_log2)


def check(model: LossyModel, tiles: Sequence[Tile], qualities: Sequence[int], lanes: Sequence[int], **options: int):
    """Streams and latents of all backends are the same, of each tile by itself and of all together."""
    expected = LossyReferenceEngine().encode_tiles(model, tiles, qualities, lanes)
    engine = LossyCudaEngine(**options)
    engine.nets = nets = HostAnalysis(torch.device("cpu"), CHUNK_PLACES)
    grids = {}
    for number, (tile, log2) in enumerate(zip(tiles, lanes, strict=True)):
        grids.setdefault((-(-tile.shape[0] // 16), -(-tile.shape[1] // 16), log2), []).append(number)
    nets.qualities = [qualities[number] for members in grids.values() for number in members]
    coded = engine.encode_tiles(model, tiles, qualities, lanes)
    same(coded, expected)
    jobs = [job_of(each.stream, tile, log2) for each, tile, log2 in zip(expected, tiles, lanes, strict=True)]
    cpu = LossyCpuEngine().decode_tiles(model, jobs)
    found = engine.decode_latents(model, jobs)
    assert [quality for quality, _ in found] == list(qualities)
    for (_, latents), each in zip(found, expected, strict=True):
        assert np.array_equal(latents, each.latents)
    for tile, other in zip(engine.decode_tiles(model, jobs), cpu, strict=True):
        assert tile.shape == other.shape
        assert int(np.abs(tile.astype(int) - other).max()) <= 1
    return expected


def same(coded: Sequence[EncodedTile], expected: Sequence[EncodedTile]) -> None:
    for ours, theirs in zip(coded, expected, strict=True):
        assert ours.stream == theirs.stream
        assert np.array_equal(ours.latents, theirs.latents)


def shapes() -> None:
    tiles = [picture(*size, seed) for seed, size in enumerate([*SIZES, (17, 9)])]
    check(small_lossy_model(), tiles, [50, 1, 100, 30, 90, 77, 12], [0, 1, 2, 3, 3, 5, 2])


def one_pixel() -> None:
    # No place of odd parity, fewer values than lanes, and a batch of equal tiles of different qualities.
    tiles = [picture(1, 1, seed) for seed in range(5)]
    check(small_lossy_model(3), tiles, [1, 25, 50, 75, 100], [5] * 5)


def batches() -> None:
    # A batch for each tile, and one of all; and whatever stands beside a tile, its own bytes stay.
    model, tiles = small_lossy_model(), [picture(20, 17, seed) for seed in range(4)]
    qualities, lanes = [9, 55, 90, 100], [1] * 4
    check(model, tiles, qualities, lanes, budget_bytes=1)
    engine = LossyCudaEngine()
    together = engine.encode_tiles(model, tiles, qualities, lanes)
    each_alone = zip(tiles, qualities, lanes, strict=True)
    same(together, [engine.encode_tiles(model, *([value] for value in one))[0] for one in each_alone])
    jobs = [job_of(each.stream, tile, 1) for each, tile in zip(together, tiles, strict=True)]
    whole = engine.decode_tiles(model, jobs)
    for job, tile in zip(jobs, whole, strict=True):
        assert np.array_equal(engine.decode_tiles(model, [job])[0], tile)
    assert engine.encode_tiles(model, [], [], []) == []
    assert engine.decode_tiles(model, []) == []


def narrow_model() -> LossyModel:
    """Narrow tables under great steps: most values are escapes."""
    model = small_lossy_model()
    narrow = {**model.tensors, "quality.scale": np.full_like(model.tensors["quality.scale"], -128)}
    narrow["quality.gain"] = np.full_like(narrow["quality.gain"], 65535)
    return LossyModel(model.spec, model.layers, narrow, model.floats, "narrow")


def stripes(height: int, width: int) -> Tile:
    """Great contrast."""
    hard = np.zeros((height, width, 3), np.uint8)
    hard[::2] = 255
    return hard


def escapes() -> None:
    model, tiles = narrow_model(), [stripes(20, 33), stripes(17, 40), picture(18, 36, 1)]
    coded = check(model, tiles, [100, 60, 30], [0, 0, 3])
    assert coded[0].stream[1] > 0
    assert max(int(np.abs(each.latents).max()) for each in coded) > 16 * 64
    # One too few, and one too many.
    tile = tiles[0]
    opened = open_tile(job_of(coded[0].stream, tile, 0))
    values, words = opened.escapes.tolist(), bytes(opened.lanes.stream)
    fewer, more = pack_tile(100, values[:-1], words), pack_tile(100, [*values, 3], words)
    for data, reason in ((fewer, "more escapes than"), (more, "1 escapes are left over")):
        for engine in (LossyCudaEngine(), LossyCpuEngine()):
            with pytest.raises(FormatError, match=reason):
                engine.decode_latents(model, [job_of(data, tile, 0)])


def outcome(engine: LossyCudaEngine | LossyCpuEngine, model: LossyModel, jobs: list[TileJob]) -> np.ndarray | None:
    """The latents of the last of the tiles; None where the streams are refused."""
    try:
        return engine.decode_latents(model, jobs)[-1][1]
    except FormatError:
        return None


def damage() -> None:
    model, tile, lanes = small_lossy_model(), picture(20, 33, 2), 1
    good = LossyCudaEngine().encode_tiles(model, [tile], [50], [lanes])[0].stream
    engine = LossyCudaEngine()
    position = len(good) - len(open_tile(job_of(good, tile, lanes)).lanes.stream)
    states = bytearray(good)
    states[position : position + 4] = bytes(4)
    cases = [good[:-2], good + b"\0\0", good[:4], good[:-1], good[:1], b"", b"\0" + good[1:], bytes(states)]
    # Other tables, other escapes, other words: the walk ends, whatever is read.
    random = np.random.default_rng(5)
    for at in random.integers(0, len(good), 12):
        flipped = bytearray(good)
        flipped[at] ^= 1 << int(random.integers(0, 8))
        cases.append(bytes(flipped))
    cases += [good[:position] + random.bytes(4) + b"\xff" * 4 + random.bytes(40) for _ in range(3)]
    for data in cases:
        jobs = [job_of(good, tile, lanes), job_of(data, tile, lanes)]
        found, expected = (outcome(each, model, jobs) for each in (engine, LossyCpuEngine()))
        assert (found is None) == (expected is None)
        assert found is None or np.array_equal(found, expected)
    # An engine that has refused a stream still works.
    assert np.array_equal(
        engine.decode_latents(model, [job_of(good, tile, lanes)])[0][1],
        LossyReferenceEngine().decode_latents(model, [job_of(good, tile, lanes)])[0][1],
    )


def checksums() -> None:
    program = code_tables(small_lossy_model().starts, torch.device("cpu")).program
    random = np.random.default_rng(1)
    for count in (1, 2, 7, 8, 9, 40):
        latents = random.integers(-(1 << 31), 1 << 31, (3, 1, 1, count)).astype(np.int32)
        expected = [google_crc32c.value(each.astype("<i4").tobytes()) for each in latents]
        assert latent_checksums(program, torch.from_numpy(latents)).tolist() == expected


def on_device() -> None:
    model, sizes = small_lossy_model(), [(20, 17), (20, 17), (20, 17), (31, 20), (5, 33)]
    tiles, engine = [picture(*size, seed) for seed, size in enumerate(sizes)], LossyCudaEngine()
    jobs = [
        job_of(each.stream, tile, 1)
        for each, tile in zip(engine.encode_tiles(model, tiles, [70] * 5, [1] * 5), tiles, strict=True)
    ]
    whole = engine.decode_tiles(model, jobs)
    # The first three side by side, a grey one, and one whose rows lie apart.
    jobs[3] = jobs[3]._replace(channels=1)
    places = [(20 * 51 * n, 51) for n in range(3)] + [(3100, 20), (3100 + 620, 103)]
    pixels, found = engine.decode_to_tensor(model, jobs, places, 3100 + 620 + 5 * 103)
    assert np.array_equal(pixels.numpy()[: 20 * 51 * 3].reshape(3, 20, 17, 3), np.stack(whole[:3]))
    grey = ((whole[3].astype(int).sum(axis=2) + 1) // 3).astype(np.uint8)
    assert np.array_equal(pixels.numpy()[3100:3720].reshape(31, 20), grey)
    assert np.array_equal(pixels.numpy()[3720:].reshape(5, 103)[:, :99].reshape(5, 33, 3), whole[4])
    latents = [latents for _, latents in LossyCpuEngine().decode_latents(model, jobs)]
    assert found == [google_crc32c.value(each.astype("<i4").tobytes()) for each in latents]
    # What an encoder says of a tile is what a decoder finds.
    measured = engine.encode_measured(model, tiles, [70] * 5, [1] * 5, [3, 3, 3, 1, 3])
    assert [each.stream for each in measured] == [bytes(job.stream) for job in jobs]
    assert [each.checksum for each in measured] == found
    again = [*whole[:3], grey[..., None], whole[4]]
    for tile, other, each in zip(tiles, again, measured, strict=True):
        assert each.squared_error == int(np.square(tile.astype(int) - other).sum())


def out_of_memory() -> None:
    model, tile = small_lossy_model(), picture(9, 9, 1)
    engine = LossyCudaEngine(budget_bytes=8 * SMALLEST_BUDGET_BYTES)
    plain, refusals = engine.nets.analyse, [2]

    def scarce(*given: object) -> Encoded:
        refusals[0] -= 1
        if refusals[0] >= 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(*given)

    engine.nets.analyse = scarce
    expected = LossyCudaEngine().encode_tiles(model, [tile], [50], [0])
    same(engine.encode_tiles(model, [tile], [50], [0]), expected)
    refusals[0] = 10
    with pytest.raises(DeviceError, match="out of memory with batches of"):
        engine.encode_tiles(model, [tile], [50], [0])
    refusals[0] = 0
    same(engine.encode_tiles(model, [tile], [50], [0]), expected)
    engine.nets.analyse = lambda *_: (_ for _ in ()).throw(RuntimeError("CUDA error: an illegal address"))
    with pytest.raises(DeviceError, match="so go on in a new one"):
        engine.encode_tiles(model, [tile], [50], [0])
    engine.nets.analyse = lambda *_: (_ for _ in ()).throw(KeyError("a bug"))
    with pytest.raises(KeyError, match="a bug"):
        engine.encode_tiles(model, [tile], [50], [0])


def front_door() -> None:
    # What stays on the card has the pixels of what comes to the host; one decoder reads what the other wrote.
    images = [picture(20, 18, 1), picture(33, 16, 2), picture(16, 20, 3)[:, :, 0], picture(20, 18, 4)]
    payloads = pilc.compress_batch(images, profile="lossy-light", device="cuda", quality=80)
    assert {parse_header(payload).codec for payload in payloads} == {"lossy"}
    alone = [pilc.compress(image, profile="lossy-light", device="cuda", quality=80) for image in images]
    assert payloads == alone
    regions = [None, (3, 1, 9, 2), None, None]
    found = pilc.decompress_batch(payloads, regions=regions, device="cuda")
    for ours, theirs in zip(found, pilc.decompress_batch(payloads, regions=regions, device="cpu"), strict=True):
        assert ours.shape == theirs.shape
        assert int(np.abs(ours.astype(int) - theirs).max()) <= 1
    tensors = pilc.decompress_batch(payloads, regions=regions, device="cuda", out="torch")
    assert all(np.array_equal(tensor.numpy(), image) for tensor, image in zip(tensors, found, strict=True))
    # A device that reads other latents is found out.
    parsed = parse_payload(payloads[0])
    other = pack_payload(parsed.header, [bytes([parsed.tiles[0][0] ^ 1]) + bytes(parsed.tiles[0][1:])])
    for out in ("numpy", "torch"):
        with pytest.raises(ChecksumError, match="does not compute exactly"):
            pilc.decompress_batch([payloads[1], other], device="cuda", out=out)


def several_tiles() -> None:
    # Images of several tiles, each at its place, in one call; the PSNR that is asked for is looked for on the card.
    model, engine = small_lossy_model(), LossyCudaEngine()
    images = [picture(40, 35, 1), picture(40, 35, 2)[:, :, :1], picture(9, 50, 3)]
    payloads = LossyCodec(model, engine, 90, tile_log2=4).encode(images)
    assert payloads == [LossyCodec(model, engine, 90, tile_log2=4).encode([image])[0] for image in images]
    assert len(parse_payload(payloads[0]).tiles) == 9
    source = {model.short_digest: model.file_bytes}
    cpu, card = (Decoder(device, models=source.get) for device in ("cpu", "cuda"))
    expected = cpu.decode(payloads)
    for ours, tensor, theirs in zip(card.decode(payloads), card.decode_tensors(payloads), expected, strict=True):
        assert np.array_equal(ours, tensor.numpy())
        assert int(np.abs(ours.astype(int) - theirs).max()) <= 1
    psnr = payload_psnr(payloads[2]) - 0.5
    assert payload_psnr(LossyCodec(model, engine, psnr=psnr, tile_log2=4).encode(images[2:])[0]) >= psnr - 0.005


def loader_batches() -> None:
    # What GpuDecoder does on a card, and what damage costs it.
    images = [picture(17, 16, seed) for seed in range(3)]
    payloads = pilc.compress_batch(images, profile="lossy-light", device="cpu", quality=30)
    decoder = GpuDecoder([], "cpu", on_error="skip")
    decoder._decoder, decoder._on_card = Decoder("cuda"), True
    damaged = payloads[1][:-3] + b"abc"
    found = decoder.decode({"key": ["a", "b", "c"], "payload": [payloads[0], damaged, payloads[2]]})
    assert found["key"] == ["a", "c"]
    assert found["image"].shape == (2, 3, 17, 16)
    expected = pilc.decompress_batch([payloads[0], payloads[2]], device="cpu")
    assert int(np.abs(found["image"].permute(0, 2, 3, 1).numpy().astype(int) - np.stack(expected)).max()) <= 1


def card_figures() -> None:
    found = bench_lossy_card(small_lossy_model(), [BatchSize(20, 17, 2)], rounds=1)
    assert [one["size"]["images"] for one in found] == [2]
    assert {"payloads from pixels", "tensors from payloads", "pixels from payloads"} == set(found[0]["mb_per_s"])
    assert all(rate > 0 for rate in found[0]["mb_per_s"].values())
    stages = found[0]["stage_seconds_of_one"]
    assert set(stages) == {"synthesis", "hyper_synthesis", "entropy_model", CODER}
    assert all(seconds > 0 for seconds in stages.values())


CASES: dict = {
    "shapes": shapes,
    "one pixel": one_pixel,
    "batches": batches,
    "escapes": escapes,
    "damage": damage,
    "checksums": checksums,
    "on the device": on_device,
    "out of memory": out_of_memory,
    "front door": front_door,
    "several tiles": several_tiles,
    "batches of a loader": loader_batches,
    "figures of a card": card_figures,
}

if __name__ == "__main__":
    # The simulator's threads mostly wait for one another.
    sys.setswitchinterval(2e-5)
    CASES[sys.argv[1]]()

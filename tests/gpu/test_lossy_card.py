"""The codec `lossy` on a CUDA card: the latents of the CPU from the same bytes, in batches of all sizes; no leaks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from small_lossy import small_lossy_model

import pilc_stream as pilc
from pilc_stream.backends.base import TileJob
from pilc_stream.backends.lossy.cpu import LossyCpuEngine
from pilc_stream.backends.lossy.transforms import analyse
from pilc_stream.codecs.lossy import payload_psnr
from pilc_stream.errors import FormatError
from pilc_stream.models.lossy import LossyModel, load_lossy_model
from pilc_stream.models.shipped import preset_bytes
from pilc_stream.reports.sets import load_set

pytestmark = pytest.mark.gpu

Tile = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
THREADS = os.cpu_count() or 1


def tiles_of(count: int, most_log2: float = 8) -> tuple[list[Tile], list[int], list[int]]:
    """Tiles, qualities, lanes: of all sizes, some of them alike."""
    random = np.random.default_rng(7)
    tiles, qualities, lanes = [], [], []
    for number in range(count):
        height, width = (int(2 ** random.uniform(0, most_log2)) for _ in range(2))
        contrast = 255 if number % 4 == 0 else 60
        tile = (random.integers(0, contrast + 1, (height, width, 3)) + 10 * (number % 9)).clip(0, 255).astype(np.uint8)
        for again in range(1 + number % 3):
            tiles.append(np.ascontiguousarray(np.roll(tile, again)))
            qualities.append(int(random.integers(1, 101)))
            lanes.append(number % 6)
    return tiles, qualities, lanes


def jobs_of(streams: list[bytes], tiles: list[Tile], lanes: list[int]) -> list[TileJob]:
    return [TileJob(memoryview(s), *t.shape, n) for s, t, n in zip(streams, tiles, lanes, strict=True)]


def narrow_model() -> LossyModel:
    """Most values are escapes."""
    model = small_lossy_model()
    narrow = {**model.tensors, "quality.scale": np.full_like(model.tensors["quality.scale"], -128)}
    narrow["quality.gain"] = np.full_like(narrow["quality.gain"], 65535)
    return LossyModel(model.spec, model.layers, narrow, model.floats, "narrow")


MODELS = {
    "small": small_lossy_model,
    "another": lambda: small_lossy_model(5),
    "escapes": narrow_model,
    "lossy-light": lambda: load_lossy_model(preset_bytes("lossy-light")),
}


@pytest.mark.parametrize("name", MODELS)
def test_card_and_cpu_read_each_other(name: str) -> None:
    from pilc_stream.backends.lossy.cuda import LossyCudaEngine

    model, (tiles, qualities, lanes) = MODELS[name](), tiles_of(24)
    card, cpu = LossyCudaEngine(), LossyCpuEngine(THREADS)
    for writer, reader in ((card, cpu), (cpu, card)):
        coded = writer.encode_tiles(model, tiles, qualities, lanes)
        jobs = jobs_of([each.stream for each in coded], tiles, lanes)
        for (quality, latents), wanted, each in zip(reader.decode_latents(model, jobs), qualities, coded, strict=True):
            assert quality == wanted
            assert np.array_equal(latents, each.latents)
        for one, other in zip(card.decode_tiles(model, jobs), cpu.decode_tiles(model, jobs), strict=True):
            assert int(np.abs(one.astype(int) - other).max()) <= 1


@pytest.mark.parametrize("name", MODELS)
def test_from_the_same_analysis_the_streams_of_the_cpu(name: str) -> None:
    import torch

    from pilc_stream.backends.lossy.card import CardNets, Encoded
    from pilc_stream.backends.lossy.cuda import CHUNK_PLACES, LossyCudaEngine

    model, (tiles, _, lanes) = MODELS[name](), tiles_of(10, 7)
    card = LossyCudaEngine()

    class HostAnalysis(CardNets):
        def analyse(self, model, tiles, tables):
            found = [analyse(model, tile.cpu().numpy(), self.quality) for tile in tiles]
            return Encoded(*(torch.from_numpy(np.stack(part)).to(self.device) for part in zip(*found, strict=True)))

    card.nets = nets = HostAnalysis(card.nets.device, CHUNK_PLACES)
    for quality in (1, 60, 100):
        nets.quality = quality
        streams = [each.stream for each in card.encode_tiles(model, tiles, [quality] * len(tiles), lanes)]
        expected = LossyCpuEngine(THREADS).encode_tiles(model, tiles, [quality] * len(tiles), lanes)
        assert streams == [each.stream for each in expected]


def test_a_batch_never_changes_its_members() -> None:
    from pilc_stream.backends.lossy.cuda import LossyCudaEngine

    model, (tiles, qualities, lanes) = MODELS["lossy-light"](), tiles_of(20)
    together = LossyCudaEngine().encode_measured(model, tiles, qualities, lanes, [3] * len(tiles))
    tight = LossyCudaEngine(budget_bytes=1).encode_measured(model, tiles, qualities, lanes, [3] * len(tiles))
    assert together == tight


def test_what_is_measured_on_the_card() -> None:
    from pilc_stream.backends.lossy.cuda import LossyCudaEngine

    model, (tiles, qualities, lanes) = MODELS["lossy-light"](), tiles_of(12)
    card, channels = LossyCudaEngine(), [1 if number % 4 == 0 else 3 for number in range(len(tiles))]
    grey = [np.repeat(tile[:, :, :1], 3, 2) if c == 1 else tile for tile, c in zip(tiles, channels, strict=True)]
    measured = card.encode_measured(model, grey, qualities, lanes, channels)
    jobs = jobs_of([each.stream for each in measured], tiles, lanes)
    for tile, count, other, (_, latents), each in zip(
        grey, channels, card.decode_tiles(model, jobs), card.decode_latents(model, jobs), measured, strict=True
    ):
        if count == 1:
            other = ((other.astype(int).sum(axis=2, keepdims=True) + 1) // 3).astype(np.uint8)
        assert each.squared_error == int(np.square(tile.astype(int) - other).sum())
        assert each.checksum == google_crc32c.value(latents.astype("<i4").tobytes())


def test_pictures_of_the_evaluation_data(shared_data: Path) -> None:
    import torch

    images = load_set(shared_data / "eval" / "kodak", None).images
    payloads = pilc.compress_batch(images, profile="lossy-light", device="cuda", quality=60)
    others = pilc.compress_batch(images, profile="lossy-light", threads=THREADS, quality=60)
    for one, other in zip(payloads, others, strict=True):
        assert payload_psnr(one) == pytest.approx(payload_psnr(other), abs=0.02)
        assert len(one) == pytest.approx(len(other), rel=0.001)
    expected = pilc.decompress_batch(payloads, threads=THREADS)
    tensors = pilc.decompress_batch(payloads, device="cuda", out="torch")
    assert all(tensor.is_cuda for tensor in tensors)
    for tensor, image, other in zip(tensors, pilc.decompress_batch(payloads, device="cuda"), expected, strict=True):
        assert np.array_equal(tensor.cpu().numpy(), image)
        assert int(np.abs(image.astype(int) - other).max()) <= 1
    # A training step in half precision beside it changes nothing.
    with torch.autocast("cuda"):
        again = pilc.decompress_batch(payloads[:3], device="cuda", out="torch")
    assert all(torch.equal(one, other) for one, other in zip(again, tensors, strict=False))


def test_streams_of_noise_are_refused_and_harm_nothing() -> None:
    from pilc_stream.backends.lossy.cuda import LossyCudaEngine

    random, model, card = np.random.default_rng(11), small_lossy_model(), LossyCudaEngine()
    for _ in range(60):
        height, width, log2 = (int(random.integers(low, high)) for low, high in ((1, 90), (1, 90), (0, 6)))
        escapes = bytes(int(random.integers(0, 120)))
        states = random.integers(0, 256, 4 << log2).astype(np.uint8)
        states[2::4] |= 1
        head = bytes([int(random.integers(1, 101)), len(escapes)])
        data = head + escapes + states.tobytes() + random.bytes(2 * int(random.integers(0, 2000)))
        with pytest.raises(FormatError, match=r"^tile: "):
            card.decode_latents(model, [TileJob(memoryview(data), height, width, 3, log2)])
    test_card_and_cpu_read_each_other("small")


def test_batches_of_a_loader_follow_its_stream() -> None:
    import torch

    from pilc_stream.readers.torch_gpu import GpuDecoder

    images = [np.random.default_rng(n).integers(0, 99, (64, 48, 3)).astype(np.uint8) for n in range(32)]
    payloads = pilc.compress_batch(images, profile="lossy-light", device="cuda", quality=40)
    expected = torch.from_numpy(np.stack(pilc.decompress_batch(payloads, device="cuda"))).permute(0, 3, 1, 2)
    for batch in GpuDecoder([{"payload": payloads}] * 5, "cuda"):
        assert batch["image"].is_cuda
        assert torch.equal(batch["image"].cpu(), expected)


def test_many_batches_without_a_leak() -> None:
    import torch

    from pilc_stream.backends.lossy.cuda import LossyCudaEngine

    model, (tiles, qualities, lanes) = small_lossy_model(), tiles_of(12)
    card = LossyCudaEngine()
    jobs = jobs_of([each.stream for each in card.encode_tiles(model, tiles, qualities, lanes)], tiles, lanes)
    before = None
    for _ in range(50):
        card.encode_tiles(model, tiles, qualities, lanes)
        card.decode_latents(model, jobs)
        before = before or torch.cuda.memory_allocated()
    assert torch.cuda.memory_allocated() <= before


def test_compute_sanitizer_finds_nothing() -> None:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed")
    program = textwrap.dedent(
        """
        from test_lossy_card import jobs_of, small_lossy_model, tiles_of
        from pilc_stream.backends.lossy.cuda import LossyCudaEngine
        card, model, (tiles, qualities, lanes) = LossyCudaEngine(), small_lossy_model(), tiles_of(6, 6)
        coded = card.encode_tiles(model, tiles, qualities, lanes)
        jobs = jobs_of([each.stream for each in coded], tiles, lanes)
        for (_, latents), each in zip(card.decode_latents(model, jobs), coded):
            assert (latents == each.latents).all()
        """
    )
    command = [sanitizer, "--tool", "memcheck", "--error-exitcode", "9", sys.executable, "-c", program]
    folders = [Path(__file__).parent, Path(__file__).parents[1] / "codecs"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    done = subprocess.run(command, capture_output=True, text=True, timeout=550, env=environment)
    if "Device not supported" in done.stdout:
        pytest.skip("compute-sanitizer cannot look into this card from here")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

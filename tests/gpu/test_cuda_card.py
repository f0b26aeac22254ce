"""On a CUDA card: the bytes of the CPU, on pictures, random shapes and sums at the bound; no leaks, no races."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from small_model import SPECS, random_model, small_model
from small_pilc import SMALL_PILC_SPEC, WIDE_PILC_SPEC, random_pilc_model

import pilc_stream as pilc
from pilc_stream.backends.base import TileJob
from pilc_stream.backends.cpu import CpuEngine
from pilc_stream.backends.pilc.cpu import PilcCpuEngine
from pilc_stream.errors import DeviceError, FormatError
from pilc_stream.models.model import WaveModel, load_model
from pilc_stream.models.pilc import PilcSpec
from pilc_stream.models.shipped import preset_bytes
from pilc_stream.reports.sets import load_set

pytestmark = pytest.mark.gpu

PART = 1000

Tile = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


@pytest.fixture(scope="module")
def cuda_engine() -> object:
    """The engine; these tests are asked for by `-m gpu`, so that a card that cannot be used is a failure."""
    from pilc_stream.backends.cuda.engine import CudaEngine

    return CudaEngine()


def there_and_back(engine: object, model: WaveModel, tiles: list[Tile], lanes: list[int]) -> None:
    streams = engine.encode_tiles(model, tiles, lanes)  # type: ignore[attr-defined]
    assert streams == CpuEngine(threads=os.cpu_count() or 1).encode_tiles(model, tiles, lanes)
    jobs = [TileJob(memoryview(s), *t.shape, n) for s, t, n in zip(streams, tiles, lanes, strict=True)]
    for back, tile in zip(engine.decode_tiles(model, jobs), tiles, strict=True):  # type: ignore[attr-defined]
        assert np.array_equal(back, tile)


def test_all_pictures_of_the_evaluation_data(shared_data: Path) -> None:
    sources = [path for path in sorted((shared_data / "eval").iterdir()) if path.is_dir() or path.suffix == ".parquet"]
    assert sources
    for source in sources:
        images = load_set(source, None).images
        for first in range(0, len(images), PART):
            part = images[first : first + PART]
            payloads = pilc.compress_batch(part, device="cuda")
            assert payloads == pilc.compress_batch(part, threads=os.cpu_count() or 1)
            for image, back in zip(part, pilc.decompress_batch(payloads, device="cuda"), strict=True):
                assert np.array_equal(image, back)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("bound", [False, True], ids=["at random", "at the bound"])
def test_random_models_and_shapes(cuda_engine: object, name: str, bound: bool) -> None:
    model = random_model(SPECS[name], seed=31, at_the_bound=bound)
    random = np.random.default_rng(7)
    tiles, lanes = [], []
    for number in range(80):
        # Edges of all orders, so that teams of all sizes share blocks.
        height, width = (int(2 ** random.uniform(0, 8)) for _ in range(2))
        levels = [0, 255] if number % 3 == 0 else np.arange(256)
        tiles.append(random.choice(levels, (height, width, 1 if number % 4 == 0 else 3)).astype(np.uint8))
        lanes.append(int(random.integers(0, 6)))
    there_and_back(cuda_engine, model, tiles, lanes)


@pytest.mark.parametrize("spec", [SMALL_PILC_SPEC, WIDE_PILC_SPEC], ids=["small", "wide"])
@pytest.mark.parametrize("bound", [False, True], ids=["at random", "at the bound"])
def test_pilc_with_random_models_and_shapes(spec: PilcSpec, bound: bool) -> None:
    from pilc_stream.backends.pilc.cuda import PilcCudaEngine

    model = random_pilc_model(spec, 31, at_the_bound=bound)
    random = np.random.default_rng(7)
    tiles, lanes = [], []
    for number in range(60):
        height, width = (int(2 ** random.uniform(0, 8)) for _ in range(2))
        levels = [0, 255] if number % 3 == 0 else np.arange(256)
        tiles.append(random.choice(levels, (height, width, 1 if number % 4 == 0 else 3)).astype(np.uint8))
        lanes.append(int(random.integers(0, 6)))
    engine = PilcCudaEngine()
    streams = engine.encode_tiles(model, tiles, lanes)
    assert streams == PilcCpuEngine(threads=os.cpu_count() or 1).encode_tiles(model, tiles, lanes)
    jobs = [TileJob(memoryview(s), *t.shape, n) for s, t, n in zip(streams, tiles, lanes, strict=True)]
    for back, tile in zip(engine.decode_tiles(model, jobs), tiles, strict=True):
        assert np.array_equal(back, tile)


def test_pilc_on_pictures_of_the_evaluation_data(shared_data: Path) -> None:
    for name in ("kodak", "cifar10_test.parquet"):
        images = load_set(shared_data / "eval" / name, None).images[:PART]
        payloads = pilc.compress_batch(images, profile="pilc", device="cuda")
        assert payloads == pilc.compress_batch(images, profile="pilc", threads=os.cpu_count() or 1)
        for image, back in zip(images, pilc.decompress_batch(payloads, device="cuda"), strict=True):
            assert np.array_equal(image, back)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("bound", [False, True], ids=["at random", "at the bound"])
def test_tensor_cores_and_dp4a_write_the_same_bytes(cuda_engine: object, name: str, bound: bool) -> None:
    from pilc_stream.backends.cuda.engine import CudaEngine

    if not cuda_engine.tensor_cores:  # type: ignore[attr-defined]
        pytest.skip("this card multiplies no matrices of bytes")
    model = random_model(SPECS[name], seed=37, at_the_bound=bound)
    tiles = [np.random.default_rng(n).integers(0, 256, (20 + 9 * n, 70, 3)).astype(np.uint8) for n in range(9)]
    there_and_back(CudaEngine(tensor_cores=False), model, list(tiles), [n % 6 for n in range(9)])
    there_and_back(cuda_engine, model, list(tiles), [n % 6 for n in range(9)])


def test_max_as_a_v100_decodes_it() -> None:
    from pilc_stream.backends.cuda.engine import CudaEngine

    # With the shared memory of a V100 a tile of 512 a side lies partly in local memory, one of 200 does not.
    picture = np.random.default_rng(8).integers(0, 30, (512, 512, 3)).cumsum(axis=1).astype(np.uint8)
    tiles = [picture, picture[:200, :190], picture[:, :, :1]]
    engine = CudaEngine(tensor_cores=False, block_bytes=96 << 10)
    there_and_back(engine, load_model(preset_bytes("max")), [np.ascontiguousarray(tile) for tile in tiles], [4, 3, 2])


@pytest.mark.parametrize("edge", [256, 512, 1000])
def test_the_largest_teams(cuda_engine: object, edge: int) -> None:
    tile = np.random.default_rng(3).integers(0, 40, (edge, edge, 3)).astype(np.uint8)
    there_and_back(cuda_engine, small_model(), [tile, tile[:, ::-1]], [5, 2])


def test_batches_cut_to_the_budget() -> None:
    from pilc_stream.backends.cuda.engine import CudaEngine

    tiles = [np.random.default_rng(n).integers(0, 9, (40 + n, 50, 3)).astype(np.uint8) for n in range(60)]
    there_and_back(CudaEngine(budget_bytes=2 << 20), small_model(), list(tiles), [n % 6 for n in range(60)])


def test_damage_is_refused(cuda_engine: object) -> None:
    tile = np.random.default_rng(1).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    stream = cuda_engine.encode_tiles(small_model(), [tile], [2])[0]  # type: ignore[attr-defined]
    for data in (stream[:-2], stream + b"\0\0", bytes(4) + stream[4:], stream[:16]):
        with pytest.raises(FormatError, match=r"^tile: "):
            cuda_engine.decode_tiles(small_model(), [TileJob(memoryview(data), 64, 64, 3, 2)])  # type: ignore[attr-defined]


def test_streams_of_noise_are_refused_and_harm_nothing(cuda_engine: object) -> None:
    # What a checksum cannot find: streams that somebody made up. The card must survive them, and still work.
    random, model = np.random.default_rng(11), small_model()
    for number in range(60):
        height, width, log2 = (int(random.integers(low, high)) for low, high in ((1, 90), (1, 90), (0, 6)))
        data = random.integers(0, 256, (4 << log2) + 2 * int(random.integers(0, 4000))).astype(np.uint8)
        with pytest.raises(FormatError, match=r"^tile: "):
            cuda_engine.decode_tiles(  # type: ignore[attr-defined]
                model, [TileJob(memoryview(data.tobytes()), height, width, 1 + 2 * (number % 2), log2)]
            )
    tile = random.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    there_and_back(cuda_engine, model, [tile], [2])


def test_tensors_stay_on_the_card() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    images = [np.random.default_rng(n).integers(0, 99, (30, 40 + n, 3)).astype(np.uint8) for n in range(5)]
    tensors = pilc.decompress_batch(pilc.compress_batch(images, device="cuda"), device="cuda", out="torch")
    for image, tensor in zip(images, tensors, strict=True):
        assert tensor.is_cuda
        assert np.array_equal(tensor.cpu().numpy(), image)


def test_tensors_follow_the_stream_of_the_caller() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    images = [np.random.default_rng(n).integers(0, 99, (200, 300, 3)).astype(np.uint8) for n in range(8)]
    payloads = pilc.compress_batch(images, device="cuda")
    side = torch.cuda.Stream()
    for _ in range(20):
        with torch.cuda.stream(side):
            # Memory that is still written to when it is given back: what is decoded there must come after.
            busy = torch.zeros(sum(image.size for image in images) + 4096, dtype=torch.uint8, device="cuda")
            for _ in range(50):
                busy.add_(1)
            del busy
            tensors = pilc.decompress_batch(payloads, device="cuda", out="torch")
        for image, tensor in zip(images, tensors, strict=True):
            assert np.array_equal(tensor.cpu().numpy(), image)


def test_batches_of_a_loader_are_decoded_on_the_card() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    from pilc_stream.readers.torch_gpu import GpuDecoder

    images = [np.random.default_rng(n).integers(0, 99, (32, 32, 3)).astype(np.uint8) for n in range(64)]
    payloads = pilc.compress_batch(images)
    loader = [{"key": [str(n) for n in range(64)], "payload": payloads}] * 5
    for batch in GpuDecoder(loader, "cuda"):
        assert batch["image"].is_cuda
        assert np.array_equal(batch["image"].permute(0, 2, 3, 1).cpu().numpy(), np.stack(images))


def test_kernels_are_compiled_once_on_a_machine(tmp_path: Path) -> None:
    program = "import numpy as np, pilc_stream as pilc; print(pilc.compress(np.zeros((9, 9), np.uint8), device='cuda'))"
    environment = {**os.environ, "PILC_KERNEL_CACHE": str(tmp_path)}
    outputs, files = [], []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, env=environment, check=True
        )
        outputs.append(done.stdout)
        files.append({path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()})
    assert outputs[0] == outputs[1]
    assert files[0] == files[1], "the second process compiled again"
    assert len(files[0]) >= 5


def test_every_card_of_the_machine_writes_the_same_bytes() -> None:
    from pilc_stream.backends.cuda.shim import cuda

    image = np.random.default_rng(5).integers(0, 99, (70, 50, 3)).astype(np.uint8)
    payloads = {pilc.compress(image, device=f"cuda:{number}") for number in range(len(cuda.gpus))}
    assert len(payloads) == 1
    with pytest.raises(DeviceError, match="the driver lists"):
        pilc.compress(image, device=f"cuda:{len(cuda.gpus)}")


def test_many_batches_without_a_leak(cuda_engine: object) -> None:
    from pilc_stream.backends.cuda.shim import cuda

    tiles = [np.random.default_rng(n).integers(0, 99, (64, 64, 3)).astype(np.uint8) for n in range(50)]
    there_and_back(cuda_engine, small_model(), list(tiles), [2] * 50)
    before = cuda.current_context().get_memory_info().free
    for _ in range(200):
        streams = cuda_engine.encode_tiles(small_model(), tiles, [2] * 50)  # type: ignore[attr-defined]
        jobs = [TileJob(memoryview(s), 64, 64, 3, 2) for s in streams]
        cuda_engine.decode_tiles(small_model(), jobs)  # type: ignore[attr-defined]
    assert before - cuda.current_context().get_memory_info().free < 1 << 20


def test_more_memory_than_there_is_is_refused_in_a_sentence() -> None:
    from pilc_stream.backends.cuda.shim import cuda, is_out_of_memory

    total = cuda.current_context().get_memory_info().total
    with pytest.raises(Exception, match=r".") as caught:
        cuda.device_array(2 * total, np.uint8)
    assert is_out_of_memory(caught.value)
    assert not isinstance(caught.value, DeviceError)


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_compute_sanitizer_finds_nothing(tool: str) -> None:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed")
    program = textwrap.dedent(
        """
        import numpy as np
        from small_model import small_model
        from pilc_stream.backends.base import TileJob
        from pilc_stream.backends.cuda.engine import CudaEngine
        tiles = [np.random.default_rng(n).integers(0, 99, (9 + 9 * n, 80, 3)).astype(np.uint8) for n in range(6)]
        for engine in (CudaEngine(), CudaEngine(tensor_cores=False)):
            streams = engine.encode_tiles(small_model(), tiles, [n % 6 for n in range(6)])
            jobs = [TileJob(memoryview(s), *t.shape, n % 6) for n, (s, t) in enumerate(zip(streams, tiles))]
            assert all((a == b).all() for a, b in zip(engine.decode_tiles(small_model(), jobs), tiles))
        """
    )
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "codecs")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=550, env=environment)
    if "Device not supported" in done.stdout:
        pytest.skip("compute-sanitizer cannot look into this card from here")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

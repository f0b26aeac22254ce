from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from small_sets import Made, MakeDataset

torch = pytest.importorskip("torch")

from pilc_stream.errors import ChecksumError, DeviceError, ImageError, UsageError  # noqa: E402
from pilc_stream.readers.torch import StreamingImages  # noqa: E402
from pilc_stream.readers.torch_gpu import GpuDecoder  # noqa: E402
from pilc_stream.readers.torch_loader import ImageLoader  # noqa: E402


def loader_of(made: Made, workers: int = 0, **options: Any) -> ImageLoader:
    images = StreamingImages(made.url, batch_size=4, shuffle=False, output="payload", **options)
    return ImageLoader(images, workers)


def check(made: Made, batches: list[dict[str, Any]], rows: list[int]) -> None:
    keys = [key for batch in batches for key in batch["key"]]
    assert keys == [made.records[row].key for row in rows]
    found = [image.permute(1, 2, 0).numpy() for batch in batches for image in batch["image"]]
    for image, row in zip(found, rows, strict=True):
        assert np.array_equal(image, made.images[row])
    assert [label for batch in batches for label in batch["label"]] == [row % 3 for row in rows]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_decoded_in_this_process(made_set: Made, workers: int) -> None:
    decoder = GpuDecoder(loader_of(made_set, workers), "cpu")
    assert len(decoder) == 3
    batches = list(decoder)
    assert [tuple(batch["image"].shape) for batch in batches] == [(4, 3, 20, 12), (4, 3, 20, 12), (2, 3, 20, 12)]
    assert all("payload" not in batch for batch in batches)
    check(made_set, batches, list(range(10)))


@pytest.fixture
def made_set(make_dataset: MakeDataset) -> Made:
    return make_dataset([6, 4], shape=(20, 12, 3))


def test_the_state_is_the_consumers_not_the_decoders(made_set: Made) -> None:
    decoder = GpuDecoder(loader_of(made_set), "cpu", prefetch=3)
    reading = iter(decoder)
    first = [next(reading)]
    # However far ahead the decoder is.
    time.sleep(0.2)
    state = decoder.state_dict()
    reading.close()  # type: ignore[attr-defined]
    assert state["cursor"] == 4
    again = GpuDecoder(loader_of(made_set, 1), "cpu")
    again.load_state_dict(state)
    check(made_set, [*first, *again], list(range(10)))
    assert again.state_dict()["epoch"] == 1


def test_regions_transforms_and_kept_files(make_dataset: MakeDataset, file_of: Any) -> None:
    kept = np.random.default_rng(0).integers(0, 255, (9, 8, 3), np.uint8)
    made = make_dataset([5], kept={2: file_of(kept)}, shape=(20, 12, 3))
    made.images[2] = kept
    [first, second] = GpuDecoder(loader_of(made), "cpu", region=(1, 2, 4, 5), transform=lambda image: image // 2)
    assert first["image"].shape == (4, 3, 4, 5)
    found = [*first["image"], *second["image"]]
    for image, whole in zip(found, made.images, strict=True):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), whole[1:5, 2:7] // 2)
    mixed = next(iter(GpuDecoder(loader_of(made), "cpu")))
    assert [tuple(image.shape) for image in mixed["image"]] == [(3, 20, 12), (3, 20, 12), (3, 9, 8), (3, 20, 12)]


def test_bad_samples_are_handled_as_told(make_dataset: MakeDataset) -> None:
    made = make_dataset([10], kept={7: b"text"}, shape=(20, 12, 3))
    made.damage(1)
    with pytest.raises(ChecksumError, match=r"sample 'class-1/image-00001\.png'"):
        list(GpuDecoder(loader_of(made), "cpu"))
    decoder = GpuDecoder(loader_of(made), "cpu", on_error="skip")
    check(made, list(decoder), [0, 2, 3, 4, 5, 6, 8, 9])
    assert decoder.skipped == 2
    batch = {"key": ["a"], "payload": [b"text"]}
    with pytest.raises(ImageError, match="sample 'a'"):
        GpuDecoder([], "cpu").decode(batch)


def test_a_damaged_kept_file_is_found_by_the_worker(make_dataset: MakeDataset, file_of: Any) -> None:
    kept = file_of(np.zeros((9, 8, 3), np.uint8), "BMP")
    made = make_dataset([3], kept={1: kept}, shape=(20, 12, 3))
    made.damage(1)
    with pytest.raises(ChecksumError, match=r"'class-1/image-00001\.png' in .*SHA-256"):
        list(loader_of(made))


def test_errors_of_the_loader_come_through_and_threads_end(made_set: Made) -> None:
    def broken() -> Any:
        yield next(iter(loader_of(made_set)))
        raise OSError("the network is gone")

    before = threading.active_count()
    reading = iter(GpuDecoder(broken(), "cpu"))
    next(reading)
    with pytest.raises(OSError, match="network is gone"):
        next(reading)
    left = iter(GpuDecoder(loader_of(made_set), "cpu", prefetch=1))
    next(left)
    left.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_devices_that_are_not_here_and_wrong_arguments_are_refused(made_set: Made) -> None:
    if not torch.cuda.is_available():
        for name in ("cuda", "cuda:1"):
            with pytest.raises(DeviceError, match=rf"device '{name}': torch sees 0 CUDA cards"):
                GpuDecoder(loader_of(made_set), name)
    for name in ("gpu", "meta"):
        with pytest.raises(UsageError, match="give 'cpu', 'cuda' or 'cuda:N'"):
            GpuDecoder(loader_of(made_set), name)
    with pytest.raises(UsageError, match="prefetch is 0"):
        GpuDecoder(loader_of(made_set), "cpu", 0)
    with pytest.raises(UsageError, match="give GpuDecoder an ImageLoader"):
        GpuDecoder([], "cpu").state_dict()
    with pytest.raises(UsageError, match="give it to the GpuDecoder"):
        loader_of(made_set, transform=str)

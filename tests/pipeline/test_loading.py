from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilc_stream.errors import StorageError
from pilc_stream.images import pixel_sha256
from pilc_stream.pipeline import loading
from pilc_stream.pipeline.loading import LoadedImage, LoadLimits, load_batches
from pilc_stream.pipeline.statistics import StageTimes
from pilc_stream.storage import SourceFile, Store

LIMITS = LoadLimits(batch_pixels=1000, max_pixels=1 << 20, read_ahead_bytes=1 << 20, read_threads=3, decode_threads=2)


def _items(folder: Path) -> list[SourceFile]:
    store = Store.open(str(folder))
    return [SourceFile(name, name, size, store) for name, size in store.list_sizes()]


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("pilc-")]


@pytest.fixture
def images(folder_of: Callable[..., Path], photo_like: Any, file_of: Any) -> Path:
    """Twelve images of 100 pixels, one of 5,000, and two files that are none."""
    files = {f"{number:02d}.png": file_of(photo_like(10, 10, seed=number)) for number in range(12)}
    files["05-large.png"] = file_of(photo_like(50, 100))
    files["07-empty.png"] = b""
    files["08-half.png"] = files["03.png"][:80]
    return folder_of(files)


def test_all_files_come_in_order_each_with_one_outcome(images: Path) -> None:
    items = _items(images)
    loaded = [image for batch in load_batches(items, LIMITS, StageTimes()) for image in batch]
    assert [image.key for image in loaded] == [item.key for item in items]
    for image in loaded:
        assert image.data == (images / image.key).read_bytes()
        assert image.source_sha256 == hashlib.sha256(image.data).digest()
        assert bool(image.error) == (image.key in ("07-empty.png", "08-half.png"))
        assert (image.pixels is None) == bool(image.error) == (image.header is None)
        if image.pixels is not None:
            assert image.pixel_sha256 == pixel_sha256(image.pixels.array)


def test_batches_keep_to_their_pixels_or_are_a_single_image(images: Path) -> None:
    sizes = []
    for batch in load_batches(_items(images), LIMITS, StageTimes()):
        sizes.append((len(batch), sum(image.header.pixels for image in batch if image.header)))
    assert all(pixels <= 1000 or count == 1 for count, pixels in sizes)
    assert (1, 5000) in sizes
    assert max(count for count, _ in sizes) > 1


def test_batches_are_limited_in_number_too(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "MAX_BATCH_IMAGES", 2)
    batches = list(load_batches(_items(images), replace(LIMITS, batch_pixels=10**9), StageTimes()))
    assert max(map(len, batches)) == 2


@pytest.mark.parametrize("threads", [1, 5])
@pytest.mark.parametrize("read_ahead_bytes", [1, 1 << 20])
def test_threads_and_windows_change_nothing(images: Path, threads: int, read_ahead_bytes: int) -> None:
    limits = replace(LIMITS, read_threads=threads, decode_threads=threads, read_ahead_bytes=read_ahead_bytes)

    def outcome(image: LoadedImage) -> tuple[str, bytes, str]:
        return image.key, image.pixel_sha256, image.error

    def run(with_limits: LoadLimits) -> list[tuple[str, bytes, str]]:
        return [outcome(image) for batch in load_batches(_items(images), with_limits, StageTimes()) for image in batch]

    assert run(limits) == run(LIMITS)


def test_the_limit_of_pixels_makes_an_error(images: Path) -> None:
    loaded = [
        image
        for batch in load_batches(_items(images), replace(LIMITS, max_pixels=4999), StageTimes())
        for image in batch
    ]
    large = next(image for image in loaded if image.key == "05-large.png")
    assert "above the limit of 4999" in large.error
    assert large.pixels is None


def test_reading_ahead_stays_within_its_bytes(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {item.key: item.size for item in _items(images)}
    limit = 2 * max(sizes.values())
    begun: list[str] = []
    read, read_many = Store.read, Store.read_many

    def counted(store: Store, path: str) -> bytes:
        begun.append(path)
        return read(store, path)

    def counted_many(store: Store, paths: Sequence[str]) -> list[bytes]:
        begun.extend(paths)
        return read_many(store, paths)

    monkeypatch.setattr(Store, "read", counted)
    monkeypatch.setattr(Store, "read_many", counted_many)
    limits = replace(LIMITS, batch_pixels=1, read_ahead_bytes=limit, read_threads=8)
    done = 0
    for batch in load_batches(_items(images), limits, StageTimes()):
        done += sum(sizes[image.key] for image in batch)
        time.sleep(0.01)
        # Beside what was yielded: the window, one batch being decoded, one being grouped.
        assert sum(sizes[key] for key in begun) <= done + limit + 2 * max(sizes.values())
    assert len(begun) == len(sizes)


def test_small_files_are_read_many_at_a_time(folder_of: Callable[..., Path], photo_like: Any, file_of: Any) -> None:
    small = file_of(photo_like(10, 10))
    folder = folder_of({**{f"{number:03}.png": small for number in range(100)}, "050.png": bytes(1 << 17)})
    items = _items(folder)
    groups = list(loading._together(items, 1 << 20))
    assert [len(group) for group in groups] == [32, 18, 1, 32, 17]
    assert [item for group in groups for item in group] == items
    room = 10 * len(small)
    assert max(len(group) for group in loading._together(items, room)) == 10
    assert all(len(group) == 1 for group in loading._together(items, 0))


def test_files_of_different_stores_are_read_apart(folder_of: Callable[..., Path]) -> None:
    items = _items(folder_of({"a.png": b"x", "b.png": b"y"}))
    elsewhere = Store.open(items[0].store.url)
    others = [replace(item, store=elsewhere) for item in items]
    mixed = [items[0], others[0], others[1], items[1]]
    assert [len(group) for group in loading._together(mixed, 1 << 20)] == [1, 2, 1]


def test_a_file_that_cannot_be_read_ends_it_and_leaves_no_thread(images: Path) -> None:
    items = _items(images)
    (images / "09.png").unlink()
    (images / "09.png").mkdir()
    with pytest.raises(StorageError, match=r"09\.png"):
        list(load_batches(items, LIMITS, StageTimes()))
    assert _threads() == []


@pytest.mark.parametrize("small_file_bytes", [0, 1 << 16], ids=["each alone", "together"])
def test_a_file_that_is_gone_is_an_image_that_could_not_be_read(
    images: Path, small_file_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "SMALL_FILE_BYTES", small_file_bytes)
    items = _items(images)
    (images / "03.png").unlink()
    (images / "07.png").unlink()
    loaded = [image for batch in load_batches(items, LIMITS, StageTimes()) for image in batch]
    assert [image.key for image in loaded] == [item.key for item in items]
    gone = [image for image in loaded if image.failed_stage == "read"]
    assert [image.key for image in gone] == ["03.png", "07.png"]
    assert all((image.data, image.error) == (b"", loading.GONE) for image in gone)


def test_closing_early_leaves_no_thread(images: Path) -> None:
    batches = load_batches(_items(images), LIMITS, StageTimes())
    next(batches)
    assert _threads()
    batches.close()
    assert _threads() == []


def test_times_are_counted(images: Path) -> None:
    times = StageTimes()
    list(load_batches(_items(images), LIMITS, times))
    assert times.read > 0
    assert times.decode > 0
    assert times.code == times.write == 0


def test_sixteen_bit_digests_are_little_endian() -> None:
    array = np.array([[1, 256]], np.uint16)
    assert pixel_sha256(array) == hashlib.sha256(b"\x01\x00\x00\x01").digest()
    assert pixel_sha256(array.astype(">u2")) == pixel_sha256(array)
    assert pixel_sha256(np.arange(12, dtype=np.uint8).reshape(3, 4).T) != pixel_sha256(np.arange(12, dtype=np.uint8))

from __future__ import annotations

import pickle
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_sets import CountingStore, Made, MakeDataset, make_set

from pilc_stream.errors import ChecksumError, FormatError, UsageError
from pilc_stream.readers import dataset as room
from pilc_stream.readers.dataset import Dataset
from pilc_stream.readers.regions import HEAD_BYTES, RandomResizedCrop
from pilc_stream.records.payload import tile_ranges
from pilc_stream.records.tiling import Region

LARGE = (700, 900, 3)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Images of several tiles each, as noise of few levels: they are coded, and large."""
    return make_set(str(tmp_path_factory.mktemp("large") / "set"), [2, 1], shape=LARGE, levels=16, profile="fast")


def cut(image: np.ndarray, region: Any) -> np.ndarray:
    y, x, height, width = region
    return image[y : y + height, x : x + width]


def reads_of(dataset: Dataset) -> list[tuple[str, int, int]]:
    store = dataset.manifest.store
    assert isinstance(store, CountingStore)
    return store.reads


def test_a_region_is_that_of_the_image_and_costs_what_its_tiles_cost(large: Made) -> None:
    dataset = Dataset(large.manifest)
    dataset.read_many([0, 2])
    payload_bytes = len(large.records[1].payload)
    header, ranges = tile_ranges(large.records[1].payload, payload_bytes)
    assert large.records[1].codec == "wave"
    for region in [(0, 0, 1, 1), (100, 200, 40, 300), (699, 899, 1, 1), (650, 10, 50, 880)]:
        reads_of(dataset).clear()
        assert np.array_equal(dataset.read(1, region).pixels, cut(large.images[1], region))
        touched = sum(ranges[tile][1] for tile in header.tiling.touching(Region(*region)))
        assert sum(length for _, _, length in reads_of(dataset)) == HEAD_BYTES + touched < payload_bytes / 1.4
    reads_of(dataset).clear()
    assert np.array_equal(dataset.read(1).pixels, large.images[1])
    assert [length for _, _, length in reads_of(dataset)] == [payload_bytes]


def test_many_regions_are_read_together(large: Made) -> None:
    dataset = Dataset(large.manifest)
    rows = [2, 0, 0, 1, -1]
    regions = [(5, 5, 30, 30), (0, 0, 700, 10), (600, 0, 100, 900), None, lambda height, width: (height - 1, 0, 1, 9)]
    wanted = [(5, 5, 30, 30), (0, 0, 700, 10), (600, 0, 100, 900), (0, 0, 700, 900), (699, 0, 1, 9)]
    for row, sample, region in zip(rows, dataset.read_many(rows, regions), wanted, strict=True):
        assert np.array_equal(sample.pixels, cut(large.images[row], region))
        assert sample.key == large.records[row].key
    key = large.records[1].key
    assert np.array_equal(dataset.get(key, (3, 4, 5, 6)).pixels, cut(large.images[1], (3, 4, 5, 6)))
    with pytest.raises(UsageError, match="2 regions were given for 1 samples"):
        dataset.read_many([1], [None, None])


@given(st.data())
def test_any_region_of_any_kind_of_record(small: Made, data: st.DataObject) -> None:
    dataset = Dataset(small.manifest, verify=True)
    row = data.draw(st.integers(0, len(dataset) - 1))
    whole = dataset[row].pixels
    y, x = data.draw(st.integers(0, whole.shape[0] - 1)), data.draw(st.integers(0, whole.shape[1] - 1))
    region = y, x, data.draw(st.integers(1, whole.shape[0] - y)), data.draw(st.integers(1, whole.shape[1] - x))
    found = dataset.read(row, region).pixels
    assert np.array_equal(found, cut(whole, region))
    assert found.base is None


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, file_of: Any) -> Made:
    kept = {1: file_of(np.arange(60, dtype=np.uint8).reshape(5, 4, 3)), 3: file_of(np.full((7, 3), 9, np.uint8))}
    return make_set(str(tmp_path_factory.mktemp("small") / "set"), [4, 3], kept=kept, profile="fast")


def test_a_region_outside_is_refused(large: Made, small: Made) -> None:
    for dataset, row, region in [(large, 0, (0, 0, 701, 1)), (small, 0, (0, 0, 50, 1)), (small, 1, (4, 0, 2, 1))]:
        with pytest.raises(UsageError, match="does not lie inside the image of"):
            room.open(dataset.url).read(row, region)
    with pytest.raises(UsageError, match=r"not \(y, x, height, width\)"):
        room.open(large.url).read(0, (1, 2, 3))


def test_damage_elsewhere_is_no_concern_of_a_region(make_dataset: MakeDataset) -> None:
    made = make_dataset([2], shape=(300, 600, 3), levels=16, profile="fast")
    made.damage(1)
    dataset = room.open(made.url)
    with pytest.raises(ChecksumError):
        dataset[1]
    assert np.array_equal(dataset.read(1, (0, 0, 20, 20)).pixels, made.images[1][:20, :20])
    with pytest.raises(ChecksumError, match=r"'class-1/image-00001\.png' in"):
        dataset.read(1, (299, 599, 1, 1))


@pytest.mark.parametrize("at", [0, 2, 4, 6, 8, 12, 13])
def test_a_damaged_head_is_found_whatever_region(make_dataset: MakeDataset, at: int) -> None:
    made = make_dataset([2], shape=(300, 600, 3), levels=16, profile="fast")
    made.damage(1, at)
    with pytest.raises(FormatError, match=r"'class-1/image-00001\.png' in"):
        room.open(made.url).read(1, (10, 20, 30, 40))


def test_a_data_set_of_regions(large: Made, small: Made) -> None:
    dataset = room.open(large.url, region=(10, 20, 30, 40))
    for row, sample in enumerate(dataset):
        assert np.array_equal(sample.pixels, large.images[row][10:40, 20:60])
        assert np.array_equal(dataset[row].pixels, sample.pixels)
    assert dataset.with_columns([])[0].pixels.shape == (30, 40, 3)
    assert dataset.read(0, (0, 0, 2, 2)).pixels.shape == (2, 2, 3)
    crops = room.open(small.url, region=RandomResizedCrop())
    for sample, whole in zip(crops, room.open(small.url), strict=True):
        assert all(1 <= a <= b for a, b in zip(sample.pixels.shape[:2], whole.pixels.shape[:2], strict=True))


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_random_crops_lie_inside(height: int, width: int) -> None:
    y, x, rows, columns = RandomResizedCrop()(height, width)
    assert y >= 0
    assert x >= 0
    assert 1 <= rows <= height - y
    assert 1 <= columns <= width - x


def test_random_crops_keep_their_shares_and_ratios_and_follow_the_seed() -> None:
    crop = pickle.loads(pickle.dumps(RandomResizedCrop(scale=(0.2, 0.5), ratio=(0.5, 2.0))))
    random.seed(5)
    found = [crop(1000, 1500) for _ in range(500)]
    random.seed(5)
    assert [crop(1000, 1500) for _ in range(500)] == found
    shares = [part.height * part.width / 1_500_000 for part in found]
    assert 0.199 < min(shares) < 0.21
    assert 0.49 < max(shares) < 0.501
    ratios = [part.width / part.height for part in found]
    assert 0.49 < min(ratios) < 0.55
    assert 1.8 < max(ratios) < 2.02
    # Too flat for any such crop: what comes closest.
    assert crop(10, 1000) == (0, 490, 10, 20)
    with pytest.raises(UsageError, match="give shares"):
        RandomResizedCrop(scale=(0, 1))

from __future__ import annotations

import os
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_sets import CountingStore, MakeDataset, image_of

from pilc_stream.codecs import Decoder
from pilc_stream.errors import (
    ChecksumError,
    FormatError,
    ImageError,
    ManifestError,
    PilcError,
    StorageError,
    UnknownKeyError,
    UsageError,
    VerifyError,
)
from pilc_stream.readers import dataset as room
from pilc_stream.readers import samples, shards
from pilc_stream.readers.dataset import Dataset, Sample


def test_every_row_comes_back_by_index_key_and_iteration(make_dataset: MakeDataset) -> None:
    made = make_dataset([5, 0, 1, 7])
    ds = room.open(made.url)
    assert len(ds) == 13
    assert ds.shard_rows == (5, 0, 1, 7)
    keys = list(ds.keys())
    assert keys == [record.key for record in made.records]
    for row, sample in enumerate(ds):
        for other in (sample, ds[row], ds[row - 13], ds.get(keys[row])):
            assert other.key == keys[row]
            assert np.array_equal(other.pixels, made.images[row])
            assert other.columns == {"label": row % 3, "name": f"name {row}"}
        assert ds.payload(row) == made.records[row].payload
        assert ds.index(keys[row]) == row
    assert row == 12


def test_an_image_costs_one_ranged_read(make_dataset: MakeDataset) -> None:
    made = make_dataset([40, 40])
    store = made.manifest.store
    assert isinstance(store, CountingStore)
    ds = Dataset(made.manifest)
    ds.__getitems__([3, 50])
    for row in (0, 17, 39, 79):
        store.reads.clear()
        assert np.array_equal(ds[row].pixels, made.images[row])
        assert len(store.reads) == 1
        assert store.reads[0][2] == len(made.records[row].payload)
    store.reads.clear()
    ds.payload(7)
    assert len(store.reads) == 1


def test_neighbours_are_read_together(make_dataset: MakeDataset) -> None:
    made = make_dataset([40, 40])
    store = made.manifest.store
    assert isinstance(store, CountingStore)
    ds = Dataset(made.manifest)
    ds.__getitems__([0, 79])
    store.reads.clear()
    samples = ds[10:60]
    assert [sample.key for sample in samples] == [record.key for record in made.records[10:60]]
    assert len(store.reads) == 2
    store.reads.clear()
    rows = [70, -1, 3, 3, 12]
    for row, sample in zip(rows, ds.__getitems__(rows), strict=True):
        assert np.array_equal(sample.pixels, made.images[row])
    assert len(store.reads) == 2
    assert [sample.key for sample in ds[::-7]] == [record.key for record in made.records[::-7]]
    assert ds[5:5] == []


def test_numpy_integers_are_indices_and_others_are_not(make_dataset: MakeDataset) -> None:
    ds = room.open(make_dataset([3]).url)
    assert ds[np.int32(1)].key == ds[1].key
    wrong: Any = 1.0
    with pytest.raises(TypeError):
        ds[wrong]


@pytest.mark.parametrize("index", [4, -5, 10**20])
def test_an_index_outside_says_what_there_is(make_dataset: MakeDataset, index: int) -> None:
    ds = room.open(make_dataset([3, 1]).url)
    for access in (ds.__getitem__, ds.payload):
        with pytest.raises(IndexError, match=f"no sample {index}; the data set has 4, so indices go from -4 to 3"):
            access(index)


def test_an_unknown_key_names_close_ones(make_dataset: MakeDataset) -> None:
    ds = room.open(make_dataset([30]).url)
    with pytest.raises(UnknownKeyError, match=r"among 30\. Did you mean .*'class-1/image-00004.png'") as caught:
        ds.get("class-1/image-00004.jpg")
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, PilcError)
    # The right name in the wrong folder.
    with pytest.raises(KeyError, match=r"'class-2/image-00005\.png'"):
        ds.get("train/image-00005.png")
    with pytest.raises(KeyError, match=r"has the key 'zzz' among 30\.$"):
        ds.get("zzz")
    with pytest.raises(KeyError, match="key ''"):
        ds.get("")


def test_an_empty_data_set(make_dataset: MakeDataset) -> None:
    ds = room.open(make_dataset([]).url)
    assert len(ds) == 0
    assert list(ds) == []
    assert list(ds.keys()) == []
    assert ds[:] == []
    assert ds.columns == ()
    with pytest.raises(IndexError):
        ds[0]
    with pytest.raises(KeyError):
        ds.get("a")


def test_columns_are_those_asked_for(make_dataset: MakeDataset) -> None:
    made = make_dataset([4])
    assert room.open(made.url).columns == ("label", "name")
    ds = room.open(made.url, columns=["width", "label", "codec"])
    assert ds[2].columns == {"width": made.records[2].width, "label": 2, "codec": "raw"}
    assert room.open(made.url, columns=[])[2].columns == {}
    with pytest.raises(UsageError, match=r"no column 'lable'\. It has key, codec, .*label, name"):
        room.open(made.url, columns=["lable"])
    with pytest.raises(UsageError, match="a single text"):
        room.open(made.url, columns="label")


def test_kept_files_are_decoded_as_their_own_format(make_dataset: MakeDataset, file_of: Any) -> None:
    grey, alpha = image_of(1, (5, 6)), image_of(2, (4, 3, 4))
    made = make_dataset([3, 2], kept={1: file_of(grey, "WEBP", lossless=True), 3: file_of(alpha)})
    ds = room.open(made.url, verify=True)
    assert np.array_equal(ds[1].pixels[..., 0], grey)
    assert np.array_equal(ds[3].pixels, alpha)
    assert ds.payload(3) == made.records[3].payload
    assert [sample.key for sample in ds] == [record.key for record in made.records]
    assert np.array_equal(ds[4].pixels, made.images[4])


def test_a_kept_file_that_is_no_image_fails_alone(make_dataset: MakeDataset) -> None:
    made = make_dataset([4], kept={2: b"hello, I am text"})
    ds = room.open(made.url)
    with pytest.raises(ImageError, match=r"sample 2, 'class-2/image-00002.png' in .*part-000000-.*the file is text"):
        ds[2]
    assert [ds[row].key[-9:] for row in (0, 1, 3)] == ["00000.png", "00001.png", "00003.png"]
    with pytest.raises(ImageError):
        ds[:]


def test_images_of_the_wave_codec(make_dataset: MakeDataset, file_of: Any) -> None:
    photo = image_of(5, (6, 5, 3))
    made = make_dataset([5, 3], kept={6: file_of(photo)}, profile="fast")
    assert made.records[0].codec == "wave"
    for device in ("auto", "cpu"):
        ds = room.open(made.url, device=device, verify=True)
        samples = ds[:]
        assert np.array_equal(samples.pop(6).pixels, photo)
        for sample, row in zip(samples, (0, 1, 2, 3, 4, 5, 7), strict=True):
            assert np.array_equal(sample.pixels, made.images[row])
    made.damage(3, 30)
    assert isinstance(ds.decode([3], [ds.payload(3)])[0], ChecksumError)
    skipping = room.open(made.url, on_error="skip")
    assert len(list(skipping)) == 7


@pytest.mark.parametrize("at", [0, 1, 3, 4, -1])
def test_a_flipped_bit_is_found_at_its_sample(make_dataset: MakeDataset, at: int) -> None:
    made = make_dataset([6, 6])
    made.damage(8, at)
    ds = room.open(made.url)
    path = made.manifest.shards[1].path
    with pytest.raises(FormatError, match=rf"sample 8, 'class-2/image-00008.png' in .*{path}: .*Restore"):
        ds[8]
    for row in (7, 9):
        assert np.array_equal(ds[row].pixels, made.images[row])


def test_a_flipped_bit_in_a_kept_file_is_found(make_dataset: MakeDataset, file_of: Any) -> None:
    made = make_dataset([3], kept={1: file_of(image_of(0, (9, 9, 3)), "BMP")})
    made.damage(1)
    with pytest.raises(ChecksumError, match=r"'class-1/image-00001\.png' in .*SHA-256"):
        room.open(made.url)[1]


def test_verify_compares_the_pixels(make_dataset: MakeDataset) -> None:
    made = make_dataset([4])
    # Sound payloads in the wrong rows: only the digest can tell.
    entry = made.manifest.shards[0]
    ranges = made.manifest.byte_ranges(0)
    ranges[0], ranges[3] = ranges[3], ranges[0]

    class Swapped(type(made.manifest)):  # type: ignore[misc]
        def range_array(self, shard_index: int) -> np.ndarray:
            return np.array(ranges, np.int64)

    manifest = Swapped(made.manifest.store, made.manifest.job, (entry,), True)
    assert np.array_equal(Dataset(manifest)[0].pixels, made.images[3])
    ds = Dataset(manifest, verify=True)
    with pytest.raises(VerifyError, match=r"'class-0/image-00000\.png' in .*not those that were compressed"):
        ds[0]
    assert np.array_equal(ds[1].pixels, made.images[1])


def test_iteration_goes_on_as_told(make_dataset: MakeDataset) -> None:
    made = make_dataset([5, 5], kept={7: b"text"})
    made.damage(2)
    good = [row for row in range(10) if row not in (2, 7)]
    with pytest.raises(ChecksumError, match="sample 2"):
        list(room.open(made.url))
    ds = room.open(made.url, on_error="skip")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = list(ds)
    assert [sample.key for sample in found] == [made.records[row].key for row in good]
    assert ds.skipped == 2
    ds = room.open(made.url, on_error="warn")
    with pytest.warns(UserWarning, match="left out") as caught:
        assert len(list(ds)) == 8
    assert sorted("sample 2" in str(warning.message) for warning in caught) == [False, True]
    with pytest.raises(UsageError, match="on_error is 'ignore'; give one of 'raise', 'skip', 'warn'"):
        room.open(made.url, on_error="ignore")  # type: ignore[arg-type]


def test_a_damaged_footer_costs_its_shard_only(make_dataset: MakeDataset) -> None:
    made = make_dataset([3, 3])
    path = made.path / made.manifest.shards[0].path
    made.flip(path, path.stat().st_size - 20)
    ds = room.open(made.url, on_error="skip")
    with pytest.raises(FormatError, match=path.name):
        ds[1]
    assert np.array_equal(ds[4].pixels, made.images[4])
    assert [sample.key for sample in ds] == [record.key for record in made.records[3:]]
    assert ds.skipped == 3


def test_a_missing_shard_is_no_bad_sample(make_dataset: MakeDataset) -> None:
    made = make_dataset([3, 3])
    (made.path / made.manifest.shards[1].path).unlink()
    ds = room.open(made.url, on_error="skip")
    with pytest.raises(StorageError, match="part-000001"):
        list(ds)


def test_what_is_no_data_set_is_refused(tmp_path: Path, make_dataset: MakeDataset) -> None:
    with pytest.raises(ManifestError, match="no data set here"):
        room.open(str(tmp_path / "nowhere"))
    made = make_dataset([3, 2], done=False)
    with pytest.raises(ManifestError, match="not finished"):
        room.open(made.url)
    assert len(room.open(made.url, allow_partial=True)) == 5


def read_keys(ds: Dataset, rows: list[int]) -> list[tuple[str, bytes]]:
    return [(ds[row].key, ds[row].pixels.tobytes()) for row in rows]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_used_data_set_goes_to_other_processes(make_dataset: MakeDataset, method: str) -> None:
    made = make_dataset([4, 4])
    ds = room.open(made.url)
    rows = [6, 0, 3]
    expected = read_keys(ds, rows)
    assert ds.get(expected[0][0]).key == expected[0][0]
    with get_context(method).Pool(1) as pool:
        assert pool.apply(read_keys, (ds, rows)) == expected


def test_a_data_set_is_picklable_before_and_after_use(make_dataset: MakeDataset) -> None:
    ds = room.open(make_dataset([4]).url, columns=["label"], on_error="warn")
    fresh = pickle.loads(pickle.dumps(ds))
    assert ds[1].key == fresh[1].key
    used = pickle.loads(pickle.dumps(ds))
    assert used[2].columns == {"label": 2}
    assert used.on_error == "warn"
    assert len(pickle.dumps(ds)) < 4000


def test_threads_may_share_a_data_set(make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_dataset([10] * 6)
    # So small that shards come and go under the readers.
    monkeypatch.setattr(shards, "KEPT_BYTES", 1500)
    ds = room.open(made.url)
    rows = np.random.default_rng(0).integers(0, 60, 200).tolist()
    with ThreadPoolExecutor(4) as pool:
        for row, sample in zip(rows, pool.map(ds.__getitem__, rows), strict=True):
            assert np.array_equal(sample.pixels, made.images[row])


def test_threads_and_forked_processes_share_what_decodes(
    make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = make_dataset([12])
    opened = tmp_path / "opened"
    opened.touch()

    class Counted(Decoder):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            with opened.open("a") as file:
                file.write(f"{os.getpid()}\n")

    monkeypatch.setattr(samples, "Decoder", Counted)
    ds = room.open(made.url)
    ds.warm_up()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ds.__getitem__, range(12)))
    child = get_context("fork").Process(target=ds.__getitem__, args=(3,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert opened.read_text().split() == [str(os.getpid())]


def test_nothing_is_asked_of_a_shard_whose_ranges_are_lost(make_dataset: MakeDataset) -> None:
    made = make_dataset([3, 3])
    (made.path / "_pilc/commits/000001.json").write_bytes(b"{}")
    ds = Dataset(made.manifest, on_error="skip")
    made.manifest.store.reads.clear()  # type: ignore[attr-defined]
    assert len(list(ds)) == 3
    assert ds.skipped == 3
    assert all(length for _, _, length in made.manifest.store.reads)  # type: ignore[attr-defined]


def test_streaming_any_rows_with_little_memory(make_dataset: MakeDataset) -> None:
    made = make_dataset([20, 20], kept={30: b"text"})
    ds = room.open(made.url)
    rows = np.random.default_rng(1).permutation(40)
    runs = [rows[:15], rows[:0], rows[15:]]
    seen = list(ds.stream(runs, prefetch_bytes=300))
    assert [row for row, _ in seen] == rows.tolist()
    for row, found in seen:
        if row == 30:
            assert isinstance(found, ImageError)
        else:
            assert isinstance(found, Sample)
            assert np.array_equal(found.pixels, made.images[row])


def test_real_photographs_come_back(shared_data: Path, make_dataset: MakeDataset) -> None:
    files = sorted((shared_data / "eval" / "kodak").iterdir())[:2]
    made = make_dataset([2], kept={row: path.read_bytes() for row, path in enumerate(files)})
    for sample, path in zip(room.open(made.url), files, strict=True):
        with Image.open(path) as image:
            assert np.array_equal(sample.pixels, np.asarray(image))

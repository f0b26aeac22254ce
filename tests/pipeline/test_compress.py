from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pilc_stream.codecs import Codec, Decoder, open_codec
from pilc_stream.errors import DeviceError, ModelError, StorageError, UsageError
from pilc_stream.images import Pixels, decode_image, source_of
from pilc_stream.pipeline import coding
from pilc_stream.pipeline.compress import CompressSettings, ShardResult, compress_shard, make_shard
from pilc_stream.pipeline.plan import ShardTask, plan_shards
from pilc_stream.pipeline.statistics import ShardStatistics
from pilc_stream.records.commit import committed_indices, put_model, read_commit, read_errors, read_model
from pilc_stream.records.record import SOURCE_CODEC
from pilc_stream.records.shard import read_table
from pilc_stream.storage import Store, expand

Rows = list[dict[str, Any]]


class Raw:
    """The codec `raw`, with a chance to misbehave: a subclass overrides one method."""

    name = "raw"
    profile = "raw"
    model_sha256 = ""
    model_bytes = b""

    def __init__(self) -> None:
        self.raw: Codec = open_codec("raw")

    def refuses(self, image: Any) -> str | None:
        return None

    def encode(self, images: Sequence[Any], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
        return self.raw.encode(images, extras)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "dataset"))


@pytest.fixture
def bitmaps(folder_of: Callable[..., Path], photo_like: Any, file_of: Any) -> Path:
    """Ten BMP files, which the codec `raw` makes a little smaller."""
    return folder_of({f"{number:02d}.bmp": file_of(photo_like(8, 8, seed=number), "BMP") for number in range(10)})


def _task(folder: Path) -> ShardTask:
    (task,) = plan_shards(expand([str(folder)]), 1 << 30)
    return task


def _rows(store: Store, result: ShardResult) -> Rows:
    file = store.read(result.entry.path)
    assert hashlib.sha256(file).hexdigest() == result.entry.sha256
    table = read_table(file, "test")
    rows: Rows = table.to_pylist()
    ranges = read_commit(store, result.entry.index).ranges
    for row, (offset, length) in zip(rows, ranges.tolist(), strict=True):
        row["payload"] = row.pop("image")["bytes"]
        assert file[offset : offset + length] == row["payload"]
    return rows


def _assert_sound(rows: Rows, folder: Path) -> None:
    """Every record holds its source, exactly, and no more bytes than it."""
    decoder = Decoder()
    for row in rows:
        source = (folder / row["key"]).read_bytes()
        assert row["source_bytes"] == len(source)
        assert row["source_sha256"] == hashlib.sha256(source).digest()
        assert len(row["payload"]) <= len(source), "law 4: never larger"
        if row["codec"] == SOURCE_CODEC:
            assert row["payload"] == source
        else:
            (pixels,) = decoder.decode([row["payload"]])
            wanted = decode_image(source)
            np.testing.assert_array_equal(pixels, wanted.array)
            assert decoder.extras(row["payload"]) == wanted.extras
            assert row["mode"] == wanted.mode


def test_records_say_what_the_sources_are(folder_of: Any, photo_like: Any, file_of: Any, store: Store) -> None:
    colour, grey = photo_like(20, 30), photo_like(9, 7, None)
    folder = folder_of(
        {"a/grey.bmp": file_of(grey, "TIFF"), "a/photo.bmp": file_of(colour, "BMP"), "b.png": file_of(colour)}
    )
    result = make_shard(_task(folder), open_codec("raw"), store)
    rows = _rows(store, result)
    _assert_sound(rows, folder)
    assert [row["key"] for row in rows] == ["a/grey.bmp", "a/photo.bmp", "b.png"]
    assert [row["codec"] for row in rows] == ["raw", "raw", "source"]
    photo = rows[1]
    assert (photo["width"], photo["height"], photo["channels"], photo["bit_depth"]) == (30, 20, 3, 8)
    assert (photo["mode"], photo["raw_bytes"], photo["model"]) == ("RGB", 1800, "")
    assert photo["pixel_sha256"] == hashlib.sha256(colour.tobytes()).digest() == rows[2]["pixel_sha256"]
    entry = result.entry
    assert (entry.rows, entry.failed, entry.fallback) == (3, 0, 1)
    assert entry.raw_bytes == entry.sub_pixels == 63 + 1800 + 1800
    assert entry.source_bytes == sum(path.stat().st_size for path in folder.rglob("*.*"))
    assert entry.payload_bytes == sum(len(row["payload"]) for row in rows)
    assert entry.seconds > 0
    statistics = result.statistics
    assert statistics is not None
    assert statistics.fallback == {"not smaller than the source": 1}
    assert statistics.codecs == {"raw": 2, "source": 1}
    assert statistics.verified == 2
    assert statistics.coded_sub_pixels == 63 + 1800
    assert json.loads(json.dumps(statistics.to_json()))["seconds"].keys() == {
        *("read", "decode", "code", "verify", "write")
    }


def test_a_picture_that_is_stored_turned_is_recorded_upright(
    folder_of: Any, photo_like: Any, file_of: Any, store: Store
) -> None:
    folder = folder_of({"turned.tif": file_of(photo_like(6, 4), "TIFF", tiffinfo={274: 6})})
    result = make_shard(_task(folder), open_codec("raw"), store)
    (row,) = _rows(store, result)
    _assert_sound([row], folder)
    assert (row["codec"], row["width"], row["height"]) == ("raw", 6, 4)


def test_a_tie_keeps_the_payload(bitmaps: Path, store: Store) -> None:
    class Padded(Raw):
        """Payloads exactly as long as the sources, or one byte longer."""

        def encode(self, images: Sequence[Any], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
            return [bytes(sizes[0] + image.tobytes()[0] % 2) for image in images]

    sizes = [item.size for item in _task(bitmaps).items]
    odd = [decode_image(path.read_bytes()).array.reshape(-1)[0] % 2 for path in sorted(bitmaps.iterdir())]
    assert 0 < sum(odd) < len(odd)
    result = make_shard(_task(bitmaps), Padded(), store, CompressSettings(verify="none"))
    assert [row["codec"] for row in _rows(store, result)] == ["source" if longer else "raw" for longer in odd]


def test_bad_files_cost_themselves_only(folder_of: Any, photo_like: Any, file_of: Any, store: Store) -> None:
    png = file_of(photo_like(40, 40))
    folder = folder_of(
        {
            "good-1.bmp": file_of(photo_like(20, 30), "BMP"),
            "good-2.bmp": file_of(photo_like(20, 30, seed=1), "BMP"),
            "half.png": png[: len(png) // 2],
            "nothing.png": b"",
            "text.jpg": b"this is not a picture\n",
        }
    )
    result = make_shard(_task(folder), open_codec("raw"), store)
    rows = _rows(store, result)
    _assert_sound(rows, folder)
    assert [row["codec"] for row in rows] == ["raw", "raw", "source", "source", "source"]
    for row in rows[2:]:
        assert (row["width"], row["height"], row["channels"], row["bit_depth"]) == (0, 0, 0, 0)
        assert (row["mode"], row["raw_bytes"], row["pixel_sha256"]) == ("", 0, bytes(32))
    assert (result.entry.failed, result.entry.fallback) == (3, 0)
    errors = read_errors(store, 0)
    assert tuple(errors) == result.errors
    assert [(error.key, error.stage) for error in errors] == [
        ("half.png", "decode"),
        ("nothing.png", "decode"),
        ("text.jpg", "decode"),
    ]
    assert "truncated" in errors[0].reason
    assert errors[1].reason == "the file is empty"
    assert "is text" in errors[2].reason


def test_what_is_not_taken_is_counted_not_listed(folder_of: Any, photo_like: Any, file_of: Any, store: Store) -> None:
    inks, floats = io.BytesIO(), io.BytesIO()
    Image.fromarray(photo_like(12, 16, 4), "CMYK").save(inks, "TIFF")
    Image.fromarray(photo_like(8, 8, None).astype(np.float32)).save(floats, "TIFF")
    folder = folder_of(
        {
            "inks.tif": inks.getvalue(),
            "inks-2.tif": inks.getvalue(),
            "floats.tif": floats.getvalue(),
            "key.png": file_of(photo_like(8, 8, None), transparency=7),
        }
    )
    result = make_shard(_task(folder), open_codec("raw"), store)
    rows = _rows(store, result)
    _assert_sound(rows, folder)
    assert (result.entry.failed, result.entry.fallback, result.errors) == (0, 4, ())
    assert result.statistics is not None
    reasons = {"CMYK colours": 2, "floating-point samples": 1, "transparent colour": 1}
    assert result.statistics.fallback == reasons
    kept = next(row for row in rows if row["key"] == "inks.tif")
    assert (kept["width"], kept["height"], kept["channels"], kept["mode"]) == (16, 12, 4, "CMYK")
    assert (kept["raw_bytes"], kept["pixel_sha256"]) == (0, bytes(32))
    assert result.entry.sub_pixels == 0


@pytest.mark.parametrize("keep", ["display", "pixels", "source"])
def test_what_is_kept_of_files_of_all_modes(
    keep: Any, folder_of: Any, photo_like: Any, file_of: Any, store: Store
) -> None:
    palette, bits = io.BytesIO(), io.BytesIO()
    Image.fromarray(photo_like(40, 40)).quantize(16).save(palette, "BMP")
    Image.fromarray(photo_like(40, 40, None) > 120).save(bits, "PNG")
    folder = folder_of(
        {
            "alpha.tif": file_of(photo_like(40, 44, 4), "TIFF"),
            "bits.png": bits.getvalue(),
            "colour.bmp": file_of(photo_like(40, 44), "BMP", dpi=(96, 96)),
            "deep.tif": file_of(photo_like(40, 44, None).astype(np.uint16) * 255, "TIFF"),
            "palette.bmp": palette.getvalue(),
        }
    )
    result = make_shard(_task(folder), open_codec("fast", "cpu"), store, CompressSettings(keep=keep))
    rows = _rows(store, result)
    assert result.errors == ()
    modes = {row["key"]: (row["mode"], row["channels"], row["bit_depth"]) for row in rows if row["codec"] != "source"}
    expected = {
        "alpha.tif": ("RGBA", 4, 8),
        "bits.png": ("1", 1, 8),
        "colour.bmp": ("RGB", 3, 8),
        "deep.tif": ("I;16", 1, 16),
        "palette.bmp": ("P", 1, 8),
    }
    if keep == "source":
        # What is compressed is kept as it came.
        del expected["bits.png"]
    assert modes == expected
    for row in rows:
        source = (folder / row["key"]).read_bytes()
        if row["codec"] == "source":
            assert row["payload"] == source
            continue
        assert len(row["payload"]) < len(source)
        decoder = Decoder("cpu")
        pixels = Pixels(decoder.decode([row["payload"]])[0], row["mode"], decoder.extras(row["payload"]))
        assert source_of(pixels) == (source if keep == "source" else None)
        assert np.array_equal(pixels.array, decode_image(source).array)
        assert bool(pixels.extras) == (
            keep == "source" or (keep == "display" and row["key"] != "bits.png") or row["mode"] == "P"
        )


def test_refusals_of_the_codec_are_counted_with_its_name(bitmaps: Path, store: Store) -> None:
    class Picky(Raw):
        def refuses(self, image: Any) -> str | None:
            return "too blue"

        def encode(self, images: Sequence[Any], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
            raise AssertionError("asked to encode what it refused")

    result = make_shard(_task(bitmaps), Picky(), store)
    assert result.statistics is not None
    assert result.statistics.fallback == {"raw: too blue": 10}
    assert result.entry.raw_bytes == 10 * 192


@pytest.mark.parametrize(
    "changed",
    [
        CompressSettings(batch_pixels=1),
        CompressSettings(batch_pixels=200, decode_threads=1, read_threads=1, read_ahead_bytes=1),
        CompressSettings(verify="none"),
        CompressSettings(verify="sample"),
    ],
)
def test_settings_do_not_change_the_bytes(bitmaps: Path, tmp_path: Path, changed: CompressSettings) -> None:
    entries = [
        compress_shard(_task(bitmaps), open_codec("raw"), Store.open(str(tmp_path / name)), chosen)
        for name, chosen in (("one", CompressSettings()), ("two", changed))
    ]
    assert entries[0].sha256 == entries[1].sha256
    assert entries[0].path == entries[1].path


def test_a_committed_shard_is_left_alone(bitmaps: Path, store: Store) -> None:
    class Untouchable(Raw):
        def encode(self, images: Sequence[Any], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
            raise AssertionError("a committed shard was made again")

    first = make_shard(_task(bitmaps), open_codec("raw"), store)
    before = {path: store.read(path) for path in store.list("")}
    again = make_shard(_task(bitmaps), Untouchable(), store)
    assert again.entry == first.entry
    assert again.statistics is None
    assert {path: store.read(path) for path in store.list("")} == before


def test_progress_hears_of_every_batch(bitmaps: Path, store: Store) -> None:
    done: list[list[tuple[str, int]]] = []
    result = make_shard(
        _task(bitmaps),
        open_codec("raw"),
        store,
        CompressSettings(batch_pixels=200),
        progress=lambda records, times: done.append([(record.key, len(record.payload)) for record in records]),
    )
    assert [len(batch) for batch in done] == [3, 3, 3, 1]
    stored = [(row["key"], len(row["payload"])) for row in _rows(store, result)]
    assert [each for batch in done for each in batch] == stored


def test_statistics_add_up(bitmaps: Path, tmp_path: Path) -> None:
    total = ShardStatistics()
    for name in ("one", "two"):
        result = make_shard(_task(bitmaps), open_codec("raw"), Store.open(str(tmp_path / name)))
        assert result.statistics is not None
        total.add(result.statistics)
    assert (total.codecs, total.verified, total.coded_sub_pixels) == ({"raw": 20}, 20, 20 * 192)
    assert total.times.code >= result.statistics.times.code > 0


def test_a_rival_that_commits_first_wins(bitmaps: Path, store: Store) -> None:
    class Slow(Raw):
        """Another driver commits the same shard while this one encodes."""

        def encode(self, images: Sequence[Any], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
            if not committed_indices(store):
                rival.append(compress_shard(_task(bitmaps), open_codec("raw"), store))
            return super().encode(images, extras)

    rival: list[Any] = []
    assert compress_shard(_task(bitmaps), Slow(), store) == rival[0]
    assert committed_indices(store) == {0}


class OneBad(Raw):
    """Fails on one image, whatever batch it is in."""

    def __init__(self, bad: bytes) -> None:
        super().__init__()
        self.bad = bad

    def encode(self, images: Sequence[Any], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
        if any(image.tobytes() == self.bad for image in images):
            raise IndexError("a bug on this picture")
        return super().encode(images, extras)


@pytest.mark.parametrize("batch_pixels", [1, 1 << 20])
def test_an_image_that_the_codec_fails_on_is_kept_and_listed(
    bitmaps: Path, store: Store, photo_like: Any, batch_pixels: int
) -> None:
    codec = OneBad(photo_like(8, 8, seed=4).tobytes())
    result = make_shard(_task(bitmaps), codec, store, CompressSettings(batch_pixels=batch_pixels))
    rows = _rows(store, result)
    _assert_sound(rows, bitmaps)
    assert [row["key"] for row in rows if row["codec"] == SOURCE_CODEC] == ["04.bmp"]
    (error,) = result.errors
    assert (error.key, error.stage) == ("04.bmp", "encode")
    assert "IndexError: a bug on this picture (test_compress.py:" in error.reason
    assert rows[4]["raw_bytes"] == 192
    assert (result.entry.failed, result.entry.fallback) == (1, 0)


def test_a_codec_that_fails_on_everything_fails_the_shard(bitmaps: Path, store: Store) -> None:
    class Broken(Raw):
        def encode(self, images: Sequence[Any], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
            raise RuntimeError("the card fell off the bus")

    with pytest.raises(DeviceError, match=r"image 8 in a row.*try another device"):
        make_shard(_task(bitmaps), Broken(), store)
    assert committed_indices(store) == set()


@pytest.mark.parametrize("error", [DeviceError("no card"), ModelError("a broken model")])
def test_errors_that_no_image_survives_are_not_blamed_on_images(bitmaps: Path, store: Store, error: Exception) -> None:
    class Broken(Raw):
        calls = 0

        def encode(self, images: Sequence[Any], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
            Broken.calls += 1
            raise error

    with pytest.raises(type(error), match=str(error)):
        make_shard(_task(bitmaps), Broken(), store)
    assert Broken.calls == 1
    assert store.list("") == []


class Forgetful(Raw):
    """Loses something of every third image: a pixel, the shape or the metadata."""

    def __init__(self, loss: str) -> None:
        super().__init__()
        self.loss = loss

    def encode(self, images: Sequence[Any], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
        return [self._encode(image, extra) for image, extra in zip(images, extras or [], strict=True)]

    def _encode(self, image: Any, extra: bytes | None) -> bytes:
        if image.reshape(-1)[0] % 3 == 0:
            if self.loss == "a pixel":
                image = image.copy()
                image[3, 4, 1] ^= 1
            elif self.loss == "the shape":
                image = image.reshape(4, 16, 3)
            elif self.loss == "metadata":
                extra = None
            elif self.loss == "all":
                return b"\xb1\x1c nonsense"
        return self.raw.encode([image], [extra])[0]


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        ("a pixel", "other pixels"),
        ("the shape", r"pixels instead of uint8 \(8, 8, 3\)"),
        ("metadata", "other metadata"),
        ("all", "Error"),
    ],
)
def test_what_does_not_come_back_exactly_is_kept_and_listed(
    folder_of: Any, photo_like: Any, file_of: Any, store: Store, loss: str, sentence: str
) -> None:
    folder = folder_of({f"{n:02d}.bmp": file_of(photo_like(8, 8, seed=n), "BMP", dpi=(72, 72)) for n in range(10)})
    lost = [
        path.name for path in sorted(folder.iterdir()) if decode_image(path.read_bytes()).array.reshape(-1)[0] % 3 == 0
    ]
    assert 0 < len(lost) < 8
    result = make_shard(_task(folder), Forgetful(loss), store, CompressSettings(verify="all"))
    rows = _rows(store, result)
    _assert_sound(rows, folder)
    assert [row["key"] for row in rows if row["codec"] == SOURCE_CODEC] == lost
    assert [error.key for error in result.errors] == lost
    assert {error.stage for error in result.errors} == {"verify"}
    for error in result.errors:
        assert re.search(sentence, error.reason), error.reason
    assert result.statistics is not None
    assert result.statistics.verified == 10 - len(lost)


def test_a_codec_that_never_gives_pixels_back_fails_the_shard(bitmaps: Path, store: Store) -> None:
    class Blind(Raw):
        def encode(self, images: Sequence[Any], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
            return super().encode([image * 0 for image in images], extras)

    with pytest.raises(DeviceError, match="other pixels"):
        make_shard(_task(bitmaps), Blind(), store)
    assert committed_indices(store) == set()


def test_sampling_checks_some_and_always_the_same(
    folder_of: Any, photo_like: Any, file_of: Any, tmp_path: Path
) -> None:
    picture = file_of(photo_like(2, 2), "BMP")
    folder = folder_of({f"{number:03d}.bmp": picture for number in range(320)})
    counts = []
    for name, verify in (("a", "sample"), ("b", "sample"), ("c", "none")):
        store = Store.open(str(tmp_path / name))
        result = make_shard(_task(folder), open_codec("raw"), store, CompressSettings(verify=verify))  # type: ignore[arg-type]
        assert result.statistics is not None
        counts.append(result.statistics.verified)
    assert counts[0] == counts[1]
    assert 5 < counts[0] < 60, f"about one in {coding.SAMPLE_ONE_IN} of 320"
    assert counts[2] == 0


def test_models_travel_with_the_shard(bitmaps: Path, store: Store) -> None:
    class Fitted(Raw):
        model_bytes = b"weights"
        model_sha256 = hashlib.sha256(b"weights").hexdigest()

    result = make_shard(_task(bitmaps), Fitted(), store)
    assert read_model(store, Fitted.model_sha256) == b"weights"
    assert {row["model"] for row in _rows(store, result)} == {Fitted.model_sha256}
    assert put_model(store, b"weights") == Fitted.model_sha256


def test_a_source_that_cannot_be_read_commits_nothing(bitmaps: Path, store: Store) -> None:
    task = _task(bitmaps)
    (bitmaps / "07.bmp").rename(bitmaps / "gone")
    with pytest.raises(StorageError, match=r"07\.bmp"):
        compress_shard(task, open_codec("raw"), store)
    assert store.list("") == []
    (bitmaps / "gone").rename(bitmaps / "07.bmp")
    assert compress_shard(task, open_codec("raw"), store).rows == 10


def test_a_full_disk_commits_nothing_and_can_be_tried_again(
    bitmaps: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="dataset"):
            compress_shard(_task(bitmaps), open_codec("raw"), store)
    assert store.list("") == []
    assert compress_shard(_task(bitmaps), open_codec("raw"), store).rows == 10


def test_a_destination_that_cannot_be_written_is_a_storage_error(bitmaps: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"a file where the folder should be")
    with pytest.raises(StorageError, match="taken"):
        compress_shard(_task(bitmaps), open_codec("raw"), Store.open(str(tmp_path / "taken")))


def test_an_interrupt_leaves_no_thread_and_no_commit(bitmaps: Path, store: Store) -> None:
    class Interrupted(Raw):
        def encode(self, images: Sequence[Any], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress_shard(_task(bitmaps), Interrupted(), store, CompressSettings(batch_pixels=64))
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("pilc-")] == []
    assert store.list("") == []
    assert compress_shard(_task(bitmaps), open_codec("raw"), store).rows == 10


@pytest.mark.parametrize(
    "wrong", [{"verify": "some"}, {"batch_pixels": 0}, {"max_pixels": -1}, {"decode_threads": 0}, {"threads": 0}]
)
def test_impossible_settings_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        CompressSettings(**wrong)


def test_everything_travels_between_processes(bitmaps: Path, store: Store) -> None:
    settings, task = pickle.loads(pickle.dumps((CompressSettings(verify="sample"), _task(bitmaps))))
    result = make_shard(task, open_codec("raw"), pickle.loads(pickle.dumps(store)), settings)
    assert pickle.loads(pickle.dumps(result)) == result


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["PNG", "BMP", "PPM", "TIFF"]),
            st.integers(1, 12),
            st.integers(1, 12),
            st.sampled_from([1, 3]),
            st.sampled_from([1, 3, 256]),
            st.integers(0, 2**32 - 1),
        ),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 300),
)
def test_any_small_images_come_back_exactly(pictures: list[Any], batch_pixels: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, store = Path(folder) / "source", Store.open(f"{folder}/dataset")
        source.mkdir()
        for number, (format, height, width, channels, levels, seed) in enumerate(pictures):
            shape = (height, width) if channels == 1 else (height, width, channels)
            array = np.random.default_rng(seed).integers(0, levels, shape, np.uint8)
            Image.fromarray(array).save(source / f"{number}.{format.lower()}", format)
        result = make_shard(
            _task(source), open_codec("raw"), store, CompressSettings(batch_pixels=batch_pixels, decode_threads=1)
        )
        rows = _rows(store, result)
        assert len(rows) == len(pictures)
        _assert_sound(rows, source)
        assert result.entry.failed == 0
        assert result.entry.payload_bytes <= result.entry.source_bytes


MEMORY_PROGRAM = """
import resource, sys
from pilc_stream.codecs import open_codec
from pilc_stream.pipeline.compress import CompressSettings, compress_shard
from pilc_stream.pipeline.plan import plan_shards
from pilc_stream.storage import Store, expand

def run(source, destination):
    (task,) = plan_shards(expand([source]))
    compress_shard(task, open_codec("raw"), Store.open(destination), CompressSettings(batch_pixels=1 << 20))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

few, many = run(sys.argv[1], sys.argv[3]), run(sys.argv[2], sys.argv[4])
print(few, many)
"""


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path, file_of: Any) -> None:
    # 200 images of 512x512 are 157 MB of pixels in a few kilobytes of files.
    flat = file_of(np.full((512, 512, 3), 77, np.uint8))
    for name, count in (("few", 10), ("many", 200)):
        (tmp_path / name).mkdir()
        for number in range(count):
            (tmp_path / name / f"{number:03d}.png").write_bytes(flat)
    arguments = [str(tmp_path / name) for name in ("few", "many", "few.out", "many.out")]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_PROGRAM, *arguments], capture_output=True, text=True, check=True, timeout=300
    )
    few, many = (int(number) * (1 if sys.platform == "darwin" else 1024) for number in done.stdout.split())
    assert many - few < 40_000_000, f"{few} bytes for 10 images, {many} for 200"

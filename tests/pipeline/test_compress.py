"""A shard, from files to commit."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_shards import Raw, assert_sound, rows_of, task_of
from PIL import Image

from pilc_stream.codecs import Decoder, open_codec
from pilc_stream.errors import UsageError
from pilc_stream.images import Pixels, decode_image, source_of
from pilc_stream.pipeline import coding
from pilc_stream.pipeline.compress import CompressSettings, compress_shard, make_shard
from pilc_stream.pipeline.statistics import ShardStatistics
from pilc_stream.records.commit import committed_indices, put_model, read_model
from pilc_stream.storage import Store


def test_records_say_what_the_sources_are(folder_of: Any, photo_like: Any, file_of: Any, store: Store) -> None:
    colour, grey = photo_like(20, 30), photo_like(9, 7, None)
    folder = folder_of(
        {"a/grey.bmp": file_of(grey, "TIFF"), "a/photo.bmp": file_of(colour, "BMP"), "b.png": file_of(colour)}
    )
    result = make_shard(task_of(folder), open_codec("raw"), store)
    rows = rows_of(store, result)
    assert_sound(rows, folder)
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
    result = make_shard(task_of(folder), open_codec("raw"), store)
    (row,) = rows_of(store, result)
    assert_sound([row], folder)
    assert (row["codec"], row["width"], row["height"]) == ("raw", 6, 4)


def test_a_tie_keeps_the_payload(bitmaps: Path, store: Store) -> None:
    class Padded(Raw):
        """Payloads exactly as long as the sources, or one byte longer."""

        def encode(self, images: Sequence[Any], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
            return [bytes(sizes[0] + image.tobytes()[0] % 2) for image in images]

    sizes = [item.size for item in task_of(bitmaps).items]
    odd = [decode_image(path.read_bytes()).array.reshape(-1)[0] % 2 for path in sorted(bitmaps.iterdir())]
    assert 0 < sum(odd) < len(odd)
    result = make_shard(task_of(bitmaps), Padded(), store, CompressSettings(verify="none"))
    assert [row["codec"] for row in rows_of(store, result)] == ["source" if longer else "raw" for longer in odd]


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
    result = make_shard(task_of(folder), open_codec("raw"), store)
    rows = rows_of(store, result)
    assert_sound(rows, folder)
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
    result = make_shard(task_of(folder), open_codec("fast", "cpu"), store, CompressSettings(keep=keep))
    rows = rows_of(store, result)
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

    result = make_shard(task_of(bitmaps), Picky(), store)
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
        compress_shard(task_of(bitmaps), open_codec("raw"), Store.open(str(tmp_path / name)), chosen)
        for name, chosen in (("one", CompressSettings()), ("two", changed))
    ]
    assert entries[0].sha256 == entries[1].sha256
    assert entries[0].path == entries[1].path


def test_a_committed_shard_is_left_alone(bitmaps: Path, store: Store) -> None:
    class Untouchable(Raw):
        def encode(self, images: Sequence[Any], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
            raise AssertionError("a committed shard was made again")

    first = make_shard(task_of(bitmaps), open_codec("raw"), store)
    before = {path: store.read(path) for path in store.list("")}
    again = make_shard(task_of(bitmaps), Untouchable(), store)
    assert again.entry == first.entry
    assert again.statistics is None
    assert {path: store.read(path) for path in store.list("")} == before


def test_progress_hears_of_every_batch(bitmaps: Path, store: Store) -> None:
    done: list[list[tuple[str, int]]] = []
    result = make_shard(
        task_of(bitmaps),
        open_codec("raw"),
        store,
        CompressSettings(batch_pixels=200),
        progress=lambda records, times: done.append([(record.key, len(record.payload)) for record in records]),
    )
    assert [len(batch) for batch in done] == [3, 3, 3, 1]
    stored = [(row["key"], len(row["payload"])) for row in rows_of(store, result)]
    assert [each for batch in done for each in batch] == stored


def test_statistics_add_up(bitmaps: Path, tmp_path: Path) -> None:
    total = ShardStatistics()
    for name in ("one", "two"):
        result = make_shard(task_of(bitmaps), open_codec("raw"), Store.open(str(tmp_path / name)))
        assert result.statistics is not None
        total.add(result.statistics)
    assert (total.codecs, total.verified, total.coded_sub_pixels) == ({"raw": 20}, 20, 20 * 192)
    assert total.times.code >= result.statistics.times.code > 0


def test_a_rival_that_commits_first_wins(bitmaps: Path, store: Store) -> None:
    class Slow(Raw):
        """Another driver commits the same shard while this one encodes."""

        def encode(self, images: Sequence[Any], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
            if not committed_indices(store):
                rival.append(compress_shard(task_of(bitmaps), open_codec("raw"), store))
            return super().encode(images, extras)

    rival: list[Any] = []
    assert compress_shard(task_of(bitmaps), Slow(), store) == rival[0]
    assert committed_indices(store) == {0}


def test_sampling_checks_some_and_always_the_same(
    folder_of: Any, photo_like: Any, file_of: Any, tmp_path: Path
) -> None:
    picture = file_of(photo_like(2, 2), "BMP")
    folder = folder_of({f"{number:03d}.bmp": picture for number in range(320)})
    counts = []
    for name, verify in (("a", "sample"), ("b", "sample"), ("c", "none")):
        store = Store.open(str(tmp_path / name))
        result = make_shard(task_of(folder), open_codec("raw"), store, CompressSettings(verify=verify))  # type: ignore[arg-type]
        assert result.statistics is not None
        counts.append(result.statistics.verified)
    assert counts[0] == counts[1]
    assert 5 < counts[0] < 60, f"about one in {coding.SAMPLE_ONE_IN} of 320"
    assert counts[2] == 0


def test_models_travel_with_the_shard(bitmaps: Path, store: Store) -> None:
    class Fitted(Raw):
        model_bytes = b"weights"
        model_sha256 = hashlib.sha256(b"weights").hexdigest()

    result = make_shard(task_of(bitmaps), Fitted(), store)
    assert read_model(store, Fitted.model_sha256) == b"weights"
    assert {row["model"] for row in rows_of(store, result)} == {Fitted.model_sha256}
    assert put_model(store, b"weights") == Fitted.model_sha256


@pytest.mark.parametrize(
    "wrong", [{"verify": "some"}, {"batch_pixels": 0}, {"max_pixels": -1}, {"decode_threads": 0}, {"threads": 0}]
)
def test_impossible_settings_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        CompressSettings(**wrong)


def test_everything_travels_between_processes(bitmaps: Path, store: Store) -> None:
    settings, task = pickle.loads(pickle.dumps((CompressSettings(verify="sample"), task_of(bitmaps))))
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
            task_of(source), open_codec("raw"), store, CompressSettings(batch_pixels=batch_pixels, decode_threads=1)
        )
        rows = rows_of(store, result)
        assert len(rows) == len(pictures)
        assert_sound(rows, source)
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

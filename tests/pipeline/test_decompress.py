from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pilc_stream.codecs import open_codec
from pilc_stream.errors import StorageError, UsageError
from pilc_stream.images import pixel_sha256
from pilc_stream.pipeline.decompress import export
from pilc_stream.records.build import build_shard
from pilc_stream.records.commit import commit_shard, create_job, put_shard
from pilc_stream.records.manifest import Manifest, finish
from pilc_stream.records.record import Record, ShardEntry
from pilc_stream.storage import Store

Files = dict[str, bytes]


@pytest.fixture
def files(photo_like: Any, file_of: Any) -> Files:
    """Coded images (BMP, TIFF), and kept ones: PNG, JPEG, palette, broken."""
    palette = io.BytesIO()
    Image.fromarray(photo_like(16, 16)).quantize(8).save(palette, "PNG")
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "words")
    return {
        "a/colour.bmp": file_of(photo_like(9, 11), "BMP", dpi=(96, 96)),
        "a/grey.tif": file_of(photo_like(8, 6, None), "TIFF", description="grey"),
        "b/flat.png": file_of(np.full((30, 40, 3), 5, np.uint8), pnginfo=text, dpi=(72, 72)),
        "b/photo.jpg": file_of(photo_like(32, 32), "JPEG"),
        "c/broken.png": b"\x89PNG\r\n\x1a\nno more",
        "c/palette.png": palette.getvalue(),
    }


def _written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _open(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def test_png_gives_back_pixels_and_metadata(dataset_of: Callable[..., Manifest], files: Files, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done: list[tuple[int, int]] = []
    report = export(dataset_of(files), str(out), "png", progress=lambda images, raw: done.append((images, raw)))
    written = _written(out)
    names = {"a/colour.bmp": "a/colour.png", "a/grey.tif": "a/grey.png", "b/photo.jpg": "b/photo.png"}
    assert set(written) == {names.get(key, key) for key in files}
    for key in ("a/colour.bmp", "a/grey.tif", "b/flat.png", "b/photo.jpg"):
        source, again = _open(files[key]), _open(written[names.get(key, key)])
        assert (again.format, again.mode) == ("PNG", source.mode)
        np.testing.assert_array_equal(np.asarray(again), np.asarray(source))
    assert _open(written["b/flat.png"]).info == _open(files["b/flat.png"]).info
    assert _open(written["a/grey.png"]).getexif()[270] == "grey"
    assert written["c/broken.png"] == files["c/broken.png"]
    again = _open(written["c/palette.png"])
    assert again.getpalette() == _open(files["c/palette.png"]).getpalette()
    np.testing.assert_array_equal(np.asarray(again), np.asarray(_open(files["c/palette.png"])))
    assert (report.files, report.as_they_came, report.unavailable) == (6, 1, 0)
    assert report.file_bytes == sum(map(len, written.values()))
    assert (report.failed, report.renamed) == ((), {})
    assert sum(images for images, _ in done) == 6
    assert json.loads(json.dumps(report.to_json()))["files"] == 6


def test_npy_gives_back_arrays(dataset_of: Callable[..., Manifest], files: Files, tmp_path: Path) -> None:
    report = export(dataset_of(files), str(tmp_path / "out"), "npy")
    for key, name in (("a/colour.bmp", "a/colour.npy"), ("a/grey.tif", "a/grey.npy"), ("b/photo.jpg", "b/photo.npy")):
        np.testing.assert_array_equal(np.load(tmp_path / "out" / name), np.asarray(_open(files[key])))
    assert (tmp_path / "out/c/broken.png").read_bytes() == files["c/broken.png"]
    assert report.as_they_came == 1


def test_source_gives_back_what_was_coded_to_be_given_back(
    dataset_of: Callable[..., Manifest], files: Files, tmp_path: Path
) -> None:
    report = export(dataset_of(files, keep="source"), str(tmp_path / "out"), "source")
    assert _written(tmp_path / "out") == files
    assert (report.files, report.unavailable, report.failed) == (6, 0, ())


def test_source_gives_back_what_was_kept(dataset_of: Callable[..., Manifest], files: Files, tmp_path: Path) -> None:
    report = export(dataset_of(files), str(tmp_path / "out"), "source")
    kept = {key: data for key, data in files.items() if not key.startswith("a/")}
    assert _written(tmp_path / "out") == kept
    assert (report.files, report.as_they_came, report.unavailable) == (4, 4, 2)


def test_source_of_a_data_set_without_sources_is_refused(
    dataset_of: Callable[..., Manifest], files: Files, tmp_path: Path
) -> None:
    manifest = dataset_of({key: data for key, data in files.items() if key.startswith("a/")})
    with pytest.raises(UsageError, match=r"all 2 images were coded.*png"):
        export(manifest, str(tmp_path / "out"), "source")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("inside", ["", "/data", "/images"])
def test_a_destination_inside_the_data_set_is_refused(
    dataset_of: Callable[..., Manifest], files: Files, inside: str
) -> None:
    manifest = dataset_of(files)
    before = manifest.store.list("")
    with pytest.raises(UsageError, match="inside the data set"):
        export(manifest, manifest.url + inside)
    assert manifest.store.list("") == before


def test_an_unknown_format_is_refused(dataset_of: Callable[..., Manifest], files: Files, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'gif' is unknown"):
        export(dataset_of(files), str(tmp_path / "out"), "gif")  # type: ignore[arg-type]


def test_names_that_meet_are_told_apart_and_said(
    dataset_of: Callable[..., Manifest], photo_like: Any, file_of: Any, tmp_path: Path
) -> None:
    pictures = {name: photo_like(7, 5, seed=seed) for seed, name in enumerate(("cat.bmp", "cat.png", "cat.tif"))}
    files = {name: file_of(pixels, "BMP") for name, pixels in pictures.items()}
    report = export(dataset_of(files), str(tmp_path / "out"))
    assert report.renamed == {"cat.bmp": "cat.bmp.png", "cat.tif": "cat.tif.png"}
    for key, name in (*report.renamed.items(), ("cat.png", "cat.png")):
        np.testing.assert_array_equal(np.asarray(_open((tmp_path / "out" / name).read_bytes())), pictures[key])


def test_a_kept_file_that_meets_others_is_not_called_renamed(
    dataset_of: Callable[..., Manifest], photo_like: Any, file_of: Any, tmp_path: Path
) -> None:
    files = {"cat.bmp": file_of(photo_like(7, 5), "BMP"), "cat.jpg": b"broken"}
    report = export(dataset_of(files), str(tmp_path / "out"))
    assert set(_written(tmp_path / "out")) == {"cat.bmp.png", "cat.jpg"}
    assert report.renamed == {"cat.bmp": "cat.bmp.png"}


def _hostile(folder: Path, keys: list[str]) -> Manifest:
    """A data set that a stranger wrote, with keys of his choice."""
    store = Store.open(str(folder))
    create_job(store, {})
    array = np.full((3, 5, 3), 9, np.uint8)
    (payload,) = open_codec("raw").encode([array])
    record = Record("", payload, "raw", "", 5, 3, 3, 8, "RGB", 45, 100, pixel_sha256(array), bytes(32))
    kept = replace(record, payload=b"evil", codec="source", raw_bytes=0, source_bytes=4)
    kept = replace(kept, source_sha256=hashlib.sha256(b"evil").digest())
    records = [replace(record, key=key) if number % 2 else replace(kept, key=key) for number, key in enumerate(keys)]
    file, ranges = build_shard(records)
    path, sha256 = put_shard(store, 0, file)
    sums = {name: sum(getattr(each, name) for each in records) for name in ("raw_bytes", "source_bytes")}
    entry = ShardEntry(
        index=0,
        path=path,
        sha256=sha256,
        shard_bytes=len(file),
        rows=len(records),
        failed=0,
        fallback=sum(each.codec == "source" for each in records),
        payload_bytes=sum(len(each.payload) for each in records),
        sub_pixels=0,
        seconds=0.0,
        **sums,
    )
    commit_shard(store, entry, ranges)
    return finish(store)


@pytest.mark.parametrize("format", ["png", "npy", "source"])
def test_keys_never_lead_out_of_the_destination(tmp_path: Path, format: Any) -> None:
    absolute = str(tmp_path / "absolute")
    bad = [
        "../../evil",
        "../evil",
        absolute,
        f"{absolute}-2",
        "a/../../evil",
        "a/../../evil-2",
        "..",
        "../..",
        "a//b",
        "",
    ]
    good = ["good-1", "good-2", "..fine/x", "..fine/y"]
    manifest = _hostile(tmp_path / "data/set", [*bad, *good])
    report = export(manifest, str(tmp_path / "deep/er/out"), format)
    outside = {path for path in _written(tmp_path) if not path.startswith(("data/set/", "deep/er/out/"))}
    assert outside == set()
    listed = {finding.key for finding in report.failed}
    assert listed <= set(bad)
    assert listed == (set(bad) if format != "source" else set(bad[::2]))
    assert all("cannot be a path below the destination" in finding.reason for finding in report.failed)
    assert report.files == (4 if format != "source" else 2)


def test_exporting_again_replaces(dataset_of: Callable[..., Manifest], files: Files, tmp_path: Path) -> None:
    manifest, out = dataset_of(files), tmp_path / "out"
    export(manifest, str(out))
    first = _written(out)
    (out / "a/colour.png").write_bytes(b"cut")
    export(manifest, str(out), threads=4)
    assert _written(out) == first


def test_any_storage_is_a_destination(dataset_of: Callable[..., Manifest], files: Files) -> None:
    target = Store.open("memory://export-test")
    export(dataset_of(files), target.url)
    assert target.list("") == [
        "a/colour.png",
        "a/grey.png",
        "b/flat.png",
        "b/photo.png",
        "c/broken.png",
        "c/palette.png",
    ]


def test_what_is_damaged_is_listed_and_the_rest_written(
    dataset_of: Callable[..., Manifest], files: Files, tmp_path: Path
) -> None:
    manifest = dataset_of(files, shard_bytes=700)
    assert len(manifest.shards) > 2
    for row, position in ((0, -1), (1, 3)):
        path = manifest.shards[0].path
        data = bytearray(manifest.store.read(path))
        offset, length = manifest.byte_range(0, row)
        data[offset + (length + position if position < 0 else position)] ^= 1
        manifest.store.put(path, bytes(data))
    manifest.store.delete(manifest.shards[1].path)
    report = export(manifest, str(tmp_path / "out"))
    lost = manifest.shards[0].rows + manifest.shards[1].rows
    assert {finding.shard for finding in report.failed} == {shard.path for shard in manifest.shards[:2]}
    assert report.files == 6 - lost
    assert set(_written(tmp_path / "out")) == {"b/photo.png", "c/broken.png", "c/palette.png"}


def test_a_name_that_the_storage_refuses_costs_its_file(tmp_path: Path) -> None:
    manifest = _hostile(tmp_path / "set", ["x" * 300, "fine"])
    report = export(manifest, str(tmp_path / "out"))
    assert [finding.key for finding in report.failed] == ["x" * 300]
    assert set(_written(tmp_path / "out")) == {"fine.png"}


def test_a_full_disk_ends_the_export(
    dataset_of: Callable[..., Manifest], files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    manifest = dataset_of(files)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="out"):
        export(manifest, str(tmp_path / "out"))
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("pilc-")] == []
    assert _written(tmp_path / "out") == {}


def test_images_above_the_limit_are_written_as_they_came(
    dataset_of: Callable[..., Manifest], files: Files, tmp_path: Path
) -> None:
    export(dataset_of(files), str(tmp_path / "out"), max_pixels=1023)
    written = _written(tmp_path / "out")
    assert written["b/photo.jpg"] == files["b/photo.jpg"]
    assert "a/colour.png" in written

"""What goes wrong while a shard is made: bad input costs one record, all else the shard, and no commit is wrong."""

from __future__ import annotations

import errno
import io
import os
import re
import tarfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from made_shards import Raw, assert_sound, rows_of, task_of

from pilc_stream.codecs import open_codec
from pilc_stream.errors import DeviceError, ModelError, StorageError
from pilc_stream.images import decode_image
from pilc_stream.pipeline.compress import MIN_UNREAD, CompressSettings, compress_shard, make_shard
from pilc_stream.pipeline.loading import GONE
from pilc_stream.pipeline.plan import plan_shards
from pilc_stream.pipeline.sources import Request, open_source
from pilc_stream.records.commit import committed_indices, read_errors
from pilc_stream.records.record import SOURCE_CODEC
from pilc_stream.storage import RetryPolicy, SourceFile, Store, expand
from pilc_stream.storage.local import LocalDisk


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
    result = make_shard(task_of(folder), open_codec("raw"), store)
    rows = rows_of(store, result)
    assert_sound(rows, folder)
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
    result = make_shard(task_of(bitmaps), codec, store, CompressSettings(batch_pixels=batch_pixels))
    rows = rows_of(store, result)
    assert_sound(rows, bitmaps)
    assert [row["key"] for row in rows if row["codec"] == SOURCE_CODEC] == ["04.bmp"]
    (error,) = result.errors
    assert (error.key, error.stage) == ("04.bmp", "encode")
    assert "IndexError: a bug on this picture (test_compress_failures.py:" in error.reason
    assert rows[4]["raw_bytes"] == 192
    assert (result.entry.failed, result.entry.fallback) == (1, 0)


def test_a_codec_that_fails_on_everything_fails_the_shard(bitmaps: Path, store: Store) -> None:
    class Broken(Raw):
        def encode(self, images: Sequence[Any], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
            raise RuntimeError("the card fell off the bus")

    with pytest.raises(DeviceError, match=r"image 8 in a row.*try another device"):
        make_shard(task_of(bitmaps), Broken(), store)
    assert committed_indices(store) == set()


@pytest.mark.parametrize("error", [DeviceError("no card"), ModelError("a broken model")])
def test_errors_that_no_image_survives_are_not_blamed_on_images(bitmaps: Path, store: Store, error: Exception) -> None:
    class Broken(Raw):
        calls = 0

        def encode(self, images: Sequence[Any], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
            Broken.calls += 1
            raise error

    with pytest.raises(type(error), match=str(error)):
        make_shard(task_of(bitmaps), Broken(), store)
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
    result = make_shard(task_of(folder), Forgetful(loss), store, CompressSettings(verify="all"))
    rows = rows_of(store, result)
    assert_sound(rows, folder)
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
        make_shard(task_of(bitmaps), Blind(), store)
    assert committed_indices(store) == set()


def test_a_file_that_vanished_costs_itself_only(bitmaps: Path, store: Store) -> None:
    task = task_of(bitmaps)
    gone = (bitmaps / "07.bmp").read_bytes()
    (bitmaps / "07.bmp").unlink()
    result = make_shard(task, open_codec("raw"), store)
    assert (result.entry.rows, result.entry.failed, result.entry.fallback) == (10, 1, 0)
    assert [(error.key, error.stage, error.reason) for error in read_errors(store, 0)] == [("07.bmp", "read", GONE)]
    rows = rows_of(store, result)
    assert [row["codec"] for row in rows] == ["raw"] * 7 + [SOURCE_CODEC] + ["raw"] * 2
    assert (rows[7]["payload"], rows[7]["source_bytes"], rows[7]["raw_bytes"]) == (b"", 0, 0)
    (bitmaps / "07.bmp").write_bytes(gone)
    assert_sound(rows[:7] + rows[8:], bitmaps)


def test_a_tar_file_that_vanished_is_listed(folder_of: Any, photo_like: Any, file_of: Any, store: Store) -> None:
    def tar(*numbers: int) -> bytes:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            for number in numbers:
                data = file_of(photo_like(8, 8, seed=number), "BMP")
                member = tarfile.TarInfo(f"{number}.bmp")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return file.getvalue()

    folder = folder_of({"a.tar": tar(1, 2), "b.tar": tar(3), "c.tar": tar(4)})
    (task,) = plan_shards(open_source(Request((str(folder),)), "tar").parts(), 1 << 30)
    (folder / "b.tar").unlink()
    result = make_shard(task, open_codec("raw"), store)
    assert [row["key"] for row in rows_of(store, result)] == ["a.tar/1.bmp", "a.tar/2.bmp", "b.tar", "c.tar/4.bmp"]
    assert [(error.key, error.stage) for error in result.errors] == [("b.tar", "read")]


def test_a_source_that_vanished_as_a_whole_fails_the_shard(
    folder_of: Any, photo_like: Any, file_of: Any, store: Store
) -> None:
    """A disk that is not mounted any more: that all its files are gone says nothing of them."""
    folder = folder_of({f"{n:02d}.bmp": file_of(photo_like(4, 4, seed=n), "BMP") for n in range(MIN_UNREAD)})
    task = task_of(folder)
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(StorageError, match=rf"none of its {MIN_UNREAD} images could be read"):
        make_shard(task, open_codec("raw"), store)
    assert store.list("") == []


def lost(*_: object) -> bytes:
    raise ConnectionResetError("the network is gone")


def no_bucket(*_: object) -> bytes:
    error = FileNotFoundError("the bucket")
    error.response = {"Error": {"Code": "NoSuchBucket"}}  # type: ignore[attr-defined]
    raise error


def denied(*_: object) -> bytes:
    raise PermissionError(errno.EACCES, "denied")


@pytest.mark.parametrize("fault", [lost, no_bucket, denied])
def test_what_says_nothing_of_the_file_commits_nothing(
    bitmaps: Path, store: Store, monkeypatch: pytest.MonkeyPatch, fault: Callable[..., bytes]
) -> None:
    read, source = LocalDisk.read, Store.open(str(bitmaps), retries=RetryPolicy(attempts=2, first_delay_s=0))
    files = [SourceFile(file.key, file.path, file.size, source) for file in expand([str(bitmaps)])]
    (task,) = plan_shards(files, 1 << 30)
    with monkeypatch.context() as patch:
        patch.setattr(LocalDisk, "read", lambda disk, path: (fault if path == "07.bmp" else read)(disk, path))
        with pytest.raises(StorageError, match=r"07\.bmp"):
            make_shard(task, open_codec("raw"), store)
    assert store.list("") == []
    assert make_shard(task, open_codec("raw"), store).entry.rows == 10


def test_a_full_disk_commits_nothing_and_can_be_tried_again(
    bitmaps: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="dataset"):
            compress_shard(task_of(bitmaps), open_codec("raw"), store)
    assert store.list("") == []
    assert compress_shard(task_of(bitmaps), open_codec("raw"), store).rows == 10


def test_a_destination_that_cannot_be_written_is_a_storage_error(bitmaps: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"a file where the folder should be")
    with pytest.raises(StorageError, match="taken"):
        compress_shard(task_of(bitmaps), open_codec("raw"), Store.open(str(tmp_path / "taken")))


def test_an_interrupt_leaves_no_thread_and_no_commit(bitmaps: Path, store: Store) -> None:
    class Interrupted(Raw):
        def encode(self, images: Sequence[Any], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress_shard(task_of(bitmaps), Interrupted(), store, CompressSettings(batch_pixels=64))
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("pilc-")] == []
    assert store.list("") == []
    assert compress_shard(task_of(bitmaps), open_codec("raw"), store).rows == 10

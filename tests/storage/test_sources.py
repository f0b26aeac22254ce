from __future__ import annotations

import os
import pickle
import random
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilc_stream.errors import StorageError, UsageError
from pilc_stream.storage import IMAGE_SUFFIXES, Store, expand
from pilc_stream.storage import walk as walk_module
from pilc_stream.storage.backend import Entry
from pilc_stream.storage.local import LocalDisk


def keys(*sources: str) -> list[str]:
    return [file.key for file in expand(sources)]


def make(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(path.encode())
    return folder


def test_a_folder_on_every_storage(store: Store) -> None:
    for path in ["b.png", "a/2.JPG", "a/10.tiff", "a.webp", "notes.txt", ".hidden.png", "_pilc/x.png", "a/.git/x.png"]:
        store.put(path, path.encode())
    found = list(expand([store.url], store.storage_options))
    assert [file.key for file in found] == ["a.webp", "a/10.tiff", "a/2.JPG", "b.png"]
    assert [file.size for file in found] == [len(file.key) for file in found]
    assert [file.read() for file in found] == [file.key.encode() for file in found]
    assert found[1].url == f"{store.url}/a/10.tiff"


def test_globs_on_every_storage(store: Store) -> None:
    for path in ["x1/a.png", "x1/b.txt", "x2/sub/c.png", "x2/d.png", "y/e.png", ".x3/f.png", "x1/.g.png"]:
        store.put(path, b"")
    found = {
        pattern: [file.key for file in expand(f"{store.url}/{pattern}", store.storage_options)]
        for pattern in ["x*/*.png", "**/*.png", "x?/**", "*", "x1/*", "[xy]*/[a-d].*", "x2/**/c.png", "**/sub", ".x*/*"]
    }
    assert found == {
        "x*/*.png": ["x1/a.png", "x2/d.png"],
        "**/*.png": ["x1/a.png", "x2/d.png", "x2/sub/c.png", "y/e.png"],
        "x?/**": ["x1/a.png", "x1/b.txt", "x2/d.png", "x2/sub/c.png"],
        "*": ["x1/a.png", "x2/d.png", "x2/sub/c.png", "y/e.png"],
        "x1/*": ["a.png", "b.txt"],
        "[xy]*/[a-d].*": ["x1/a.png", "x1/b.txt", "x2/d.png"],
        "x2/**/c.png": ["sub/c.png"],
        "**/sub": ["x2/sub/c.png"],
        ".x*/*": [".x3/f.png"],
    }


def test_a_single_file_on_every_storage(store: Store) -> None:
    store.put("deep/photo.of.any_kind", b"123")
    (file,) = expand(f"{store.url}/deep/photo.of.any_kind", store.storage_options)
    assert (file.key, file.size, file.read()) == ("photo.of.any_kind", 3, b"123")


def test_several_sources_get_keys_below_their_common_folder(tmp_path: Path) -> None:
    make(tmp_path, "a/cats/1.png", "a/dogs/1.png", "a/readme.md", "b/1.png")
    assert keys(f"{tmp_path}/a/dogs", f"{tmp_path}/a/cats") == ["cats/1.png", "dogs/1.png"]
    assert keys(f"{tmp_path}/a", f"{tmp_path}/b/1.png") == ["a/cats/1.png", "a/dogs/1.png", "b/1.png"]
    assert keys(f"{tmp_path}/a/*/*.png", f"{tmp_path}/a/readme.md") == ["cats/1.png", "dogs/1.png", "readme.md"]


def test_what_several_sources_reach_comes_once(tmp_path: Path) -> None:
    make(tmp_path, "a/1.png", "a/b/2.png")
    root = str(tmp_path)
    assert keys(f"{root}/a", f"{root}/a/b", f"{root}/a/*.png", f"{root}/a/1.png", f"{root}/a/") == ["1.png", "b/2.png"]


def test_the_order_of_sources_changes_nothing(tmp_path: Path) -> None:
    make(tmp_path, *[f"{folder}/{n}.png" for folder in "abc" for n in range(5)])
    sources = [f"{tmp_path}/{folder}" for folder in "abc"] + [f"{tmp_path}/a/3.png"]
    expected = keys(*sources)
    for seed in range(5):
        random.Random(seed).shuffle(sources)
        assert keys(*sources) == expected


def test_different_storages_share_a_name_space_and_may_not_clash(tmp_path: Path) -> None:
    make(tmp_path, "x/1.png")
    memory = Store.open(f"memory://sources{os.getpid()}/y")
    memory.put("2.png", b"")
    assert keys(str(tmp_path / "x"), memory.url) == sorted(
        [str(tmp_path / "x" / "1.png")[1:], f"sources{os.getpid()}/y/2.png"]
    )
    twin = Store.open(f"memory:/{tmp_path}")
    twin.put("x/1.png", b"other")
    with pytest.raises(UsageError) as caught:
        keys(str(tmp_path / "x"), f"{twin.url}/x")
    assert str(tmp_path / "x" / "1.png") in str(caught.value)
    assert f"{twin.url}/x/1.png" in str(caught.value)


def test_thousands_of_files_named_one_by_one(tmp_path: Path) -> None:
    names = [f"{n:04d}.png" for n in range(2000)]
    make(tmp_path, *names)
    found = list(expand([str(tmp_path / name) for name in reversed(names)]))
    assert [file.key for file in found] == names
    assert len({id(file.store) for file in found}) == 1


@pytest.mark.parametrize(
    "name", ["a b.png", "äß/日本.png", "100%.png", "#.png", "what?.png", "[x]/[y].png", "a*.png", "a::b.png"]
)
def test_odd_names_on_disk(tmp_path: Path, name: str) -> None:
    make(tmp_path, name)
    assert keys(str(tmp_path)) == [name]
    assert keys(str(tmp_path / name)) == [name.rpartition("/")[2]]
    assert next(expand([str(tmp_path / name)])).read() == name.encode()


def test_what_exists_wins_over_its_reading_as_a_glob(tmp_path: Path) -> None:
    make(tmp_path, "[ab]/1.png", "a/2.png", "[ab]/x.png", "x[1].png", "x1.png")
    assert keys(f"{tmp_path}/[ab]") == ["1.png", "x.png"]
    assert keys(f"{tmp_path}/[ab]/*") == ["1.png", "x.png"]
    assert keys(f"{tmp_path}/x[1].png") == ["x[1].png"]
    assert keys(f"{tmp_path}/[a]/*") == ["a/2.png"]


def test_names_that_are_not_utf8_get_readable_keys(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"1")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (file,) = expand([str(tmp_path)])
    assert file.key == "caf\\xe9.png"
    assert file.key.encode("utf-8")
    assert file.read() == b"1"
    (tmp_path / "caf\\xe9.png").write_bytes(b"2")
    with pytest.raises(UsageError, match="Two files have the key"):
        list(expand([str(tmp_path)]))


def test_links(tmp_path: Path) -> None:
    make(tmp_path, "real/1.png", "set/2.png")
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "set" / "file.png").symlink_to(tmp_path / "real" / "1.png")
    (tmp_path / "set" / "circle").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    found = {file.key: file for file in expand([str(tmp_path / "set")])}
    assert sorted(found) == ["2.png", "file.png", "gone.png", "linked/1.png"]
    assert found["file.png"].size == 10
    assert found["gone.png"].size == 0
    with pytest.raises(StorageError, match="nothing at this place"):
        found["gone.png"].read()
    assert keys(str(tmp_path / "set" / "linked")) == ["1.png"]


def test_pipes_and_sockets_are_no_sources(tmp_path: Path) -> None:
    make(tmp_path, "1.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert keys(str(tmp_path)) == ["1.png"]


def test_the_working_folder_is_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a/1.png")
    monkeypatch.chdir(tmp_path)
    assert keys(".") == keys("./") == ["a/1.png"]
    assert keys("a") == keys("a/*.png") == ["1.png"]


def test_missing_sources_are_named_at_once(tmp_path: Path) -> None:
    make(tmp_path, "1.png")
    for missing in [f"{tmp_path}/no", f"{tmp_path}/no/*.png", "memory://nothing-at-all/x"]:
        with pytest.raises(StorageError) as caught:
            expand([str(tmp_path), missing])
        assert str(caught.value) == f"{missing}: there is nothing at this place. Check the spelling of the source."
    with pytest.raises(UsageError, match="No source was given"):
        expand([])
    with pytest.raises(UsageError, match="An empty source"):
        expand([""])


def test_a_glob_that_matches_nothing_is_an_error(tmp_path: Path) -> None:
    make(tmp_path, "1.png")
    with pytest.raises(StorageError, match=r"\*\.jpg: the glob matches no file"):
        keys(f"{tmp_path}/*.jpg")


def test_a_folder_without_images_is_empty(tmp_path: Path) -> None:
    make(tmp_path, "notes.txt")
    assert keys(str(tmp_path)) == []


def test_suffixes_are_lower_case_and_sorted() -> None:
    assert list(IMAGE_SUFFIXES) == sorted({suffix.lower() for suffix in IMAGE_SUFFIXES})
    assert {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif"} <= set(IMAGE_SUFFIXES)
    # Kept as they came: what is in a folder of images and is none that is coded.
    assert {".apng", ".ico", ".psd", ".pcx", ".sgi", ".dds", ".pfm"} <= set(IMAGE_SUFFIXES)


def test_source_files_travel_by_pickle_and_share_their_store(tmp_path: Path) -> None:
    make(tmp_path, *[f"{n}.png" for n in range(100)])
    found = list(expand([str(tmp_path)]))
    copies = pickle.loads(pickle.dumps(found))
    assert copies == found
    assert len({id(file.store) for file in copies}) == 1
    assert copies[7].read() == found[7].read()


def test_folders_are_listed_one_at_a_time_and_as_late_as_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, *[f"{folder:02d}/{n}.png" for folder in range(20) for n in range(3)])
    listed: list[str] = []
    real = Store.entries

    def entries(store: Store, folder: str) -> Sequence[object]:
        listed.append(folder)
        return real(store, folder)

    monkeypatch.setattr(Store, "entries", entries)
    files = expand([str(tmp_path)])
    for _ in range(4):
        next(files)
    assert len(listed) <= 4
    assert sum(1 for _ in files) == 56
    assert len(listed) == len(set(listed)) == 21


NAMES = st.text(st.sampled_from("ab-./_B~"), min_size=1, max_size=3).filter(
    lambda n: "/" not in n and n not in (".", "..")
)


@settings(max_examples=100, deadline=None)
@given(st.sets(st.lists(NAMES, min_size=1, max_size=4).map("/".join), max_size=12), st.randoms(use_true_random=False))
def test_walking_gives_every_visible_image_in_key_order(paths: set[str], shuffle: random.Random) -> None:
    store = Store.open("memory://walk-order")
    for path in store.list():
        store.delete(path)
    # In memory as on a disk, a file cannot be a folder too.
    files = sorted(f"{path}.png" for path in paths)
    shuffle.shuffle(files)
    for path in files:
        store.put(path, b"")
    expected = sorted(p for p in files if not any(part.startswith((".", "_")) for part in p.split("/")))
    if files:
        assert [found.key for found in walk_module.walk(store, ())] == expected
        dotless = sorted(p for p in files if not any(part.startswith(".") for part in p.split("/")))
        assert [found.path for found in walk_module.walk(store, ("**",))] == dotless


def test_a_folder_of_real_images(shared_data: Path) -> None:
    files = list(expand([str(shared_data / "eval" / "kodak")]))
    assert len(files) == 24
    assert [file.key for file in files] == sorted(file.key for file in files)
    assert all(file.size == len(file.read()) > 10_000 for file in files)


class TestLargeFolders:
    """One folder with more names than memory should hold."""

    @pytest.mark.slow
    def test_a_million_files_in_one_folder_are_listed_in_bounded_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        count = 1_000_000

        def entries(disk: LocalDisk, folder: str) -> Iterator[Entry]:
            # A step that visits every number once, out of order, as a hash table of a file system would.
            return (Entry(f"{number * 7_368_787 % count:09d}.jpg", False, number) for number in range(count))

        monkeypatch.setattr(LocalDisk, "entries", entries)
        tracemalloc.start()
        found, previous = 0, ""
        for file in expand("."):
            assert file.key > previous
            previous, found = file.key, found + 1
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found == count
        # A list of all of them would take some 250 MB.
        assert peak < 80_000_000

    def test_folders_of_many_pages_are_listed_whole(self, s3_bucket: str, s3_server: Any) -> None:
        store = Store.open(f"{s3_bucket}/many", s3_server.options)
        names = [f"{number:04d}.png" for number in range(1050)]
        # One put each is slow over loopback; the names are what counts.
        file_system = store._connect()._fs  # type: ignore[union-attr]
        file_system.pipe({f"{s3_bucket.removeprefix('s3://')}/many/{name}": b"" for name in names})
        assert [file.key for file in expand(store.url, s3_server.options)] == names

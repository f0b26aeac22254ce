from __future__ import annotations

import errno
import os
import pickle
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilc_stream.errors import AlreadyExistsError, StorageError, UsageError
from pilc_stream.storage import Store

ODD_NAMES = [
    "a b.png",
    "äöü/日本.png",
    "100%.png",
    "#1.png",
    "what?.png",
    "[x].png",
    "a*b",
    "a::b",
    "x%2Fy",
    "{id}.png",
]


def test_put_then_read_gives_the_same_bytes(store: Store) -> None:
    store.put("deep/er/object.bin", b"first")
    assert store.read("deep/er/object.bin") == b"first"
    store.put("deep/er/object.bin", b"second, and longer")
    assert store.read("deep/er/object.bin") == b"second, and longer"
    assert store.size("deep/er/object.bin") == 18


@pytest.mark.parametrize("data", [b"", b"x", b"y" * 300_000])
def test_create_refuses_what_is_there_and_leaves_it_alone(store: Store, data: bytes) -> None:
    store.create("commit.json", data)
    with pytest.raises(AlreadyExistsError, match=r"commit\.json: cannot create it: something is there already"):
        store.create("commit.json", b"rival")
    assert store.read("commit.json") == data


def test_create_refuses_its_own_repetition(store: Store) -> None:
    store.create("a", b"same")
    with pytest.raises(FileExistsError):
        store.create("a", b"same")


def test_one_of_many_rivals_creates(store: Store) -> None:
    barrier = threading.Barrier(6)
    won: list[bytes] = []

    def rival(name: bytes) -> None:
        barrier.wait()
        try:
            store.create("prize", name * 1000)
        except AlreadyExistsError:
            return
        won.append(name * 1000)

    threads = [threading.Thread(target=rival, args=(str(n).encode(),)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read("prize") == won[0]


def test_list_is_recursive_sorted_and_of_a_folder(store: Store) -> None:
    for path in ["b", "data/2", "data/10", "data/sub/x", "data2/y", "a/_hidden/.z"]:
        store.put(path, path.encode())
    assert store.list() == ["a/_hidden/.z", "b", "data/10", "data/2", "data/sub/x", "data2/y"]
    assert store.list("data") == store.list("data/") == ["data/10", "data/2", "data/sub/x"]
    assert list(store.list_sizes("data")) == [("data/10", 7), ("data/2", 6), ("data/sub/x", 10)]
    assert store.list("dat") == []
    assert store.list("nothing/here") == []


def test_list_of_a_store_that_is_not_there_is_empty(store: Store) -> None:
    assert store.list() == []


def test_listings_see_what_another_store_wrote_since(store: Store) -> None:
    other = pickle.loads(pickle.dumps(store))
    store.put("one", b"1")
    assert other.list() == ["one"]
    store.put("two", b"2")
    assert other.list() == ["one", "two"]
    assert other.exists("two")
    store.delete("two")
    assert other.list() == ["one"]
    assert not other.exists("two")


def test_exists_means_an_object_not_a_folder(store: Store) -> None:
    store.put("folder/object", b"")
    assert store.exists("folder/object")
    assert not store.exists("folder")
    assert not store.exists("folder/nothing")
    assert not store.exists("folder/object/below")
    assert (store.kind("folder"), store.kind("folder/object"), store.kind("no")) == ("folder", "file", None)


def test_ranges_are_exact(store: Store) -> None:
    data = bytes(range(256)) * 4
    store.put("object", data)
    assert store.read_range("object", 3, 500) == data[3:503]
    assert store.read_ranges("object", [(1000, 24), (0, 0), (7, 1), (0, 1024)]) == [data[1000:], b"", data[7:8], data]
    assert store.read_ranges("object", []) == []
    assert store.read_range("object", 1024, 0) == b""


@pytest.mark.parametrize(("offset", "length"), [(1000, 25), (1024, 1), (5000, 10)])
def test_a_range_behind_the_end_is_an_error(store: Store, offset: int, length: int) -> None:
    store.put("object", bytes(1024))
    with pytest.raises(StorageError, match=r"/object"):
        store.read_range("object", offset, length)


@pytest.mark.parametrize(("offset", "length"), [(-1, 5), (0, -1)])
def test_negative_ranges_are_wrong_use(store: Store, offset: int, length: int) -> None:
    store.put("object", b"12345")
    with pytest.raises(UsageError, match="does not exist"):
        store.read_range("object", offset, length)


def test_read_many_keeps_order(store: Store) -> None:
    paths = [f"n/{n}" for n in range(30)]
    for path in paths:
        store.put(path, path.encode())
    assert store.read_many(paths[::-1]) == [path.encode() for path in paths[::-1]]
    assert store.read_many([]) == []
    with pytest.raises(StorageError, match="nothing at this place"):
        store.read_many([paths[0], "n/missing"])


def test_reading_what_is_missing_names_the_url(store: Store) -> None:
    with pytest.raises(StorageError) as caught:
        store.read("no/such")
    assert caught.value.errno == errno.ENOENT
    assert str(caught.value) == (
        f"{store.url}/no/such: cannot read it: there is nothing at this place. Check the spelling of the URL."
    )
    assert store.read_or_none("no/such") is None
    with pytest.raises(StorageError):
        store.size("no/such")


def test_reading_a_folder_is_an_error(store: Store) -> None:
    store.put("folder/object", b"1")
    with pytest.raises(StorageError):
        store.read("folder")
    with pytest.raises(StorageError):
        store.size("folder")


def test_delete_can_be_repeated(store: Store) -> None:
    store.put("object", b"1")
    store.delete("object")
    store.delete("object")
    assert store.list() == []
    store.create("object", b"2")
    assert store.read("object") == b"2"


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(store: Store, name: str) -> None:
    store.create(name, name.encode())
    assert store.list() == [name]
    assert store.read(name) == name.encode()
    assert store.read_many([name]) == [name.encode()]
    assert store.read_range(name, 1, 1) == name.encode()[1:2]
    assert store.exists(name)
    store.delete(name)
    assert store.list() == []


@pytest.mark.parametrize("folder", ["100% [new] #1?", "a::b", "a*", "~"])
def test_odd_folders_on_disk_are_taken_literally(tmp_path: Path, folder: str) -> None:
    store = Store.open(str(tmp_path / folder))
    store.put("x", b"1")
    assert (tmp_path / folder / "x").read_bytes() == b"1"
    assert Store.open(store.url).list() == ["x"]


def test_file_urls_and_relative_paths_name_the_same_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    stores = [Store.open(url) for url in (f"file://{tmp_path}/ds/", "ds", "./x/../ds", "~/ds", f"{tmp_path}//ds")]
    assert {store.url for store in stores} == {str(tmp_path / "ds")}


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "a/../../b"])
def test_paths_cannot_leave_the_store(store: Store, path: str) -> None:
    for use in (store.read, store.exists, store.delete, lambda p: store.put(p, b""), lambda p: store.create(p, b"")):
        with pytest.raises(UsageError, match="not a path inside a store"):
            use(path)
    with pytest.raises(UsageError):
        store.read_many([path])


def test_a_store_travels_by_pickle_and_hides_its_options(store: Store) -> None:
    store.put("x", b"1")
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store
    assert hash(copy) == hash(store)
    assert copy.read("x") == b"1"
    assert repr(copy) == f"Store({store.url!r})"


def test_a_store_works_in_a_forked_child(store: Store) -> None:
    store.put("from parent", b"1")
    child = os.fork()
    if child == 0:
        try:
            ok = store.read("from parent") == b"1"
            store.create("from child", b"2")
            os._exit(0 if ok and store.exists("from child") else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    # Memory is each process's own.
    assert store.exists("from child") == (not store.url.startswith("memory:"))
    store.put("afterwards", b"3")
    assert store.read("afterwards") == b"3"


def test_an_empty_url_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="empty URL"):
        Store.open("")


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b/c", "b/d", "e f"]), st.binary(max_size=64)), st.data())
def test_a_store_is_a_dictionary(objects: dict[str, bytes], data: st.DataObject) -> None:
    store = Store.open(f"memory://dictionary-{os.getpid()}")
    for path in store.list():
        store.delete(path)
    for path, content in objects.items():
        data.draw(st.sampled_from([store.put, store.create]))(path, content)
    assert dict(store.list_sizes()) == {path: len(content) for path, content in objects.items()}
    assert store.read_many(list(objects)) == list(objects.values())

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from pilc_stream.errors import UsageError
from pilc_stream.pipeline.sources import Request, open_source
from pilc_stream.pipeline.sources import tar as tar_module
from pilc_stream.storage import Sample, Store

Members = Sequence[tuple[str, bytes]]


def tar_bytes(members: Members, mode: str = "w") -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return sink.getvalue()


def samples_of(store: Store, pattern: str = "*.tar") -> tuple[pa.Schema, list[Sample]]:
    source = open_source(Request((f"{store.url}/{pattern}",), store.storage_options), "tar")
    return source.columns, [sample for part in source.parts() for sample in part.samples()]


@pytest.fixture
def here(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


def test_members_of_a_sample_are_grouped_and_typed(here: Store) -> None:
    members = [
        ("0001.jpg", b"one"),
        ("0001.cls", b" 7\n"),
        ("0001.txt", "schön".encode()),
        ("0001.json", b'{"a": 1}'),
        ("0001.emb", b"\xff\0"),
        ("0002.cls", b"-3"),
        ("0002.jpg", b"two"),
    ]
    here.put("a.tar", tar_bytes(members))
    columns, samples = samples_of(here)
    assert columns == pa.schema(
        [("cls", pa.int64()), ("txt", pa.string()), ("json", pa.string()), ("emb", pa.binary())]
    )
    assert samples == [
        Sample("a.tar/0001.jpg", b"one", {"cls": 7, "txt": "schön", "json": '{"a": 1}', "emb": b"\xff\0"}),
        Sample("a.tar/0002.jpg", b"two", {"cls": -3}),
    ]


def test_files_come_in_the_order_of_their_names_with_folders_in_their_keys(here: Store) -> None:
    for name in ("b", "a"):
        here.put(f"{name}.tar", tar_bytes([(f"./deep/er/{name}.png", name.encode()), (f"x/{name}.png", b"")]))
    assert [sample.key for sample in samples_of(here)[1]] == [
        "a.tar/deep/er/a.png",
        "a.tar/x/a.png",
        "b.tar/deep/er/b.png",
        "b.tar/x/b.png",
    ]


@pytest.mark.parametrize(("mode", "suffix"), [("w:gz", "tar.gz"), ("w:bz2", "tar.bz2"), ("w:xz", "tar.xz")])
def test_compressed_files(here: Store, mode: str, suffix: str) -> None:
    here.put(f"a.{suffix}", tar_bytes([("1.png", b"x" * 70_000), ("2.png", b"y")], mode))
    samples = samples_of(here, f"*.{suffix}")[1]
    assert [(sample.key, len(sample.data)) for sample in samples] == [
        (f"a.{suffix}/1.png", 70_000),
        (f"a.{suffix}/2.png", 1),
    ]


def test_folders_hidden_files_and_links_are_no_samples(here: Store) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, kind in (("d", tarfile.DIRTYPE), ("d/l.png", tarfile.SYMTYPE), ("._1.png", tarfile.REGTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "elsewhere"
            tar.addfile(entry, io.BytesIO())
    here.put("a.tar", sink.getvalue() + b"")
    assert samples_of(here)[1] == []


def test_a_second_image_of_a_sample_is_a_column(here: Store) -> None:
    here.put("a.tar", tar_bytes([("1.jpg", b"photo"), ("1.seg.png", b"mask"), ("1.txt", b"t")]))
    columns, (sample,) = samples_of(here)
    assert columns.names == ["seg.png", "txt"]
    assert (sample.data, sample.columns["seg.png"]) == (b"photo", b"mask")


def test_names_that_shards_use_are_prefixed(here: Store) -> None:
    here.put("a.tar", tar_bytes([("1.jpg", b"p"), ("1.width", b"12"), ("1.key", b"k"), ("1.source_key", b"s")]))
    columns, (sample,) = samples_of(here)
    assert columns.names == ["source_width", "source_source_key", "source_key"]
    assert sample.columns == {"source_width": b"12", "source_source_key": b"k", "source_key": b"s"}


def test_a_sample_that_comes_twice_gets_a_key_of_its_own(here: Store) -> None:
    here.put("a.tar", tar_bytes([("1.jpg", b"p"), ("1.jpg", b"q"), ("2.jpg", b"r"), ("1.jpg", b"s")]))
    assert [sample.key for sample in samples_of(here)[1]] == [
        "a.tar/1.jpg",
        "a.tar/1.jpg#2",
        "a.tar/2.jpg",
        "a.tar/1.jpg#3",
    ]


def test_what_has_no_place_is_said(here: Store) -> None:
    here.put("a.tar", tar_bytes([("1.jpg", b"p"), ("1.cls", b"1")]))
    here.put("b.tar", tar_bytes([("1.jpg", b"q"), ("1.cls", b"cat"), ("1.late", b"!"), ("2.cls", b"5")]))
    *_, first, second = samples_of(here)[1]
    assert first.columns == {"cls": None}
    assert first.misfits == (
        "its .cls is no int64",
        "its .late has no column: the first samples of the source lack one",
    )
    assert (second.key, second.data, second.fault) == ("b.tar/2", b"", "the sample has no image")


def test_integers_that_are_texts_make_a_column_of_texts(here: Store) -> None:
    here.put("a.tar", tar_bytes([("1.jpg", b"p"), ("1.cls", b"1"), ("2.jpg", b"p"), ("2.cls", b"dog")]))
    columns, samples = samples_of(here)
    assert columns.field("cls").type == pa.string()
    assert [sample.columns["cls"] for sample in samples] == ["1", "dog"]


def test_a_cut_file_gives_what_can_be_read_and_says_the_rest(here: Store) -> None:
    whole = tar_bytes([(f"{number}.jpg", b"p" * 3000) for number in range(5)])
    here.put("a.tar", tar_bytes([("0.jpg", b"")]))
    here.put("b.tar", whole[:9000])
    samples = samples_of(here)[1]
    assert [sample.key for sample in samples[1:]] == ["b.tar/0.jpg", "b.tar/1.jpg", "b.tar/(damaged)"]
    assert "damaged after 2 samples, the last of which may lack a part" in samples[-1].fault


def test_a_first_file_that_is_no_tar_is_wrong_use(here: Store) -> None:
    here.put("a.tar", b"this is no tar file" * 100)
    with pytest.raises(UsageError, match=r"a\.tar: the file cannot be read as tar"):
        samples_of(here)


def test_only_the_beginning_is_looked_at(here: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_module, "_SAMPLES_LOOKED_AT", 2)
    here.put("a.tar", tar_bytes([(f"{number}.{ending}", b"1") for number, ending in enumerate(["cls", "txt", "emb"])]))
    assert samples_of(here)[0].names == ["cls", "txt"]


def test_how_many_images_there_are_is_unknown(here: Store) -> None:
    here.put("a.tar", tar_bytes([("1.jpg", b"p")]))
    (part,) = open_source(Request((f"{here.url}/a.tar",))).parts()
    assert (part.images, part.size, part.key) == (None, here.size("a.tar"), "a.tar")
    with pytest.raises(UsageError, match="not known before it is read"):
        part.head(1)


@pytest.mark.parametrize("damage", ["half a header", "no header"])
def test_a_damaged_header_is_not_taken_for_the_end(here: Store, damage: str) -> None:
    whole = tar_bytes([(f"{number}.jpg", b"p" * 400) for number in range(5)])
    here.put("a.tar", whole[:1300] if damage == "half a header" else whole[:1024] + b"\xff" * 512 + whole[1536:])
    samples = samples_of(here)[1]
    assert [sample.key for sample in samples] == ["a.tar/0.jpg", "a.tar/(damaged)"]

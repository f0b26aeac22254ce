from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pilc_stream.errors import ManifestError, UsageError
from pilc_stream.records.commit import create_job, put_model, read_commit
from pilc_stream.records.manifest import Manifest, finish
from pilc_stream.records.orphans import delete_orphans, find_orphans
from pilc_stream.records.quarantine import Quarantined, list_quarantined, quarantine, release
from pilc_stream.records.record import Record, RecordError, ShardEntry
from pilc_stream.storage import Store

MakeRecord = Callable[..., Record]
Commit = Callable[..., ShardEntry]

NOTE = Quarantined(1, 3, "the disk is on fire", "a.png", "z.png")


def test_everything_that_nothing_names_is_an_orphan_and_nothing_else(
    tmp_path: Path, record: MakeRecord, commit: Commit
) -> None:
    store = Store.open(str(tmp_path / "ds"))
    model = put_model(store, b"the model")
    create_job(store, {"model_sha256": model})
    commit(store, 0, [record("a")], [RecordError("a", "decode", "bad")])
    commit(store, 1, [record("b")])
    finish(store)
    quarantine(store, Quarantined(7, 3, "not made yet", "x", "y"))
    before = {path: store.read(path) for path in store.list()}
    assert find_orphans(store) == []

    orphans = {
        f"data/part-000000-{'a' * 12}.parquet": b"12",
        f"data/part-000009-{'b' * 12}.parquet": b"345",
        "_pilc/errors/000001.jsonl": b"{}",
        f"_pilc/errors/000000-{'c' * 12}.jsonl": b"{}",
        f"_pilc/models/{'d' * 64}.safetensors": b"another",
    }
    for path, data in orphans.items():
        store.put(path, data)
    quarantine(store, NOTE)
    (tmp_path / "ds" / "data" / ".pilc-tmp-0123").write_bytes(b"half")
    store.put("data/notes.txt", b"not ours")

    found = find_orphans(store)
    assert {orphan.path for orphan in found} == {*orphans, "_pilc/quarantine/000001.json", "data/.pilc-tmp-0123"}
    assert {orphan.path: orphan.bytes for orphan in found}[f"data/part-000009-{'b' * 12}.parquet"] == 3

    delete_orphans(store, found)
    assert find_orphans(store) == []
    assert {path: store.read(path) for path in store.list()} == {**before, "data/notes.txt": b"not ours"}
    assert list(store.temporaries()) == []


def test_what_a_running_job_has_just_put_is_safe(store: Store, record: MakeRecord, commit: Commit) -> None:
    create_job(store, {})
    commit(store, 0, [record("a")])
    put = f"data/part-000001-{'a' * 12}.parquet"
    store.put(put, b"about to be committed")
    with pytest.raises(UsageError, match="the data set is not finished"):
        delete_orphans(store, find_orphans(store))
    assert store.exists(put)
    delete_orphans(store, find_orphans(store), is_idle=True)
    assert not store.exists(put)
    assert read_commit(store, 0).entry.rows == 1


def test_what_was_committed_since_is_no_orphan(store: Store, record: MakeRecord, commit: Commit) -> None:
    create_job(store, {})
    entry = commit(store, 0, [record("a")])
    commit_file = store.read("_pilc/commits/000000.json")
    store.delete("_pilc/commits/000000.json")
    lost = f"data/part-000001-{'a' * 12}.parquet"
    store.put(lost, b"never committed")
    found = find_orphans(store)
    assert {orphan.path for orphan in found} == {entry.path, lost}
    store.put("_pilc/commits/000000.json", commit_file)
    finish(store)
    delete_orphans(store, found)
    assert store.exists(entry.path)
    assert not store.exists(lost)


def test_no_data_set_has_no_orphans(store: Store) -> None:
    with pytest.raises(ManifestError, match="there is no data set here"):
        find_orphans(store)


def test_notes_come_back_and_go_when_the_shard_is_made(store: Store) -> None:
    create_job(store, {})
    later = Quarantined(12, 1, "ü\n", "", "k")
    quarantine(store, later)
    quarantine(store, NOTE)
    assert list_quarantined(store) == [NOTE, later]
    release(store, [0, 1, 2])
    assert list_quarantined(store) == [later]


@pytest.mark.parametrize("data", [b"", b"[]", b'{"format":1}', b'{"format":1,"quarantined":{"index":-1}}'])
def test_a_damaged_note_is_said(store: Store, data: bytes) -> None:
    store.put("_pilc/quarantine/000001.json", data)
    with pytest.raises(ManifestError, match=r"quarantine/000001\.json"):
        list_quarantined(store)


def test_the_notes_go_with_the_data_set(store: Store) -> None:
    from pilc_stream.records.commit import clear

    create_job(store, {})
    quarantine(store, NOTE)
    clear(store)
    assert store.list() == []
    with pytest.raises(ManifestError):
        Manifest.of(store)

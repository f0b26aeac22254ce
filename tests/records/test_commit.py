from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pilc_stream.errors import (
    AlreadyExistsError,
    ManifestError,
    UsageError,
)
from pilc_stream.records import layout
from pilc_stream.records.build import build_shard
from pilc_stream.records.commit import (
    commit_shard,
    committed_indices,
    create_job,
    list_commits,
    put_model,
    put_shard,
    read_commit,
    read_commit_or_none,
    read_errors,
    read_job,
    read_ranges,
)
from pilc_stream.records.manifest import Manifest, finish
from pilc_stream.records.record import Record, RecordError, ShardEntry
from pilc_stream.records.shard import ShardReader
from pilc_stream.storage import Store

Maker = Callable[..., Record]
Committer = Callable[..., ShardEntry]

JOB = {"profile": "fast", "sources": ["s3://b/photos"], "cut": {"shard_bytes": 100, "images": 5}, "info": {"host": "a"}}


class TestCommit:
    ERRORS = (RecordError("a.png", "decode", "cut short"), RecordError('q"\n/ü.png', "encode", "Grund: ß"))

    def test_a_commit_reads_back(self, any_store: Store, record: Maker, commit: Committer) -> None:
        records = [record(f"k{n}", bytes(n)) for n in range(600)]
        entry = commit(any_store, 12, records, self.ERRORS)
        assert entry.index == 12
        read = read_commit(any_store, 12)
        assert read.entry == entry
        assert read.errors == "_pilc/errors/000012.jsonl"
        assert any_store.read_ranges(entry.path, [(o, n) for o, n in read.ranges.tolist()]) == [
            r.payload for r in records
        ]
        assert read_errors(any_store, 12) == list(self.ERRORS)
        assert list_commits(any_store) == [entry]
        assert committed_indices(any_store) == {12}
        assert sorted(any_store.list()) == [
            "_pilc/commits/000012.json",
            "_pilc/errors/000012.jsonl",
            f"data/part-000012-{entry.sha256[:12]}.parquet",
        ]

    def test_no_errors_no_file(self, store: Store, record: Maker, commit: Committer) -> None:
        commit(store, 0, [record("k")])
        assert store.list(layout.ERRORS_FOLDER) == []
        assert read_errors(store, 0) == []

    def test_errors_are_lines_of_json(self, store: Store, record: Maker, commit: Committer) -> None:
        commit(store, 0, [record("k")], self.ERRORS)
        lines = store.read("_pilc/errors/000000.jsonl").decode().splitlines()
        assert [json.loads(line) for line in lines] == [
            {"key": "a.png", "stage": "decode", "reason": "cut short"},
            {"key": 'q"\n/ü.png', "stage": "encode", "reason": "Grund: ß"},
        ]

    def test_lines_with_strange_separators_in_them(self, store: Store, record: Maker, commit: Committer) -> None:
        odd = (RecordError("a\u2028b\x85c\x0bd.png", "decode", "x\x1cy"),)
        commit(store, 0, [record("k")], odd)
        assert read_errors(store, 0) == list(odd)

    def test_the_order_of_writes(
        self, store: Store, record: Maker, commit: Committer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written: list[str] = []
        for name in ("put", "create"):
            real = getattr(Store, name)
            monkeypatch.setattr(
                Store, name, lambda store, path, data, real=real: (written.append(path), real(store, path, data))[1]
            )
        put_model(store, b"m")
        commit(store, 0, [record("k")], self.ERRORS)
        assert [path.split("/")[-2] for path in written] == ["models", "data", "errors", "commits"]

    def test_the_first_commit_counts(self, any_store: Store, record: Maker, commit: Committer) -> None:
        first = commit(any_store, 0, [record("k", b"first")], self.ERRORS)
        second = commit(any_store, 0, [record("k", b"second, other bytes")], self.ERRORS[:1])
        again = commit(any_store, 0, [record("k", b"first")])
        assert first == second == again
        assert ShardReader(any_store, second).payload(0) == b"first"
        assert read_errors(any_store, 0) == list(self.ERRORS)
        # The loser's file is an orphan: there, and seen by nobody.
        assert len(any_store.list(layout.DATA_FOLDER)) == 2
        assert list_commits(any_store) == [first]
        # Who comes late enough to see the commit writes nothing more.
        assert any_store.list(layout.ERRORS_FOLDER) == ["_pilc/errors/000000.jsonl"]

    def test_rivals_agree_whoever_wins(self, any_store: Store, record: Maker, commit: Committer) -> None:
        """Two drivers commit the same shard with different bytes and errors at one moment."""
        for index in range(4):
            barrier = threading.Barrier(2)
            results: list[ShardEntry] = []
            errors = [RecordError("k", "decode", f"reason {n}") for n in range(2)]

            def drive(
                number: int, index: int = index, barrier: Any = barrier, results: Any = results, errors: Any = errors
            ) -> None:
                records = [record("k", b"payload" * (number + 1))]
                barrier.wait()
                results.append(commit(any_store, index, records, [errors[number]]))

            threads = [threading.Thread(target=drive, args=(number,)) for number in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(results) == 2
            assert results[0] == results[1] == read_commit(any_store, index).entry
            winner = len(ShardReader(any_store, results[0]).payload(0)) // 7 - 1
            assert read_errors(any_store, index) == [errors[winner]]

    def test_errors_of_a_run_that_died_before_its_commit_do_not_count(
        self, store: Store, record: Maker, commit: Committer
    ) -> None:
        store.create(layout.errors_path(0), b'{"key":"old","stage":"read","reason":"network"}\n')
        commit(store, 0, [record("k")], self.ERRORS)
        assert read_errors(store, 0) == list(self.ERRORS)
        commit(store, 1, [record("k")])
        assert read_errors(store, 1) == []

    def test_errors_that_are_the_same_keep_their_name(self, store: Store, record: Maker, commit: Committer) -> None:
        commit(store, 0, [record("k")], self.ERRORS)
        store.delete(layout.commit_path(0))
        commit(store, 0, [record("k")], self.ERRORS)
        assert store.list(layout.ERRORS_FOLDER) == ["_pilc/errors/000000.jsonl"]

    def test_contradictions_are_wrong_use(self, store: Store, record: Maker) -> None:
        file, ranges = build_shard([record("a"), record("b")])
        path, sha256 = put_shard(store, 0, file)
        good = ShardEntry(0, path, sha256, len(file), 2, 0, 0, 36, 28, 14, 36, 0.1)
        for entry, wrong in [
            (replace(good, rows=3), ranges),
            (replace(good, payload_bytes=13), ranges),
            (replace(good, shard_bytes=ranges[-1][0]), ranges),
            (replace(good, index=1), ranges),
            (replace(good, seconds=float("nan")), ranges),
            (replace(good, failed=-1), ranges),
            (good, ranges[:1]),
            (good, [ranges[0], ranges[0]]),
            (good, ranges[::-1]),
        ]:
            with pytest.raises(UsageError, match=r"^This shard cannot be committed\."):
                commit_shard(store, entry, wrong)
        assert committed_indices(store) == set()
        assert commit_shard(store, good, ranges) == good

    def test_a_missing_commit(self, store: Store) -> None:
        assert read_commit_or_none(store, 7) is None
        with pytest.raises(ManifestError, match=r"_pilc/commits/000007\.json: the commit is missing"):
            read_commit(store, 7)

    def test_ranges_of_another_shard(self, store: Store, record: Maker, commit: Committer) -> None:
        entry = commit(store, 0, [record("k")])
        other = "f" * 64
        with pytest.raises(ManifestError, match="The data set was written anew"):
            read_ranges(store, replace(entry, sha256=other, path=layout.part_path(0, other)))

    @pytest.mark.parametrize(
        "change",
        [
            {"shard": None},
            {"payloads": None},
            {"payloads": {"lengths": [], "runs": []}},
            {"errors": 5},
            {"errors": "/etc/passwd"},
            {"errors": "data/x"},
            {"errors": "_pilc/errors/000004.jsonl"},
            {"errors": "_pilc/errors/../job.json"},
        ],
    )
    def test_damaged_commits_are_named(
        self, store: Store, record: Maker, commit: Committer, change: dict[str, Any]
    ) -> None:
        commit(store, 3, [record("k")])
        document = json.loads(store.read(layout.commit_path(3)))
        store.put(layout.commit_path(3), json.dumps({**document, **change}).encode())
        with pytest.raises(ManifestError, match=r"commits/000003\.json: "):
            read_errors(store, 3)

    def test_a_commit_under_another_number_is_damaged(self, store: Store, record: Maker, commit: Committer) -> None:
        commit(store, 3, [record("k")])
        store.put(layout.commit_path(4), store.read(layout.commit_path(3)))
        with pytest.raises(ManifestError, match=r"000004\.json: index is 3, expected 4"):
            list_commits(store)

    def test_damaged_error_lists_are_named(self, store: Store, record: Maker, commit: Committer) -> None:
        commit(store, 0, [record("k")], self.ERRORS)
        for line in (b"{", b"[]", b'{"key": "a"}', b'{"key": 1, "stage": "s", "reason": "r"}', b"\xff"):
            store.put(layout.errors_path(0), b'{"key": "a", "stage": "s", "reason": "r"}\n' + line + b"\n")
            with pytest.raises(ManifestError, match=r"errors/000000\.jsonl: line 2 is"):
                read_errors(store, 0)

    def test_strangers_in_the_commits_folder_are_ignored(self, store: Store, record: Maker, commit: Committer) -> None:
        entry = commit(store, 0, [record("k")])
        store.put("_pilc/commits/000001.json.bak", b"x")
        store.put("_pilc/commits/readme.txt", b"x")
        assert list_commits(store) == [entry]


def test_put_shard_can_be_repeated(any_store: Store, record: Maker) -> None:
    file, _ = build_shard([record("k")])
    assert put_shard(any_store, 5, file) == put_shard(any_store, 5, file)
    assert any_store.list() == [layout.part_path(5, hashlib.sha256(file).hexdigest())]


def test_a_driver_killed_at_every_write_is_finished_by_the_next(
    tmp_path: Path, record: Maker, commit: Committer
) -> None:
    """Kill -9 before and after each write of a whole job; running it again always gives the same finished data set."""

    def run(store: Store) -> Manifest:
        create_job(store, JOB)
        put_model(store, b"model")
        done = committed_indices(store)
        for index in range(2):
            if index not in done:
                records = [record(f"{index}/{n}", bytes([n]) * n) for n in range(5)]
                commit(store, index, records, [RecordError(f"{index}/1", "decode", "bad")])
        return finish(store, shards=2)

    reference = run(Store.open(str(tmp_path / "reference")))
    for step in range(1, 100):
        store = Store.open(str(tmp_path / f"{step}"))
        child = os.fork()
        if child == 0:
            _kill_at_write(step)
            run(store)
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            break
        if store.read_or_none(layout.SUCCESS_PATH) is None and read_job(store) is not None:
            with pytest.raises(ManifestError, match="is not finished"):
                Manifest.load(store.url)
            partial = Manifest.load(store.url, allow_partial=True)
            assert all(
                partial.reader(i).keys() == reference.reader(s.index).keys() for i, s in enumerate(partial.shards)
            )
        finished = run(store)
        assert finished.shards == reference.shards
        assert Manifest.load(store.url).shards == reference.shards
        assert store.list() == reference.store.list()
    else:
        pytest.fail("the child never came to its end")
    assert step > 16


def _kill_at_write(step: int) -> None:
    """Make this process kill itself before or after its n-th put or create."""
    count = 0

    def wrap(name: str) -> None:
        real = getattr(Store, name)

        def call(store: Store, path: str, data: bytes) -> None:
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            real(store, path, data)
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

        setattr(Store, name, call)

    wrap("put")
    wrap("create")


def test_a_winner_that_vanishes_is_an_error(
    store: Store, record: Maker, commit: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AlreadyExistsError("there")

    monkeypatch.setattr(Store, "create", refuse)
    with pytest.raises(ManifestError, match="the commit is missing"):
        commit(store, 0, [record("k")])
    with pytest.raises(AlreadyExistsError):
        create_job(store, JOB)

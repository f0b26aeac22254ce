from __future__ import annotations

import json
import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilc_stream.errors import JobMismatchError, UsageError
from pilc_stream.pipeline.plan import Listing, ShardTask, job_fingerprint, plan_shards, survey
from pilc_stream.records.commit import create_job
from pilc_stream.storage import SourceFile, Store

STORE = Store.open("memory://plan")
LISTING = Listing(3, 600, "a" * 64)
FIELDS: dict[str, Any] = {"codec": "raw", "profile": "raw", "model_sha256": "", "max_pixels": 1000, "shard_bytes": 100}


def _files(sizes: list[int]) -> list[SourceFile]:
    return [SourceFile(f"{number:06d}.png", f"{number:06d}.png", size, STORE) for number, size in enumerate(sizes)]


@given(st.lists(st.integers(0, 300)), st.integers(1, 400), st.integers(1, 7))
def test_every_file_is_in_one_shard_within_the_limits(sizes: list[int], shard_bytes: int, max_images: int) -> None:
    files = _files(sizes)
    tasks = list(plan_shards(files, shard_bytes, max_images))
    assert [item for task in tasks for item in task.items] == files
    assert [task.index for task in tasks] == list(range(len(tasks)))
    for task in tasks:
        assert 1 <= len(task.items) <= max_images
        assert task.source_bytes <= shard_bytes or len(task.items) == 1
    for task, following in pairwise(tasks):
        full = task.source_bytes + following.items[0].size > shard_bytes
        assert full or len(task.items) == max_images, "a shard was closed before it was full"


def test_plan_streams() -> None:
    def endless() -> Any:
        number = 0
        while True:
            yield SourceFile(f"{number:09d}", "x", 10, STORE)
            number += 1

    tasks = plan_shards(endless(), 100)
    assert [len(next(tasks).items) for _ in range(3)] == [10, 10, 10]


def test_nothing_gives_no_shards() -> None:
    assert list(plan_shards([])) == []


@pytest.mark.parametrize("keys", [["b", "a"], ["a", "a"]])
def test_unsorted_or_doubled_keys_are_refused(keys: list[str]) -> None:
    with pytest.raises(UsageError, match="sorted by key"):
        list(plan_shards(SourceFile(key, key, 1, STORE) for key in keys))


@pytest.mark.parametrize("limits", [(0, 1), (1, 0), (-5, 3)])
def test_limits_must_be_possible(limits: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        list(plan_shards([], *limits))


def test_tasks_travel_between_processes() -> None:
    task = ShardTask(4, tuple(_files([1, 2])))
    again = pickle.loads(pickle.dumps(task))
    assert again == task
    assert again.items[0].store.url == STORE.url


def test_a_listing_is_its_keys_and_sizes() -> None:
    files = _files([5, 6, 7])
    assert survey(files) == survey(iter(files))
    assert (survey(files).images, survey(files).source_bytes) == (3, 18)
    digests = {
        survey(changed).sha256
        for changed in (
            files,
            files[:2],
            [*files[:2], SourceFile(files[2].key, "elsewhere", 8, STORE)],
            [*files[:2], SourceFile("zebra.png", "000002.png", 7, STORE)],
            [SourceFile("0", "0", 5, STORE), SourceFile("1", "1", 5, STORE)],
            [SourceFile("05 1", "0", 5, STORE)],
        )
    }
    assert len(digests) == 6


def test_where_files_lie_does_not_matter() -> None:
    moved = Store.open("memory://elsewhere")
    here = _files([5, 6])
    assert survey(SourceFile(file.key, "other/" + file.path, file.size, moved) for file in here) == survey(here)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("codec", {"codec": "wave"}),
        ("profile", {"profile": "fast"}),
        ("model_sha256", {"model_sha256": "b" * 64}),
        ("max_pixels", {"max_pixels": 1001}),
        ("shard_bytes", {"shard_bytes": 101}),
        ("shard_images", {"max_images": 17}),
        ("images", {"listing": Listing(4, 600, "a" * 64)}),
        ("source_bytes", {"listing": Listing(3, 601, "a" * 64)}),
        ("listing_sha256", {"listing": Listing(3, 600, "c" * 64)}),
    ],
)
def test_another_job_is_refused_by_the_name_of_what_differs(tmp_path: Path, name: str, change: dict[str, Any]) -> None:
    store = Store.open(str(tmp_path))
    fields = {"listing": LISTING, **FIELDS}
    create_job(store, _fingerprint(fields))
    create_job(store, _fingerprint(fields))
    with pytest.raises(JobMismatchError, match=name):
        create_job(store, _fingerprint({**fields, **change}))


def _fingerprint(fields: dict[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in fields.items() if name != "listing"}
    fingerprint = job_fingerprint(fields["listing"], **rest)
    assert json.loads(json.dumps(fingerprint)) == fingerprint
    return fingerprint


def test_a_fingerprint_of_impossible_limits_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        job_fingerprint(LISTING, **{**FIELDS, "shard_bytes": 0})

"""Drivers that get into each other's way at the worst moment: whatever is declared is what is committed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from small_jobs import Remembering, assert_sound, fill

from pilc_stream.errors import JobError, UsageError
from pilc_stream.records import layout
from pilc_stream.records.commit import list_commits, read_job
from pilc_stream.records.manifest import Manifest, finish
from pilc_stream.storage import Store
from workers import job
from workers.claim import claim
from workers.job import run_job
from workers.planning import JobPlan
from workers.progress import Snapshot
from workers.settings import JobSettings

SettingsOf = Callable[..., JobSettings]
Images = Callable[[int], dict[str, bytes]]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return tmp_path / "dataset"


class Meanwhile(Remembering):
    """Does something once, when so many shards are made."""

    def __init__(self, shards: int, deed: Callable[[], object]) -> None:
        super().__init__()
        self.shards = shards
        self.deed: Callable[[], object] | None = deed

    def show(self, snapshot: Snapshot) -> None:
        super().show(snapshot)
        if self.deed and snapshot.made.shards >= self.shards:
            deed, self.deed = self.deed, None
            deed()


def test_a_rival_that_finishes_while_shards_are_replaced_leaves_no_stale_manifest(
    source: Path, dataset: Path, settings_of: SettingsOf, images: Images
) -> None:
    good = images(6)
    fill(source, {"000.bmp": b"broken", "005.bmp": b"broken too"})
    assert run_job(settings_of(source)).totals.failed == 2
    fill(source, good)
    # The rival came to make missing shards, finds none, and declares what it saw: one shard new, one still old.
    rival = Meanwhile(1, lambda: finish(Store.open(str(dataset)), shards=len(list_commits(Store.open(str(dataset))))))

    report = run_job(settings_of(source, retry_failed=True), rival)

    assert rival.deed is None
    assert report.totals.failed == 0
    store = Store.open(str(dataset))
    assert list(Manifest.load(str(dataset)).shards) == list_commits(store)
    assert_sound(dataset, source)


def test_a_driver_that_declared_old_commits_declares_anew(
    source: Path, dataset: Path, settings_of: SettingsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job(settings_of(source))
    store = Store.open(str(dataset))
    stale = [store.read(path) for path in (layout.MANIFEST_PATH, layout.SUCCESS_PATH)]
    commit = store.read(layout.commit_path(0))
    store.delete(layout.SUCCESS_PATH)
    calls: list[int] = []

    def overtaken(target: Store, *, shards: int) -> Manifest:
        """Between the look at the commits and the last put, another driver replaces a commit."""
        calls.append(shards)
        found = finish(target, shards=shards)
        if len(calls) == 1:
            target.put(layout.commit_path(0), commit.replace(b'"failed":0', b'"failed":1'))
            target.put(layout.MANIFEST_PATH, stale[0])
            target.put(layout.SUCCESS_PATH, stale[1])
        return found

    monkeypatch.setattr(job, "finish", overtaken)

    run_job(settings_of(source))

    assert calls == [3, 3]
    assert list(Manifest.load(str(dataset)).shards) == list_commits(store)
    assert list_commits(store)[0].failed == 1


def test_commits_that_vanish_under_a_job_are_no_success(source: Path, dataset: Path, settings_of: SettingsOf) -> None:
    vandal = Meanwhile(2, lambda: Store.open(str(dataset)).delete(layout.commit_path(0)))

    with pytest.raises(JobError, match="1 of 3 shards are gone that had been committed"):
        run_job(settings_of(source), vandal)

    assert not (dataset / "_SUCCESS").exists()
    run_job(settings_of(source))
    assert_sound(dataset, source)


def test_a_driver_killed_before_it_wrote_its_job_does_not_block_the_next(
    source: Path, dataset: Path, settings_of: SettingsOf
) -> None:
    (dataset / "_pilc").mkdir(parents=True)
    (dataset / "_pilc" / ".pilc-tmp-0123").write_bytes(b"half a job")

    run_job(settings_of(source))

    assert_sound(dataset, source)


def test_a_folder_that_is_only_called_like_ours_is_left_alone(
    source: Path, dataset: Path, settings_of: SettingsOf
) -> None:
    fill(dataset, {"_pilc/notes.txt": b"somebody's"})
    with pytest.raises(UsageError, match=r"holds other files \(_pilc\)"):
        run_job(settings_of(source))


def test_two_that_begin_at_the_same_instant_are_one_job(
    source: Path, settings_of: SettingsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(JobPlan.make(settings_of(source)))
    late = JobPlan.make(settings_of(source))
    first = read_job(late.store)
    exists, looks = Store.exists, iter([False])

    def a_moment_ago(store: Store, path: str) -> bool:
        return next(looks, exists(store, path))

    monkeypatch.setattr(Store, "exists", a_moment_ago)

    claim(late)

    assert read_job(late.store) == first

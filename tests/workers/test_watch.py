from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pilc_stream.pipeline.compress import make_shard
from pilc_stream.records.quarantine import list_quarantined
from pilc_stream.storage import Store
from workers import maker
from workers.job import run_job
from workers.ledger import Patience
from workers.settings import JobSettings
from workers.watch import JobState

SettingsOf = Callable[..., JobSettings]


@pytest.fixture
def store(tmp_path: Path, source: Path, settings_of: SettingsOf) -> Store:
    """A finished data set of three shards."""
    run_job(settings_of(source))
    return Store.open(str(tmp_path / "dataset"))


def date(store: Store, *ages: float) -> None:
    """Say that the shards were committed so many seconds ago."""
    for index, age in enumerate(ages):
        path = f"_pilc/commits/{index:06d}.json"
        document = json.loads(store.read(path))
        document["statistics"]["ended"] = time.time() - age
        store.put(path, json.dumps(document).encode())


def test_a_finished_job(store: Store) -> None:
    state = JobState.of(store)
    assert state.finished
    assert (state.images, state.shards, state.totals.images, state.totals.shards) == (6, 3, 6, 3)
    assert state.left_s is None
    assert not state.seems_running
    assert state.stages.write > 0
    assert len(state.hosts) == 1


def test_the_pace_of_the_last_shards_tells_how_long_the_rest_takes(store: Store) -> None:
    for path in ("_SUCCESS", "_pilc/commits/000002.json"):
        store.delete(path)
    date(store, 30, 20)
    state = JobState.of(store)
    assert state.pace == pytest.approx(0.1, rel=0.01)
    assert state.left_s == pytest.approx(10, rel=0.01)
    assert state.last_commit_s == pytest.approx(20, abs=2)
    assert state.seems_running

    date(store, 5000, 4990)
    assert not JobState.of(store).seems_running


def test_commits_without_statistics_are_no_less_committed(store: Store) -> None:
    for index in range(3):
        path = f"_pilc/commits/{index:06d}.json"
        document = json.loads(store.read(path))
        del document["statistics"]
        store.put(path, json.dumps(document).encode())
    state = JobState.of(store)
    assert (state.totals.images, state.last_commit_s, state.pace) == (6, None, None)


def test_a_shard_that_is_given_up_is_noted_until_it_is_made(
    tmp_path: Path, source: Path, settings_of: SettingsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(task: object, *args: object, **named: object) -> object:
        if getattr(task, "index", 0) == 1:
            raise RuntimeError("a bug")
        return make_shard(task, *args, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(maker, "make_shard", faulty)
        with pytest.raises(Exception, match="1 of 3 shards could not be made"):
            run_job(settings_of(source), None, Patience(attempts=2, first_delay_s=0.0))
    store = Store.open(str(tmp_path / "dataset"))
    (noted,) = JobState.of(store).quarantined
    assert (noted.index, noted.attempts, noted.first_key, noted.last_key) == (1, 2, "002.bmp", "003.bmp")
    assert "a bug" in noted.reason

    run_job(settings_of(source))
    assert list_quarantined(store) == []

"""Jobs on a real local Ray, which the tests of this file share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
from processes import actors, kill, wait_until
from small_jobs import CommitFiles, Remembering, assert_sound, fill
from small_model import small_model

from pilc_stream.pipeline.verify import verify_dataset
from pilc_stream.records.manifest import Manifest
from pilc_stream.storage import Store
from workers.job import run_job
from workers.ledger import Patience
from workers.progress import Snapshot
from workers.settings import JobSettings

pytestmark = pytest.mark.usefixtures("local_ray")

SettingsOf = Callable[..., JobSettings]
Images = Callable[[int], dict[str, bytes]]


class S3(Protocol):
    """What the fixture of that name offers."""

    options: dict[str, Any]


def test_actors_make_the_same_bytes_as_this_process(
    source: Path, tmp_path: Path, settings_of: SettingsOf, reporter: Remembering
) -> None:
    here = run_job(settings_of(source, destination=str(tmp_path / "here")))

    there = run_job(settings_of(source, destination=str(tmp_path / "there"), workers=2), reporter)

    digests = [[shard.sha256 for shard in Manifest.load(str(tmp_path / name)).shards] for name in ("here", "there")]
    assert digests[0] == digests[1]
    assert (here.workers, there.workers) == (0, 2)
    assert there.totals == here.totals
    assert there.statistics.verified == 6
    assert [snapshot.phase for snapshot in reporter.snapshots if snapshot.phase in ("starting", "working")]
    wait_until(lambda: not actors(os.getpid()), "the end of the actors")


class Killer(Remembering):
    """Kills an actor when so many shards are committed."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at
        self.killed: list[int] = []

    def show(self, snapshot: Snapshot) -> None:
        super().show(snapshot)
        if snapshot.made.shards >= self.at and not self.killed:
            self.killed = actors(os.getpid())[:1]
            for pid in self.killed:
                kill(pid)


def test_a_killed_actor_is_replaced_and_nothing_is_lost_or_made_twice(
    tmp_path: Path, settings_of: SettingsOf, images: Images
) -> None:
    source = tmp_path / "source"
    fill(source, images(40))
    killer = Killer(at=3)

    report = run_job(settings_of(source, workers=2), killer, Patience(first_delay_s=0.1))

    assert len(killer.killed) == 1
    assert any("worker was lost" in sentence for sentence in killer.sentences)
    assert report.totals.shards == 20
    assert_sound(tmp_path / "dataset", source)
    assert len(list((tmp_path / "dataset" / "data").glob("part-*"))) == 20


def test_an_interrupt_ends_the_actors_and_keeps_what_is_committed(
    tmp_path: Path, settings_of: SettingsOf, images: Images
) -> None:
    source = tmp_path / "source"
    fill(source, images(40))

    class Interrupting(Remembering):
        def show(self, snapshot: Snapshot) -> None:
            if snapshot.made.shards >= 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(settings_of(source, workers=2), Interrupting())
    before = CommitFiles.of(tmp_path / "dataset")
    assert 2 <= len(before.contents) < 20

    run_job(settings_of(source, workers=2))

    assert before.is_untouched_in(CommitFiles.of(tmp_path / "dataset"))
    assert_sound(tmp_path / "dataset", source)


def test_actors_read_and_write_object_storage(
    source: Path, settings_of: SettingsOf, s3_server: S3, s3_bucket: str
) -> None:
    there = Store.open(f"{s3_bucket}/photos", s3_server.options)
    for path in source.iterdir():
        there.put(path.name, path.read_bytes())

    url = f"{s3_bucket}/dataset"
    report = run_job(settings_of(there.url, destination=url, storage_options=s3_server.options, workers=2))

    assert (report.totals.images, report.totals.failed, report.workers) == (6, 0, 2)
    assert verify_dataset(Manifest.load(url, s3_server.options)).ok


def test_repaired_files_are_taken_by_actors_too(source: Path, settings_of: SettingsOf, images: Images) -> None:
    fill(source, {"001.bmp": b"no picture"})
    assert run_job(settings_of(source, workers=2)).totals.failed == 1
    fill(source, {"001.bmp": images(2)["001.bmp"]})

    assert run_job(settings_of(source, workers=2, retry_failed=True)).totals.failed == 0


def test_a_model_of_ones_own_travels_through_the_data_set(source: Path, settings_of: SettingsOf) -> None:
    data = small_model().file_bytes
    model = source.parent / "mine.safetensors"
    model.write_bytes(data)

    report = run_job(settings_of(source, model_path=str(model), workers=2))
    model.unlink()

    assert report.codec == "wave"
    assert Manifest.load(report.destination).model_file(report.model_sha256) == data
    assert verify_dataset(Manifest.load(report.destination)).ok

"""Jobs where storage gives up: full disks, places that cannot be written, services that are not there."""

from __future__ import annotations

import errno
import os
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_jobs import CommitFiles, assert_sound

from pilc_stream.errors import JobError, StorageError
from pilc_stream.pipeline.plan import plan_shards, survey
from pilc_stream.storage import SourceFile, Store
from pilc_stream.storage.local import LocalDisk
from workers.job import run_job
from workers.ledger import Patience
from workers.settings import JobSettings

SettingsOf = Callable[..., JobSettings]

IMPATIENT = Patience(attempts=2, first_delay_s=0.0)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return tmp_path / "dataset"


def test_a_disk_that_fills_up_ends_the_job_and_keeps_what_is_committed(
    source: Path, dataset: Path, settings_of: SettingsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, puts = LocalDisk.put, [0]

    def until_full(disk: LocalDisk, path: str, data: bytes) -> None:
        puts[0] += path.startswith("data/")
        if puts[0] > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(disk, path, data)

    monkeypatch.setattr(LocalDisk, "put", until_full)
    with pytest.raises(JobError, match=r"could not be made.*the disk is full\. Free some space"):
        run_job(settings_of(source), patience=IMPATIENT)
    monkeypatch.undo()

    before = CommitFiles.of(dataset)
    assert len(before.contents) == 1
    assert not (dataset / "_SUCCESS").exists()
    assert list(Store.open(str(dataset)).temporaries()) == []
    run_job(settings_of(source))
    assert before.is_untouched_in(CommitFiles.of(dataset))
    assert_sound(dataset, source)


@pytest.mark.parametrize(("number", "said"), [(errno.EROFS, "read-only"), (errno.EACCES, "permission is denied")])
def test_a_place_that_cannot_be_written_is_said_before_anything_is_made(
    number: int, said: str, source: Path, dataset: Path, settings_of: SettingsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(disk: LocalDisk, path: str, data: bytes) -> None:
        raise OSError(number, os.strerror(number))

    for name in ("put", "create"):
        monkeypatch.setattr(LocalDisk, name, refuse)
    with pytest.raises(StorageError, match=rf"_pilc/job\.json: cannot create it: .*{said}"):
        run_job(settings_of(source))
    assert not dataset.exists()


@pytest.mark.slow
def test_a_service_that_is_not_there_is_said(source: Path, settings_of: SettingsOf) -> None:
    pytest.importorskip("s3fs")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        options: dict[str, Any] = {"key": "k", "secret": "s", "endpoint_url": endpoint}
        with pytest.raises(StorageError, match="after 4 attempts: the connection or the service failed"):
            run_job(settings_of(source, destination="s3://bucket/ds", storage_options=options))


def test_a_plan_takes_the_memory_of_one_shard_however_long_the_listing() -> None:
    store = Store.open("memory://long")

    def listing(count: int) -> Iterator[SourceFile]:
        return (SourceFile(f"{number:09}.png", f"{number:09}.png", 100_000, store) for number in range(count))

    def peak_bytes(count: int) -> int:
        tracemalloc.start()
        shards = [survey(task.items) for task in plan_shards(listing(count), 1 << 26)]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sum(shard.images or 0 for shard in shards) == count
        return peak

    few, many = peak_bytes(2_000), peak_bytes(40_000)
    # What grows is one short record for each shard, here of 671 images.
    assert many - few < 10 * (40_000 - 2_000)

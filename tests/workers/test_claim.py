from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pilc_stream.errors import JobMismatchError, UsageError
from pilc_stream.records.commit import read_job
from workers.claim import SourceChanged, claim, look, without_password
from workers.planning import JobPlan
from workers.settings import JobSettings

SettingsOf = Callable[..., JobSettings]


@pytest.fixture
def plan_of(settings_of: SettingsOf, source: Path) -> Callable[..., JobPlan]:
    return lambda **fields: JobPlan.make(settings_of(fields.pop("source", source), **fields))


def test_an_empty_place_is_taken(plan_of: Callable[..., JobPlan]) -> None:
    plan = plan_of()
    assert look(plan) == "nothing"

    claim(plan)

    stored = read_job(plan.store)
    assert stored is not None
    assert {name: stored[name] for name in plan.fingerprint()} == plan.fingerprint()
    assert stored["info"]["shards"] == 3
    assert look(plan) == "this job"


def test_the_same_job_goes_on(plan_of: Callable[..., JobPlan]) -> None:
    claim(plan_of())
    first = read_job(plan_of().store)

    claim(plan_of(workers=0, verify="none"))

    assert read_job(plan_of().store) == first


def test_other_settings_are_another_job(plan_of: Callable[..., JobPlan]) -> None:
    claim(plan_of())
    other = plan_of(shard_size=9000)

    assert look(other) == "another job"
    with pytest.raises(JobMismatchError, match="shard_bytes is 3000 there and 9000 here"):
        claim(other)


def test_changed_files_are_told_from_changed_settings(plan_of: Callable[..., JobPlan], source: Path) -> None:
    claim(plan_of())
    (source / "006.bmp").write_bytes(b"new")

    with pytest.raises(SourceChanged, match=r"6 images of [\d,]+ bytes then, 7 images of [\d,]+ bytes now"):
        claim(plan_of())


def test_fail_refuses_any_data_set(plan_of: Callable[..., JobPlan]) -> None:
    claim(plan_of(on_existing="fail"))

    with pytest.raises(UsageError, match="there is a data set already"):
        claim(plan_of(on_existing="fail"))


def test_overwrite_deletes_what_belongs_to_the_data_set_and_nothing_else(
    plan_of: Callable[..., JobPlan], tmp_path: Path
) -> None:
    claim(plan_of())
    root = tmp_path / "dataset"
    digest = "a" * 12
    ours = [f"data/part-000000-{digest}.parquet", "_pilc/commits/000000.json", "_pilc/manifest.json", "_SUCCESS"]
    theirs = ["notes.txt", "data/labels.parquet", "data/part.parquet"]
    for name in ours + theirs:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")

    claim(plan_of(on_existing="overwrite", shard_size=9000))

    assert [name for name in ours if (root / name).exists()] == []
    assert [name for name in theirs if not (root / name).exists()] == []
    stored: dict[str, Any] | None = read_job(plan_of().store)
    assert stored is not None
    assert stored["shard_bytes"] == 9000


@pytest.mark.parametrize("on_existing", ["resume", "fail", "overwrite"])
def test_a_folder_of_other_files_is_refused_and_left_alone(
    on_existing: str, plan_of: Callable[..., JobPlan], tmp_path: Path
) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "holiday.jpg").write_text("precious")

    with pytest.raises(UsageError, match=r"holds other files \(holiday.jpg\)"):
        claim(plan_of(on_existing=on_existing))
    with pytest.raises(UsageError, match="holds other files"):
        look(plan_of())

    assert [path.name for path in (tmp_path / "dataset").iterdir()] == ["holiday.jpg"]


def test_an_empty_folder_and_hidden_files_do_not_stand_in_the_way(
    plan_of: Callable[..., JobPlan], tmp_path: Path
) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / ".DS_Store").write_text("x")

    claim(plan_of())

    assert read_job(plan_of().store) is not None


def test_a_file_is_no_destination(plan_of: Callable[..., JobPlan], tmp_path: Path) -> None:
    (tmp_path / "dataset").write_text("a file")

    with pytest.raises(UsageError, match="the destination is a file"):
        claim(plan_of())


def test_passwords_in_urls_are_not_stored() -> None:
    assert without_password("ftp://anna:secret@host/photos") == "ftp://host/photos"
    assert without_password("s3://bucket/a@b/c") == "s3://bucket/a@b/c"
    assert without_password("/local/a@b") == "/local/a@b"

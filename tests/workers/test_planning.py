from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pilc_stream.errors import JobError, UsageError
from workers.planning import JobPlan, list_parts
from workers.settings import JobSettings

SettingsOf = Callable[..., JobSettings]


def test_a_plan_knows_images_bytes_and_shards(source: Path, settings_of: SettingsOf) -> None:
    plan = JobPlan.make(settings_of(source))

    assert plan.listing.images == 6
    assert plan.listing.source_bytes == sum(path.stat().st_size for path in source.iterdir())
    assert [shard.images for shard in plan.shards] == [2, 2, 2]
    assert (plan.codec, plan.profile, plan.model_sha256, plan.model) == ("raw", "raw", "", b"")
    assert not Path(plan.store.url).exists()


def test_works_leaves_out_what_is_committed(source: Path, settings_of: SettingsOf) -> None:
    works = list(JobPlan.make(settings_of(source)).works({1}))

    assert [work.task.index for work in works] == [0, 2]
    assert [item.key for work in works for item in work.task.items] == ["000.bmp", "001.bmp", "004.bmp", "005.bmp"]


def test_a_limit_takes_the_first_images(source: Path, settings_of: SettingsOf) -> None:
    plan = JobPlan.make(settings_of(source, limit=3))

    assert plan.listing.images == 3
    assert [item.key for work in plan.works(()) for item in work.task.items] == ["000.bmp", "001.bmp", "002.bmp"]


def test_a_destination_below_the_source_is_no_source(source: Path, settings_of: SettingsOf) -> None:
    (source / "out" / "data").mkdir(parents=True)
    (source / "out" / "data" / "stray.bmp").write_bytes((source / "000.bmp").read_bytes())
    settings = settings_of(f"{source}/**", destination=str(source / "out"))

    plan = JobPlan.make(settings)

    assert [file.key for file in list_parts(settings, plan.source)] == [f"{index:03}.bmp" for index in range(6)]


def test_a_source_in_the_destination_is_refused(source: Path, settings_of: SettingsOf) -> None:
    for destination in (source, source.parent):
        with pytest.raises(UsageError, match="lies in the destination"):
            JobPlan.make(settings_of(source, destination=str(destination)))


def test_a_source_without_images_is_refused_by_name(tmp_path: Path, settings_of: SettingsOf) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("no image")

    with pytest.raises(UsageError, match=r"texts: no image was found"):
        JobPlan.make(settings_of(tmp_path / "texts"))


def test_a_source_that_is_not_there_is_wrong_use(tmp_path: Path, settings_of: SettingsOf) -> None:
    with pytest.raises(UsageError, match="there is nothing at this place"):
        JobPlan.make(settings_of(tmp_path / "nowhere"))


def test_an_unknown_profile_names_the_known_ones(source: Path, settings_of: SettingsOf) -> None:
    with pytest.raises(UsageError, match=r"'tiny' is unknown; known profiles: .*raw"):
        JobPlan.make(settings_of(source, profile="tiny"))


@pytest.mark.parametrize("change", ["new file at the end", "file gone", "other size", "renamed"])
def test_a_listing_that_changes_while_the_job_runs_is_noticed(
    change: str, source: Path, settings_of: SettingsOf
) -> None:
    plan = JobPlan.make(settings_of(source))
    works = plan.works(())
    assert next(works).task.index == 0

    match change:
        case "new file at the end":
            (source / "zzz.bmp").write_bytes(b"later")
        case "file gone":
            (source / "005.bmp").unlink()
        case "other size":
            (source / "004.bmp").write_bytes(b"shorter")
        case "renamed":
            (source / "004.bmp").rename(source / "0041.bmp")

    with pytest.raises(JobError, match="changed while the job was running"):
        list(plan.works(()))


def test_the_fingerprint_changes_with_what_decides_the_bytes_only(source: Path, settings_of: SettingsOf) -> None:
    first = JobPlan.make(settings_of(source)).fingerprint()

    assert JobPlan.make(settings_of(source, workers=3, verify="none", device="cpu")).fingerprint() == first
    assert JobPlan.make(settings_of(source, shard_size=9000)).fingerprint() != first
    assert JobPlan.make(settings_of(source, max_pixels=100)).fingerprint() != first
    assert JobPlan.make(settings_of(source, limit=5)).fingerprint() != first

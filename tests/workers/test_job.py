"""Whole jobs in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_jobs import CommitFiles, Remembering, assert_sound, fill, keys_of
from small_model import small_model

from pilc_stream.errors import DeviceError, JobError, JobMismatchError, StorageError, UsageError
from pilc_stream.pipeline.compress import make_shard
from pilc_stream.records.commit import read_errors
from pilc_stream.records.manifest import Manifest
from pilc_stream.storage import Store
from workers import maker
from workers.job import plan_job, run_job
from workers.ledger import Patience
from workers.settings import JobSettings

SettingsOf = Callable[..., JobSettings]
Images = Callable[[int], dict[str, bytes]]

IMPATIENT = Patience(attempts=2, first_delay_s=0.0)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return tmp_path / "dataset"


def test_a_folder_becomes_a_finished_data_set(
    source: Path, dataset: Path, settings_of: SettingsOf, reporter: Remembering
) -> None:
    report = run_job(settings_of(source), reporter)

    assert_sound(dataset, source)
    document = report.to_json()
    assert (document["images"], document["failed"], document["fallback"], document["shards"]) == (6, 0, 0, 3)
    assert document["raw_bytes"] == document["sub_pixels"] == 6 * 17 * 25 * 3
    assert document["source_bytes"] == sum(path.stat().st_size for path in source.iterdir())
    assert document["bpsp"] == pytest.approx(8 * document["payload_bytes"] / document["sub_pixels"], abs=1e-4)
    assert document["run"]["coded"]["payload_bytes"] == document["payload_bytes"]
    assert document["run"]["verified"] == 6
    assert document["workers"] == 0
    assert [snapshot.phase for snapshot in reporter.snapshots][-1] == "done"
    assert reporter.snapshots[-1].images_done == 6
    assert reporter.sentences == []


def test_a_finished_job_has_nothing_left_to_do(source: Path, dataset: Path, settings_of: SettingsOf) -> None:
    run_job(settings_of(source))
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*") if path.is_file()}

    report = run_job(settings_of(source))

    assert report.skipped_shards == report.totals.shards == 3
    assert report.made.shards == 0
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*") if path.is_file()} == before


def test_committed_shards_are_not_made_again(source: Path, dataset: Path, settings_of: SettingsOf) -> None:
    run_job(settings_of(source))
    (dataset / "_SUCCESS").unlink()
    (dataset / "_pilc" / "commits" / "000001.json").unlink()
    before = CommitFiles.of(dataset)

    report = run_job(settings_of(source))

    assert (report.skipped_shards, report.made.shards) == (2, 1)
    assert before.is_untouched_in(CommitFiles.of(dataset))
    assert_sound(dataset, source)


def test_a_job_that_was_stopped_before_it_said_so_is_finished(
    source: Path, dataset: Path, settings_of: SettingsOf
) -> None:
    run_job(settings_of(source))
    for name in ("_SUCCESS", "_pilc/manifest.json"):
        (dataset / name).unlink()

    assert run_job(settings_of(source)).made.shards == 0
    assert_sound(dataset, source)


def test_an_interrupt_keeps_what_is_committed(
    source: Path, dataset: Path, settings_of: SettingsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = iter([True, True, False])

    def interrupted(*args: Any, **named: Any) -> Any:
        if not next(made):
            raise KeyboardInterrupt
        return make_shard(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(maker, "make_shard", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_job(settings_of(source))
    before = CommitFiles.of(dataset)
    assert sorted(before.contents) == ["000000.json", "000001.json"]
    assert not (dataset / "_SUCCESS").exists()

    run_job(settings_of(source))

    assert before.is_untouched_in(CommitFiles.of(dataset))
    assert_sound(dataset, source)


def test_a_shard_that_fails_once_is_tried_again(
    source: Path, dataset: Path, settings_of: SettingsOf, reporter: Remembering, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = iter([StorageError("photos: the disk is on fire.")])

    def faulty(*args: Any, **named: Any) -> Any:
        for fault in faults:
            raise fault
        return make_shard(*args, **named)

    monkeypatch.setattr(maker, "make_shard", faulty)
    run_job(settings_of(source), reporter, IMPATIENT)

    assert_sound(dataset, source)
    assert [sentence for sentence in reporter.sentences if "on fire" in sentence and "tried again" in sentence]


def test_a_shard_that_keeps_failing_is_named_after_the_others_are_done(
    source: Path, dataset: Path, settings_of: SettingsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(task: Any, *args: Any, **named: Any) -> Any:
        if task.index == 1:
            raise RuntimeError("a bug")
        return make_shard(task, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(maker, "make_shard", faulty)
        with pytest.raises(JobError, match=r"1 of 3 shards could not be made.*shard 1: RuntimeError: a bug \(test_job"):
            run_job(settings_of(source), None, IMPATIENT)
    assert sorted(CommitFiles.of(dataset).contents) == ["000000.json", "000002.json"]

    assert run_job(settings_of(source)).made.shards == 1
    assert_sound(dataset, source)


def test_a_file_that_cannot_be_read_costs_its_shard_and_no_other(
    source: Path, dataset: Path, settings_of: SettingsOf
) -> None:
    # A link that leads to itself is listed, with size 0, and cannot be read.
    (source / "003.bmp").unlink()
    (source / "003.bmp").symlink_to(source / "003.bmp")
    with pytest.raises(JobError, match=r"1 of 3 shards could not be made.*shard 1: .*003\.bmp: cannot read it"):
        run_job(settings_of(source), None, IMPATIENT)
    assert sorted(CommitFiles.of(dataset).contents) == ["000000.json", "000002.json"]


def test_a_file_that_is_not_there_costs_its_record_and_is_taken_once_it_is(
    source: Path, dataset: Path, settings_of: SettingsOf
) -> None:
    # A link that leads nowhere is listed, with size 0, as is a file that vanishes afterwards.
    (source / "003.bmp").unlink()
    (source / "003.bmp").symlink_to(source / "moved")
    report = run_job(settings_of(source))
    assert (report.totals.images, report.totals.failed) == (6, 1)
    assert [(failure.key, failure.stage) for failure in report.failures] == [("003.bmp", "read")]

    (source / "moved").write_bytes((source / "002.bmp").read_bytes())
    assert run_job(settings_of(source, retry_failed=True)).totals.failed == 0
    assert Manifest.load(str(dataset)).rows == 6


def test_another_job_is_refused_and_overwritten_on_demand(source: Path, dataset: Path, settings_of: SettingsOf) -> None:
    run_job(settings_of(source))
    with pytest.raises(JobMismatchError):
        run_job(settings_of(source, shard_size=9000))

    report = run_job(settings_of(source, shard_size=9000, on_existing="overwrite"))

    assert report.totals.shards == 1
    assert_sound(dataset, source)
    assert len(list((dataset / "data").iterdir())) == 1


def test_a_dry_run_writes_nothing_and_says_what_would_be_done(
    source: Path, dataset: Path, settings_of: SettingsOf
) -> None:
    plan = plan_job(settings_of(source))
    assert (plan.existing, plan.images, plan.shards, plan.committed_shards) == ("nothing", 6, 3, 0)
    assert not dataset.exists()

    run_job(settings_of(source))
    (dataset / "_pilc" / "commits" / "000001.json").unlink()
    assert plan_job(settings_of(source)).committed_shards == 2
    assert plan_job(settings_of(source)).existing == "this job"
    assert plan_job(settings_of(source, on_existing="overwrite")).committed_shards == 0
    assert plan_job(settings_of(source, shard_size=9000)).existing == "another job"


def test_memory_is_a_storage_like_any_other(source: Path, settings_of: SettingsOf) -> None:
    url = f"memory://{source.parent.name}/dataset"

    report = run_job(settings_of(source, destination=url))

    assert report.destination == url
    assert Manifest.load(url).rows == 6


class TestBadFiles:
    """What cannot be decoded is kept as it came, listed, and made again on demand."""

    @pytest.fixture
    def broken(self, source: Path) -> Path:
        size = (source / "001.bmp").stat().st_size
        # As large as what they replace, so that shards are cut alike; the empty one joins its neighbour's.
        fill(source, {"001.bmp": b"BM, but no picture".ljust(size), "003.jpg": b"text".ljust(size), "004.bmp": b""})
        (source / "003.bmp").unlink()
        return source

    def test_they_are_kept_byte_for_byte_with_a_reason(
        self, broken: Path, dataset: Path, settings_of: SettingsOf
    ) -> None:
        report = run_job(settings_of(broken))

        assert report.totals.failed == 3
        assert [failure.key for failure in report.failures] == ["001.bmp", "003.jpg", "004.bmp"]
        assert all(failure.reason and failure.stage == "decode" for failure in report.failures)
        assert_sound(dataset, broken)
        manifest = Manifest.load(str(dataset))
        for position in range(len(manifest.shards)):
            reader = manifest.reader(position)
            rows = zip(reader.keys(), reader.columns(["codec"]).column("codec").to_pylist(), strict=True)
            for row, (key, codec) in enumerate(rows):
                if codec == "source":
                    assert reader.payload(row) == (broken / key).read_bytes()

    def test_a_finished_job_still_reports_them(self, broken: Path, settings_of: SettingsOf) -> None:
        first = run_job(settings_of(broken))
        again = run_job(settings_of(broken))

        assert again.failures == first.failures
        assert again.totals == first.totals

    def test_retry_takes_repaired_files_and_leaves_good_shards_alone(
        self, broken: Path, dataset: Path, settings_of: SettingsOf, images: Images
    ) -> None:
        run_job(settings_of(broken, shard_size=1400))
        before = CommitFiles.of(dataset)
        files_before = set((dataset / "data").iterdir())
        assert len(before.contents) == 5
        fill(broken, {"001.bmp": images(6)["001.bmp"]})

        report = run_job(settings_of(broken, shard_size=1400, retry_failed=True))

        assert report.totals.failed == 2
        after = CommitFiles.of(dataset)
        untouched = [name for name in before.contents if before.written_ns[name] == after.written_ns[name]]
        assert len(untouched) == report.skipped_shards == 3
        assert_sound(dataset, broken)
        assert len(set((dataset / "data").iterdir())) == len(files_before)
        assert [error.key for index in range(5) for error in read_errors(Store.open(str(dataset)), index)] == [
            "003.jpg",
            "004.bmp",
        ]

    def test_retry_of_everything_repaired_ends_without_failures(
        self, broken: Path, dataset: Path, settings_of: SettingsOf, images: Images
    ) -> None:
        run_job(settings_of(broken))
        good = images(6)
        fill(broken, {"001.bmp": good["001.bmp"], "003.jpg": good["003.bmp"], "004.bmp": good["004.bmp"]})
        with pytest.raises(JobMismatchError, match="--retry-failed"):
            run_job(settings_of(broken))

        report = run_job(settings_of(broken, retry_failed=True))

        assert report.totals.failed == 0
        assert report.failures == ()
        assert_sound(dataset, broken)
        assert list((dataset / "_pilc" / "errors").iterdir()) == []

    def test_retry_that_is_interrupted_leaves_every_image_in_the_data_set_and_can_be_repeated(
        self, broken: Path, dataset: Path, settings_of: SettingsOf, images: Images, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_job(settings_of(broken))
        fill(broken, {"001.bmp": images(6)["001.bmp"], "004.bmp": images(6)["004.bmp"]})
        made = iter([True, False])

        def interrupted(*args: Any, **named: Any) -> Any:
            if not next(made):
                raise KeyboardInterrupt
            return make_shard(*args, **named)

        with monkeypatch.context() as patch:
            patch.setattr(maker, "make_shard", interrupted)
            with pytest.raises(KeyboardInterrupt):
                run_job(settings_of(broken, retry_failed=True))
        assert sum(entry.rows for entry in Manifest.load(str(dataset), allow_partial=True).shards) == 6

        assert run_job(settings_of(broken, retry_failed=True)).totals.failed == 1
        assert_sound(dataset, broken)

    def test_retry_that_fails_leaves_a_finished_data_set(
        self, broken: Path, dataset: Path, settings_of: SettingsOf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_job(settings_of(broken))

        def faulty(*args: Any, **named: Any) -> Any:
            raise StorageError("no storage.")

        monkeypatch.setattr(maker, "make_shard", faulty)
        with pytest.raises(JobError, match="no storage"):
            run_job(settings_of(broken, retry_failed=True), None, IMPATIENT)

        assert_sound(dataset, broken)

    def test_retry_that_lacks_a_shard_does_not_call_the_data_set_finished(
        self, broken: Path, dataset: Path, settings_of: SettingsOf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_job(settings_of(broken))
        for name in ("_SUCCESS", "_pilc/manifest.json", "_pilc/commits/000002.json"):
            (dataset / name).unlink()

        def faulty(task: Any, *args: Any, **named: Any) -> Any:
            if task.index == 2:
                raise StorageError("no storage.")
            return make_shard(task, *args, **named)

        with monkeypatch.context() as patch:
            patch.setattr(maker, "make_shard", faulty)
            with pytest.raises(JobError, match="shard 2: no storage"):
                run_job(settings_of(broken, retry_failed=True), None, IMPATIENT)
        assert not (dataset / "_SUCCESS").exists()

        run_job(settings_of(broken))
        assert_sound(dataset, broken)

    def test_retry_without_a_device_leaves_a_finished_data_set(
        self, broken: Path, dataset: Path, settings_of: SettingsOf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_job(settings_of(broken))

        def none_here(spec: Any) -> Any:
            raise DeviceError("no such device here.")

        monkeypatch.setattr(maker, "_open", none_here)
        with pytest.raises(DeviceError):
            run_job(settings_of(broken, retry_failed=True))

        assert_sound(dataset, broken)

    def test_retry_does_not_lose_an_image_whose_file_is_gone(
        self, broken: Path, dataset: Path, settings_of: SettingsOf
    ) -> None:
        run_job(settings_of(broken))
        before = CommitFiles.of(dataset)
        (broken / "001.bmp").rename(broken / "0011.bmp")

        with pytest.raises(JobError, match=r"001\.bmp: the file is no longer in the source"):
            run_job(settings_of(broken, retry_failed=True))

        assert before == CommitFiles.of(dataset)
        assert len(keys_of(dataset)) == 6

    def test_retry_with_nothing_failed_is_a_plain_run(self, source: Path, settings_of: SettingsOf) -> None:
        run_job(settings_of(source))

        assert run_job(settings_of(source, retry_failed=True)).made.shards == 0

    def test_retry_cannot_be_combined_with_deleting(self, source: Path, settings_of: SettingsOf) -> None:
        with pytest.raises(UsageError):
            settings_of(source, retry_failed=True, on_existing="overwrite")


def test_what_the_codec_stores_by_another_is_called_by_that_name(
    tmp_path: Path, dataset: Path, settings_of: SettingsOf, file_of: Callable[..., bytes]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (21, 31, 3), dtype=np.uint8)
    fill(tmp_path / "source", {"noise.bmp": file_of(noise, "BMP")})
    model = tmp_path / "small.safetensors"
    model.write_bytes(small_model().file_bytes)

    report = run_job(settings_of(tmp_path / "source", model_path=str(model)))

    assert (report.codec, dict(report.statistics.codecs)) == ("wave", {"raw": 1})
    columns = Manifest.load(str(dataset)).reader(0).columns(["codec", "model"]).to_pylist()
    assert columns == [{"codec": "raw", "model": ""}]
    assert_sound(dataset, tmp_path / "source")

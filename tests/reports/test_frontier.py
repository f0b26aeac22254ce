"""The frontier is measured set by set, recorded, and not measured again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pilc_stream.errors import UsageError
from pilc_stream.models.model import load_model
from pilc_stream.models.shipped import preset_bytes
from pilc_stream.reports import frontier
from pilc_stream.reports.contest import megabytes_per_second
from pilc_stream.reports.figures import Key
from pilc_stream.reports.frontier import Contest, measure_sets
from pilc_stream.reports.records import observations
from pilc_stream.reports.sets import find_sets, load_set

pytest.importorskip("imagecodecs")
QUICK = Contest(profiles=("raw",), efforts=(1,), rounds=1)


def codecs(record: Any) -> list[str]:
    return [observed.figures.key.codec for observed in observations(record)]


class Heard:
    """A progress that keeps what it was told."""

    def __init__(self) -> None:
        self.labels: list[str] = []

    def __call__(self, label: str, done: int, total: int) -> None:
        assert 0 <= done <= total
        self.labels.append(label)

    @property
    def worked(self) -> bool:
        return any("round" in label for label in self.labels)


def test_sets_are_folders_and_parquet_files(sets_folder: Path) -> None:
    assert [path.name for path in find_sets(sets_folder)] == ["noise.parquet", "ramps"]
    assert [path.name for path in find_sets(sets_folder, ["ramps"])] == ["ramps"]
    with pytest.raises(UsageError, match="no set 'photos'; found: noise, ramps"):
        find_sets(sets_folder, ["photos"])
    with pytest.raises(UsageError, match="no set was found"):
        find_sets(sets_folder / "ramps")


def test_a_set_without_images_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match="no image was found"):
        load_set(tmp_path / "set")


def test_the_digest_of_a_set_tells_shapes_and_pixels(sets_folder: Path) -> None:
    whole, part = load_set(sets_folder / "ramps"), load_set(sets_folder / "ramps", 2)
    assert whole.sha256() == load_set(sets_folder / "ramps").sha256()
    assert whole.sha256() != part.sha256()


def test_profiles_and_peers_are_measured_on_every_set(sets_folder: Path) -> None:
    noise, ramps = measure_sets(sets_folder, [], QUICK)
    assert (noise["set"], ramps["set"]) == ("noise", "ramps")
    assert codecs(noise) == codecs(ramps) == ["raw", "PNG", "WebP", "JPEG XL e1"]
    raw, png, *_ = (observed.figures for observed in observations(ramps))
    assert (raw.images, raw.pixels, raw.raw_bytes) == (png.images, png.pixels, png.raw_bytes) == (3, 1800, 5400)
    assert raw.bpsp > 8 > png.bpsp


def test_all_shipped_profiles_are_the_default(sets_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frontier, "wave_preset_names", lambda: ["raw"])
    (record,) = measure_sets(sets_folder, ["ramps"], Contest(with_peers=False, rounds=1))
    assert codecs(record) == ["raw"]


def test_the_backend_that_worked_and_the_model_are_recorded(sets_folder: Path) -> None:
    contest = Contest(profiles=("fast",), with_peers=False, device="reference", rounds=1, limit=1)
    (record,) = measure_sets(sets_folder, ["ramps"], contest)
    (observed,) = observations(record)
    assert observed.figures.key == Key("fast", "reference", 1, load_model(preset_bytes("fast")).sha256)
    assert observed.figures.images == 1


def test_an_effort_is_skipped_where_it_was_asked(sets_folder: Path) -> None:
    contest = Contest(profiles=("raw",), efforts=(1, 2), rounds=1, skipped=frozenset({("ramps", 2)}))
    noise, ramps = measure_sets(sets_folder, [], contest)
    assert "JPEG XL e2" in codecs(noise)
    assert "JPEG XL e2" not in codecs(ramps)


@pytest.mark.parametrize("skipped", [("ramp", 1), ("ramps", 9)])
def test_skipping_what_is_not_measured_is_wrong_use(sets_folder: Path, skipped: tuple[str, int]) -> None:
    contest = Contest(profiles=("raw",), efforts=(1,), skipped=frozenset({skipped}))
    with pytest.raises(UsageError, match=f"skip {skipped[0]}:{skipped[1]}"):
        measure_sets(sets_folder, [], contest)


def test_what_is_recorded_is_not_measured_again(sets_folder: Path, tmp_path: Path) -> None:
    folder, first, again = tmp_path / "records", Heard(), Heard()
    records = measure_sets(sets_folder, [], QUICK, folder, first)
    assert first.worked
    stored = sorted(folder.iterdir())
    assert [json.loads(path.read_text()) for path in stored] == records
    assert [path.name.split("-")[:2] for path in stored] == [["frontier", "noise"], ["frontier", "ramps"]]

    assert measure_sets(sets_folder, [], QUICK, folder, again) == records
    assert not again.worked


def test_a_run_that_was_stopped_goes_on_with_its_set(sets_folder: Path, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(label: str, done: int, total: int) -> None:
        if label.startswith("ramps"):
            raise Stopped

    folder, heard = tmp_path / "records", Heard()
    with pytest.raises(Stopped):
        measure_sets(sets_folder, [], QUICK, folder, stop)
    measure_sets(sets_folder, [], QUICK, folder, heard)
    assert {label.split(":")[0] for label in heard.labels if "round" in label} == {"ramps"}


def test_what_is_new_is_added_as_a_run_of_its_own(sets_folder: Path, tmp_path: Path) -> None:
    folder, heard = tmp_path / "records", Heard()
    measure_sets(sets_folder, ["ramps"], QUICK, folder)
    more = Contest(profiles=("raw",), efforts=(1, 2), rounds=1)
    (record,) = measure_sets(sets_folder, ["ramps"], more, folder, heard)
    assert codecs(record) == ["raw", "PNG", "WebP", "JPEG XL e1", "JPEG XL e2"]
    assert len(record["runs"]) == 2
    assert {label.split(": ")[1] for label in heard.labels if "round" in label} == {"JPEG XL e2"}


def test_a_new_version_takes_the_place_of_the_old_one(sets_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "records"
    measure_sets(sets_folder, ["ramps"], QUICK, folder)
    (path,) = folder.iterdir()
    old = json.loads(path.read_text())
    old["runs"][0]["peers"][0]["settings"] = "an older library"
    path.write_text(json.dumps(old))
    (record,) = measure_sets(sets_folder, ["ramps"], QUICK, folder)
    assert sorted(codecs(record)) == sorted(["raw", "PNG", "WebP", "JPEG XL e1"])
    assert [peer["peer"] for peer in record["runs"][1]["peers"]] == ["PNG"]
    assert "an older library" not in path.read_text()


def test_other_images_are_measured_anew(sets_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "records"
    measure_sets(sets_folder, ["ramps"], QUICK, folder)
    fewer = Contest(profiles=("raw",), efforts=(1,), rounds=1, limit=2)
    (record,) = measure_sets(sets_folder, ["ramps"], fewer, folder)
    assert {observed.figures.images for observed in observations(record)} == {2}


def test_what_is_no_record_is_left_alone(sets_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "records"
    measure_sets(sets_folder, ["ramps"], QUICK, folder)
    (path,) = folder.iterdir()
    path.write_text('{"runs": [{}]}')
    with pytest.raises(UsageError, match="no record of pilc frontier"):
        measure_sets(sets_folder, ["ramps"], QUICK, folder)
    assert path.read_text() == '{"runs": [{}]}'


def test_no_speed_is_so_slow_that_it_is_none() -> None:
    assert megabytes_per_second(3, 1.0) == 3e-6
    assert megabytes_per_second(123_456_789, 1.0) == 123.5

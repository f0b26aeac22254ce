"""verify, decompress, inspect and status, gc."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

import pilc_stream
from pilc_stream.records.quarantine import Quarantined, quarantine
from pilc_stream.storage import Store

Pilc = Callable[..., Result]


def damage(dataset: Path) -> None:
    """Flip a bit in the middle of the first shard file."""
    part = sorted((dataset / "data").glob("*.parquet"))[0]
    data = bytearray(part.read_bytes())
    data[200] ^= 1
    part.write_bytes(data)


def unfinished(dataset: Path) -> None:
    """Take the data set back to where its job was killed."""
    (dataset / "_SUCCESS").unlink()
    (dataset / "_pilc" / "commits" / "000001.json").unlink()


class TestVerify:
    def test_a_sound_data_set(self, pilc: Pilc, dataset: Path) -> None:
        result = pilc("verify", dataset)

        assert result.exit_code == 0
        assert f"{dataset} is sound: 6 images in 3 shards, 4 decoded and compared" in result.stdout

    def test_json(self, pilc: Pilc, dataset: Path) -> None:
        report = json.loads(pilc("verify", dataset, "--json").stdout)

        assert (report["ok"], report["images"], report["decoded"], report["failed"]) == (True, 6, 4, 0)

    def test_damage_is_listed_and_the_exit_code_is_1(self, pilc: Pilc, dataset: Path) -> None:
        damage(dataset)

        result = pilc("verify", dataset)
        report = pilc("verify", dataset, "--json")

        assert (result.exit_code, report.exit_code) == (1, 1)
        assert "is damaged: " in result.stdout
        assert "0.bmp: " in result.stdout
        assert {finding["key"] for finding in json.loads(report.stdout)["findings"]} == {"", "0.bmp"}

    def test_an_unfinished_data_set_cannot_be_verified(self, pilc: Pilc, dataset: Path) -> None:
        unfinished(dataset)

        result = pilc("verify", dataset)

        assert result.exit_code == 3
        assert "Run the same compress command again to finish it" in result.stderr

    def test_a_sample(self, pilc: Pilc, dataset: Path) -> None:
        report = json.loads(pilc("verify", dataset, "--sample", 10**9, "--json").stdout)

        assert (report["ok"], report["images"], report["decoded"]) == (True, 6, 0)


class TestDecompress:
    def test_png_files_have_the_pixels_of_their_sources(
        self, pilc: Pilc, dataset: Path, photos: Path, tmp_path: Path
    ) -> None:
        result = pilc("decompress", dataset, tmp_path / "files")

        assert result.exit_code == 0
        assert result.stdout.startswith("6 files (")
        for source in photos.rglob("*.*"):
            written = (tmp_path / "files" / source.relative_to(photos)).with_suffix(".png")
            assert np.array_equal(np.asarray(Image.open(written)), np.asarray(Image.open(source))), source

    def test_arrays(self, pilc: Pilc, dataset: Path, photos: Path, tmp_path: Path) -> None:
        report = json.loads(pilc("decompress", dataset, tmp_path / "files", "--format", "npy", "--json").stdout)

        assert (report["files"], report["failed"], report["format"]) == (6, 0, "npy")
        assert np.array_equal(np.load(tmp_path / "files" / "0.npy"), np.asarray(Image.open(photos / "0.bmp")))

    def test_sources_are_given_back_where_they_were_kept(
        self, pilc: Pilc, dataset: Path, photos: Path, tmp_path: Path
    ) -> None:
        result = pilc("decompress", dataset, tmp_path / "files", "--format", "source")

        assert result.exit_code == 0
        assert "2 files" in result.stdout
        assert "4 images were coded from their pixels and have no source file." in result.stdout
        kept = tmp_path / "files" / "more" / "photo.jpg"
        assert kept.read_bytes() == (photos / "more" / "photo.jpg").read_bytes()

    def test_a_record_that_cannot_be_written_costs_its_file_and_exit_code_1(
        self, pilc: Pilc, dataset: Path, tmp_path: Path
    ) -> None:
        damage(dataset)

        result = pilc("decompress", dataset, tmp_path / "files")

        assert result.exit_code == 1
        assert "1 could not be written:" in result.stdout
        assert "  0.bmp: " in result.stdout
        assert len(list((tmp_path / "files").rglob("*.png"))) == 5

    def test_a_destination_in_the_data_set_is_wrong_use(self, pilc: Pilc, dataset: Path) -> None:
        assert pilc("decompress", dataset, dataset / "files").exit_code == 2


class TestInspect:
    def test_a_data_set(self, pilc: Pilc, dataset: Path, photos: Path) -> None:
        document = json.loads(pilc("inspect", dataset, "--json").stdout)

        assert (document["images"], document["coded"], document["fallback"], document["shards"]) == (6, 4, 2, 3)
        assert (document["finished"], document["profile"], document["models"]) == (True, "raw", [])
        assert document["sources"] == [str(photos)]
        assert document["columns"][:2] == ["key", "image"]
        shown = pilc("inspect", dataset).stdout
        assert "finished" in shown
        assert "yes" in shown

    def test_an_image_of_it(self, pilc: Pilc, dataset: Path) -> None:
        document = json.loads(pilc("inspect", dataset, "--key", "3.bmp", "--json").stdout)

        assert (document["key"], document["width"], document["height"]) == ("3.bmp", 25, 17)
        assert document["payload"]["codec"] == "raw"
        assert document["payload"]["payload_bytes"] == document["payload_bytes"]
        stored = (dataset / document["shard"]).read_bytes()[document["payload_offset"] :][: document["payload_bytes"]]
        assert pilc_stream.inspect(stored).to_json()["shape"] == (17, 25, 3)

    def test_an_image_that_was_kept(self, pilc: Pilc, dataset: Path) -> None:
        document = json.loads(pilc("inspect", dataset, "--key", "more/photo.jpg", "--json").stdout)

        assert (document["codec"], document["payload"]) == ("source", None)

    def test_a_key_that_is_not_there(self, pilc: Pilc, dataset: Path) -> None:
        result = pilc("inspect", dataset, "--key", "photo.jpg")

        assert result.exit_code == 2
        assert "Did you mean 'more/photo.jpg'?" in result.stderr

    def test_a_payload(self, pilc: Pilc, tmp_path: Path) -> None:
        from pilc_stream.codecs import open_codec

        (tmp_path / "one.pilc").write_bytes(open_codec("raw").encode([np.zeros((5, 7), np.uint8)])[0])

        document = json.loads(pilc("inspect", tmp_path / "one.pilc", "--json").stdout)

        assert (document["codec"], document["shape"], document["raw_bytes"]) == ("raw", [5, 7], 35)
        assert "5 x 7" in pilc("inspect", tmp_path / "one.pilc").stdout

    def test_a_damaged_payload(self, pilc: Pilc, tmp_path: Path) -> None:
        from pilc_stream.codecs import open_codec

        payload = bytearray(open_codec("raw").encode([np.zeros((5, 7), np.uint8)])[0])
        payload[-1] ^= 1
        (tmp_path / "one.pilc").write_bytes(payload)

        assert pilc("inspect", tmp_path / "one.pilc").exit_code == 3

    def test_another_file(self, pilc: Pilc, photos: Path) -> None:
        result = pilc("inspect", photos / "grey.png")

        assert result.exit_code == 2
        assert "this file is no payload" in result.stderr

    def test_an_empty_file(self, pilc: Pilc, tmp_path: Path) -> None:
        (tmp_path / "empty").write_bytes(b"")

        assert pilc("inspect", tmp_path / "empty").exit_code == 2

    def test_nothing(self, pilc: Pilc, tmp_path: Path) -> None:
        result = pilc("inspect", tmp_path / "nothing")

        assert result.exit_code == 3
        assert "there is no data set here" in result.stderr


class TestStatus:
    def test_a_finished_job(self, pilc: Pilc, dataset: Path) -> None:
        document = json.loads(pilc("status", dataset, "--json").stdout)

        assert (document["finished"], document["images"], document["images_total"]) == (True, 6, 6)
        assert (document["shards"], document["shards_total"]) == (3, 3)
        assert "6 of 6 (100.0 %)" in pilc("status", dataset).stdout

    def test_a_job_that_was_killed(self, pilc: Pilc, dataset: Path) -> None:
        unfinished(dataset)

        result = pilc("status", dataset)

        assert result.exit_code == 0
        assert "not finished; the same compress command goes on with it" in result.stdout
        assert "2 of 3" in result.stdout

    def test_no_job(self, pilc: Pilc, tmp_path: Path) -> None:
        assert pilc("status", tmp_path).exit_code == 3

    def test_shards_that_were_given_up_are_named(self, pilc: Pilc, dataset: Path) -> None:
        unfinished(dataset)
        quarantine(Store.open(str(dataset)), Quarantined(2, 3, "the disk is on fire", "4.bmp", "5.bmp"))

        assert "000002 (4.bmp to 5.bmp): the disk is on fire" in pilc("status", dataset).stdout
        (noted,) = json.loads(pilc("status", dataset, "--json").stdout)["quarantined"]
        assert (noted["index"], noted["attempts"]) == (2, 3)


class TestGc:
    def test_nothing_to_collect(self, pilc: Pilc, dataset: Path) -> None:
        assert "There are no orphans" in pilc("gc", dataset, "--delete").stderr

    def test_orphans_are_listed_and_stay_until_they_are_to_be_deleted(self, pilc: Pilc, dataset: Path) -> None:
        orphan = dataset / "data" / f"part-000001-{'a' * 12}.parquet"
        orphan.write_bytes(b"12345")

        result = pilc("gc", dataset)
        assert orphan.name in result.stdout
        assert "1 orphans, 5 B." in result.stdout
        assert "dry run" in result.stderr
        assert orphan.exists()

        assert json.loads(pilc("gc", dataset, "--delete", "--json").stdout)["deleted"] is True
        assert not orphan.exists()
        assert pilc("verify", dataset).exit_code == 0

    def test_an_unfinished_data_set_is_left_alone(self, pilc: Pilc, dataset: Path) -> None:
        unfinished(dataset)
        orphan = dataset / "data" / f"part-000009-{'a' * 12}.parquet"
        orphan.write_bytes(b"12345")

        result = pilc("gc", dataset, "--delete")
        assert result.exit_code == 2
        assert "looks like an orphan" in result.stderr
        assert orphan.exists()

        assert pilc("gc", dataset, "--delete", "--no-job-is-running").exit_code == 0
        assert not orphan.exists()


@pytest.mark.parametrize("command", ["verify", "inspect", "status", "gc"])
def test_output_for_programs_is_json_alone(command: str, pilc: Pilc, dataset: Path) -> None:
    result = pilc(command, dataset, "--json")

    assert isinstance(json.load(io.StringIO(result.stdout)), dict)

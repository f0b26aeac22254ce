from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from pilc_stream.cli.compress import compress
from pilc_stream.cli.options import Size
from pilc_stream.images import DEFAULT_MAX_PIXELS, DEFAULT_MAX_STREAMED_PIXELS
from pilc_stream.pipeline.verify import verify_dataset
from pilc_stream.records.manifest import Manifest
from workers.settings import JobSettings

Pilc = Callable[..., Result]


@pytest.fixture
def raw(pilc: Pilc, tmp_path: Path) -> Pilc:
    """`pilc compress SOURCE DATASET` with the codec `raw`, in this process, and the flags given."""

    def run(source: object, *flags: object) -> Result:
        return pilc("compress", source, tmp_path / "dataset", "--profile", "raw", "--workers", 0, *flags)

    return run


def test_flags_are_the_fields_of_the_settings() -> None:
    names = {parameter.name for parameter in compress.params}

    of_the_command = {"failed_ok", "dry_run", "as_json", "debug", "settings"}
    assert names == {field.name for field in fields(JobSettings)} | of_the_command


def test_defaults_are_those_of_the_settings() -> None:
    defaults = {field.name: field.default for field in fields(JobSettings)}
    context = compress.make_context("compress", ["a", "b"])
    given = {name: value for name, value in context.params.items() if name in defaults}

    # The numbers in the help text stand for defaults that would be slow to import.
    for name, default in (("max_pixels", DEFAULT_MAX_PIXELS), ("max_streamed_pixels", DEFAULT_MAX_STREAMED_PIXELS)):
        assert given.pop(name) is None
        assert f"[default: {default}]" in next(p for p in compress.params if p.name == name).help
    del given["sources"], given["destination"], given["storage_options"]
    assert given == {name: defaults[name] for name in given}


def test_json_is_one_object_with_the_promised_fields(raw: Pilc, photos: Path) -> None:
    result = raw(photos, "--json")

    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["images"] == 6
    assert report["failed"] == 0
    assert report["fallback"] == 2
    assert report["source_bytes"] == sum(path.stat().st_size for path in photos.rglob("*.*"))
    assert report["raw_bytes"] == 4 * 17 * 25 * 3 + 30 * 20 + 40 * 40 * 3
    assert report["bpsp"] == pytest.approx(8 * report["payload_bytes"] / report["raw_bytes"], abs=1e-4)
    assert report["seconds"] > 0
    assert report["stage_seconds"].keys() == {"read", "decode", "code", "verify", "write"}
    assert report["run"]["fallback_reasons"] == {"not smaller than the source": 2}
    assert (report["profile"], report["model_sha256"], report["skipped_shards"]) == ("raw", "", 0)


def test_the_summary_says_what_was_saved_and_what_was_kept(raw: Pilc, photos: Path) -> None:
    result = raw(photos)

    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "images 6" in lines
    assert "kept as source 2 (not smaller than the source: 2)" in lines
    assert [line for line in lines if line.startswith("saving ") and line.endswith(" % of the sources")]
    assert "6 images in 1 shard." in result.stderr


def test_the_same_command_again_has_nothing_left_to_do(raw: Pilc, photos: Path) -> None:
    raw(photos)

    result = raw(photos)

    assert result.exit_code == 0
    assert "nothing was left to do" in result.stdout
    assert "1 of them committed already" in result.stderr


class TestBadFiles:
    """Exit code 1: everything else is compressed, the bad ones are kept and named."""

    BAD = ("cut.png", "empty.png", "text.jpg")

    @pytest.fixture
    def folder(self, photos: Path) -> Path:
        whole = (photos / "grey.png").read_bytes()
        (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
        (photos / "empty.png").write_bytes(b"")
        (photos / "text.jpg").write_text("this is no photograph")
        return photos

    def test_they_are_kept_byte_for_byte_listed_and_the_rest_is_compressed(
        self, folder: Path, raw: Pilc, tmp_path: Path
    ) -> None:
        result = raw(folder, "--json")

        assert result.exit_code == 1
        report = json.loads(result.stdout)
        assert (report["images"], report["failed"]) == (9, 3)
        assert [failure["key"] for failure in report["failures"]] == list(self.BAD)
        assert all(len(failure["reason"]) > 10 for failure in report["failures"])
        manifest = Manifest.load(str(tmp_path / "dataset"))
        assert verify_dataset(manifest).ok
        reader = manifest.reader(0)
        kept = {key: reader.payload(row) for row, key in enumerate(reader.keys()) if key in self.BAD}
        assert kept == {name: (folder / name).read_bytes() for name in self.BAD}
        listed = (tmp_path / "dataset" / "_pilc" / "errors" / "000000.jsonl").read_text().splitlines()
        assert [json.loads(line)["key"] for line in listed] == list(self.BAD)

    def test_people_see_names_reasons_and_where_the_list_is(self, folder: Path, raw: Pilc, tmp_path: Path) -> None:
        result = raw(folder)

        assert result.exit_code == 1
        summary = [" ".join(line.split()) for line in result.stdout.splitlines()]
        assert "kept as source 5 (not smaller than the source: 2, failed: 3)" in summary
        assert "These records failed and were kept as they came:" in result.stdout
        for name in self.BAD:
            assert f"  {name}: " in result.stdout
        assert f"All are listed in {tmp_path}/dataset/_pilc/errors/." in result.stdout

    def test_the_exit_code_stays_when_nothing_is_left_to_do(self, folder: Path, raw: Pilc) -> None:
        raw(folder)

        assert raw(folder).exit_code == 1
        assert raw(folder, "--failed-ok").exit_code == 0

    def test_retry_takes_the_repaired_file(self, folder: Path, raw: Pilc) -> None:
        raw(folder)
        for name in self.BAD:
            (folder / name).write_bytes((folder / "grey.png").read_bytes())

        refused = raw(folder)
        assert refused.exit_code == 3
        assert "--retry-failed" in refused.stderr

        assert raw(folder, "--retry-failed").exit_code == 0


def test_a_dry_run_writes_nothing(raw: Pilc, photos: Path, tmp_path: Path) -> None:
    result = raw(photos, "--dry-run", "--json")

    assert result.exit_code == 0
    plan = json.loads(result.stdout)
    assert (plan["images"], plan["shards"], plan["existing"], plan["ray"]) == (6, 1, "nothing", False)
    assert not (tmp_path / "dataset").exists()
    assert "nothing was written" in raw(photos, "--dry-run").stderr


def test_a_limit_and_a_shard_size(raw: Pilc, photos: Path) -> None:
    report = json.loads(raw(photos, "--limit", 4, "--shard-size", "3kB", "--json").stdout)

    assert (report["images"], report["shards"]) == (4, 2)


@pytest.mark.parametrize(
    ("flags", "code", "part"),
    [
        (["--profile", "tiny"], 2, "known profiles:"),
        (["--shard-size", "many"], 2, "'many' is no size"),
        (["--workers", "-1"], 2, "--workers"),
        (["--verify", "some"], 2, "--verify"),
        (["--storage-option", "key"], 2, "'key' is not KEY=VALUE"),
        (["--ray-address", "auto"], 2, "leave one of them out"),
        (["--retry-failed", "--on-existing", "overwrite"], 2, "leave one of them out"),
        (["--model", "missing.safetensors"], 3, "'missing.safetensors' cannot be read"),
    ],
)
def test_wrong_use_is_a_sentence(flags: list[str], code: int, part: str, raw: Pilc, photos: Path) -> None:
    result = raw(photos, *flags)

    assert result.exit_code == code
    assert part in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_folder_without_images_is_wrong_use(raw: Pilc, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    result = raw(tmp_path / "empty")

    assert result.exit_code == 2
    assert "no image was found there" in result.stderr


def test_an_existing_data_set_is_refused_or_replaced_as_asked(raw: Pilc, photos: Path, tmp_path: Path) -> None:
    raw(photos)

    assert raw(photos, "--on-existing", "fail").exit_code == 2
    other = raw(photos, "--shard-size", "3kB", "--json")
    assert other.exit_code == 3
    assert json.loads(other.stdout)["exit_code"] == 3
    assert "shard_bytes" in json.loads(other.stdout)["error"]
    assert raw(photos, "--shard-size", "3kB", "--on-existing", "overwrite").exit_code == 0
    assert len(Manifest.load(str(tmp_path / "dataset")).shards) > 1


def test_a_cluster_in_the_environment_does_not_contradict_no_workers(
    raw: Pilc, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://nowhere:10001")

    assert raw(photos).exit_code == 0


def test_storage_options_reach_the_storage(
    pilc: Pilc, photos: Path, s3_server: Any, s3_bucket: str, tmp_path: Path
) -> None:
    options = [f"{name}={value}" for name, value in s3_server.options.items()]
    flags = [flag for option in options for flag in ("--storage-option", option)]
    url = f"{s3_bucket}/dataset"

    made = pilc("compress", photos, url, "--profile", "raw", "--workers", 0, *flags)

    assert made.exit_code == 0, made.stderr
    assert pilc("verify", url, *flags).exit_code == 0
    assert pilc("decompress", url, tmp_path / "files", *flags).exit_code == 0
    assert len(list((tmp_path / "files").rglob("*.png"))) == 6


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1000", 1000), ("3kB", 3000), ("128MiB", 128 << 20), ("0.5 GB", 500_000_000), ("2g", 2 * 10**9), (7, 7)],
)
def test_sizes(text: object, expected: int) -> None:
    assert Size().convert(text, None, None) == expected

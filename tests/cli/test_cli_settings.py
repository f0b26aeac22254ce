"""`--settings FILE`: a job as a file, for laptops, clusters and Kubernetes alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from pilc_stream.cli.compress import compress

Pilc = Callable[..., Result]


def write(folder: Path, text: str) -> Path:
    path = folder / "job.toml"
    path.write_text(text)
    return path


def test_a_file_stands_for_flags_and_arguments(pilc: Pilc, photos: Path, tmp_path: Path) -> None:
    text = f'sources = "{photos}"\ndestination = "{tmp_path / "dataset"}"\nprofile = "raw"\nworkers = 0\n'
    job = write(tmp_path, text + 'shard-size = "3kB"\njson = true\n')

    result = pilc("compress", "--settings", job)

    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["images"], report["profile"]) == (6, "raw")
    assert report["shards"] > 1


def test_what_is_given_counts_more_than_the_file(tmp_path: Path) -> None:
    text = 'sources = ["a", "b"]\ndestination = "there"\nprofile = "high"\nverify = "none"\nmodel = "mine"\n'
    job = write(tmp_path, text + '[storage-option]\nendpoint_url = "http://localhost:1"\nuse_ssl = false\n')

    context = compress.make_context("compress", ["--profile", "max", "--settings", str(job)])

    assert context.params["sources"] == ("a", "b")
    assert context.params["destination"] == "there"
    assert (context.params["profile"], context.params["verify"]) == ("max", "none")
    assert context.params["model_path"] == "mine"
    assert context.params["storage_options"] == {"endpoint_url": "http://localhost:1", "use_ssl": False}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("sorces = []", "'sorces' is no setting. Known are sources, destination,"),
        ("sources = [", "cannot be read as TOML"),
        ("sources = []", "Missing argument 'SOURCE...'"),
        ('sources = "a"\ndestination = "b"\nworkers = "many"', "Invalid value for '--workers'"),
        ('sources = "a"\ndestination = "b"\nshard-size = "big"', "'big' is no size"),
    ],
)
def test_a_wrong_file_is_wrong_use(pilc: Pilc, tmp_path: Path, text: str, part: str) -> None:
    result = pilc("compress", "--settings", write(tmp_path, text))

    assert result.exit_code == 2
    assert part in " ".join(result.stderr.split())


def test_a_missing_file_is_wrong_use(pilc: Pilc, tmp_path: Path) -> None:
    assert pilc("compress", "--settings", tmp_path / "none.toml").exit_code == 2

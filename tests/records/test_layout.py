from __future__ import annotations

import pytest

from pilc_stream.records import layout

SHA = "0123456789abcdef" * 4


def test_names() -> None:
    assert layout.part_path(7, SHA) == "data/part-000007-0123456789ab.parquet"
    assert layout.part_path(12345678, SHA) == "data/part-12345678-0123456789ab.parquet"
    assert layout.commit_path(0) == "_pilc/commits/000000.json"
    assert layout.errors_path(31) == "_pilc/errors/000031.jsonl"
    assert layout.rival_errors_path(31, SHA) == "_pilc/errors/000031-0123456789ab.jsonl"
    assert layout.model_path(SHA) == f"_pilc/models/{SHA}.safetensors"


@pytest.mark.parametrize("index", [0, 1, 999_999, 1_000_000, 123_456_789])
def test_commit_names_read_back(index: int) -> None:
    assert layout.commit_index(layout.commit_path(index)) == index


@pytest.mark.parametrize(
    "path",
    [
        "_pilc/commits/1.json",
        "_pilc/commits/0000001.json",
        "_pilc/commits/000001.json.bak",
        "_pilc/commits/sub/000001.json",
        "_pilc/commits/-00001.json",
        "_pilc/commits/\N{ARABIC-INDIC DIGIT ONE}00001.json",
        "_pilc/commits/000001.json\n",
        "x/_pilc/commits/000001.json",
    ],
)
def test_other_names_are_no_commits(path: str) -> None:
    assert layout.commit_index(path) is None


def test_parts_models_and_digests_are_recognised() -> None:
    assert layout.is_part(layout.part_path(7, SHA))
    assert not layout.is_part("data/train.parquet")
    assert not layout.is_part("data/part-000007-0123456789AB.parquet")
    assert not layout.is_part("data/part-\N{ARABIC-INDIC DIGIT ONE}00007-0123456789ab.parquet")
    assert layout.model_digest(layout.model_path(SHA)) == SHA
    assert layout.model_digest("_pilc/models/readme.txt") is None
    assert layout.is_digest(SHA)
    for wrong in (SHA.upper(), SHA[1:], SHA + "0", SHA + "\n", None, 5):
        assert not layout.is_digest(wrong)

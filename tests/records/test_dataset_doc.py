"""DATASET.md against the code: its tables, numbers and example."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

import pilc_stream.records
from pilc_stream.records import build, documents, layout, schema
from pilc_stream.records.commit import create_job, put_model, read_commit
from pilc_stream.records.manifest import finish
from pilc_stream.records.record import Record, RecordError, ShardEntry
from pilc_stream.storage import Store
from pilc_stream.storage.local import TEMPORARY_PREFIX

SHA = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def text() -> str:
    return (Path(pilc_stream.records.__file__).parent / "DATASET.md").read_text(encoding="utf-8")


def table(text: str, first_heading: str) -> list[list[str]]:
    """The rows of the table whose first column has this heading, cells without backticks."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first_heading} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("`", "") for cell in line.strip("|").split(" | ")])
    return rows


def test_columns(text: str) -> None:
    documented = [(name, kind) for name, kind, _ in table(text, "column")]
    assert documented == [(field.name, str(field.type)) for field in schema.COLUMNS]
    assert all(field.nullable for field in schema.COLUMNS)


def test_names(text: str) -> None:
    def spelt(pattern: str) -> str:
        return pattern.replace("<index>", "000007").replace("<sha256>", SHA).replace("<sha12>", SHA[:12])

    documented = [spelt(path) for path, _, _ in table(text, "path")]
    assert documented == [
        layout.JOB_PATH,
        layout.model_path(SHA),
        layout.part_path(7, SHA),
        layout.errors_path(7),
        layout.commit_path(7),
        layout.MANIFEST_PATH,
        layout.SUCCESS_PATH,
    ]
    rival = re.search(r"name is\s+`(_pilc/errors/[^`]+)`", text)
    assert rival
    assert spelt(rival[1]) == layout.rival_errors_path(7, SHA)
    assert f"`{TEMPORARY_PREFIX}`" in text


def test_how_each_file_is_written(
    text: str,
    store: Store,
    record: Callable[..., Record],
    commit: Callable[..., ShardEntry],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the documented order of the protocol, created or put as the table says."""
    written: list[tuple[str, str]] = []
    for name, how in (("put", "put"), ("create", "created")):
        real = getattr(Store, name)

        def call(store: Store, path: str, data: bytes, real: object = real, how: str = how) -> None:
            written.append((path, how))
            real(store, path, data)  # type: ignore[operator]

        monkeypatch.setattr(Store, name, call)
    create_job(store, {})
    model = put_model(store, b"model")
    entry = commit(store, 0, [record("k")], [RecordError("k", "decode", "bad")])
    finish(store)
    names = {"<index>": "000000", "<sha256>": model, "<sha12>": entry.sha256[:12]}
    documented = []
    for path, _, how in table(text, "path"):
        for mark, value in names.items():
            path = path.replace(mark, value)
        documented.append((path, how))
    assert written == documented


def test_commit_fields(
    text: str, store: Store, record: Callable[..., Record], commit: Callable[..., ShardEntry]
) -> None:
    commit(store, 0, [record("k")])
    document = json.loads(store.read(layout.commit_path(0)))
    assert [row[0] for row in table(text, "field")] == list(document)
    assert [row[0] for row in table(text, "field of `shard`")] == list(document["shard"])
    assert list(document["shard"]) == [field.name for field in fields(ShardEntry)]
    assert list(document["payloads"]) == ["runs", "lengths"]


def test_example(text: str, store: Store) -> None:
    example = re.search(r"```json\n(.+?)```", text, re.DOTALL)
    assert example
    store.put(layout.commit_path(0), example[1].encode())
    commit = read_commit(store, 0)
    offsets = re.search(r"Its payloads lie at (\d+), (\d+) and (\d+)\.", text)
    assert offsets
    assert commit.ranges[:, 0].tolist() == [int(offset) for offset in offsets.groups()]
    assert commit.ranges[:, 1].sum() == commit.entry.payload_bytes
    packed = documents.pack_ranges([(offset, length) for offset, length in commit.ranges.tolist()])
    document = {"shard": documents.pack_entry(commit.entry), "payloads": packed, "errors": None, "statistics": {}}
    assert documents.dump(document).decode() == example[1]


def test_numbers(text: str) -> None:
    assert f"# Format of a data set, version {documents.DATASET_FORMAT_VERSION}\n" in text
    assert f"`{schema.FORMAT_METADATA_KEY}` = `{schema.SHARD_FORMAT_VERSION}`" in text
    assert f"more than {build.ROW_GROUP_ROWS} rows, nor more than {4 * build.ROW_GROUP_BYTES:,} payload bytes" in text
    assert f"This release begins another before {build.ROW_GROUP_BYTES:,}" in text
    assert f"MUST NOT exceed {build.MAX_PAYLOAD_BYTES:,} bytes" in text
    assert f"the payload column `{schema.PAYLOAD_LEAF}`" in text.lower()
    assert table(text, "version")[-1][0] == str(documents.DATASET_FORMAT_VERSION)

"""`pilc inspect`: what a data set, one of its images, or a payload file holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pilc_stream.cli.console import bits, print_facts, print_json, size
from pilc_stream.cli.options import debug_option, json_option, storage_option

if TYPE_CHECKING:
    from pilc_stream.records.manifest import Manifest
    from pilc_stream.storage import Store


@click.command()
@click.argument("target", metavar="DATASET|PAYLOAD")
@click.option("--key", help="One image of the data set, by its key.")
@storage_option
@json_option
@debug_option
def inspect(target: str, key: str | None, storage_options: dict[str, Any], as_json: bool) -> None:
    """Say what a data set or a payload holds.

    Of a data set its counts, sizes and columns; of one image, or of a payload in a file, where its bytes
    go. Nothing is decoded, but the checksums of a payload are checked.
    """
    from pilc_stream.errors import UsageError
    from pilc_stream.records.manifest import Manifest
    from pilc_stream.storage import Store

    store = Store.open(target, storage_options)
    if store.kind("") == "file":
        if key is not None:
            raise UsageError(f"{target}: --key names an image of a data set, and this is a file. Leave it out.")
        document = _payload_document(_read_file(store, target))
    elif key is not None:
        document = _record_document(Manifest.load(target, storage_options, allow_partial=True), key)
    else:
        document = _dataset_document(Manifest.load(target, storage_options, allow_partial=True))
    if as_json:
        print_json(document)
    else:
        print_facts([(name.replace("_", " "), _shown(name, value)) for name, value in document.items()])


def _read_file(store: Store, target: str) -> bytes:
    from pilc_stream.codecs import PAYLOAD_MAGIC
    from pilc_stream.errors import UsageError

    magic = store.read_range("", 0, min(store.size(""), len(PAYLOAD_MAGIC)))
    if magic != PAYLOAD_MAGIC:
        raise UsageError(
            f"{target}: this file is no payload: it does not begin with {PAYLOAD_MAGIC!r}. Name the folder of a data "
            "set, or a file that holds what `pilc_stream.compress` returned."
        )
    return store.read("")


def _payload_document(payload: bytes) -> dict[str, Any]:
    from pilc_stream.codecs import inspect_payload

    return inspect_payload(payload).to_json()


def _dataset_document(manifest: Manifest) -> dict[str, Any]:
    from pilc_stream.records.commit import JOB_INFO
    from pilc_stream.records.layout import MODELS_FOLDER, model_digest
    from workers.progress import Totals

    totals = Totals.of(manifest.shards)
    job = manifest.job
    info = job.get(JOB_INFO) or {}
    models = map(model_digest, manifest.store.list(MODELS_FOLDER))
    return {
        "dataset": manifest.url,
        "finished": manifest.finished,
        "images": totals.images,
        "coded": totals.images - totals.failed - totals.fallback,
        "failed": totals.failed,
        "fallback": totals.fallback,
        "shards": totals.shards,
        "columns": manifest.reader(0).schema.names if manifest.shards else [],
        "codec": job.get("codec"),
        "profile": job.get("profile"),
        "models": [digest for digest in models if digest is not None],
        "raw_bytes": totals.raw_bytes,
        "source_bytes": totals.source_bytes,
        "payload_bytes": totals.payload_bytes,
        "stored_bytes": totals.shard_bytes,
        "bpsp": totals.bpsp,
        "sources": info.get("sources", []),
        "version": info.get("version"),
    }


def _record_document(manifest: Manifest, key: str) -> dict[str, Any]:
    from pilc_stream.readers.dataset import Dataset
    from pilc_stream.records.record import SOURCE_CODEC

    dataset = Dataset(manifest)
    row = dataset.index(key)
    position, first = 0, 0
    while row - first >= dataset.shard_rows[position]:
        first += dataset.shard_rows[position]
        position += 1
    offset, length = manifest.byte_range(position, row - first)
    columns = manifest.reader(position).columns().slice(row - first, 1).to_pylist()[0]
    document = {name: value.hex() if isinstance(value, bytes) else value for name, value in columns.items()}
    document |= {"shard": manifest.shards[position].path, "payload_offset": offset, "payload_bytes": length}
    if document["codec"] == SOURCE_CODEC:
        return {**document, "payload": None}
    return {**document, "payload": _payload_document(dataset.payload(row))}


def _shown(name: str, value: Any) -> str:
    """A value for people."""
    if isinstance(value, dict):
        return ", ".join(f"{inner} {_shown(inner, each)}" for inner, each in value.items())
    if value is None or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name in ("bpsp", "bits_per_sub_pixel"):
        return bits(value)
    if isinstance(value, int) and name.endswith("bytes"):
        return f"{size(value)} ({value:,})"
    if isinstance(value, list | tuple):
        return (" x " if all(isinstance(each, int) for each in value) else ", ").join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)

"""Shards that a job has given up: a note in the data set for each, so that anybody can see which and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pilc_stream.records import layout
from pilc_stream.records.documents import damaged, dump, parse, take_count
from pilc_stream.storage import Store


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A shard that could not be made: its number, how often that was tried, why it failed last, and its keys."""

    index: int
    attempts: int
    reason: str
    first_key: str
    last_key: str


def quarantine(store: Store, shard: Quarantined) -> None:
    """Put the note. A later run tries the shard again all the same."""
    fields = {name: getattr(shard, name) for name in Quarantined.__slots__}
    store.put(layout.quarantine_path(shard.index), dump({"quarantined": fields}))


def list_quarantined(store: Store) -> list[Quarantined]:
    """Return the notes by number. Raises ManifestError where one is damaged."""
    found = []
    for path in store.list(layout.QUARANTINE_FOLDER):
        place = f"{store.url}/{path}"
        fields = parse(store.read(path), place).get("quarantined")
        if not isinstance(fields, dict):
            raise damaged(place, "quarantined", fields, "an object")
        counts = [take_count(fields, name, place) for name in ("index", "attempts")]
        texts = [_text(fields, name, place) for name in ("reason", "first_key", "last_key")]
        found.append(Quarantined(counts[0], counts[1], *texts))
    return sorted(found, key=lambda shard: shard.index)


def _text(fields: dict[str, Any], name: str, place: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise damaged(place, name, value, "a text")
    return value


def release(store: Store, made: Iterable[int]) -> None:
    """Delete the notes on the shards that have been `made` since."""
    noted = set(store.list(layout.QUARANTINE_FOLDER))
    for index in made:
        if layout.quarantine_path(index) in noted:
            store.delete(layout.quarantine_path(index))

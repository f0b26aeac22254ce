"""Taking a destination for a job: what may be there already, and what is done about it.

A data set has a folder of its own. Where the destination holds anything else and no data set, the job is refused, so
that a mistyped destination does not scatter shards among somebody's files. `--on-existing overwrite` deletes the files
of the data set that is there, by their names, and nothing else.
"""

from __future__ import annotations

import re
import socket
from datetime import UTC, datetime
from typing import Any, Literal

from pilc_stream import __version__
from pilc_stream.errors import JobMismatchError, UsageError
from pilc_stream.records import layout
from pilc_stream.records.commit import JOB_INFO, clear, create_job, read_job
from pilc_stream.storage import Store
from workers.planning import JobPlan

_LISTING_FIELDS = frozenset({"images", "source_bytes", "listing_sha256"})

Existing = Literal["nothing", "this job", "another job"]


class SourceChanged(JobMismatchError):
    """The destination holds this job with these settings, but of files that have changed since."""


def claim(plan: JobPlan) -> None:
    """Write the job into the destination, or find that it is there.

    Raises UsageError where the destination is no place for a data set, or holds one that `on_existing` forbids to go
    on with; SourceChanged or JobMismatchError where it is another one.
    """
    store, on_existing = plan.store, plan.settings.on_existing
    if not _is_taken(store):
        pass
    elif on_existing == "fail":
        raise UsageError(
            f"{store.url}: there is a data set already, and --on-existing fail was given. Name another destination, "
            "or use --on-existing resume or overwrite."
        )
    elif on_existing == "overwrite":
        clear(store)
    else:
        _check_source(plan)
    create_job(store, {**plan.fingerprint(), JOB_INFO: _info(plan)})


def look(plan: JobPlan) -> Existing:
    """What the destination holds, with nothing written. Raises UsageError where it is no place for a data set."""
    stored = read_job(plan.store)
    if stored is None:
        _check_empty(plan.store)
        return "nothing"
    return "another job" if _different(stored, plan.fingerprint()) else "this job"


def _is_taken(store: Store) -> bool:
    """Whether a job is there. Raises UsageError where anything else is."""
    if store.exists(layout.JOB_PATH):
        return True
    try:
        _check_empty(store)
    except UsageError:
        # What is there may be of a driver that has begun since.
        if store.exists(layout.JOB_PATH):
            return True
        raise
    return False


def _check_empty(store: Store) -> None:
    kind = store.kind("")
    if kind == "file":
        raise UsageError(f"{store.url}: the destination is a file. Name a folder, which need not exist yet.")
    others = sorted(entry.name for entry in store.entries("") if not entry.name.startswith(".")) if kind else []
    own = layout.JOB_PATH.partition("/")[0]
    if others == [own] and not store.list(own):
        # Of a driver that was killed, or is about to write its job.
        return
    if others:
        raise UsageError(
            f"{store.url}: the destination holds other files ({', '.join(others[:3])}{', ...' * (len(others) > 3)}) "
            "and no data set. Name an empty or a new folder."
        )


def _check_source(plan: JobPlan) -> None:
    """Say it well where only the files differ; `create_job` says what else may."""
    stored, mine = read_job(plan.store), plan.fingerprint()
    differences = _different(stored, mine) if stored else set()
    if stored and differences and differences <= _LISTING_FIELDS:
        raise SourceChanged(
            f"{plan.store.url}: the source has changed since this job began: {_amount(stored)} then, {_amount(mine)} "
            "now (another --limit counts as well). Name another destination, start anew with --on-existing overwrite, "
            "or, if files that had failed were repaired, use --retry-failed."
        )


def _different(stored: dict[str, Any], mine: dict[str, Any]) -> set[str]:
    names = (stored.keys() | mine.keys()) - {JOB_INFO}
    return {name for name in names if stored.get(name) != mine.get(name)}


def _amount(job: dict[str, Any]) -> str:
    images = job.get("images")
    counted = f"{images:,} images of " if isinstance(images, int) else ""
    return f"{counted}{job.get('source_bytes'):,} bytes"


def _info(plan: JobPlan) -> dict[str, Any]:
    """What is good to know of a job, and may differ between two runs of it."""
    return {
        "version": __version__,
        "host": socket.gethostname(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "sources": [without_password(source) for source in plan.settings.sources],
        "shards": len(plan.shards),
    }


def without_password(url: str) -> str:
    """`url` without what stands before an `@` in its host part."""
    return re.sub(r"(?<=://)[^/@]*@", "", url)

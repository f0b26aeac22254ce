"""Files of a data set that nothing refers to: of writers that were killed, came second, or made a shard anew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pilc_stream.errors import ManifestError, UsageError
from pilc_stream.records import layout
from pilc_stream.records.commit import each_commit, read_job
from pilc_stream.storage import Store


@dataclass(frozen=True, slots=True)
class Orphan:
    """A file that no reader looks at: its path, its size, and why it is one."""

    path: str
    bytes: int
    reason: str


def find_orphans(store: Store) -> list[Orphan]:
    """Return the orphans of a data set, by path. Raises ManifestError where there is no data set.

    What DATASET.md does not name is none of ours, and is never an orphan.
    """
    job = read_job(store)
    if job is None:
        raise ManifestError(f"{store.url}: there is no data set here ({layout.JOB_PATH} is missing). Check the URL.")
    # Listed before the commits are read: what is committed in between is known to be.
    shards = [(path, size) for path, size in store.list_sizes(layout.DATA_FOLDER) if layout.is_part(path)]
    errors = list(store.list_sizes(layout.ERRORS_FOLDER))
    models = list(store.list_sizes(layout.MODELS_FOLDER))
    quarantined = list(store.list_sizes(layout.QUARANTINE_FOLDER))
    temporaries = sorted(store.temporaries())
    commits = list(each_commit(store))
    named = {commit.entry.path for commit in commits} | {commit.errors for commit in commits}
    done = {layout.quarantine_path(commit.entry.index) for commit in commits}
    needed = layout.model_path(str(job.get("model_sha256")))
    found = [Orphan(path, size, "no commit names this shard") for path, size in shards if path not in named]
    found += [Orphan(path, size, "no commit names this list") for path, size in errors if path not in named]
    found += [Orphan(path, size, "the job has another model") for path, size in models if path != needed]
    found += [Orphan(path, size, "the shard has been made since") for path, size in quarantined if path in done]
    found += [Orphan(path, store.size(path), "a writer was killed") for path in temporaries]
    return sorted(found, key=lambda orphan: orphan.path)


def delete_orphans(store: Store, orphans: Iterable[Orphan], *, is_idle: bool = False) -> None:
    """Delete `orphans`.

    In an unfinished data set a shard that was put, and is to be committed next, looks like one: unless `is_idle` says
    that no job runs there, UsageError is raised and nothing deleted. In a finished one every commit is made. What has
    been committed since `orphans` were found is left alone.
    """
    if not is_idle and not store.exists(layout.SUCCESS_PATH):
        raise UsageError(
            f"{store.url}: the data set is not finished, and what a running job has just written looks like an orphan. "
            "Finish the job first; or, if you know that no job is running there, say --no-job-is-running."
        )
    still = {orphan.path for orphan in find_orphans(store)}
    for orphan in orphans:
        if orphan.path in still:
            store.delete(orphan.path)

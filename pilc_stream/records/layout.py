"""The names in a data set. Everything but `data/` and `_SUCCESS` lies under `_pilc/`, which listings pass over.

Part files and models are named by their content, so writing one again is harmless and none can be mistaken for
another. Shard numbers have six digits or more.
"""

from __future__ import annotations

import re
from typing import Final

DATA_FOLDER: Final = "data"
COMMITS_FOLDER: Final = "_pilc/commits"
ERRORS_FOLDER: Final = "_pilc/errors"
MODELS_FOLDER: Final = "_pilc/models"
QUARANTINE_FOLDER: Final = "_pilc/quarantine"
JOB_PATH: Final = "_pilc/job.json"
MANIFEST_PATH: Final = "_pilc/manifest.json"
SUCCESS_PATH: Final = "_SUCCESS"
REPORT_MARKDOWN_PATH: Final = "_pilc/report.md"
REPORT_HTML_PATH: Final = "_pilc/report.html"

_COMMIT = re.compile(r"_pilc/commits/([0-9]{6,})\.json")
_PART = re.compile(r"data/part-([0-9]{6,})-([0-9a-f]{12})\.parquet")
_MODEL = re.compile(r"_pilc/models/([0-9a-f]{64})\.safetensors")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def part_path(index: int, sha256: str) -> str:
    """Return the path of the shard file with this number and content digest (64 hex digits)."""
    return f"{DATA_FOLDER}/part-{index:06d}-{sha256[:12]}.parquet"


def commit_path(index: int) -> str:
    """Return the path of a shard's commit."""
    return f"{COMMITS_FOLDER}/{index:06d}.json"


def errors_path(index: int) -> str:
    """Return the path of a shard's list of records that failed or fell back."""
    return f"{ERRORS_FOLDER}/{index:06d}.jsonl"


def rival_errors_path(index: int, sha256: str) -> str:
    """Return the path for such a list where another run has left a different one under the usual name."""
    return f"{ERRORS_FOLDER}/{index:06d}-{sha256[:12]}.jsonl"


def model_path(sha256: str) -> str:
    """Return the path of a model file with this content digest (64 hex digits)."""
    return f"{MODELS_FOLDER}/{sha256}.safetensors"


def quarantine_path(index: int) -> str:
    """Return the path of the note that a shard was given up."""
    return f"{QUARANTINE_FOLDER}/{index:06d}.json"


def commit_index(path: str) -> int | None:
    """Return the shard number of a commit's path, None where `path` is no commit."""
    match = _COMMIT.fullmatch(path)
    index = int(match[1]) if match else None
    return index if index is not None and commit_path(index) == path else None


def is_errors(path: object, index: int) -> bool:
    """Tell whether `path` is one that a shard's list of errors can have."""
    if not isinstance(path, str):
        return False
    stem = errors_path(index).removesuffix(".jsonl")
    return path == f"{stem}.jsonl" or re.fullmatch(re.escape(stem) + r"-[0-9a-f]{12}\.jsonl", path) is not None


def is_part(path: str) -> bool:
    """Tell whether `path` names a shard file, committed or not."""
    return _PART.fullmatch(path) is not None


def model_digest(path: str) -> str | None:
    """Return the digest in a model's path, None where `path` is no model."""
    match = _MODEL.fullmatch(path)
    return match[1] if match else None


def is_digest(text: object) -> bool:
    """Tell whether `text` is a SHA-256 digest in lower-case hexadecimal digits."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None

from __future__ import annotations

import errno
import os

import pytest

from pilc_stream.errors import StorageError
from pilc_stream.storage.sentences import explain


class NoCredentialsError(Exception):
    """Looks like botocore's."""


def coded(code: str) -> Exception:
    error = OSError(errno.EIO, "An error occurred")
    error.__cause__ = Exception()
    error.__cause__.response = {"Error": {"Code": code}}  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("verb", "error", "said"),
    [
        ("read", FileNotFoundError(2, "no"), "there is nothing at this place. Check the spelling of the URL."),
        ("write", FileNotFoundError(2, "no"), "its bucket or folder does not exist. Create it or correct the URL."),
        ("create", coded("NoSuchBucket"), "the bucket does not exist. Create it or correct the URL."),
        ("write", coded("ExpiredToken"), "the credentials have expired. Renew them, then run the same command again."),
        ("read", coded("InvalidAccessKeyId"), "the access key is not known there. Check the credentials."),
        ("read", NoCredentialsError("none"), "no credentials were found. Set them in the environment or"),
        ("write", PermissionError("Access Denied."), "permission is denied (Access Denied). Check the rights on it"),
        ("write", OSError(errno.ENOSPC, "x"), "the disk is full. Free some space or choose another destination"),
        ("write", OSError(errno.EROFS, "x"), "the file system is read-only. Choose a destination that can be written."),
        ("create", OSError(errno.ENOSYS, "x"), "this storage does not offer the operation. Choose another storage"),
        ("read", ValueError("odd\n  thing "), "the storage said: odd thing. Check the URL and the storage options."),
        ("read", RuntimeError(), "the storage said: RuntimeError. Check the URL"),
        ("read", TimeoutError("slow"), "the connection or the service failed (slow). Check the network"),
    ],
)
def test_where_what_and_what_to_do(verb: str, error: Exception, said: str) -> None:
    explained = explain("s3://b/x", verb, error)
    assert isinstance(explained, StorageError)
    assert str(explained).startswith(f"s3://b/x: cannot {verb} it: {said}")
    assert str(explained).endswith(".")


def test_attempts_are_told() -> None:
    assert ": cannot read it after 4 attempts: " in str(explain("/x", "read", TimeoutError(), 4))


def test_errno_is_kept_for_programs() -> None:
    assert explain("/x", "write", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))).errno == errno.ENOSPC
    assert explain("/x", "read", FileNotFoundError("s3 gives no number")).errno == errno.ENOENT
    assert explain("/x", "read", PermissionError("denied")).errno == errno.EACCES
    assert explain("/x", "read", ValueError("odd")).errno is None


def test_long_answers_are_cut() -> None:
    assert len(str(explain("/x", "read", ValueError("<html>" * 5000)))) < 400

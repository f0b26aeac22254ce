"""From what a storage library raised to a sentence: where, what happened, what to do."""

from __future__ import annotations

import errno

from pilc_stream.errors import StorageError
from pilc_stream.storage.retry import is_transient, service_code

_EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "abfs": "azure",
    "abfss": "azure",
    "az": "azure",
    "http": "http",
    "https": "http",
}

_BY_ERRNO = {
    errno.ENOSPC: (
        "the disk is full",
        "Free some space or choose another destination, then run the same command again; what is committed stays",
    ),
    errno.EDQUOT: (
        "the disk quota is used up",
        "Free some space or choose another destination, then run the same command again; what is committed stays",
    ),
    errno.EFBIG: ("the file is larger than this file system or limit allows", "Use smaller shards or another disk"),
    errno.EROFS: ("the file system is read-only", "Choose a destination that can be written"),
    errno.EACCES: ("permission is denied", "Check the rights on it, or the credentials and their policy"),
    errno.EPERM: ("permission is denied", "Check the rights on it, or the credentials and their policy"),
    errno.ENOTDIR: ("a part of its path is a file, not a folder", "Correct the path"),
    errno.EISDIR: ("it is a folder, not a file", "Correct the path"),
    errno.ENAMETOOLONG: ("the name is too long for this storage", "Use a shorter path"),
    errno.EIO: ("the device reported an input/output error", "Check the disk or the service, then run again"),
    errno.ELOOP: ("its symbolic links go round in a circle", "Correct the links"),
    errno.EMFILE: ("this process has too many open files", "Raise `ulimit -n`, then run again"),
    errno.ENOSYS: ("this storage does not offer the operation", "Choose another storage for it"),
}

_BY_CODE = {
    "NoSuchBucket": ("the bucket does not exist", "Create it or correct the URL"),
    "InvalidAccessKeyId": ("the access key is not known there", "Check the credentials"),
    "SignatureDoesNotMatch": ("the secret key does not fit the access key", "Check the credentials"),
    "ExpiredToken": ("the credentials have expired", "Renew them, then run the same command again"),
    "InvalidBucketName": ("the bucket name is not a valid one", "Correct the URL"),
    "401": ("the credentials are not accepted", "Renew or correct them, then run the same command again"),
    "403": ("permission is denied", "Check the rights on it, or the credentials and their policy"),
    "405": _BY_ERRNO[errno.ENOSYS],
    "501": _BY_ERRNO[errno.ENOSYS],
    "PermanentRedirect": ("the bucket is in another region", "Set the region or endpoint in the storage options"),
}


def explain(url: str, verb: str, error: BaseException, attempts: int = 1) -> StorageError:
    """Return the StorageError that says what `error` means for whoever wanted to `verb` (infinitive) `url`.

    Its `errno` is that of `error` where there is one. `attempts` are those already made.
    """
    what, advice = _what(url, verb, error)
    tries = f" after {attempts} attempts" if attempts > 1 else ""
    explained = StorageError(f"{url}: cannot {verb} it{tries}: {what}. {advice}.")
    explained.errno = error.errno if isinstance(error, OSError) and error.errno else _errno(error)
    return explained


def is_missing(error: StorageError) -> bool:
    """Tell whether `error` says that an object is not there, while the storage is: no further attempt will find it."""
    return error.errno == errno.ENOENT and not _is_without_bucket(error)


def _is_without_bucket(error: BaseException) -> bool:
    """Whether it is the bucket, or container, that is not there."""
    if service_code(error) == "NoSuchBucket":
        return True
    seen: BaseException | None = error
    while seen is not None:
        # As the client of Azure says it, under a status of 404.
        if getattr(seen, "error_code", None) == "ContainerNotFound":
            return True
        seen = seen.__cause__
    return False


def _errno(error: BaseException) -> int | None:
    if isinstance(error, FileNotFoundError):
        return errno.ENOENT
    return errno.EACCES if isinstance(error, PermissionError) else None


def _what(url: str, verb: str, error: BaseException) -> tuple[str, str]:
    code = service_code(error)
    if _is_without_bucket(error):
        return _BY_CODE["NoSuchBucket"]
    if code in _BY_CODE:
        return _BY_CODE[code]
    if isinstance(error, ImportError):
        extra = _EXTRAS.get(url.split("://", 1)[0])
        hint = f"Run `pip install 'pilc-stream[{extra}]'`" if extra else "Install the package that it names"
        return f"a package for this kind of URL is missing ({_text(error)})", hint
    if isinstance(error, FileNotFoundError) and verb in ("write", "create"):
        return "its bucket or folder does not exist", "Create it or correct the URL"
    if isinstance(error, FileNotFoundError):
        return "there is nothing at this place", "Check the spelling of the URL"
    if type(error).__name__ in {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"}:
        return "no credentials were found", "Set them in the environment or with storage options"
    if isinstance(error, NotImplementedError):
        return _BY_ERRNO[errno.ENOSYS]
    if isinstance(error, OSError) and str(error).startswith("Forbidden: "):
        # As gcsfs says it.
        return _BY_ERRNO[errno.EACCES]
    if isinstance(error, PermissionError):
        return _BY_ERRNO[errno.EACCES][0] + f" ({_text(error)})", _BY_ERRNO[errno.EACCES][1]
    if is_transient(error):
        return (
            f"the connection or the service failed ({_text(error)})",
            "Check the network, the endpoint and the service, then run the same command again",
        )
    if isinstance(error, OSError) and error.errno in _BY_ERRNO:
        return _BY_ERRNO[error.errno]
    return f"the storage said: {_text(error)}", "Check the URL and the storage options"


def _text(error: BaseException) -> str:
    """One line of what the library said; some libraries answer with whole pages."""
    said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return said if len(said) <= 200 else said[:197] + "..."

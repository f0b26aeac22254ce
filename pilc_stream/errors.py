"""Every error that pilc-stream raises on purpose, on one screen.

Messages are sentences: where it happened, what was found, what to do. Bad input costs one record, a wrong
argument costs one command; only `JobError` ends a job.
"""

from __future__ import annotations


class PilcError(Exception):
    """Base of all errors raised on purpose; catch it to catch them all."""


class UsageError(PilcError, ValueError):
    """An argument, flag or setting is wrong; nothing was done."""


class UnknownKeyError(UsageError, KeyError):
    """A data set has no sample with this key; the message names close ones."""

    def __str__(self) -> str:
        # KeyError would show the sentence in quotes.
        return str(self.args[0])


# Payloads, shards and manifests: stored bytes that are not what FORMAT.md says.


class FormatError(PilcError, ValueError):
    """Stored bytes break a MUST of FORMAT.md."""


class TruncatedError(FormatError):
    """The bytes end before what their header announces, or go on after it."""


class ChecksumError(FormatError):
    """The bytes are not those that were written: a checksum or digest differs."""


class UnsupportedError(FormatError):
    """The bytes are of a version or codec that this release does not know."""


class ManifestError(FormatError):
    """A manifest, commit or job file is missing, incomplete or contradicts another."""


# Models.


class ModelError(PilcError, ValueError):
    """A model file is malformed, or its numbers break the integer law."""


class ModelNotFoundError(ModelError, LookupError):
    """A payload or a flag names a model that is nowhere to be found."""


# The world outside.


class ImageError(PilcError, ValueError):
    """An image file cannot be decoded; the message says why. Costs one record."""


class StorageError(PilcError, OSError):
    """Storage refused or failed after the retries; the message names the URL."""


class AlreadyExistsError(StorageError, FileExistsError):
    """A create-only put found something there: somebody else committed first."""


class DeviceError(PilcError, RuntimeError):
    """The asked-for device or backend cannot be used on this machine."""


class VerifyError(PilcError):
    """Verification found a record whose pixels or bytes are not those of its source."""


class JobError(PilcError):
    """A compression job could not finish; what was committed stays valid."""


class JobMismatchError(JobError):
    """The destination holds another job; the message names what differs."""

"""From a batch of loaded images to records: code, keep the smaller, prove it, and lose nothing when something fails.

Every image leaves as a record. What a codec does not take, does not make smaller, fails on, or does not give back
exactly stays the source file's own bytes; only the way it is counted differs.
"""

from __future__ import annotations

import hashlib
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal, TypeVar

import numpy as np

from pilc_stream.codecs import Codec, Decoder
from pilc_stream.codecs.lossy import fidelity
from pilc_stream.errors import DeviceError, FormatError, ModelError
from pilc_stream.images import Pixels
from pilc_stream.pipeline.again import MISFIT_STAGE
from pilc_stream.pipeline.large import banded_fault, encode_banded
from pilc_stream.pipeline.loading import LoadedImage
from pilc_stream.pipeline.statistics import BITS_PER_STEP, ShardStatistics
from pilc_stream.records.payload import parse_header
from pilc_stream.records.record import LOSSY_CODECS, SOURCE_CODEC, Record, RecordError

Verify = Literal["all", "sample", "none"]

SAMPLE_ONE_IN = 16
"""With verify "sample", about one payload in this many is decoded again; the key decides which."""

MAX_FAILURES_IN_A_ROW = 8
"""So many images that fail one after the other are no accident of theirs: the codec or its device is broken."""

NOT_SMALLER = "not smaller than the source"
NO_DIGEST = bytes(32)

_DEEDS = {"encode": "encode the pixels", "verify": "give the pixels back"}

_Input = TypeVar("_Input")
_Output = TypeVar("_Output")


class Coder:
    """Makes records with one codec and counts what happened. For one shard and one thread."""

    def __init__(self, codec: Codec, decoder: Decoder, verify: Verify) -> None:
        self._codec = codec
        self._decoder = decoder
        self._verify = verify
        self._failures_in_a_row: Counter[str] = Counter()
        self.statistics = ShardStatistics()
        self.errors: list[RecordError] = []

    def code(self, batch: Sequence[LoadedImage]) -> list[Record]:
        """One record per image, in order.

        Raises DeviceError or ModelError, which no other image would survive either, and DeviceError where the codec
        fails on image after image.
        """
        payloads: list[bytes | None] = [None] * len(batch)
        with self.statistics.times.measure("code"):
            self._encode(batch, payloads)
            self._encode_large(batch, payloads)
        for index, image in enumerate(batch):
            payload = payloads[index]
            if payload is not None and len(payload) > len(image.data):
                self.statistics.fallback[NOT_SMALLER] += 1
                payloads[index] = None
        with self.statistics.times.measure("verify"):
            self._check(batch, payloads)
            self._check_large(batch, payloads)
        return [self._record(image, payload) for image, payload in zip(batch, payloads, strict=True)]

    def _encode(self, batch: Sequence[LoadedImage], payloads: list[bytes | None]) -> None:
        """Fill in the payload of every image that was decoded, that the codec takes, and that it does not fail on."""

        def encode(pixels: Sequence[Pixels]) -> list[bytes]:
            return self._codec.encode([each.array for each in pixels], [each.extras or None for each in pixels])

        taken: list[tuple[int, Pixels]] = []
        for index, image in enumerate(batch):
            if image.pixels is None:
                continue
            reason = self._codec.refuses(image.pixels.array)
            if reason is None:
                taken.append((index, image.pixels))
            else:
                self.statistics.fallback[f"{self._codec.name}: {reason}"] += 1
        outcomes = _each([pixels for _, pixels in taken], encode)
        for (index, _), outcome in zip(taken, outcomes, strict=True):
            if isinstance(outcome, Exception):
                self._failed(batch[index].key, "encode", _describe(outcome))
            else:
                self._failures_in_a_row["encode"] = 0
                payloads[index] = outcome

    def _check(self, batch: Sequence[LoadedImage], payloads: list[bytes | None]) -> None:
        """Decode payloads again; one that gives other pixels or metadata is taken back and listed."""

        def decode(stored: Sequence[bytes]) -> list[Pixels]:
            arrays = self._decoder.decode(stored)
            return [Pixels(array, "", self._decoder.extras(one)) for array, one in zip(arrays, stored, strict=True)]

        checked = [
            (index, payload, image.pixels)
            for index, (payload, image) in enumerate(zip(payloads, batch, strict=True))
            if payload is not None and image.pixels is not None and self._is_checked(image.key)
        ]
        outcomes = _each([payload for _, payload, _ in checked], decode)
        for (index, payload, wanted), outcome in zip(checked, outcomes, strict=True):
            if isinstance(outcome, Exception):
                fault: str | None = _describe(outcome)
            else:
                fault = _difference(wanted, outcome, self._made_by(payload)[0] in LOSSY_CODECS)
            if fault is None:
                self._failures_in_a_row["verify"] = 0
                self.statistics.verified += 1
            else:
                payloads[index] = None
                self._failed(batch[index].key, "verify", fault)

    def _encode_large(self, batch: Sequence[LoadedImage], payloads: list[bytes | None]) -> None:
        """The same for images that are read in bands, one after the other."""
        for index, image in enumerate(batch):
            if image.banded is None:
                continue
            try:
                payloads[index] = encode_banded(self._codec, image)
            except (DeviceError, ModelError):
                raise
            except Exception as error:
                self._failed(image.key, "encode", _describe(error))
                continue
            self._failures_in_a_row["encode"] = 0
            if payloads[index] is None and not image.error:
                self.statistics.fallback[NOT_SMALLER] += 1

    def _check_large(self, batch: Sequence[LoadedImage], payloads: list[bytes | None]) -> None:
        """Decode payloads of such images again, in bands."""
        for index, image in enumerate(batch):
            payload = payloads[index]
            if image.banded is None or payload is None or not self._is_checked(image.key):
                continue
            try:
                fault = banded_fault(self._decoder, payload, image)
            except (DeviceError, ModelError):
                raise
            except Exception as error:
                fault = _describe(error)
            if fault is None:
                self._failures_in_a_row["verify"] = 0
                self.statistics.verified += 1
            else:
                payloads[index] = None
                self._failed(image.key, "verify", fault)

    def _is_checked(self, key: str) -> bool:
        if self._verify == "sample":
            digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
            return int.from_bytes(digest[:8], "big") % SAMPLE_ONE_IN == 0
        return self._verify == "all"

    def _failed(self, key: str, stage: str, fault: str) -> None:
        """List an image that the codec failed on; give up where it failed on too many in a row."""
        self._failures_in_a_row[stage] += 1
        in_a_row = self._failures_in_a_row[stage]
        reason = f"the codec {self._codec.name!r} failed to {_DEEDS[stage]}: {fault}"
        if in_a_row >= MAX_FAILURES_IN_A_ROW:
            raise DeviceError(
                f"{key}: {reason}; this is image {in_a_row} in a row, so the codec or its device is broken and the "
                "shard is given up: try another device, or report this"
            )
        self._list(key, stage, reason)

    def _list(self, key: str, stage: str, reason: str) -> None:
        self.statistics.failed[stage] += 1
        self.errors.append(RecordError(key, stage, reason))

    def _record(self, image: LoadedImage, payload: bytes | None) -> Record:
        if image.error:
            self._list(image.key, image.failed_stage, image.error)
        elif image.refusal:
            self.statistics.fallback[image.refusal] += 1
        for misfit in image.misfits:
            self.statistics.misfits += 1
            self.errors.append(RecordError(image.key, MISFIT_STAGE, misfit))
        header, pixels, statistics = image.header, image.known, self.statistics
        codec, model = (SOURCE_CODEC, "") if payload is None else self._made_by(payload)
        # Pixels know their shape better than a header does: some formats turn the image while it is decoded.
        height, width = pixels.array.shape[:2] if pixels else (header.height, header.width) if header else (0, 0)
        channels, bit_depth, mode = (header.channels, header.bit_depth, header.mode) if header else (0, 0, "")
        if payload is not None and pixels is not None:
            # What is stored: a file of 4 bits or of a palette is decoded to samples of 8.
            array = pixels.array
            channels, bit_depth, mode = 1 if array.ndim == 2 else array.shape[2], 8 * array.itemsize, pixels.mode
        statistics.codecs[codec] += 1
        if payload is not None and pixels is not None:
            statistics.saved[codec] += len(image.data) - len(payload)
            statistics.coded_source_bytes += len(image.data)
            statistics.coded_payload_bytes += len(payload)
            statistics.coded_sub_pixels += pixels.array.size
            statistics.bits[int(8 * len(payload) / pixels.array.size / BITS_PER_STEP)] += 1
        return Record(
            key=image.key,
            payload=image.data if payload is None else payload,
            codec=codec,
            model=model,
            width=width,
            height=height,
            channels=channels,
            bit_depth=bit_depth,
            mode=mode,
            raw_bytes=pixels.array.nbytes if pixels else 0,
            source_bytes=len(image.data),
            pixel_sha256=image.pixel_sha256 or NO_DIGEST,
            source_sha256=image.source_sha256,
            columns={**image.columns, **self._fidelity(codec, payload)},
        )

    def _fidelity(self, codec: str, payload: bytes | None) -> dict[str, bool | float | None]:
        """What a job with a lossy codec says of each record besides."""
        if self._codec.name not in LOSSY_CODECS:
            return {}
        found = fidelity(payload if codec in LOSSY_CODECS else None)
        if found["psnr"] is not None:
            self.statistics.saw_psnr(found["psnr"])
        return found

    def _made_by(self, payload: bytes) -> tuple[str, str]:
        """Codec and model of a payload: of several ways a codec takes the smallest."""
        # A header that is not to be read is the business of verification, not of the one who counts.
        with suppress(FormatError):
            name = parse_header(payload).codec
            # Payloads inside the planes may be the profile's.
            if name != self._codec.name:
                return name, self._codec.model_sha256 if name == "planes" else ""
        return self._codec.name, self._codec.model_sha256


def _each(inputs: Sequence[_Input], work: Callable[[Sequence[_Input]], list[_Output]]) -> list[_Output | Exception]:
    """Do `work` on all inputs at once or, where that fails, on each alone; the exception where it fails on one.

    DeviceError and ModelError pass through: they say that nothing will work, not that one input is odd.
    """
    if not inputs:
        return []
    try:
        return list(work(inputs))
    except (DeviceError, ModelError):
        raise
    except Exception as error:
        if len(inputs) == 1:
            return [error]
    return [outcome for one in inputs for outcome in _each([one], work)]


def _difference(wanted: Pixels, found: Pixels, lossy: bool) -> str | None:
    """What is wrong with what came back. Of a lossy codec the decoder has compared the latents with their checksum."""
    if found.array.shape != wanted.array.shape or found.array.dtype != wanted.array.dtype:
        return f"{found.array.dtype} {found.array.shape} pixels instead of {wanted.array.dtype} {wanted.array.shape}"
    if not (lossy or np.array_equal(found.array, wanted.array)):
        return "other pixels"
    return None if found.extras == wanted.extras else "other metadata"


def _describe(error: Exception) -> str:
    """What an unexpected exception says, with the line it came from: it is a bug that somebody will want to find."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({where.filename.rpartition('/')[2]}:{where.lineno})"

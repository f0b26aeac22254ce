"""Images too large to be held whole: surveyed in one pass over their bands, coded in another.

The ways to code them are those of `choice`; which is the smallest is found on cuttings, not on the whole, and the stock
codec for pictures of 16 bits is not tried on 8. What comes out has no more bytes than the pixels, or is nothing.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pilc_stream.codecs.bands import SPILL_BYTES, BandEncoder, most_tile_log2
from pilc_stream.codecs.base import Codec, TilingCodec, check_image, header_fields
from pilc_stream.codecs.choice import EASY_BITS, ChoosingCodec
from pilc_stream.codecs.deep import DeepCodec
from pilc_stream.codecs.planes import ALPHA, GREY, INDEX_BYTES, TABLE, pack_front
from pilc_stream.codecs.survey import Survey
from pilc_stream.codecs.traits import traits_of
from pilc_stream.codecs.webp import WebpCodec
from pilc_stream.records.payload import Header, PayloadWriter

Read = Callable[[], Iterator[NDArray[Any]]]


class LargeCoded(NamedTuple):
    """`payload`: None where the pixels are not made smaller; `pixel_sha256`: of the pixels, as columns hold it."""

    payload: bytes | None
    pixel_sha256: bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """How bands become those of the parts; `layout` None leaves them whole."""

    layout: int | None
    alpha: int | None = None
    values: NDArray[Any] | None = None

    def parts(self, band: NDArray[Any]) -> list[NDArray[Any]]:
        """Of rows `(rows, w, c)` those of each part."""
        if self.layout is None:
            return [band]
        colours = band[:, :, : band.shape[2] - (band.shape[2] in (2, 4))]
        colours = colours[:, :, :1] if self.layout & GREY else colours
        if self.values is not None:
            places = np.zeros(int(self.values[-1]) + 1, np.uint8 if len(self.values) <= INDEX_BYTES else np.uint16)
            places[self.values] = np.arange(len(self.values))
            colours = places[colours]
        return [colours, band[:, :, -1:]] if self.layout & ALPHA else [colours]


def encode_large(
    codec: Codec, shape: Sequence[int], dtype: np.dtype[Any], read: Read, extras: bytes = b""
) -> LargeCoded:
    """The payload of an image of this shape and dtype, whose rows `read` gives in bands, each time it is called.

    Holds some bands, the streams in a temporary file, and the payload. Raises UsageError for what is no image.
    """
    image = _standing_for(shape, dtype)
    check_image(image)
    channels = 1 if len(shape) == 2 else shape[2]
    survey = Survey(shape[0], shape[1], channels, dtype)
    for band in _three_axes(read):
        survey.push(band)
    chosen = _chosen(codec, survey, channels)
    if chosen is None:
        return LargeCoded(None, survey.pixel_sha256)
    plan, codecs = chosen
    with ExitStack() as stack:
        encoders = []
        for each, part in zip(codecs, plan.parts(survey.cuttings[0]), strict=True):
            whole = image if plan.layout is None else _standing_for((*shape[:2], part.shape[2]), part.dtype)
            coder = each.tile_coder(whole, most_tile_log2(shape[1], part.shape[2] * part.itemsize))
            streams = stack.enter_context(tempfile.SpooledTemporaryFile(SPILL_BYTES, prefix="pilc-tiles-"))
            encoders.append(BandEncoder(coder, part.dtype, streams))
        for band in _three_axes(read):
            for encoder, part in zip(encoders, plan.parts(band), strict=True):
                encoder.push(part)
        return LargeCoded(_payload(image, plan, encoders, extras), survey.pixel_sha256)


def _standing_for(shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array of this shape that takes no memory."""
    return np.broadcast_to(np.zeros((), dtype), tuple(shape))


def _three_axes(read: Read) -> Iterator[NDArray[Any]]:
    for band in read():
        yield band.reshape(*band.shape[:2], -1)


def _chosen(codec: Codec, survey: Survey, channels: int) -> tuple[Plan, list[TilingCodec]] | None:
    """The plan under which the cuttings are smallest, and the codec of each part; None for a codec without tiles."""
    main = codec.main if isinstance(codec, ChoosingCodec) else codec
    others: list[TilingCodec] = [WebpCodec(), DeepCodec()] if isinstance(codec, ChoosingCodec) else []
    drawn = any(traits.repetitive for traits in _traits(survey))
    found: list[tuple[int, Plan, list[TilingCodec]]] = []
    # A codec by itself codes images as they are.
    plans = _plans(survey, channels) if isinstance(codec, ChoosingCodec) else [Plan(None)]
    for plan in plans:
        total, codecs = 0, list[TilingCodec]()
        for parts in zip(*(plan.parts(cutting) for cutting in survey.cuttings), strict=True):
            best = _smallest(main, others, parts, drawn or plan.values is not None)
            if best is None:
                break
            total += best[0]
            codecs.append(best[1])
        else:
            found.append((total, plan, codecs))
    return min(found, key=lambda each: each[0])[1:] if found else None


def _traits(survey: Survey) -> list[Any]:
    return traits_of([cutting for cutting in survey.cuttings if cutting.dtype == np.uint8])


def _plans(survey: Survey, channels: int) -> Iterator[Plan]:
    """The image as it is, then taken apart, then as indices."""
    yield Plan(None)
    has_alpha = channels in (2, 4)
    layout = GREY * survey.grey | ALPHA * (has_alpha and survey.alpha is None)
    if layout or has_alpha:
        yield Plan(layout, survey.alpha)
    if survey.values is not None:
        yield Plan(layout | TABLE, survey.alpha, survey.values)


def _smallest(
    main: Codec, others: Sequence[TilingCodec], parts: Sequence[NDArray[Any]], drawn: bool
) -> tuple[int, TilingCodec] | None:
    """The bytes that the cuttings of a part take, by the codec that takes the fewest; None where none takes them."""
    sizes: list[tuple[int, int, TilingCodec]] = []
    samples = sum(part.size for part in parts)
    if isinstance(main, TilingCodec) and main.refuses(parts[0]) is None:
        sizes.append((sum(map(len, main.encode(parts))), 0, main))
    is_easy = not sizes or 8 * sizes[0][0] <= EASY_BITS * samples
    for rank, other in enumerate(others, 1):
        wanted = parts[0].dtype == np.uint16 if other.name == "deep" else drawn or is_easy
        if wanted and other.refuses(parts[0]) is None:
            sizes.append((sum(map(len, other.encode(parts))), rank, other))
    if not sizes:
        return None
    size, _, codec = min(sizes, key=lambda each: each[:2])
    return size, codec


def _payload(image: NDArray[Any], plan: Plan, encoders: Sequence[BandEncoder], extras: bytes) -> bytes | None:
    lengths = [encoder.payload_bytes for encoder in encoders]
    known = [length for length in lengths if length is not None]
    if len(known) < len(lengths) or sum(known) >= image.nbytes:
        return None
    sink = io.BytesIO()
    if plan.layout is None:
        encoders[0].write(sink, extras)
    else:
        tables = [] if plan.values is None else [plan.values]
        front = pack_front(image.itemsize, plan.layout, plan.alpha, tables, known)
        header = Header(codec="planes", extras=extras, **header_fields(image))
        writer = PayloadWriter(sink, header, [len(front) + sum(known)])
        writer.write(front)
        for encoder in encoders:
            encoder.write(writer)
        writer.end_tile()
    return sink.getvalue() if sink.tell() - len(extras) < image.nbytes else None

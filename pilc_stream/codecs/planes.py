"""The codec `planes`: an image as one or two payloads of other codecs, and what puts it together again.

So that the codecs of grey and RGB code every kind of image: alpha is a grey image of its own or a single number; equal
colour channels are one; and few values, of whatever depth, become indices into the list of those that occur, so that
8 bits in a 16-bit file cost 8 bits and gaps in a histogram cost nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.codecs.base import Image, check_all_tiles, header_fields
from pilc_stream.errors import FormatError, TruncatedError
from pilc_stream.records.payload import Header, Payload, get_varint, pack_payload, parse_header, put_varint
from pilc_stream.records.tiling import Region

GREY, ALPHA, TABLE, ALPHA_TABLE = 1, 2, 4, 8
"""Bits of a stream's first byte: one colour channel stands for three; alpha is a part; colours are indices; so is
alpha."""

MAX_TABLE_BYTES = 3 << 16
"""Of an inflated table: at most three bytes for each of 65536 values."""

INDEX_BYTES = 1 << 8

DecodeParts = Callable[[Sequence[memoryview], Sequence[Region | None]], list[Image]]


@dataclass(frozen=True, slots=True)
class Split:
    """An image taken apart.

    `layout`: of the bits above. `colour`: `(h, w, 1 or 3)`; `alpha`: `(h, w, 1)`, or the one number that all of it is,
    or None without alpha. `tables`: what colours or alpha are indices into, where they are not the samples themselves.
    """

    layout: int
    colour: NDArray[Any]
    alpha: NDArray[Any] | int | None
    tables: tuple[NDArray[Any], ...] = ()

    @property
    def parts(self) -> list[NDArray[Any]]:
        """The images to code."""
        return [self.colour, self.alpha] if isinstance(self.alpha, np.ndarray) else [self.colour]


def split(image: NDArray[Any]) -> Split:
    """Take an image apart as far as its channels go: alpha, and colours that are grey."""
    channels = image.reshape(*image.shape[:2], -1)
    colour, layout = channels, 0
    alpha: NDArray[Any] | int | None = None
    if channels.shape[2] in (2, 4):
        colour, alpha = channels[:, :, :-1], np.ascontiguousarray(channels[:, :, -1:])
        if alpha.min() == alpha.max():
            alpha = int(alpha.flat[0])
        else:
            layout |= ALPHA
    if colour.shape[2] == 3 and all(np.array_equal(colour[:, :, 0], colour[:, :, k]) for k in (1, 2)):
        colour, layout = colour[:, :, :1], layout | GREY
    return Split(layout, np.ascontiguousarray(colour), alpha)


def indexed(whole: Split) -> Split:
    """The same with the colours, and 16-bit alpha, as indices into the sorted list of values that occur."""
    colour, values = _as_indices(whole.colour)
    if isinstance(whole.alpha, np.ndarray) and whole.alpha.dtype == np.uint16:
        alpha, opacities = _as_indices(whole.alpha)
        if len(opacities) <= INDEX_BYTES:
            layout = whole.layout | TABLE | ALPHA_TABLE
            return Split(layout, colour, alpha, (values, opacities))
    return replace(whole, layout=whole.layout | TABLE, colour=colour, tables=(values,))


def _as_indices(samples: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Indices, of 8 bits where these suffice, and the values that they stand for."""
    counts = np.bincount(samples.reshape(-1), minlength=1)
    values = np.flatnonzero(counts).astype(samples.dtype)
    places = np.zeros(len(counts), np.uint8 if len(values) <= INDEX_BYTES else np.uint16)
    places[values] = np.arange(len(values))
    return places[samples], values


def pack_planes(image: NDArray[Any], whole: Split, parts: Sequence[bytes], extras: bytes | None) -> bytes:
    """The payload of `image` from the payloads of its parts."""
    alpha = whole.alpha if isinstance(whole.alpha, int) else None
    front = pack_front(image.dtype.itemsize, whole.layout, alpha, whole.tables, [len(part) for part in parts])
    stream = front + b"".join(parts)
    return pack_payload(Header(codec="planes", extras=extras or b"", **header_fields(image)), [stream])


def pack_front(
    sample_bytes: int, layout: int, alpha: int | None, tables: Sequence[NDArray[Any]], part_bytes: Sequence[int]
) -> bytes:
    """The stream up to its first part."""
    stream = bytearray([layout])
    if alpha is not None:
        stream += alpha.to_bytes(sample_bytes, "little")
    for values in tables:
        gaps = bytearray()
        for gap in np.diff(values.astype(np.int64), prepend=-1).tolist():
            put_varint(gaps, gap - 1)
        deflated = zlib.compress(bytes(gaps), 9)
        put_varint(stream, len(deflated))
        stream += deflated
    for length in part_bytes[:-1]:
        put_varint(stream, length)
    return bytes(stream)


@dataclass(frozen=True, slots=True)
class _Opened:
    header: Header
    layout: int
    alpha: int | None
    tables: list[NDArray[Any] | None]
    parts: list[memoryview]


def part_headers(payload: Payload) -> list[Header]:
    """The headers of a payload's parts. Its checksum must have been checked; raises FormatError as decoding does."""
    return [parse_header(part) for part in _open(payload).parts]


class PlanesDecoder:
    """The inverse of `split` and `pack_planes`."""

    def __init__(self, decode_parts: DecodeParts) -> None:
        """`decode_parts` decodes the payloads of parts, or regions of them."""
        self._decode_parts = decode_parts

    def decode(self, payloads: Sequence[Payload], regions: Sequence[Region | None]) -> list[Image]:
        """The images, or the regions asked for."""
        for payload in payloads:
            check_all_tiles(payload)
        opened = [_open(payload) for payload in payloads]
        wanted = [region for each, region in zip(opened, regions, strict=True) for _ in each.parts]
        decoded = iter(self._decode_parts([part for each in opened for part in each.parts], wanted))
        return [_put_together(each, [next(decoded) for _ in each.parts]) for each in opened]

    def bands(self, payload: Payload, part_bands: Callable[[memoryview], Iterator[Image]]) -> Iterator[Image]:
        """The image from the top down; `part_bands` gives the rows of a part so."""
        check_all_tiles(payload)
        opened = _open(payload)
        first, *others = (_Rows(part_bands(part)) for part in opened.parts)
        while (rows := first.next_rows()) is not None:
            yield _put_together(opened, [rows, *(other.take(len(rows)) for other in others)])


class _Rows:
    """Rows from bands of any height."""

    def __init__(self, bands: Iterator[Image]) -> None:
        self._bands = bands
        self._rest: Image | None = None

    def next_rows(self) -> Image | None:
        """The next band; None after the last."""
        return next(self._bands, None)

    def take(self, count: int) -> Image:
        """The next so many rows."""
        parts: list[Any] = []
        while count:
            if self._rest is None or not len(self._rest):
                self._rest = next(self._bands)
            parts.append(self._rest[:count])
            self._rest = self._rest[count:]
            count -= len(parts[-1])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _open(payload: Payload) -> _Opened:
    """The stream's fields, every one checked, down to the headers of the parts."""
    header, view = payload.header, payload.tiles[0]
    if not len(view):
        raise TruncatedError("payload (planes): the stream is empty")
    layout, position, alpha = view[0], 1, None
    has_alpha = header.channels in (2, 4)
    # What needs alpha, what needs an alpha part, what needs three colours, and bits without a meaning.
    wrong = (layout & ALPHA and not has_alpha) or (layout & ALPHA_TABLE and not layout & ALPHA)
    if wrong or (layout & GREY and header.channels < 3) or layout >> 4:
        raise FormatError(f"payload (planes): a layout of {layout:#04x}, which {header.channels} channels cannot have")
    if has_alpha and not layout & ALPHA:
        alpha = int.from_bytes(view[position : position + header.sample_bytes], "little")
        position += header.sample_bytes
    tables: list[NDArray[Any] | None] = []
    for bit in (TABLE, ALPHA_TABLE):
        table = None
        if layout & bit:
            deflated, position = _take(view, position, "a table")
            table = _read_table(deflated, header.bit_depth)
        tables.append(table)
    parts = []
    if layout & ALPHA:
        part, position = _take(view, position, "a part")
        parts.append(part)
    parts.append(view[position:])
    colours = 3 if header.channels > 2 and not layout & GREY else 1
    for part, channels, table in zip(parts, (colours, 1), tables, strict=False):
        bits = header.bit_depth if table is None or len(table) > INDEX_BYTES else 8
        _check_part(parse_header(part), header, channels, bits)
    return _Opened(header, layout, alpha, tables, parts)


def _take(view: memoryview, position: int, what: str) -> tuple[memoryview, int]:
    """As many bytes as the number before them says, and the place behind them."""
    length, position = get_varint(view, position, f"the length of {what}")
    if length > len(view) - position:
        raise TruncatedError(f"payload (planes): {what} of {length} bytes, {len(view) - position} are left")
    return view[position : position + length], position + length


def _check_part(part: Header, whole: Header, channels: int, bits: int) -> None:
    found = (part.height, part.width, part.channels, part.bit_depth, part.two_axes, part.extras)
    if part.codec == "planes" or found != (whole.height, whole.width, channels, bits, False, b""):
        raise FormatError(
            f"payload (planes): a part is {part.codec} of {part.shape} with {part.bit_depth} bits; the whole of "
            f"{whole.shape} needs ({whole.height}, {whole.width}, {channels}) with {bits} bits, without extras"
        )


def _read_table(deflated: memoryview, bit_depth: int) -> NDArray[Any]:
    inflater = zlib.decompressobj()
    try:
        table = memoryview(inflater.decompress(deflated, MAX_TABLE_BYTES))
    except zlib.error as error:
        raise FormatError(f"payload (planes): the table of values cannot be inflated: {error}") from error
    if not inflater.eof or inflater.unused_data or not table:
        raise FormatError("payload (planes): the table of values is cut short, empty or followed by other bytes")
    values, position, value = list[int](), 0, -1
    while position < len(table):
        gap, position = get_varint(table, position, "a value")
        value += gap + 1
        if value >> bit_depth:
            raise FormatError(f"payload (planes): a value of {value} in samples of {bit_depth} bits")
        values.append(value)
    return np.array(values, np.uint16 if bit_depth == 16 else np.uint8)


def _put_together(opened: _Opened, parts: Sequence[Image]) -> Image:
    header = opened.header
    planes = [_values_of(part, table) for part, table in zip(parts, opened.tables, strict=False)]
    if header.channels == 1:
        whole: Image = planes[0][:, :, 0] if header.two_axes else planes[0]
        return whole
    image: Any = np.empty((*planes[0].shape[:2], header.channels), np.uint16 if header.bit_depth == 16 else np.uint8)
    image[:, :, : header.channels - (header.channels in (2, 4))] = planes[0]
    if opened.alpha is not None:
        image[:, :, -1] = opened.alpha
    elif opened.layout & ALPHA:
        image[:, :, -1:] = planes[1]
    return image  # type: ignore[no-any-return]


def _values_of(part: Image, table: NDArray[Any] | None) -> NDArray[Any]:
    if table is None:
        return part
    if int(part.max()) >= len(table):
        raise FormatError(f"payload (planes): an index of {part.max()} into {len(table)} values")
    values: NDArray[Any] = table[part]
    return values

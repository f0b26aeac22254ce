"""The payload container of FORMAT.md: header, tile directory, tiles with their checksums. Knows no codec's insides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import google_crc32c

from pilc_stream.errors import ChecksumError, FormatError, TruncatedError, UnsupportedError
from pilc_stream.records.tiling import MAX_LANES_LOG2, MAX_TILE_LOG2, MIN_TILE_LOG2, Tiling

PAYLOAD_MAGIC = b"\xb1\x1c"
"""The first bytes of every payload; the first is no text and begins no other image format."""

FORMAT_VERSION = 1
CODEC_IDS = {"raw": 0, "wave": 1, "pilc": 2, "planes": 3, "webp": 4, "deep": 5, "lossy": 6}
WITH_MODEL = frozenset(("wave", "pilc", "lossy"))
"""Codecs whose payloads name a model."""

WITH_VIEWS = frozenset(("wave",))
"""Codecs whose tiles may be coded turned or mirrored."""

MAX_TILE_LOG2S = {
    "wave": MAX_TILE_LOG2,
    "pilc": MAX_TILE_LOG2,
    "webp": 13,
    "deep": MAX_TILE_LOG2,
    "lossy": MAX_TILE_LOG2,
}
"""Codecs that cut images into tiles, and how large these may be; what other codecs make is one stream."""

MODEL_DIGEST_BYTES = 4
CHECKSUM_BYTES = 4
MAX_EDGE = (1 << 24) - 1
MAX_CHANNELS = 4

_CODEC_NAMES = {number: name for name, number in CODEC_IDS.items()}
_CHANNELS_MASK, _DEPTH_16, _TWO_AXES, _HAS_EXTRAS, _VIEWS = 0b11, 1 << 2, 1 << 3, 1 << 4, 1 << 5
_KNOWN_FLAGS = _CHANNELS_MASK | _DEPTH_16 | _TWO_AXES | _HAS_EXTRAS | _VIEWS

# The header read last, without extras, and its bytes. Replaced as a whole, so threads may race for it.
_last_head: tuple[bytes, Header] | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """What a payload says before its tiles.

    `two_axes`: the array was `(H, W)`, not `(H, W, C)`. `model_digest` and `lanes_log2` belong to codecs with a model,
    `tile_log2` to codecs with tiles; they stay empty and 0 for others, whose pixels are one stream. `views`: each
    stream begins with the view of its tile that it codes (`wave`).
    """

    codec: str
    height: int
    width: int
    channels: int
    bit_depth: int
    two_axes: bool
    model_digest: bytes = b""
    tile_log2: int = 0
    lanes_log2: int = 0
    extras: bytes = b""
    views: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the decoded array."""
        return (self.height, self.width) if self.two_axes else (self.height, self.width, self.channels)

    @property
    def sample_bytes(self) -> int:
        """Bytes per sub-pixel of the decoded array."""
        return 2 if self.bit_depth == 16 else 1

    @property
    def raw_bytes(self) -> int:
        """Bytes of the decoded array."""
        return self.height * self.width * self.channels * self.sample_bytes

    @property
    def tiling(self) -> Tiling:
        """The tiles of this image (codecs with tiles)."""
        return Tiling(self.height, self.width, self.tile_log2)

    @property
    def tile_count(self) -> int:
        """Number of tiles that follow."""
        return self.tiling.count if self.tile_log2 else 1


@dataclass(frozen=True, slots=True)
class Payload:
    """A parsed payload: views into its bytes, not yet checked against the checksums."""

    header: Header
    head_crc: int
    tiles: tuple[memoryview, ...]
    checksums: tuple[int, ...]

    def check_tile(self, index: int) -> None:
        """Raise ChecksumError unless header and tile `index` are as they were written."""
        if _checksum(self.head_crc, index, self.tiles[index]) != self.checksums[index]:
            raise ChecksumError(
                f"payload, tile {index} of {len(self.tiles)}: the CRC-32C of header and tile differs from the stored "
                "one; the bytes changed since they were written: fetch or compress the image again"
            )


def pack_payload(header: Header, tiles: Sequence[bytes]) -> bytes:
    """The payload's bytes from its header and its tiles' streams."""
    head = pack_head(header, [len(tile) for tile in tiles])
    head_crc = google_crc32c.value(head)
    out = bytearray(head)
    for index, tile in enumerate(tiles):
        out += tile
        out += _checksum(head_crc, index, tile).to_bytes(CHECKSUM_BYTES, "little")
    return bytes(out)


def pack_head(header: Header, tile_bytes: Sequence[int]) -> bytes:
    """All before the first tile, from the header and the lengths of the tiles' streams."""
    head = bytearray(PAYLOAD_MAGIC)
    head.append(FORMAT_VERSION << 4 | CODEC_IDS[header.codec])
    head.append(
        (header.channels - 1)
        | _DEPTH_16 * (header.bit_depth == 16)
        | _TWO_AXES * header.two_axes
        | _HAS_EXTRAS * bool(header.extras)
        | _VIEWS * header.views
    )
    put_varint(head, header.height)
    put_varint(head, header.width)
    head += header.model_digest
    if header.tile_log2:
        head.append(header.tile_log2 << 4 | header.lanes_log2)
    if header.extras:
        put_varint(head, len(header.extras))
        head += header.extras
    for length in tile_bytes[:-1]:
        put_varint(head, length)
    return bytes(head)


class Sink(Protocol):
    """What bytes are written to."""

    def write(self, piece: bytes, /) -> object:
        """Take these bytes."""


class PayloadWriter:
    """Writes a payload to `sink` piece by piece, where its tiles are not to be in memory at once."""

    def __init__(self, sink: Sink, header: Header, tile_bytes: Sequence[int]) -> None:
        head = pack_head(header, tile_bytes)
        self._sink, self._head_crc, self._index = sink, google_crc32c.value(head), 0
        self._crc = self._tile_crc()
        sink.write(head)

    def write(self, piece: bytes, /) -> None:
        """The next bytes of a tile's stream."""
        self._crc = int(google_crc32c.extend(self._crc, piece))
        self._sink.write(piece)

    def end_tile(self) -> None:
        """The stream of a tile is complete."""
        self._sink.write(self._crc.to_bytes(CHECKSUM_BYTES, "little"))
        self._index += 1
        self._crc = self._tile_crc()

    def _tile_crc(self) -> int:
        return int(google_crc32c.extend(self._head_crc, self._index.to_bytes(4, "little")))


def parse_payload(data: bytes | memoryview) -> Payload:
    """Header and tile boundaries, every field checked before it is used; `Payload.check_tile` checks the contents.

    Raises UnsupportedError for another version or codec, TruncatedError where the bytes end early or go on too long,
    FormatError for anything else that is not a payload.
    """
    view = memoryview(data).cast("B")
    header, position, lengths = _parse_directory(view, len(view))
    head_crc = google_crc32c.value(bytes(view[:position]))
    tiles, checksums = [], []
    for length in lengths:
        tiles.append(view[position : position + length])
        position += length
        checksums.append(int.from_bytes(view[position : position + CHECKSUM_BYTES], "little"))
        position += CHECKSUM_BYTES
    return Payload(header, head_crc, tuple(tiles), tuple(checksums))


def tile_ranges(head: bytes | memoryview, payload_bytes: int) -> tuple[Header, list[tuple[int, int]]]:
    """The header, and where each tile lies with its checksum: `(offset, length)` in a payload of `payload_bytes`.

    `head` are the first bytes of the payload. What is fetched of it, the rest being anything, parses as the payload
    and decodes to the regions of the tiles that are there. Raises as `parse_payload`; TruncatedError also where `head`
    ends before the first tile.
    """
    header, position, lengths = _parse_directory(memoryview(head).cast("B"), payload_bytes)
    ranges = []
    for length in lengths:
        ranges.append((position, length + CHECKSUM_BYTES))
        position += length + CHECKSUM_BYTES
    return header, ranges


def _parse_directory(view: memoryview, payload_bytes: int) -> tuple[Header, int, list[int]]:
    """The header, the place of the first tile, and the length of each in a payload that begins with `view`."""
    header, position = _parse_header(view)
    # However many tiles a hostile header announces: refused here unless there is a byte of directory and a checksum
    # for each, so that time and memory stay in proportion to the bytes.
    if payload_bytes - position < (1 + CHECKSUM_BYTES) * header.tile_count - 1:
        raise _too_few(payload_bytes, header)
    lengths = []
    for _ in range(header.tile_count - 1):
        length, position = get_varint(view, position, "a tile's length")
        lengths.append(length)
    rest = payload_bytes - position - sum(lengths) - CHECKSUM_BYTES * header.tile_count
    if rest < 0:
        raise _too_few(payload_bytes, header)
    lengths.append(rest)
    if header.codec == "raw" and rest != header.raw_bytes:
        raise TruncatedError(f"payload (raw): {rest} bytes of pixels, {header.raw_bytes} announced")
    return header, position, lengths


def parse_header(data: bytes | memoryview) -> Header:
    """The header alone; `data` may stop anywhere behind it."""
    return _parse_header(memoryview(data).cast("B"))[0]


def _parse_header(view: memoryview) -> tuple[Header, int]:
    """The header and the place behind it. The one read last is known by its bytes: a data set has few, or one."""
    global _last_head
    known = _last_head
    if known is not None:
        head, header = known
        if view[: len(head)] == head:
            return header, len(head)
    header, position = _read_header(view)
    if not header.extras:
        _last_head = bytes(view[:position]), header
    return header, position


def _read_header(view: memoryview) -> tuple[Header, int]:
    if bytes(view[:2]) != PAYLOAD_MAGIC[: len(view)] or not len(view):
        raise FormatError(
            f"payload: begins with {bytes(view[:2]).hex(' ') or 'nothing'}, not with {PAYLOAD_MAGIC.hex(' ')}; "
            "these are not the bytes of a payload"
        )
    if len(view) < 4:
        raise TruncatedError(f"payload: {len(view)} bytes, shorter than any header")
    version, codec_id = view[2] >> 4, view[2] & 15
    if version != FORMAT_VERSION:
        raise UnsupportedError(f"payload: format version {version}, this release reads {FORMAT_VERSION}; upgrade")
    if codec_id not in _CODEC_NAMES:
        raise UnsupportedError(f"payload: codec number {codec_id} is unknown to this release; upgrade")
    flags = view[3]
    if flags & ~_KNOWN_FLAGS:
        raise UnsupportedError(f"payload: flags {flags:#04x} hold bits that this release does not know; upgrade")
    channels = (flags & _CHANNELS_MASK) + 1
    two_axes = bool(flags & _TWO_AXES)
    if two_axes and channels != 1:
        raise FormatError(f"payload: says two axes but {channels} channels")
    height, position = get_varint(view, 4, "the height")
    width, position = get_varint(view, position, "the width")
    if not (1 <= height <= MAX_EDGE and 1 <= width <= MAX_EDGE):
        raise FormatError(f"payload: {height} x {width} pixels; both edges must lie in 1..{MAX_EDGE}")
    codec = _CODEC_NAMES[codec_id]
    views = bool(flags & _VIEWS)
    if views and codec not in WITH_VIEWS:
        raise FormatError(f"payload ({codec}): says that its tiles have views, which this codec's have not")
    digest, tile_log2, lanes_log2 = b"", 0, 0
    if codec in MAX_TILE_LOG2S:
        end = position + MODEL_DIGEST_BYTES * (codec in WITH_MODEL) + 1
        if len(view) < end:
            raise TruncatedError("payload: ends inside the model digest or the tiling")
        digest = bytes(view[position : end - 1])
        tile_log2, lanes_log2 = view[end - 1] >> 4, view[end - 1] & 15
        position = end
        most_lanes = MAX_LANES_LOG2 if codec in WITH_MODEL else 0
        if not MIN_TILE_LOG2 <= tile_log2 <= MAX_TILE_LOG2S[codec] or lanes_log2 > most_lanes:
            raise FormatError(
                f"payload ({codec}): tiles of 2**{tile_log2} with 2**{lanes_log2} lanes; tiles must lie in "
                f"2**{MIN_TILE_LOG2}..2**{MAX_TILE_LOG2S[codec]}, lanes in 1..2**{most_lanes}"
            )
    extras = b""
    if flags & _HAS_EXTRAS:
        length, position = get_varint(view, position, "the length of the extras")
        if not 0 < length <= len(view) - position:
            raise TruncatedError(f"payload: {length} bytes of extras announced, {len(view) - position} left")
        extras = bytes(view[position : position + length])
        position += length
    bit_depth = 16 if flags & _DEPTH_16 else 8
    header = Header(codec, height, width, channels, bit_depth, two_axes, digest, tile_log2, lanes_log2, extras, views)
    return header, position


def _too_few(payload_bytes: int, header: Header) -> TruncatedError:
    return TruncatedError(
        f"payload: {payload_bytes} bytes do not hold the {header.tile_count} tiles that the header announces"
    )


def _checksum(head_crc: int, index: int, tile: bytes | memoryview) -> int:
    # Header and index belong to each tile's checksum: one tile can be checked alone, and none stands for another.
    return int(google_crc32c.extend(head_crc, index.to_bytes(4, "little") + bytes(tile)))


def put_varint(out: bytearray, value: int) -> None:
    """Append `value` in seven bits to a byte, the lowest first."""
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)


def get_varint(view: memoryview, position: int, what: str) -> tuple[int, int]:
    """The number at `position`, and the place behind it; `what` names it in errors. Raises FormatError."""
    value = 0
    for shift in range(0, 35, 7):
        if position >= len(view):
            raise TruncatedError(f"payload: ends inside {what}")
        byte = view[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if byte == 0 and shift:
                raise FormatError(f"payload: {what} is not written in its shortest form")
            return value, position
    raise FormatError(f"payload: {what} takes more than five bytes")

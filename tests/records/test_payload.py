from __future__ import annotations

import dataclasses
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilc_stream.errors import ChecksumError, FormatError, TruncatedError, UnsupportedError
from pilc_stream.records.payload import (
    CHECKSUM_BYTES,
    MAX_EDGE,
    PAYLOAD_MAGIC,
    Header,
    pack_payload,
    parse_header,
    parse_payload,
    tile_ranges,
)

RAW = Header("raw", height=2, width=3, channels=1, bit_depth=8, two_axes=True)
WAVE = Header("wave", 20, 33, 3, 8, False, b"\x01\x02\x03\x04", tile_log2=4, lanes_log2=2)


@st.composite
def headers(draw: st.DrawFn) -> Header:
    channels = draw(st.integers(1, 4))
    fields: dict[str, Any] = {
        "height": draw(st.one_of(st.integers(1, 300), st.integers(1, MAX_EDGE))),
        "width": draw(st.one_of(st.integers(1, 300), st.integers(1, MAX_EDGE))),
        "channels": channels,
        "bit_depth": draw(st.sampled_from([8, 16])),
        "two_axes": channels == 1 and draw(st.booleans()),
        "extras": draw(st.one_of(st.just(b""), st.binary(max_size=300))),
    }
    if draw(st.booleans()):
        return Header("raw", **fields)
    return Header(
        "wave",
        model_digest=draw(st.binary(min_size=4, max_size=4)),
        tile_log2=draw(st.integers(4, 10)),
        lanes_log2=draw(st.integers(0, 5)),
        **fields,
    )


@given(st.lists(headers(), min_size=1, max_size=3), st.lists(st.integers(0, 2), max_size=12), st.integers(0, 7))
def test_headers_in_any_turn_are_those_of_their_own_bytes(found: list[Header], turns: list[int], cut: int) -> None:
    for turn in turns:
        header = found[turn % len(found)]
        data = pack_payload(header, [b"tile"])
        assert parse_header(data) == header
        # No header has fewer bytes than two edges, and what is left of one is none.
        if cut < 6:
            with pytest.raises(FormatError):
                parse_header(data[:cut])


@given(headers())
def test_a_header_comes_back(header: Header) -> None:
    # A single, made-up tile is enough to look at the header alone.
    data = pack_payload(header, [b"tile"])
    assert parse_header(data) == header
    assert parse_header(data[:-8]) == header


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 40), st.data())
def test_tiles_that_were_fetched_alone_are_sound(height: int, width: int, more: int, data: st.DataObject) -> None:
    header = dataclasses.replace(WAVE, height=height, width=width)
    tiles = [data.draw(st.binary(max_size=200)) for _ in range(header.tile_count)]
    payload = pack_payload(header, tiles)
    first = len(payload) - sum(map(len, tiles)) - CHECKSUM_BYTES * len(tiles)
    found, ranges = tile_ranges(payload[: first + more], len(payload))
    assert found == header
    chosen = data.draw(st.integers(0, len(tiles) - 1))
    offset, length = ranges[chosen]
    sparse = bytearray(len(payload))
    sparse[:first] = payload[:first]
    sparse[offset : offset + length] = payload[offset : offset + length]
    parsed = parse_payload(memoryview(sparse))
    parsed.check_tile(chosen)
    assert bytes(parsed.tiles[chosen]) == tiles[chosen]
    for short in range(first):
        with pytest.raises(TruncatedError):
            tile_ranges(payload[:short] or payload[:1], len(payload))


@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_tiles_come_back(height: int, width: int, data: st.DataObject) -> None:
    header = dataclasses.replace(WAVE, height=height, width=width)
    tiles = [data.draw(st.binary(max_size=200)) for _ in range(header.tile_count)]
    payload = parse_payload(pack_payload(header, tiles))
    assert [bytes(tile) for tile in payload.tiles] == tiles
    for index in range(len(tiles)):
        payload.check_tile(index)


def test_the_smallest_payload_byte_by_byte() -> None:
    assert pack_payload(RAW, [b"abcdef"]).hex(" ") == "b1 1c 10 08 02 03 61 62 63 64 65 66 " + crc_hex(RAW, b"abcdef")
    assert parse_payload(pack_payload(RAW, [b"abcdef"])).header.tile_count == 1


def crc_hex(header: Header, tile: bytes) -> str:
    return pack_payload(header, [tile])[-CHECKSUM_BYTES:].hex(" ")


def test_payloads_may_lie_in_any_buffer() -> None:
    data = pack_payload(RAW, [b"abcdef"])
    for buffer in (bytearray(data), memoryview(data), memoryview(b"--" + data)[2:]):
        payload = parse_payload(buffer)
        payload.check_tile(0)
        assert payload.header == RAW


@given(st.integers(0, 3), st.integers(0, 3))
def test_no_tile_passes_for_another(first: int, second: int) -> None:
    tiles = [b"same bytes", b"same bytes", b"others", b"same bytes", b"1", b"2"]
    payload = parse_payload(pack_payload(WAVE, tiles))
    swapped = list(payload.checksums)
    swapped[first], swapped[second] = swapped[second], swapped[first]
    other = dataclasses.replace(payload, checksums=tuple(swapped))
    if first == second:
        other.check_tile(first)
    else:
        with pytest.raises(ChecksumError, match=f"tile {first} of 6: the CRC-32C of header and tile differs"):
            other.check_tile(first)


def head(*parts: int | bytes) -> bytes:
    """Magic, then bytes as given."""
    return PAYLOAD_MAGIC + b"".join(bytes([part]) if isinstance(part, int) else part for part in parts)


DIGEST = b"\xaa\xbb\xcc\xdd"


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", FormatError, "begins with nothing"),
        (b"\x89PNG\r\n\x1a\n", FormatError, "begins with 89 50, not with b1 1c"),
        (b"\xb1", TruncatedError, "1 bytes, shorter than any header"),
        (head(0x10), TruncatedError, "3 bytes, shorter than any header"),
        (head(0x00, 0, 1, 1), UnsupportedError, "format version 0, this release reads 1; upgrade"),
        (head(0x20, 0, 1, 1), UnsupportedError, "format version 2, this release reads 1; upgrade"),
        (head(0x17, 0, 1, 1), UnsupportedError, "codec number 7 is unknown"),
        (head(0x1F, 0, 1, 1), UnsupportedError, "codec number 15 is unknown"),
        (head(0x10, 0x40, 1, 1), UnsupportedError, "flags 0x40 hold bits"),
        (head(0x10, 0x20, 1, 1), FormatError, "says that its tiles have views"),
        (head(0x10, 0x80, 1, 1), UnsupportedError, "flags 0x80 hold bits"),
        (head(0x10, 0x09, 1, 1), FormatError, "two axes but 2 channels"),
        (head(0x10, 0), TruncatedError, "ends inside the height"),
        (head(0x10, 0, 0x80), TruncatedError, "ends inside the height"),
        (head(0x10, 0, 1), TruncatedError, "ends inside the width"),
        (head(0x10, 0, 0, 1), FormatError, r"0 x 1 pixels; both edges must lie in 1\.\.16777215"),
        (head(0x10, 0, 1, 0), FormatError, "1 x 0 pixels"),
        (head(0x10, 0, b"\x80\x80\x80\x08", 1), FormatError, "16777216 x 1 pixels"),
        (head(0x10, 0, b"\x80\x00", 1), FormatError, "the height is not written in its shortest form"),
        (head(0x10, 0, 1, b"\x81\x80\x00"), FormatError, "the width is not written in its shortest form"),
        (head(0x10, 0, b"\x80\x80\x80\x80\x80\x01", 1), FormatError, "the height takes more than five bytes"),
        (head(0x11, 0, 1, 1, DIGEST), TruncatedError, "ends inside the model digest or the tiling"),
        (head(0x11, 0, 1, 1, DIGEST, 0x30), FormatError, r"tiles of 2\*\*3 with 2\*\*0 lanes"),
        (head(0x11, 0, 1, 1, DIGEST, 0xB0), FormatError, r"tiles of 2\*\*11"),
        (head(0x11, 0, 1, 1, DIGEST, 0x76), FormatError, r"with 2\*\*6 lanes"),
        (head(0x10, 0x10, 1, 1), TruncatedError, "ends inside the length of the extras"),
        (head(0x10, 0x10, 1, 1, 0), TruncatedError, "0 bytes of extras announced"),
        (head(0x10, 0x10, 1, 1, 9, b"12345678"), TruncatedError, "9 bytes of extras announced, 8 left"),
        (head(0x10, 0x10, 1, 1, b"\xff\xff\xff\xff\x7f"), TruncatedError, "34359738367 bytes of extras announced"),
    ],
)
def test_what_breaks_a_must_is_refused(data: bytes, error: type[FormatError], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_header(data)
    with pytest.raises(error, match=message):
        parse_payload(data)


@pytest.mark.parametrize("change", [-1, 1, 100])
def test_raw_pixels_of_another_length_are_refused(change: int) -> None:
    data = pack_payload(RAW, [bytes(6 + change)])
    with pytest.raises(TruncatedError, match=f"{6 + change} bytes of pixels, 6 announced"):
        parse_payload(data)


def test_a_directory_longer_than_the_bytes_is_refused() -> None:
    data = pack_payload(WAVE, [b"tile"] * WAVE.tile_count)
    for length in range(len(parse_header_bytes(data)), len(data) - 4):
        with pytest.raises(TruncatedError):
            parse_payload(data[:length])


def parse_header_bytes(data: bytes) -> bytes:
    """The header without the directory."""
    return data[: data.index(WAVE.model_digest) + len(WAVE.model_digest) + 1]


def test_a_tile_length_beyond_the_payload_is_refused() -> None:
    data = pack_payload(WAVE, [b"tile"] * WAVE.tile_count)
    at = len(parse_header_bytes(data))
    for length in (b"\xff\xff\xff\xff\x7f", b"\xff\x7f"):
        with pytest.raises(TruncatedError, match="do not hold the 6 tiles"):
            parse_payload(data[:at] + length + data[at + 1 :])


@pytest.mark.parametrize("edge", [1 << 20, MAX_EDGE])
@pytest.mark.parametrize("tile_log2", [4, 10])
@pytest.mark.parametrize("behind", [b"", bytes(80), bytes(1 << 20), b"\x80" * 80])
def test_a_directory_of_a_billion_tiles_costs_nothing(edge: int, tile_log2: int, behind: bytes) -> None:
    header = dataclasses.replace(WAVE, height=edge, width=edge, tile_log2=tile_log2)
    data = parse_header_bytes(pack_payload(header, [b""])) + behind
    tracemalloc.start()
    try:
        with pytest.raises(TruncatedError, match="do not hold the"):
            parse_payload(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Neither the tiles that are announced nor the bytes that are there are gone through.
    assert peak < 20_000


@given(st.binary(max_size=100))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    for candidate in (data, PAYLOAD_MAGIC + data, PAYLOAD_MAGIC + b"\x11" + data, PAYLOAD_MAGIC + b"\x10\x00" + data):
        try:
            payload = parse_payload(candidate)
        except FormatError:
            continue
        assert sum(map(len, payload.tiles)) <= len(candidate)
        assert len(payload.tiles) == payload.header.tile_count

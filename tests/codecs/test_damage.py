"""Damage never gives pixels: every flipped bit, every lost or added byte of several payloads is refused as damage."""

from __future__ import annotations

from functools import cache
from typing import Any

import google_crc32c
import numpy as np
import pytest
from engines import engine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_model import small_model

from pilc_stream.codecs import Decoder, inspect_payload
from pilc_stream.codecs.raw import RawCodec
from pilc_stream.codecs.view_search import ViewSearch
from pilc_stream.codecs.wave import WaveCodec
from pilc_stream.errors import ChecksumError, FormatError, ModelNotFoundError, TruncatedError
from pilc_stream.records.payload import CHECKSUM_BYTES, pack_payload, parse_payload

CRC_OF_ANYTHING_AND_ITS_CRC = bytes.fromhex("c74b6748")
"""What CRC-32C gives for any bytes followed by their own CRC-32C."""


def slope(height: int, width: int, channels: int | None) -> NDArray[np.uint8]:
    """Smooth enough that even a few pixels are coded, not stored."""
    y, x, c = np.indices((height, width, channels or 1))
    pixels = (126 + x + y - 2 * c + (x * y) % 3).astype(np.uint8)
    return pixels if channels else pixels[:, :, 0]


@cache
def payloads() -> dict[str, tuple[NDArray[Any], bytes]]:
    """Small payloads of each kind with their pixels."""
    wave, small_tiles = (WaveCodec(small_model(), engine("reference"), log2) for log2 in (7, 4))
    viewed = WaveCodec(small_model(), engine("reference"), search=ViewSearch(small_model(), orders=True))
    made = {
        "grey": (wave, slope(6, 7, None), None),
        "colour": (wave, slope(5, 6, 3), None),
        "tiles": (small_tiles, slope(18, 20, 1), None),
        "extras": (wave, slope(4, 6, 3), b"taken at noon"),
        "views": (viewed, slope(6, 5, 3), None),
        "raw": (RawCodec(), slope(3, 4, 3), None),
        "raw 16 bits, extras": (RawCodec(), slope(3, 4, None).astype(np.uint16) << 7, b"?"),
    }
    out = {name: (pixels, codec.encode([pixels], [extras])[0]) for name, (codec, pixels, extras) in made.items()}
    assert [parse_payload(payload).header.codec for _, payload in out.values()] == ["wave"] * 5 + ["raw"] * 2
    assert len(parse_payload(out["tiles"][1]).tiles) == 4
    return out


every_payload = pytest.mark.parametrize(
    "name", ["grey", "colour", "tiles", "extras", "views", "raw", "raw 16 bits, extras"]
)


def models(digest: bytes) -> bytes | None:
    model = small_model()
    return model.file_bytes if digest == model.short_digest else None


@cache
def known() -> Decoder:
    """A decoder that has its models already."""
    decoder = Decoder("cpu", models=models)
    decoder.decode([payload for _, payload in payloads().values()])
    return decoder


def assert_refused(data: bytes) -> None:
    """By a decoder that knows the model, by one that would have to ask for it, and by one that could not."""
    for decoder in (known(), Decoder("reference", models=models), Decoder("reference")):
        with pytest.raises(FormatError):
            decoder.decode([data])


@every_payload
def test_the_payloads_themselves_are_sound(name: str) -> None:
    pixels, payload = payloads()[name]
    assert np.array_equal(known().decode([payload])[0], pixels)
    if not name.startswith("raw"):
        with pytest.raises(ModelNotFoundError):
            Decoder("reference").decode([payload])


@every_payload
def test_every_flipped_bit_is_refused(name: str) -> None:
    _, payload = payloads()[name]
    for bit in range(8 * len(payload)):
        data = bytearray(payload)
        data[bit // 8] ^= 1 << bit % 8
        assert_refused(bytes(data))
        with pytest.raises(FormatError):
            inspect_payload(bytes(data))


@every_payload
def test_every_other_byte_is_refused(name: str) -> None:
    _, payload = payloads()[name]
    for position in range(len(payload)):
        for value in (0, 1, 127, 128, 255, payload[position] ^ 0xFF):
            if value != payload[position]:
                assert_refused(payload[:position] + bytes([value]) + payload[position + 1 :])


@every_payload
def test_every_truncation_is_refused(name: str) -> None:
    _, payload = payloads()[name]
    for length in range(len(payload)):
        assert_refused(payload[:length])
        assert_refused(payload[length + 1 :])
        assert_refused(payload[:length] + payload[length + 1 :])


@every_payload
def test_added_bytes_are_refused(name: str) -> None:
    _, payload = payloads()[name]
    for added in (b"\0", b"\xff", b"\0\0", bytes(4), payload[-4:], b"\xff" * 4, bytes(100), payload, payload[1:]):
        assert_refused(payload + added)
    for position in range(len(payload)):
        assert_refused(payload[:position] + b"\x55" + payload[position:])


@every_payload
def test_bytes_under_which_the_checksum_still_agrees_are_refused_too(name: str) -> None:
    # Appending the constant makes the old checksum part of the last stream, under a checksum that is right again.
    _, payload = payloads()[name]
    longer = payload
    for _ in range(3):
        longer += CRC_OF_ANYTHING_AND_ITS_CRC
        if not name.startswith("raw"):
            last = parse_payload(longer)
            last.check_tile(len(last.tiles) - 1)
        with pytest.raises(FormatError) as caught:
            known().decode([longer])
        assert not isinstance(caught.value, ChecksumError)


def test_the_constant_is_what_it_is_said_to_be() -> None:
    for data in (b"", b"123456789"):
        sealed = data + google_crc32c.value(data).to_bytes(4, "little")
        assert google_crc32c.value(sealed).to_bytes(4, "little") == CRC_OF_ANYTHING_AND_ITS_CRC


@every_payload
@settings(max_examples=100)
@given(data=st.data())
def test_a_burst_of_damage_is_refused(name: str, data: st.DataObject) -> None:
    _, payload = payloads()[name]
    start = data.draw(st.integers(0, len(payload) - 1))
    burst = data.draw(st.binary(min_size=1, max_size=12))
    damaged = payload[:start] + burst + payload[start + len(burst) :]
    if damaged != payload:
        assert_refused(damaged)


def test_one_damaged_payload_fails_its_batch_by_a_format_error() -> None:
    good = [payload for _, payload in payloads().values()]
    for position in range(len(good)):
        batch = list(good)
        batch[position] = batch[position][:-1] + bytes([batch[position][-1] ^ 1])
        with pytest.raises(ChecksumError):
            known().decode(batch)


# Streams that are wrong under a checksum that is right: a broken encoder, or somebody's intent.


@every_payload
@settings(max_examples=60)
@given(data=st.data())
def test_a_forged_payload_is_refused_or_is_another_image(name: str, data: st.DataObject) -> None:
    pixels, payload = payloads()[name]
    parsed = parse_payload(payload)
    tiles = [bytearray(tile) for tile in parsed.tiles]
    tile = tiles[data.draw(st.integers(0, len(tiles) - 1))]
    kind = data.draw(st.sampled_from(["flip", "cut", "add"]))
    if kind == "flip":
        bit = data.draw(st.integers(0, 8 * len(tile) - 1))
        tile[bit // 8] ^= 1 << bit % 8
    elif kind == "cut":
        del tile[data.draw(st.integers(0, len(tile) - 1)) :]
    else:
        tile += data.draw(st.binary(min_size=1, max_size=9))
    forged = pack_payload(parsed.header, [bytes(tile) for tile in tiles])
    try:
        ours = known().decode([forged])[0]
    except FormatError:
        return
    assert forged != payload
    assert ours.shape == pixels.shape
    assert not np.array_equal(ours, pixels), "two payloads of one head for one image"


def test_half_a_checksum_is_refused() -> None:
    _, payload = payloads()["raw"]
    for missing in range(1, CHECKSUM_BYTES + 1):
        with pytest.raises(TruncatedError):
            known().decode([payload[:-missing]])

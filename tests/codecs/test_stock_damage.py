"""Bytes behind a stream of `planes`, `webp` or `deep`, under a right checksum: refused, or no other pixel."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pilc_stream.codecs import Decoder
from pilc_stream.codecs.deep import DeepCodec
from pilc_stream.codecs.planes import pack_planes, split
from pilc_stream.codecs.webp import WebpCodec
from pilc_stream.errors import FormatError
from pilc_stream.records.payload import pack_payload, parse_payload

CRC_OF_ANYTHING_AND_ITS_CRC = bytes.fromhex("c74b6748")
ADDED = (b"\0", b"\xff", b"\x55\xaa", bytes(9))


def drawn(channels: int, kind: type[np.unsignedinteger[Any]]) -> NDArray[Any]:
    y, x, c = np.indices((12, 13, channels))
    return ((x // 4 + y // 3) % 3 * 50 + 9 * c + (x > y)).astype(kind)


@cache
def payloads() -> dict[str, tuple[NDArray[Any], bytes]]:
    """One of each codec and depth, with its pixels."""
    made = {}
    for depth, kind in ((8, np.uint8), (16, np.uint16)):
        image = drawn(4, kind)
        made[f"deep {depth}"] = image, DeepCodec(4).encode([image])[0]
        parts = [DeepCodec(4).encode([part])[0] for part in split(image).parts]
        made[f"planes {depth}"] = image, pack_planes(image, split(image), parts, None)
    image = drawn(4, np.uint8)
    made["webp 8"] = image, WebpCodec(4).encode([image])[0]
    assert {parse_payload(payload).header.codec for _, payload in made.values()} == {"deep", "planes", "webp"}
    return made


exact_codecs = pytest.mark.parametrize("name", ["deep 8", "deep 16", "planes 8", "planes 16"])


@exact_codecs
@pytest.mark.parametrize("added", ADDED, ids=lambda added: added.hex())
def test_more_bytes_in_a_stream_are_refused(name: str, added: bytes) -> None:
    _, payload = payloads()[name]
    parsed = parse_payload(payload)
    longer = pack_payload(parsed.header, [bytes(parsed.tiles[0]) + added])
    with pytest.raises(FormatError):
        Decoder().decode([longer])


@exact_codecs
def test_fewer_bytes_in_a_stream_are_refused(name: str) -> None:
    _, payload = payloads()[name]
    parsed = parse_payload(payload)
    stream = bytes(parsed.tiles[0])
    for length in range(len(stream)):
        with pytest.raises(FormatError):
            Decoder().decode([pack_payload(parsed.header, [stream[:length]])])


@pytest.mark.parametrize("name", ["deep 8", "deep 16", "planes 8", "planes 16", "webp 8"])
def test_the_constant_behind_a_payload_gives_no_other_pixel(name: str) -> None:
    # It makes the old checksum part of the last stream, under a checksum that is right again.
    image, payload = payloads()[name]
    longer = payload + CRC_OF_ANYTHING_AND_ITS_CRC
    parse_payload(longer).check_tile(0)
    if name.startswith("webp"):
        assert np.array_equal(Decoder().decode([longer])[0], image)
    else:
        with pytest.raises(FormatError):
            Decoder().decode([longer])


@pytest.mark.parametrize("added", ADDED, ids=lambda added: added.hex())
def test_what_follows_a_stream_of_webp_means_nothing(added: bytes) -> None:
    image, payload = payloads()["webp 8"]
    parsed = parse_payload(payload)
    longer = pack_payload(parsed.header, [bytes(parsed.tiles[0]) + added])
    assert np.array_equal(Decoder().decode([longer])[0], image)

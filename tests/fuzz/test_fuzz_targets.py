"""Payloads of all modes under damage, and a short run of the fuzz targets without a fuzzer."""

from __future__ import annotations

import random
from functools import cache
from itertools import zip_longest

import numpy as np
import pytest
from fuzz_seeds import PALETTE, models, payloads
from fuzz_targets import (
    LIMITS,
    MAX_LOSSY_PIXELS,
    TARGETS,
    decoder,
    fuzz_lossy,
    lossy_engines,
    lossy_resealed,
    resealed,
    seeds,
)

from pilc_stream.codecs import Decoder, inspect_payload
from pilc_stream.codecs.planes import part_headers
from pilc_stream.errors import FormatError, PilcError
from pilc_stream.records.payload import CODEC_IDS, pack_payload, parse_payload

DAMAGED = 200
SMALL_BYTES = 160


def kind_of(payload: bytes) -> tuple[object, ...]:
    """Its codec, those of its parts, and its mode; the last says whether it has a palette."""
    parsed = parse_payload(payload)
    header = parsed.header
    parts = tuple(part.codec for part in part_headers(parsed)) if header.codec == "planes" else ()
    return header.codec, parts, header.channels, header.bit_depth, header.two_axes, header.extras == PALETTE


@cache
def small() -> list[bytes]:
    """So many small payloads, of all codecs and modes by turns."""
    kinds: dict[tuple[object, ...], list[bytes]] = {}
    for payload in sorted({payload for _, payload in payloads().values() if len(payload) <= SMALL_BYTES}):
        kinds.setdefault(kind_of(payload), []).append(payload)
    for found in kinds.values():
        random.Random(5).shuffle(found)
    by_turns = [payload for turn in zip_longest(*kinds.values()) for payload in turn if payload is not None]
    return by_turns[:DAMAGED]


def assert_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        decoder().decode([data])


def test_the_payloads_are_sound_and_of_all_kinds() -> None:
    kinds, layouts = set(), set()
    for name, (image, payload) in payloads().items():
        decoded = decoder().decode([payload])[0]
        assert decoded.dtype == image.dtype, name
        assert np.array_equal(decoded, image), name
        assert resealed(payload) == payload, name
        assert inspect_payload(payload).shape == image.shape, name
        parsed = parse_payload(payload)
        kinds.add((parsed.header.codec, parsed.header.bit_depth))
        if parsed.header.codec == "planes":
            layouts.add((parsed.tiles[0][0], *(part.codec for part in part_headers(parsed))))
        region = (image.shape[0] // 2, image.shape[1] // 3, 1, 1)
        part = decoder().decode([payload], [region])[0]
        assert np.array_equal(part, image[region[0] : region[0] + 1, region[1] : region[1] + 1]), name
    assert kinds >= {
        ("raw", 8),
        ("raw", 16),
        ("wave", 8),
        ("pilc", 8),
        ("webp", 8),
        ("deep", 8),
        ("deep", 16),
        ("planes", 16),
    }
    assert {codec for codec, _ in kinds} <= set(CODEC_IDS)
    assert {layout for layout, *_ in layouts} >= {0, 1, 2, 4, 5, 6, 14}


def test_the_two_hundred_are_small_and_of_all_codecs_and_modes() -> None:
    assert len(set(small())) == DAMAGED
    found = {kind_of(payload) for payload in small()}
    assert {codec for codec, *_ in found} == set(CODEC_IDS)
    assert {part for _, parts, *_ in found for part in parts} >= {"raw", "wave", "webp", "deep"}
    modes = {(channels, bits) for _, _, channels, bits, *_ in found}
    assert modes == {(channels, bits) for channels in (1, 2, 3, 4) for bits in (8, 16)}
    assert {(bits, two_axes) for *_, bits, two_axes, _ in found} >= {(8, True), (16, True)}
    assert any(palette for *_, palette in found)


@pytest.mark.parametrize("count", [12, pytest.param(DAMAGED, marks=pytest.mark.slow)])
def test_every_flipped_bit_of_two_hundred_payloads_is_refused(count: int) -> None:
    for payload in small()[:count]:
        data = bytearray(payload)
        for bit in range(8 * len(payload)):
            data[bit // 8] ^= 1 << bit % 8
            assert_refused(bytes(data))
            data[bit // 8] ^= 1 << bit % 8


def test_every_truncation_of_two_hundred_payloads_is_refused() -> None:
    stranger = Decoder("cpu")
    for payload in small():
        for length in range(len(payload)):
            assert_refused(payload[:length])
        # Nor is damage taken for a model that is missing.
        with pytest.raises(FormatError):
            stranger.decode([payload[:-1] + bytes([payload[-1] ^ 1])])


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_short_run_of_each_target(target: str) -> None:
    generator = random.Random(7)
    corpus = seeds(target)
    for seed in corpus[:50]:
        TARGETS[target](seed)
    # Those of nets are slow.
    for _ in range(60 if target == "lossy" else 400):
        data = bytearray(generator.choice(corpus))
        for _ in range(generator.randint(1, 4)):
            place = generator.randrange(len(data))
            kind = generator.randrange(4)
            if kind == 0:
                data[place] ^= 1 << generator.randrange(8)
            elif kind == 1:
                data[place] = generator.choice((0, 1, 127, 128, 255))
            elif kind == 2:
                del data[place : place + generator.randint(1, 8)]
            else:
                data[place:place] = generator.randbytes(generator.randint(1, 8))
            data = data or bytearray(b"\0")
        TARGETS[target](bytes(data))


def test_a_target_says_what_it_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Decoder, "decode", lambda *_: (_ for _ in ()).throw(PilcError("another error")))
    with pytest.raises(PilcError, match="another error"):
        TARGETS["payload"](seeds("payload")[0])
    assert models(b"none") is None


def test_the_target_of_lossy_looks_behind_every_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(LIMITS) == set(TARGETS)
    corpus = seeds("lossy")
    assert all(len(payload) <= LIMITS["lossy"].input_bytes for payload in corpus)
    headers = [parse_payload(payload).header for payload in corpus]
    assert {header.channels for header in headers} == {1, 3}
    assert max(len(parse_payload(payload).tiles) for payload in corpus) > 1
    # Wrong checksums, of latents too, are made right.
    payload = max(corpus, key=len)
    parsed = parse_payload(payload)
    tile = bytearray(parsed.tiles[-1])
    tile[0] ^= 1
    changed = pack_payload(parsed.header, [*parsed.tiles[:-1], bytes(tile)])
    assert_refused(changed)
    assert lossy_resealed(parse_payload(changed)) == payload
    # Two backends that read other values would be a finding.
    monkeypatch.setattr(lossy_engines()[1], "decode_latents", lambda *_: [(1, np.zeros((1, 1, 1), np.int32))])
    with pytest.raises(AssertionError):
        fuzz_lossy(payload)
    assert all(header.height * header.width <= MAX_LOSSY_PIXELS for header in headers)

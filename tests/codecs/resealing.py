"""Damage behind every checksum."""

from __future__ import annotations

from collections.abc import Callable

from pilc_stream.records.payload import pack_payload, parse_payload


def resealed(payload: bytes, change: Callable[[bytearray], object]) -> bytes:
    """The payload with its first tile changed and all checksums right."""
    parsed = parse_payload(payload)
    tiles = [bytearray(tile) for tile in parsed.tiles]
    change(tiles[0])
    return pack_payload(parsed.header, [bytes(tile) for tile in tiles])

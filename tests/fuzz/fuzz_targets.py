"""What is fuzzed: each target takes any bytes, and ends well or in the errors that it may end in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import google_crc32c
import numpy as np
from fuzz_seeds import light_model, light_payloads, models, payloads, shard

from pilc_stream.arith.context import CHANNELS
from pilc_stream.backends.base import TileJob
from pilc_stream.backends.lossy import LossyEngine, open_lossy_engine
from pilc_stream.codecs import Decoder, inspect_payload
from pilc_stream.codecs.lossy import CRC_BYTES, HEAD_BYTES
from pilc_stream.codecs.planes import _open
from pilc_stream.errors import FormatError, ModelError
from pilc_stream.images.metadata import unpack_extras
from pilc_stream.models.lossy import LossyModel
from pilc_stream.records import layout
from pilc_stream.records.commit import commit_shard, create_job, put_shard
from pilc_stream.records.documents import dump
from pilc_stream.records.manifest import Manifest, finish
from pilc_stream.records.payload import Header, Payload, pack_payload, parse_payload, tile_ranges
from pilc_stream.records.record import ShardEntry
from pilc_stream.records.shard import ShardReader, read_table
from pilc_stream.records.tiling import Region
from pilc_stream.storage import Store

DOCUMENTS = (layout.JOB_PATH, layout.commit_path(0), layout.MANIFEST_PATH, layout.SUCCESS_PATH)
GUARD = b"PFCK"
"""What leads the checksum of a shard's footer."""

MAX_SAMPLES = 1 << 22
"""Inputs that announce more samples than this, in proportion to their bytes, are left out: they only take time."""


MAX_LOSSY_PIXELS = 1 << 13
"""Likewise for the nets of lossy-light, which take a hundred times as long for a pixel, and for its reference."""


class Limits(NamedTuple):
    """Of one input: its bytes (longer ones take more time and find no more), seconds, and the process's memory."""

    input_bytes: int
    seconds: int = 60
    memory_mb: int = 3000


@cache
def decoder() -> Decoder:
    """A decoder that knows the model of the seeds."""
    return Decoder("cpu", models=models)


def fuzz_payload(data: bytes) -> None:
    """Decode a payload as it is, whole; what comes of it comes by a region and by bands too."""
    try:
        header, _ = tile_ranges(data, len(data))
        if header.height * header.width * header.channels > MAX_SAMPLES:
            return
        [image] = decoder().decode([data])
        inspect_payload(data)
        unpack_extras(decoder().extras(data), header.channels, header.bit_depth)
    except FormatError:
        return
    corner = decoder().decode([data], [(header.height - 1, header.width - 1, 1, 1)])[0]
    assert np.array_equal(corner, image[-1:, -1:])
    assert np.array_equal(np.concatenate(list(decoder().decode_bands(data))), image)


def fuzz_sealed(data: bytes) -> None:
    """Decode a payload whose checksums are made right first, so that what lies behind them is reached."""
    try:
        fuzz_payload(resealed(data))
    except (FormatError, ModelError):
        # Under right checksums another digest or codec asks for another model, which is no damage.
        return


def resealed(data: bytes) -> bytes:
    """The payload with right checksums, those of its parts included. Raises FormatError where it has no places."""
    parsed = parse_payload(data)
    tiles = [bytes(tile) for tile in parsed.tiles]
    if parsed.header.codec == "planes":
        stream = bytearray(tiles[0])
        end = len(stream)
        for part in reversed(_open(parsed).parts):
            stream[end - len(part) : end] = resealed(bytes(part))
            end -= len(part)
        tiles = [bytes(stream)]
    return pack_payload(parsed.header, tiles)


def fuzz_lossy(data: bytes) -> None:
    """Decode a payload of lossy-light under right checksums, those of latents included; what the CPU finds in a tile is
    what the reference finds, or both refuse it."""
    with suppress(FormatError):
        parsed = parse_payload(data)
        if parsed.header.codec == "lossy" and parsed.header.height * parsed.header.width <= MAX_LOSSY_PIXELS:
            fuzz_payload(lossy_resealed(parsed))


def lossy_resealed(parsed: Payload) -> bytes:
    """The payload as one of lossy-light, with right checksums of bytes and, of tiles that can be decoded, latents."""
    header = replace(parsed.header, model_digest=light_model().short_digest)
    places = header.tiling.tiles()
    tiles = [with_checksum(bytes(tile), place, header) for tile, place in zip(parsed.tiles, places, strict=True)]
    return pack_payload(header, tiles)


@cache
def lossy_engines() -> tuple[LossyEngine[LossyModel], ...]:
    """Those that must agree."""
    return open_lossy_engine("cpu"), open_lossy_engine("reference")


def with_checksum(tile: bytes, place: Region, header: Header) -> bytes:
    """A tile of the codec `lossy` with the checksum of its latents; as it is where they cannot be decoded."""
    job = TileJob(memoryview(tile)[HEAD_BYTES:], place.height, place.width, CHANNELS, header.lanes_log2)
    found = []
    for engine in lossy_engines():
        try:
            found.append(engine.decode_latents(light_model(), [job])[0][1].astype("<i4").tobytes())
        except FormatError:
            found.append(b"")
    assert found[0] == found[1]
    checksum = int(google_crc32c.value(found[0])).to_bytes(CRC_BYTES, "little")
    return checksum + tile[CRC_BYTES:] if found[0] else tile


def fuzz_shard(data: bytes) -> None:
    """Read a shard file as it is, then under the footer of a sound one: whole, and by ranges."""
    with suppress(FormatError):
        read_table(data, "shard")
    file, ranges = shard()
    footer_at = file.rindex(GUARD)
    # A footer with a wrong checksum ends every reading; so what lies before it would never be reached.
    damaged = data[:footer_at].ljust(footer_at, b"\0") + file[footer_at:]
    with suppress(FormatError):
        read_table(damaged, "shard")
    store, entry = Store.open("memory://fuzz/shard"), shard_entry("data/any.parquet", file, ranges)
    store.put(entry.path, damaged)
    reader = ShardReader(store, entry, lambda: np.array(ranges, np.int64))
    for part in (reader.keys, reader.columns, lambda: fuzz_payload(reader.payload(len(data) % len(ranges)))):
        with suppress(FormatError):
            part()


def shard_entry(path: str, file: bytes, ranges: list[tuple[int, int]]) -> ShardEntry:
    """What a commit says of the file."""
    payload_bytes = sum(length for _, length in ranges)
    return ShardEntry(
        0, path, hashlib.sha256(file).hexdigest(), len(file), len(ranges), 0, 0, 5, 6, payload_bytes, 7, 0.5
    )


@cache
def data_set() -> tuple[Store, dict[str, bytes]]:
    """A data set of one shard in memory, and its documents."""
    store = Store.open("memory://fuzz/data-set")
    file, ranges = shard()
    path, _ = put_shard(store, 0, file)
    create_job(store, {"images": len(ranges)})
    entry = shard_entry(path, file, ranges)
    commit_shard(store, entry, ranges, ())
    finish(store, shards=1)
    return store, {name: store.read(name) for name in DOCUMENTS}


def fuzz_manifest(data: bytes) -> None:
    """Open a data set of which one document, chosen by the first byte, is the rest of `data`."""
    store, whole = data_set()
    name, content = DOCUMENTS[data[0] % len(DOCUMENTS)] if data else DOCUMENTS[0], data[1:]
    store.put(name, content)
    if name == layout.MANIFEST_PATH:
        store.put(layout.SUCCESS_PATH, dump({"manifest_sha256": hashlib.sha256(content).hexdigest()}))
    elif name != layout.SUCCESS_PATH:
        store.delete(layout.SUCCESS_PATH)
    try:
        manifest = Manifest.of(store, allow_partial=True)
        for position in range(len(manifest.shards)):
            manifest.range_array(position)
            manifest.reader(position).keys()
    except FormatError:
        return
    finally:
        for each in DOCUMENTS:
            store.put(each, whole[each])


TARGETS: dict[str, Callable[[bytes], None]] = {
    "payload": fuzz_payload,
    "sealed": fuzz_sealed,
    "lossy": fuzz_lossy,
    "shard": fuzz_shard,
    "manifest": fuzz_manifest,
}


def seeds(target: str) -> list[bytes]:
    """The corpus that a target starts from."""
    if target in ("payload", "sealed"):
        return [payload for _, payload in payloads().values()]
    if target == "lossy":
        return light_payloads()
    if target == "shard":
        return [shard()[0]]
    return [bytes([number]) + content for number, content in enumerate(data_set()[1].values())]


LIMITS = {
    "payload": Limits(1024),
    "sealed": Limits(1024),
    "lossy": Limits(1024, seconds=20, memory_mb=1500),
    "shard": Limits(16384),
    "manifest": Limits(4096),
}

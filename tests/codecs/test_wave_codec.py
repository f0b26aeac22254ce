from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from engines import engine, every_engine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_model import small_model

from pilc_stream.backends import Engine, Tile, TileJob
from pilc_stream.codecs import Decoder, inspect_payload
from pilc_stream.codecs.raw import RawCodec, RawDecoder
from pilc_stream.codecs.wave import WaveCodec, WaveDecoder
from pilc_stream.errors import ChecksumError, UsageError
from pilc_stream.models.model import WaveModel
from pilc_stream.records.payload import parse_payload
from pilc_stream.records.tiling import Region

Pixels = NDArray[np.uint8]
Maker = Callable[..., Pixels]


class CountingEngine:
    """Passes work on and notes which tiles it was asked to decode."""

    name = "counting"

    def __init__(self, inner: Engine) -> None:
        self.inner, self.decoded = inner, 0

    def encode_tiles(self, model: WaveModel, tiles: Sequence[Tile], lanes_log2: Sequence[int]) -> list[bytes]:
        return self.inner.encode_tiles(model, tiles, lanes_log2)

    def decode_tiles(self, model: WaveModel, jobs: Sequence[TileJob]) -> list[Tile]:
        self.decoded += len(jobs)
        return self.inner.decode_tiles(model, jobs)


def codec(tile_log2: int = 7, engine_name: str = "cpu") -> WaveCodec:
    return WaveCodec(small_model(), engine(engine_name), tile_log2)


def decode(payload: bytes, engine_name: str = "cpu") -> NDArray[Any]:
    """By either codec, without compiling anything anew."""
    decoder = WaveDecoder(small_model(), engine(engine_name)) if is_wave(payload) else RawDecoder()
    return decoder.decode([parse_payload(payload)], [None])[0]


def is_wave(payload: bytes) -> bool:
    return parse_payload(payload).header.codec == "wave"


@every_engine
@pytest.mark.parametrize("tile_log2", range(4, 11))
def test_every_tile_size(engine_name: str, tile_log2: int, photo_like: Maker) -> None:
    pixels = photo_like(50, 70, 3, seed=tile_log2)
    payload = codec(tile_log2, engine_name).encode([pixels])[0]
    assert payload == codec(tile_log2, "reference").encode([pixels])[0]
    info = inspect_payload(payload)
    assert info.codec == "wave"
    assert info.tiles == {4: 20, 5: 6, 6: 2}.get(tile_log2, 1)
    if engine_name != "reference" or tile_log2 == 5:
        assert np.array_equal(decode(payload, engine_name=engine_name), pixels)


@pytest.mark.parametrize("shape", [(1500, 40), (33, 1200, 3), (1, 2500), (2500, 1, 3)], ids=str)
def test_images_of_many_large_tiles(shape: tuple[int, ...], photo_like: Maker) -> None:
    pixels = photo_like(*shape[:2], shape[2] if len(shape) == 3 else None)
    for tile_log2 in (7, 10):
        payload = codec(tile_log2).encode([pixels])[0]
        assert np.array_equal(decode(payload), pixels)


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1), (1, 1, 3), (8, 1), (1, 8, 3), (5, 4, 1), (30, 31, 3)], ids=str)
def test_the_shape_and_type_of_the_array_come_back(shape: tuple[int, ...], photo_like: Maker) -> None:
    pixels = photo_like(40, 40)[: shape[0], : shape[1], 0 if len(shape) == 2 else slice(shape[2])]
    ours = decode(codec().encode([pixels])[0])
    assert ours.shape == shape
    assert ours.dtype == np.uint8
    assert np.array_equal(ours, pixels)


def test_views_of_other_arrays_are_encoded_like_copies(photo_like: Maker) -> None:
    whole = photo_like(60, 60)
    views = [whole[::2, 5:], whole[::-1, ::-1], whole.transpose(1, 0, 2), whole[:, :, ::-1], np.asfortranarray(whole)]
    assert codec().encode(views) == codec().encode([np.ascontiguousarray(view) for view in views])


@every_engine
@settings(max_examples=10)
@given(data=st.data())
def test_a_batch_never_changes_the_bytes_of_its_members(
    engine_name: str, data: st.DataObject, photo_like: Maker
) -> None:
    edge = st.integers(1, 40)
    images, extras = [], []
    for seed in range(data.draw(st.integers(1, 6))):
        pixels = photo_like(data.draw(edge), data.draw(edge), data.draw(st.sampled_from([None, 1, 3])), seed=seed % 3)
        images.append(pixels)
        extras.append(data.draw(st.sampled_from([None, b"", b"note", b"another note"])))
    ours = codec(5, engine_name)
    alone = [ours.encode([pixels], [extra])[0] for pixels, extra in zip(images, extras, strict=True)]
    assert ours.encode(images, extras) == alone
    order = data.draw(st.permutations(range(len(images))))
    assert ours.encode([images[i] for i in order], [extras[i] for i in order]) == [alone[i] for i in order]
    cut = data.draw(st.integers(0, len(images)))
    assert ours.encode(images[:cut], extras[:cut]) + ours.encode(images[cut:], extras[cut:]) == alone


def test_payloads_of_many_kinds_decode_in_one_call(photo_like: Maker) -> None:
    images = [photo_like(20, 30), photo_like(7, 5, None), photo_like(20, 30, 3, seed=4), photo_like(1, 1, 1)]
    payloads = [*codec(4).encode(images[:2]), *codec(7).encode(images[2:])]
    decoded = WaveDecoder(small_model(), engine("cpu")).decode(
        [parse_payload(payload) for payload in payloads if is_wave(payload)], [None] * sum(map(is_wave, payloads))
    )
    for ours, theirs in zip(decoded, [i for i, p in zip(images, payloads, strict=True) if is_wave(p)], strict=True):
        assert np.array_equal(ours, theirs)


# Never larger.


def test_noise_is_stored(photo_like: Maker) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    for extras in (None, b"kept in either"):
        payload = codec().encode([noise], [extras])[0]
        assert payload == RawCodec().encode([noise], [extras])[0]


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 3]), st.integers(0, 40), st.integers(0, 1000))
def test_no_payload_is_larger_than_the_stored_one(h: int, w: int, channels: int, amplitude: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(128 - amplitude, 129 + amplitude, (h, w, channels)).astype(np.uint8)
    payload = codec().encode([pixels])[0]
    assert len(payload) <= len(RawCodec().encode([pixels])[0])
    assert np.array_equal(decode(payload), pixels)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((4, 4), np.uint16), "samples of uint16; the wave codec takes uint8"),
        (np.zeros((4, 4, 2), np.uint8), "2 channels; the wave codec takes 1"),
        (np.zeros((4, 4, 4), np.uint8), "4 channels; the wave codec takes 1"),
    ],
)
def test_other_images_are_refused_by_reason(image: NDArray[Any], reason: str) -> None:
    refused = codec().refuses(image)
    assert refused is not None
    assert refused.startswith(reason)
    with pytest.raises(UsageError, match="use the codec 'raw'"):
        codec().encode([image])


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.float32), np.zeros((0, 4), np.uint8), np.zeros(4, np.uint8), np.zeros((2, 2, 5), np.uint8)],
    ids=["float", "empty", "one axis", "five channels"],
)
def test_what_is_no_image_is_refused(image: NDArray[Any]) -> None:
    with pytest.raises(UsageError, match="image: "):
        codec().encode([image])


# Regions.


@settings(max_examples=60)
@given(data=st.data())
def test_a_region_is_a_slice_from_its_tiles_alone(data: st.DataObject, photo_like: Maker) -> None:
    height, width = data.draw(st.integers(12, 60)), data.draw(st.integers(12, 60))
    pixels = photo_like(height, width, data.draw(st.sampled_from([None, 1, 3])))
    payload = codec(data.draw(st.sampled_from([4, 5]))).encode([pixels])[0]
    assert is_wave(payload)
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    region = Region(y, x, data.draw(st.integers(1, height - y)), data.draw(st.integers(1, width - x)))
    counting = CountingEngine(engine("cpu"))
    parsed = parse_payload(payload)
    ours = WaveDecoder(small_model(), counting).decode([parsed], [region])[0]
    assert np.array_equal(ours, pixels[y : y + region.height, x : x + region.width])
    assert counting.decoded == len(parsed.header.tiling.touching(region))


@pytest.mark.parametrize("fresh", [True, False], ids=["first use", "model known"])
def test_damage_costs_the_regions_that_touch_it_and_no_others(fresh: bool, photo_like: Maker) -> None:
    pixels = photo_like(32, 32)
    payload = codec(4).encode([pixels])[0]
    known = Decoder("reference", models=lambda _: small_model().file_bytes)
    known.decode([payload], [(0, 0, 1, 1)])
    places = list(parse_payload(payload).header.tiling.tiles())
    for tile, stream in enumerate(parse_payload(payload).tiles):
        damaged = bytearray(payload)
        damaged[payload.index(bytes(stream)) + len(stream) // 2] ^= 4
        for other, (y, x, height, width) in enumerate(places):
            decoder = Decoder("reference", models=lambda _: small_model().file_bytes) if fresh else known
            if other == tile:
                with pytest.raises(ChecksumError, match=f"tile {tile} of 4"):
                    decoder.decode([bytes(damaged)], [(y, x, height, width)])
            else:
                ours = decoder.decode([bytes(damaged)], [(y, x, height, width)])[0]
                assert np.array_equal(ours, pixels[y : y + height, x : x + width])


@pytest.mark.parametrize(
    "region",
    [
        (0, 0, 0, 1),
        (0, 0, 1, 0),
        (-1, 0, 2, 2),
        (0, -1, 2, 2),
        (0, 0, 10, 8),
        (9, 0, 1, 1),
        (0, 7, 1, 2),
        (1 << 70, 0, 1, 1),
    ],
)
def test_a_region_outside_the_image_is_refused(region: tuple[int, ...], photo_like: Maker) -> None:
    payload = RawCodec().encode([photo_like(9, 8)])[0]
    with pytest.raises(UsageError, match="does not lie inside the image of 9 x 8 pixels"):
        Decoder().decode([payload], [region])


@pytest.mark.parametrize("region", [(0, 0, 1), (0, 0, 1, 1, 1), (0.5, 0, 1, 1), ("0", 0, 1, 1), (None,) * 4])
def test_what_is_no_region_is_refused(region: Any, photo_like: Maker) -> None:
    payload = RawCodec().encode([photo_like(9, 8)])[0]
    with pytest.raises(UsageError, match=r"is not \(y, x, height, width\) in whole pixels"):
        Decoder().decode([payload], [region])


def test_numpy_integers_make_a_region(photo_like: Maker) -> None:
    pixels = photo_like(9, 8)
    region = np.array([1, 2, 3, 4])
    ours = Decoder().decode(RawCodec().encode([pixels]), [tuple(region)])[0]
    assert np.array_equal(ours, pixels[1:4, 2:6])

"""The search of views: it finds the fewest bytes, the same on every backend, and payloads with views are whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import schoolbook
from engines import engine, every_engine
from numpy.typing import NDArray
from small_model import small_model

from pilc_stream.codecs import Decoder, inspect_payload
from pilc_stream.codecs.bands import BandEncoder
from pilc_stream.codecs.registry import open_profile
from pilc_stream.codecs.view_search import ViewSearch, search_for
from pilc_stream.codecs.views import ORDERS, ORIENTATIONS, view_of
from pilc_stream.codecs.wave import WaveCodec
from pilc_stream.errors import FormatError
from pilc_stream.models.model import load_model
from pilc_stream.models.shipped import preset_bytes, wave_preset_names
from pilc_stream.records.payload import WITH_VIEWS, Header, pack_payload, parse_payload

Pixels = NDArray[np.uint8]
Maker = Callable[..., Pixels]


def searching(
    engine_name: str = "cpu", tile_log2: int = 4, share: int = 1, orders: bool = False, scout: str = "small"
) -> WaveCodec:
    model = small_model() if scout == "small" else load_model(preset_bytes(scout))
    return WaveCodec(small_model(), engine(engine_name), tile_log2, ViewSearch(model, share, orders))


def decoder() -> Decoder:
    return Decoder("cpu", models=lambda _: small_model().file_bytes)


def views_in(payload: bytes) -> list[int]:
    parsed = parse_payload(payload)
    assert parsed.header.views
    return [tile[0] for tile in parsed.tiles]


@every_engine
@pytest.mark.parametrize("orders", [False, True])
def test_payloads_are_the_same_on_every_backend_and_decode(engine_name: str, orders: bool, photo_like: Maker) -> None:
    for pixels in (photo_like(20, 37, 3, seed=2), photo_like(18, 9, None, seed=3), photo_like(1, 1, 3)):
        payload = searching(engine_name, orders=orders).encode([pixels])[0]
        assert payload == searching("reference", orders=orders).encode([pixels])[0]
        assert np.array_equal(decoder().decode([payload])[0], pixels)
        if parse_payload(payload).header.codec == "wave":
            picture = schoolbook.decode(payload, small_model().file_bytes)
            assert picture.samples == pixels.reshape(-1).tolist()


def test_the_view_of_the_fewest_bytes_is_found(photo_like: Maker) -> None:
    pixels = photo_like(16, 32, 3, seed=8)
    found = views_in(searching().encode([pixels])[0])
    for view, tile in zip(found, (pixels[:, :16], pixels[:, 16:]), strict=True):
        sizes = [
            len(engine("cpu").encode_tiles(small_model(), list(view_of(tile[None], k)), [0])[0])
            for k in range(ORIENTATIONS)
        ]
        assert view == sizes.index(min(sizes))


def test_another_order_of_channels_is_only_taken_where_the_model_likes_it(photo_like: Maker) -> None:
    pixels = [photo_like(24, 24, 3, seed=seed)[..., [2, 0, 1]] for seed in range(12)]
    plain = searching(tile_log2=7).encode(pixels)
    ordered = searching(tile_log2=7, orders=True, scout="fast").encode(pixels)
    by_fast = searching(tile_log2=7, scout="fast").encode(pixels)
    orders = [view // ORIENTATIONS for payload in ordered for view in views_in(payload)]
    assert 0 < sum(order > 0 for order in orders) < len(orders)
    assert set(orders) <= set(range(len(ORDERS)))
    assert all(len(one) <= len(other) for one, other in zip(ordered, by_fast, strict=True))
    # What the model itself would choose, the scout need not find.
    assert sum(map(len, plain)) <= sum(map(len, by_fast))


def test_a_share_looks_at_the_middle_alone(photo_like: Maker) -> None:
    pixels = photo_like(64, 64, 3, seed=5)
    whole = searching(tile_log2=6, share=4).encode([pixels])[0]
    other = pixels.copy()
    other[:24] = 255 - other[:24]
    other[40:] = 255 - other[40:]
    assert views_in(whole) == views_in(searching(tile_log2=6, share=4).encode([other])[0])
    cutting = searching(tile_log2=6).encode([np.ascontiguousarray(pixels[24:40, 24:40])])[0]
    assert views_in(cutting) == views_in(whole)


@pytest.mark.parametrize("shape", [(60, 64), (61, 60), (61, 61)], ids=str)
def test_a_small_tile_is_taken_as_it_is_where_only_its_middle_is_looked_at(
    shape: tuple[int, int], photo_like: Maker
) -> None:
    images = [photo_like(*shape, 3, seed=seed) for seed in range(6)]
    views = [views_in(payload)[0] for payload in searching(tile_log2=6, share=4).encode(images)]
    assert any(views) == (min(shape) > 60)


def test_a_batch_is_coded_like_its_images_one_by_one(photo_like: Maker) -> None:
    images = [photo_like(9 + k, 14, 3, seed=k) for k in range(6)]
    codec = searching(share=2, orders=True)
    assert codec.encode(images) == [codec.encode([image])[0] for image in images]
    assert codec.encode([]) == []


def test_regions_and_bands_of_payloads_with_views(photo_like: Maker, tmp_path) -> None:  # type: ignore[no-untyped-def]
    pixels, codec = photo_like(50, 40, 3, seed=1), searching(orders=True)
    payload = codec.encode([pixels])[0]
    assert len(set(views_in(payload))) > 2
    assert np.array_equal(decoder().decode([payload], [(7, 13, 30, 21)])[0], pixels[7:37, 13:34])
    assert np.array_equal(np.concatenate(list(decoder().decode_bands(payload))), pixels)
    with open(tmp_path / "streams", "w+b") as streams, open(tmp_path / "payload", "w+b") as sink:
        encoder = BandEncoder(codec.tile_coder(pixels, 10), pixels.dtype, streams)
        for top in range(0, 50, 7):
            encoder.push(pixels[top : top + 7])
        encoder.write(sink)
        sink.seek(0)
        assert sink.read() == payload


def test_the_search_suits_the_model() -> None:
    searches = {name: search_for(load_model(preset_bytes(name)).spec) for name in wave_preset_names()}
    assert searches["fast"] is None
    shares = {name: (search.share, search.orders) for name, search in searches.items() if search}
    assert shares == {"default": (4, False), "high": (1, False), "max": (1, True)}
    assert searches["high"].scout.profile == "fast"  # type: ignore[union-attr]
    assert isinstance(open_profile("high"), WaveCodec)


def test_what_the_search_costs() -> None:
    fast, most = (load_model(preset_bytes(name)) for name in ("fast", "max"))
    once = sum(fast.spec.macs_per_pixel().values())
    assert ViewSearch(fast).macs_per_pixel(most.spec) == {"search": 8 * once}
    assert ViewSearch(fast, share=4).macs_per_pixel(most.spec) == {"search": once // 2}
    again = sum(most.spec.macs_per_pixel().values())
    assert ViewSearch(fast, orders=True).macs_per_pixel(most.spec) == {"search": 13 * once, "second try": again}


def test_views_count_as_header(photo_like: Maker) -> None:
    pixels = photo_like(40, 40, 3)
    views, plain = (
        inspect_payload(codec.encode([pixels])[0])
        for codec in (searching(), WaveCodec(small_model(), engine("cpu"), 4))
    )
    assert views.tiles == 9
    assert views.header_bytes == plain.header_bytes + 9
    assert views.word_bytes < plain.word_bytes


def test_no_other_codec_has_views() -> None:
    head = Header("deep", 4, 4, 1, 8, False, tile_log2=4, views=True)
    assert "deep" not in WITH_VIEWS
    with pytest.raises(FormatError, match="tiles have views"):
        parse_payload(pack_payload(head, [bytes(8)]))


@pytest.mark.parametrize("begin", [b"", b"\x30", b"\x08", b"\xff"], ids=bytes.hex)
def test_a_wrong_view_is_refused_even_under_a_right_checksum(begin: bytes, photo_like: Maker) -> None:
    payload = parse_payload(searching(tile_log2=7).encode([photo_like(12, 12, None)])[0])
    damaged = pack_payload(payload.header, [begin + bytes(payload.tiles[0][1:]) if begin else b""])
    with pytest.raises(FormatError):
        decoder().decode([damaged])

"""The decoder that was written from FORMAT.md alone agrees with every backend, and refuses what it must."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import schoolbook
from engines import engine, every_engine
from numpy.typing import NDArray
from small_model import SPECS, random_model, small_model

from pilc_stream.codecs.raw import RawCodec
from pilc_stream.codecs.wave import WaveCodec
from pilc_stream.models.model import WaveModel, load_model
from pilc_stream.models.shipped import preset_bytes
from pilc_stream.records.payload import Header, pack_payload

Pixels = NDArray[np.uint8]
Maker = Callable[..., Pixels]


def decoded(payload: bytes, model: WaveModel | None = None) -> NDArray[np.int64]:
    picture = schoolbook.decode(payload, model.file_bytes if model else None)
    return np.array(picture.samples).reshape(picture.shape)


@every_engine
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9), (9, 1, 3), (2, 2, 1), (5, 7, 3), (13, 11)], ids=str)
def test_payloads_of_the_small_model(engine_name: str, shape: tuple[int, ...], photo_like: Maker) -> None:
    model = small_model()
    pixels = photo_like(*shape[:2], shape[2] if len(shape) == 3 else None)
    payload = stored_by_wave(model, engine_name, pixels)
    assert (decoded(payload, model) == pixels).all()


@pytest.mark.parametrize("spec_name", SPECS)
@pytest.mark.parametrize("bound", [False, True], ids=["at random", "at the bound"])
def test_payloads_of_models_at_the_edges(spec_name: str, bound: bool) -> None:
    model = random_model(SPECS[spec_name], seed=5, at_the_bound=bound)
    random = np.random.default_rng(7)
    for engine_name, shape in (("reference", (6, 9, 3)), ("cpu", (7, 5, 1))):
        pixels = random.integers(0, 256, shape).astype(np.uint8)
        payload = stored_by_wave(model, engine_name, pixels, lanes_log2=2)
        assert (decoded(payload, model) == pixels).all()


def test_a_payload_of_the_shipped_profile(photo_like: Maker) -> None:
    model = load_model(preset_bytes("fast"))
    pixels = photo_like(16, 17, 3)
    payload = WaveCodec(model, engine("cpu"), tile_log2=4).encode([pixels], [b"where and when"])[0]
    picture = schoolbook.decode(payload, model.file_bytes)
    assert picture.extras == b"where and when"
    assert [what for _, _, what in picture.fields if what.startswith("tile ")][1:] == ["tile 0", "tile 1"]
    assert picture.samples == pixels.reshape(-1).tolist()


def test_many_tiles_and_lanes(photo_like: Maker) -> None:
    model = small_model()
    pixels = photo_like(37, 21, 3)
    payload = stored_by_wave(model, "cpu", pixels, lanes_log2=3, tile_log2=4)
    assert (decoded(payload, model) == pixels).all()


def test_raw_payloads(photo_like: Maker) -> None:
    for pixels in (photo_like(3, 4, 4), photo_like(5, 2, None), photo_like(2, 3, 3).astype(np.uint16) * 257):
        assert (decoded(RawCodec().encode([pixels])[0]) == pixels).all()


def test_the_checksum_is_the_one_with_the_published_value() -> None:
    assert schoolbook.crc32c(b"123456789") == 0xE3069283


def test_it_refuses_other_bytes(photo_like: Maker) -> None:
    model = small_model()
    payload = WaveCodec(model, engine("reference")).encode([photo_like(9, 9, 3)])[0]
    for index in range(len(payload)):
        with pytest.raises(schoolbook.RefusedError):
            schoolbook.decode(payload[:index] + bytes([payload[index] ^ 16]) + payload[index + 1 :], model.file_bytes)
        with pytest.raises(schoolbook.RefusedError):
            schoolbook.decode(payload[:index], model.file_bytes)


def stored_by_wave(
    model: WaveModel, engine_name: str, pixels: Pixels, lanes_log2: int = 0, tile_log2: int = 6
) -> bytes:
    """A `wave` payload even where `raw` would be smaller."""
    three_axes = pixels.reshape(*pixels.shape[:2], -1)
    header = Header(
        "wave", *three_axes.shape, 8, pixels.ndim == 2, model.short_digest, tile_log2=tile_log2, lanes_log2=lanes_log2
    )
    tiles = [three_axes[y : y + h, x : x + w] for y, x, h, w in header.tiling.tiles()]
    return pack_payload(header, engine(engine_name).encode_tiles(model, tiles, [lanes_log2] * len(tiles)))

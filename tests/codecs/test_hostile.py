"""Payloads made to hurt: whatever a head announces, time and memory stay in proportion to the bytes that came."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import schoolbook
from engines import engine, every_engine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_model import SPECS, certain_frequencies, cumulative, random_model, small_model

import pilc_stream as pilc
from pilc_stream.arith.rans import most_symbols_per_word
from pilc_stream.backends.base import pack_stream
from pilc_stream.codecs import Decoder
from pilc_stream.codecs.raw import RawCodec
from pilc_stream.codecs.wave import WaveDecoder
from pilc_stream.errors import FormatError, PilcError, TruncatedError
from pilc_stream.models.model import WaveModel
from pilc_stream.records.payload import MAX_EDGE, PAYLOAD_MAGIC, Header, pack_payload, parse_payload

LARGEST = (1 << 16) - 255


def certain_model() -> WaveModel:
    """One row, as uneven as a row can be: the model under which a byte holds the most pixels."""
    model = random_model(SPECS["width one"], seed=0)
    row = cumulative(certain_frequencies(128))[None]
    return WaveModel(model.spec, model.layers, row, np.zeros_like(model.row_of), "certain")


def header(height: int, width: int, channels: int = 3, tile_log2: int = 10, lanes_log2: int = 0) -> Header:
    digest = certain_model().short_digest
    return Header("wave", height, width, channels, 8, False, digest, tile_log2, lanes_log2)


def peak_bytes(work: Callable[[], object]) -> int:
    """The most memory that Python and NumPy held at once, beyond what was held before."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def refuse(decoder: WaveDecoder, data: bytes) -> None:
    with pytest.raises(FormatError):
        decoder.decode([parse_payload(data)], [None])


@every_engine
@pytest.mark.parametrize("lanes_log2", [0, 5])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_large_tile_with_an_almost_empty_stream(engine_name: str, channels: int, lanes_log2: int) -> None:
    decoder = WaveDecoder(certain_model(), engine(engine_name))
    stream = pack_stream(np.full(1 << lanes_log2, (1 << 32) - 1, np.uint32), np.zeros(4, np.uint16))
    data = pack_payload(header(1024, 1024, channels, lanes_log2=lanes_log2), [stream])
    assert len(data) < 200
    with pytest.raises(TruncatedError, match=f"cannot hold 1024 x 1024 pixels of {channels} channels"):
        decoder.decode([parse_payload(data)], [None])
    assert peak_bytes(lambda: refuse(decoder, data)) < 60_000


@every_engine
def test_many_such_tiles(engine_name: str) -> None:
    decoder = WaveDecoder(certain_model(), engine(engine_name))
    data = pack_payload(header(16 * 1024, 16 * 1024), [pack_stream(np.array([1 << 31]), np.zeros(0))] * 256)
    assert peak_bytes(lambda: refuse(decoder, data)) < 50 * len(data)


@pytest.mark.parametrize(("height", "width"), [(16_000_000, 16_000_000), (MAX_EDGE, 1), (1, MAX_EDGE), (4096, 4096)])
@pytest.mark.parametrize("behind", [b"", bytes(70), b"\xff" * 70, b"\x04" * 70])
def test_a_hundred_bytes_that_announce_terabytes(height: int, width: int, behind: bytes) -> None:
    data = pack_payload(header(height, width), [b""])[:-4] + behind
    assert len(data) < 100
    decoder = Decoder("reference", models=lambda _: certain_model().file_bytes)

    def refused() -> None:
        with pytest.raises(FormatError):
            decoder.decode([data])

    assert peak_bytes(refused) < 30_000


@pytest.mark.parametrize("flags", [0, 4, 3, 8])
def test_raw_pixels_that_are_not_there(flags: int) -> None:
    edge = b"\xff\xff\xff\x07"
    data = PAYLOAD_MAGIC + bytes([0x10, flags]) + edge + edge + bytes(60)

    def refused() -> None:
        with pytest.raises(TruncatedError, match="announced"):
            Decoder().decode([data])

    assert peak_bytes(refused) < 30_000


def test_the_limit_of_pixels_is_stated_and_adjustable() -> None:
    image = np.full((40, 50), 7, np.uint8)
    payload = RawCodec().encode([image])[0]
    with pytest.raises(FormatError, match="40 x 50 pixels, above the limit of 1999; decode regions of it"):
        Decoder(max_pixels=1999).decode([payload])
    assert np.array_equal(Decoder(max_pixels=1999).decode([payload], [(1, 2, 30, 40)])[0], image[1:31, 2:42])
    assert np.array_equal(Decoder(max_pixels=2000).decode([payload])[0], image)
    with pytest.raises(FormatError, match="above the limit"):
        pilc.decompress(payload, max_pixels=1999)


@every_engine
def test_what_the_check_lets_through_stays_in_proportion(engine_name: str) -> None:
    # As many pixels as a hundred bytes can announce, under the model that allows the most.
    model = certain_model()
    decoder = WaveDecoder(model, engine(engine_name))
    words = 35
    most = most_symbols_per_word(LARGEST) * (1 + words)
    side = int((most / 3) ** 0.5)
    stream = pack_stream(np.array([(1 << 32) - 1]), np.zeros(words))
    data = pack_payload(header(side, side), [stream])
    assert len(data) < 100
    samples = 3 * side * side
    assert samples < 1600 * len(data)
    refuse(decoder, data)  # compiles what there is to compile
    # The CPU backend holds the pixels, the reference 21 planes of int64 as well.
    allowed = 100 * samples if engine_name == "reference" else 4 * samples + 2_000_000
    assert peak_bytes(lambda: refuse(decoder, data)) < allowed


def certain_tile(model: WaveModel, edge: int, channels: int) -> NDArray[np.uint8]:
    """The tile whose every symbol is the certain one: each pixel where the model expects it."""
    book = schoolbook.Model(model.file_bytes)
    context = schoolbook.Context(book, edge, edge)
    for step in schoolbook.wavefront(edge, edge):
        pixels = [schoolbook.PixelModel(context, y, x) for y, x in step]
        for c in range(channels):
            for pixel in pixels:
                _, centre = pixel.predict(c)
                pixel.known(c, centre % 256, channels)
        for pixel in pixels:
            pixel.record()
    planes = [context.pixels[plane] for plane in ((1, 0, 2) if channels == 3 else (0,))]
    return np.array([[[plane[y, x] for plane in planes] for x in range(edge)] for y in range(edge)], np.uint8)


@every_engine
def test_the_check_refuses_nothing_that_an_encoder_writes(engine_name: str) -> None:
    # Nothing costs less than what the most certain model expects.
    model = certain_model()
    decoder = WaveDecoder(model, engine(engine_name))
    for edge in (1, 5, 16, 30):
        for channels in (1, 3):
            for lanes_log2 in (0, 5):
                tile = certain_tile(model, edge, channels)
                stream = engine(engine_name).encode_tiles(model, [tile], [lanes_log2])[0]
                data = pack_payload(header(edge, edge, channels, lanes_log2=lanes_log2), [stream])
                assert np.array_equal(decoder.decode([parse_payload(data)], [None])[0], tile)


@settings(max_examples=300)
@given(st.binary(max_size=60), st.sampled_from([b"", b"\x10\x00", b"\x11\x02", b"\x11\x0a", b"\x10\x1e"]))
def test_random_bytes_end_in_a_format_error(data: bytes, start: bytes) -> None:
    try:
        Decoder("reference").decode([PAYLOAD_MAGIC + start + data])
    except FormatError:
        return
    except PilcError as error:
        pytest.fail(f"{error!r} is no answer to garbage")


@settings(max_examples=200)
@given(
    height=st.integers(1, MAX_EDGE),
    width=st.integers(1, MAX_EDGE),
    channels=st.integers(1, 4),
    tile_log2=st.integers(4, 10),
    lanes_log2=st.integers(0, 5),
    stream=st.binary(max_size=150),
)
def test_any_head_over_any_bytes(
    height: int, width: int, channels: int, tile_log2: int, lanes_log2: int, stream: bytes
) -> None:
    model = small_model()
    head = Header("wave", height, width, channels, 8, False, model.short_digest, tile_log2, lanes_log2)
    data = pack_payload(head, [stream])
    decoder = Decoder("reference", models=lambda _: model.file_bytes)
    try:
        image = decoder.decode([data])[0]
    except FormatError:
        return
    assert image.shape == (height, width, channels)

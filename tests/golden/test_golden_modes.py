"""Golden payloads of the codecs `planes`, `deep` and `webp`: all modes, the same pixels for ever, on every backend.

Bytes are written again where this project's code makes them. What libwebp makes of pixels and zlib of tables may differ
with their versions; of those the parts that are ours are compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import schoolbook
from engines import ENGINES, engine
from modes import MODE_CASES, PALETTE, ModeCase
from numpy.typing import NDArray
from regenerate import FOLDER
from small_model import small_model
from test_golden import golden, small_file

from pilc_stream.codecs import Decoder
from pilc_stream.codecs.planes import PlanesDecoder, _open, part_headers
from pilc_stream.codecs.wave import WaveDecoder
from pilc_stream.images.metadata import palette_of, unpack_extras
from pilc_stream.records.payload import parse_header, parse_payload

every_case = pytest.mark.parametrize("case", MODE_CASES, ids=lambda case: case.name)


def on_backends(cases: list[ModeCase]) -> pytest.MarkDecorator:
    """Cases with parts of `wave` on every backend; the other codecs have one implementation."""
    pairs = [(name, case) for case in cases for name in (ENGINES if "wave" in case.parts else ["reference"])]
    ids = [f"{case.name}-{name}" for name, case in pairs]
    return pytest.mark.parametrize(("engine_name", "case"), pairs, ids=ids)


def payload_of(case: ModeCase) -> bytes:
    return golden(f"{case.name}.pilc")


def pixels_of(case: ModeCase) -> NDArray[Any]:
    golden(f"{case.name}.npy")
    return np.load(FOLDER / f"{case.name}.npy", allow_pickle=False)  # type: ignore[no-any-return]


def decoded(payload: bytes, engine_name: str) -> NDArray[Any]:
    """By one backend: parts of `wave` have several, the other codecs one."""
    parsed = parse_payload(payload)
    if parsed.header.codec == "planes":
        parts = PlanesDecoder(lambda parts, _: [decoded(bytes(part), engine_name) for part in parts])
        return parts.decode([parsed], [None])[0]
    if parsed.header.codec == "wave":
        return WaveDecoder(small_model(), engine(engine_name)).decode([parsed], [None])[0]
    return Decoder().decode([payload])[0]


def opened(payload: bytes) -> tuple[Any, ...]:
    """Head and stream of `planes` with the tables as the values that they stand for."""
    whole = _open(parse_payload(payload))
    tables = [None if table is None else table.tolist() for table in whole.tables]
    return whole.header, whole.layout, whole.alpha, tables, [bytes(part) for part in whole.parts]


@on_backends(MODE_CASES)
def test_payloads_decode_on_every_backend(engine_name: str, case: ModeCase) -> None:
    image, expected = decoded(payload_of(case), engine_name), pixels_of(case)
    assert image.dtype == expected.dtype
    assert image.shape == expected.shape
    assert np.array_equal(image, expected)


@on_backends([case for case in MODE_CASES if not case.library])
def test_encoding_gives_the_same_bytes_on_every_backend(engine_name: str, case: ModeCase) -> None:
    assert case.encode(engine(engine_name)) == payload_of(case)


@on_backends([case for case in MODE_CASES if case.codec == "planes"])
def test_encoding_gives_the_same_parts_on_every_backend(engine_name: str, case: ModeCase) -> None:
    assert opened(case.encode(engine(engine_name))) == opened(payload_of(case))


@every_case
def test_the_formulas_still_give_the_pixels(case: ModeCase) -> None:
    assert np.array_equal(case.pixels(), pixels_of(case))


@every_case
def test_extras_and_regions(case: ModeCase) -> None:
    decoder, payload, pixels = Decoder("cpu", models=small_file), payload_of(case), pixels_of(case)
    assert decoder.extras(payload) == case.extras
    y, x = pixels.shape[0] // 3, pixels.shape[1] // 2
    region = (y, x, pixels.shape[0] - y, pixels.shape[1] - x)
    assert np.array_equal(decoder.decode([payload], [region])[0], pixels[y:, x:])


@pytest.mark.parametrize("case", [case for case in MODE_CASES if case.codec != "webp"], ids=lambda case: case.name)
def test_the_schoolbook_decodes_them_too(case: ModeCase) -> None:
    picture = schoolbook.decode(payload_of(case), golden("small.safetensors"))
    assert np.array_equal(np.array(picture.samples).reshape(picture.shape), pixels_of(case))
    assert picture.extras == case.extras


def test_the_front_door_decodes_them_together() -> None:
    images = Decoder("cpu", models=small_file).decode([payload_of(case) for case in MODE_CASES])
    for case, image in zip(MODE_CASES, images, strict=True):
        assert np.array_equal(image, pixels_of(case))


def test_the_cases_are_of_the_kinds_that_they_claim() -> None:
    headers = {case.name: parse_header(payload_of(case)) for case in MODE_CASES}
    assert {name: header.codec for name, header in headers.items()} == {case.name: case.codec for case in MODE_CASES}
    modes = {(header.codec, header.channels, header.bit_depth) for header in headers.values()}
    assert modes >= {("deep", channels, bits) for channels in (1, 2, 3, 4) for bits in (8, 16)}
    assert modes >= {("planes", channels, 16) for channels in (1, 2, 3, 4)}
    assert modes >= {("webp", channels, 8) for channels in (1, 2, 3, 4)}
    assert headers["deep-16-tiles"].tile_count == 9
    assert headers["webp-tiles"].tile_count == 9


def test_the_parts_are_of_the_kinds_that_they_claim() -> None:
    layouts = {}
    for case in MODE_CASES:
        if case.codec == "planes":
            parsed = parse_payload(payload_of(case))
            assert tuple(part.codec for part in part_headers(parsed)) == case.parts, case.name
            layouts[case.name] = parsed.tiles[0][0]
    assert set(layouts.values()) >= {0, 1, 2, 3, 4, 14}
    many = opened(golden("planes-16-rgba.pilc"))
    assert len(many[3][0]) > 256


def test_palettes_are_read_from_their_payloads() -> None:
    for name in ("webp-palette", "planes-palette"):
        header = parse_header(golden(f"{name}.pilc"))
        assert [chunk.name for chunk in unpack_extras(header.extras, header.channels)] == [b"PLTE", b"tRNS"]
        assert palette_of(header.extras) == palette_of(PALETTE) == (bytes(range(30)), b"\x00\x80")

"""FORMAT.md against the code: its tables, its examples, and the room it promises."""

from __future__ import annotations

import re

import numpy as np
import pytest
import schoolbook
from engines import engine, every_engine
from format_examples import DOCUMENT, EXTRAS, payload_of, raw_image, updated, wave_image
from small_model import SMALL_SPEC, small_model

from pilc_stream.arith import adaptive, context, perceptron, predictor, rans
from pilc_stream.backends import base
from pilc_stream.codecs import Decoder, deep, planes, view_search, views, webp
from pilc_stream.codecs.raw import RawCodec
from pilc_stream.codecs.wave import WaveCodec
from pilc_stream.images import metadata
from pilc_stream.models import model, spec
from pilc_stream.records import payload, tiling

ROOMS = (payload, tiling, rans, context, predictor, adaptive, perceptron, base, model, spec)


def document() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


def table(*columns: str) -> list[list[str]]:
    """The rows of the table whose first columns have those heads, cells without backquotes."""
    lines = document().splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith(f"| {' | '.join(columns)} |"))
    rows = []
    for line in lines[begin + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("`", "") for cell in line.strip("|").split("|")])
    return rows


def code_value(name: str) -> object:
    """A constant, from the one room that defines it (others may import it)."""
    values = {id(room): getattr(room, name) for room in ROOMS if hasattr(room, name)}
    assert len(set(values.values())) == 1, f"{name}: {values}"
    return next(iter(values.values()))


@pytest.mark.parametrize(("name", "value"), table("name"))
def test_constants(name: str, value: str) -> None:
    ours = code_value(name)
    assert value == (ours.hex(" ") if isinstance(ours, bytes) else str(ours))


def test_codecs() -> None:
    assert {name: int(number) for name, number, *_ in table("codec")} == payload.CODEC_IDS


def test_flags() -> None:
    """Each flag of the document does what it says, in a payload."""
    masks = {name: int(mask, 16) for _, mask, name, _ in table("bits")}
    assert sum(masks.values()) == 0xFF
    for channels in (1, 2, 3, 4):
        assert flags_of(np.zeros((2, 2, channels), np.uint8)) == channels - 1 <= masks["channels"]
    assert flags_of(np.zeros((2, 2, 1), np.uint16)) == masks["depth 16"]
    assert flags_of(np.zeros((2, 2), np.uint8)) == masks["two axes"]
    assert flags_of(np.zeros((2, 2, 1), np.uint8), b"x") == masks["extras"]
    viewed = payload.pack_head(payload.Header("wave", 2, 2, 1, 8, False, bytes(4), 4, views=True), [0])
    assert viewed[3] == masks["views"]


def flags_of(image: np.ndarray, extras: bytes = b"") -> int:
    return RawCodec().encode([image], [extras])[0][3]


def test_limits() -> None:
    rows = [row for row in table("field") if len(row) == 3 and row[1].isdigit()]
    limits = {field: (int(low), int(high.split(",")[0])) for field, low, high in rows}
    others = {name: largest for name, largest in payload.MAX_TILE_LOG2S.items() if name != "webp"}
    assert others == dict.fromkeys(("wave", "pilc", "deep", "lossy"), tiling.MAX_TILE_LOG2)
    assert payload.MAX_TILE_LOG2S["webp"] == 13
    assert limits == {
        "version": (payload.FORMAT_VERSION, payload.FORMAT_VERSION),
        "codec number": (min(payload.CODEC_IDS.values()), max(payload.CODEC_IDS.values())),
        "channels": (1, payload.MAX_CHANNELS),
        "height": (1, payload.MAX_EDGE),
        "width": (1, payload.MAX_EDGE),
        "tile_log2": (tiling.MIN_TILE_LOG2, tiling.MAX_TILE_LOG2),
        "lanes_log2": (0, tiling.MAX_LANES_LOG2),
        "bytes of a varint": (1, 5),
    }


def test_layers() -> None:
    """The document's sizes, as formulas of n, trunk, head and c, give the layers of the code."""
    formulas = {name: (outputs, inputs) for name, outputs, inputs in table("layer")}
    spec_ = SMALL_SPEC
    names = {"trunk": list(spec_.trunk), "head": spec_.head, "n": len(spec_.neighbours), "__builtins__": {}}
    sizes = {}
    for name, formula in formulas.items():
        least = 1 if "c > 0" in name else 0
        for c in range(least, 3) if "head.c" in name else [0]:
            if name == "trunk.i":
                continue
            layer = name.split(",")[0].replace("head.c", f"head.{c}")
            sizes[layer] = tuple(eval(re.sub(r"(\d) ([a-z])", r"\1 * \2", part), {**names, "c": c}) for part in formula)
    assert sizes == spec_.layers()


def test_the_bound_on_symbols_per_word() -> None:
    stated = re.search(r"`F <= (\d+)` and `K <= (\d+)` for every model", document())
    assert stated
    largest, most = map(int, stated.groups())
    assert largest == (1 << rans.PRECISION_BITS) - (model.SYMBOLS - 1)
    assert rans.most_symbols_per_word(largest) == most


def test_what_encoders_do() -> None:
    stated = re.search(r"use `tile_log2 = (\d+)`", document())
    assert stated
    assert int(stated[1]) == tiling.DEFAULT_TILE_LOG2
    rule = re.search(r"use `lanes_log2 = 0` if `(.+?)`, else `(.+?)`, with `b =", document())
    assert rule
    for edge in (1, 31, 32, 33, 45, 46, 64, 100, 128, 256, 512, 1024):
        b = (edge * edge).bit_length() - 1
        expected = 0 if eval(rule[1], {"b": b}) else eval(rule[2], {"b": b, "min": min})
        assert tiling.default_lanes_log2(tiling.Tiling(edge, edge, 10)) == expected


def test_views() -> None:
    """The document's orders of channels, and its rule for encoders, are the code's."""
    orders = re.search(r"where the orders are\n(.+?)\.\n", document(), re.DOTALL)
    assert orders
    assert [tuple(map(int, order)) for order in re.findall(r"\((\d), (\d), (\d)\)", orders[1])] == list(views.ORDERS)
    rule = re.search(r'- set the flag "views" exactly.+?than order 0;', document(), re.DOTALL)
    assert rule
    least, whole, orders_from = (int(number.replace(",", "")) for number in re.findall(r"\d+,\d+", rule[0]))
    assert (least, whole) == tuple(products for products, _ in reversed(view_search.SHARES_BY_PRODUCTS))
    assert orders_from == view_search.ORDERS_FROM_PRODUCTS
    assert f"an edge below {view_search.LEAST_EDGE} pixels" in " ".join(rule[0].split())
    assert [share for _, share in view_search.SHARES_BY_PRODUCTS] == [1, 4]


def test_versions() -> None:
    rows = table("version", "context version")
    assert [int(row[0]) for row in rows] == list(range(1, payload.FORMAT_VERSION + 1))
    assert int(rows[-1][1]) == spec.CONTEXT_VERSION


# The worked examples.


def test_the_examples_are_those_of_the_script() -> None:
    assert updated(document()) == document(), "run: python tests/records/format_examples.py"


def test_the_raw_example_decodes() -> None:
    data = payload_of(document(), "raw")
    picture = schoolbook.decode(data)
    assert picture.samples == raw_image().reshape(-1).tolist()
    assert picture.extras == EXTRAS
    image = Decoder().decode([data])[0]
    assert image.dtype == np.uint16
    assert np.array_equal(image, raw_image())
    assert Decoder().extras(data) == EXTRAS
    assert RawCodec().encode([raw_image()], [EXTRAS]) == [data]


@every_engine
def test_the_wave_example_decodes(engine_name: str) -> None:
    data = payload_of(document(), "wave")
    assert small_model().sha256 in document()
    picture = schoolbook.decode(data, small_model().file_bytes)
    assert np.array_equal(np.array(picture.samples).reshape(picture.shape), wave_image())
    ours = Decoder("reference", models=lambda _: small_model().file_bytes).decode([data])[0]
    assert np.array_equal(ours, wave_image())
    assert WaveCodec(small_model(), engine(engine_name), tile_log2=4).encode([wave_image()]) == [data]


def test_the_pixels_of_the_wave_example_are_those_that_the_document_shows() -> None:
    shown = re.findall(r"\(\s*(\d+),\s*(\d+),\s*(\d+)\)", document().split("<!-- begin wave -->")[1])
    assert [tuple(map(int, pixel)) for pixel in shown[: wave_image().size // 3]] == [
        tuple(pixel) for pixel in wave_image().reshape(-1, 3).tolist()
    ]


def test_tags_of_extras() -> None:
    tags = {name: int(tag) for name, tag in table("chunk", "tag")}
    assert tags == {"another": 0, **{name.decode(): tag for name, tag in metadata.TAGS.items()}}


def test_bounds_of_the_stock_codecs() -> None:
    stated = [int(number) for number in re.findall(r"at least `h \* w \* channels / (\d+)` bytes", document())]
    assert stated == [webp.SAMPLES_PER_BYTE, deep.SAMPLES_PER_BYTE]
    bits = re.search(r"inflates to 1 to (\d+) bytes", document())
    assert bits
    assert int(bits[1]) == planes.MAX_TABLE_BYTES

"""Every file of the collection of odd images is taken whole, refused with a reason, or called broken: never altered."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pilc_stream.errors import ImageError
from pilc_stream.images import MODE_CHANNELS, NotRepresentable, decode_image, encode_png, picture

ODD = Path(__file__).resolve().parents[3] / "shared" / "data" / "eval" / "odd"
METADATA = ("icc_profile", "exif", "gamma", "chromaticity", "srgb", "aspect", "xmp")

# What the columns of the list cannot tell: a colour key, an icon's container, TIFF tags that a PNG has no place for.
REFUSED_BY_CONTENT = {
    "alpha/rgb_trns.png",
    "alpha/tbrn2c08.png",
    "alpha/tbwn0g16.png",
    "depth16/16_bit_noise.tif",
    "depth16/tbbn2c16.png",
    "formats/fax4.tiff",
    "formats/hopper.ico",
    "formats/hopper_lzw.tif",
}
# Above our limit of pixels, below the one with which the list was made.
TOO_LARGE = {"large/bilevel_16384x16384.png"}
GROUPS = (
    *("aerial", "alpha", "animated", "cartoon", "degenerate", "depth16", "formats", "graphics", "gray", "jpeg"),
    *("large", "malformed", "medical", "noisy", "palette", "screen", "tiny"),
)

pytestmark = [
    pytest.mark.skipif(not ODD.is_dir(), reason=f"the odd images are not at {ODD}"),
    pytest.mark.filterwarnings("ignore:.*:UserWarning"),
]


def _rows() -> dict[str, list[dict[str, str]]]:
    groups: dict[str, list[dict[str, str]]] = defaultdict(list)
    if ODD.is_dir():
        with (ODD / "manifest.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                groups[row["group"]].append(row)
    return groups


def _assert_same_image(source: Image.Image, again: Image.Image, name: str) -> None:
    # PNG has no 32-bit grey, which is what Pillow makes of 16 bits in a PGM file.
    assert again.mode == source.mode.replace("I;16", "I").replace("I", "I;16"), name
    np.testing.assert_array_equal(np.asarray(again), np.asarray(source), err_msg=name)
    for field in METADATA:
        if field == "exif" and source.format == "TIFF":
            # A TIFF has no EXIF block; its describing tags become one.
            assert all(source.getexif()[tag] == value for tag, value in again.getexif().items()), name
        else:
            assert again.info.get(field) == source.info.get(field), f"{name}: {field}"
    # PNG counts pixels per metre, so another format's dots per inch are rounded to that.
    tolerance = 0 if source.format == "PNG" else 0.0254 / 2
    if "dpi" in source.info:
        assert again.info["dpi"] == pytest.approx(source.info["dpi"], abs=tolerance), name
    if source.format == "PNG":
        assert again.text == source.text, name  # type: ignore[attr-defined]


def _expected(row: dict[str, str]) -> str:
    if row["pillow"] != "ok" or row["file"] in TOO_LARGE:
        return "broken"
    is_taken = row["mode"] in MODE_CHANNELS and row["frames"] == "1" and row["file"] not in REFUSED_BY_CONTENT
    return "whole" if is_taken else "refused"


def _outcome(row: dict[str, str], data: bytes) -> str:
    try:
        pixels = decode_image(data)
    except NotRepresentable as refusal:
        size = (str(refusal.header.width), str(refusal.header.height))
        return "refused" if refusal.reason and size == (row["width"], row["height"]) else "refused for a false reason"
    except ImageError as error:
        return "broken" if str(error) else "broken without a reason"
    again = Image.open(io.BytesIO(encode_png(pixels)))
    source = Image.open(io.BytesIO(data))
    again.load()
    source.load()
    _assert_same_image(source, again, row["file"])
    once_more = decode_image(encode_png(pixels))
    np.testing.assert_array_equal(once_more.array, pixels.array, err_msg=row["file"])
    assert once_more.extras == pixels.extras, row["file"]
    if pixels.mode == source.mode:
        ours = picture(pixels)
        assert ours.mode == source.mode, row["file"]
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(source), err_msg=row["file"])
    return "whole"


@pytest.mark.parametrize(
    "group", [pytest.param(group, marks=pytest.mark.slow if group == "large" else ()) for group in GROUPS]
)
def test_group(group: str) -> None:
    rows = _rows()[group]
    outcomes = {row["file"]: _outcome(row, (ODD / row["file"]).read_bytes()) for row in rows}
    assert outcomes == {row["file"]: _expected(row) for row in rows}


def test_no_group_is_left_out_and_all_outcomes_occur() -> None:
    rows = [row for group in _rows().values() for row in group]
    assert {row["group"] for row in rows} == set(GROUPS)
    assert Counter(map(_expected, rows)) == {"whole": 202, "refused": 25, "broken": 71}

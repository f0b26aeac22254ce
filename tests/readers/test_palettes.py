"""Palette images come out of a data set as colours, whatever reads them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from pilc_stream.codecs import Decoder
from pilc_stream.codecs.raw import RawCodec
from pilc_stream.images import decode_image
from pilc_stream.readers.palettes import colours_of, displayed
from pilc_stream.readers.pillow import PilcImageFile


def indices(transparent: bool) -> bytes:
    image = Image.fromarray((np.indices((6, 8)).sum(axis=0) % 5).astype(np.uint8)).convert("P")
    image.putpalette(bytes(range(10, 25)))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **({"transparency": 2} if transparent else {}))
    return buffer.getvalue()


def test_indices_are_handed_out_as_the_colours_that_pillow_shows(tmp_path: Path) -> None:
    for transparent in (False, True):
        data = indices(transparent)
        pixels = decode_image(data)
        [payload] = RawCodec().encode([pixels.array], [pixels.extras])
        [decoded] = Decoder().decode([payload])
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA" if transparent else "RGB"))
        assert np.array_equal(displayed(decoded, payload), expected)
        colours = colours_of(payload)
        assert colours is not None
        assert np.array_equal(colours[decoded], expected)
        path = tmp_path / "image.pilc"
        path.write_bytes(payload)
        with PilcImageFile(path) as opened:
            assert opened.mode == "P"
            assert np.array_equal(np.asarray(opened.convert("RGBA" if transparent else "RGB")), expected)


def test_other_images_are_left_alone() -> None:
    image = np.zeros((3, 4, 3), np.uint8)
    [payload] = RawCodec().encode([image])
    assert colours_of(payload) is None
    assert displayed(image, payload) is image

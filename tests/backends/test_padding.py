"""The padding rule and the context, got at in two ways: whole planes when encoding, pixel by pixel when decoding."""

from __future__ import annotations

import numpy as np
import pytest
import schoolbook
from contents import CONTENTS
from hypothesis import given, settings
from hypothesis import strategies as st
from small_model import ALL_NEIGHBOURS, SPECS, random_model

from pilc_stream.arith.context import BEFORE_FIRST, COLUMNS_AROUND, ROWS_ABOVE
from pilc_stream.backends.planes import coding_planes, image_tile, padded, plane_context, wavefront
from pilc_stream.backends.reference import resolve

edges = st.integers(1, 12)


@given(edges, edges)
def test_the_wavefront_meets_every_pixel_once_and_in_order(height: int, width: int) -> None:
    seen: list[tuple[int, int]] = []
    for ys, xs in wavefront(height, width):
        assert len(set((xs + 2 * ys).tolist())) == 1
        assert (np.diff(ys) == 1).all()
        seen += zip(ys.tolist(), xs.tolist(), strict=True)
    assert len(seen) == height * width == len(set(seen))
    steps = [x + 2 * y for y, x in seen]
    assert steps == sorted(steps)


@given(edges, edges, st.integers(0, 1000))
def test_padding_agrees_with_the_rule_at_every_neighbour(height: int, width: int, seed: int) -> None:
    planes = coding_planes(CONTENTS["noise"](height, width, 3, seed))
    out = padded(planes)
    for dy, dx in [*ALL_NEIGHBOURS, (0, -3)]:
        ys, xs = np.mgrid[:height, :width]
        y, x, before_first = resolve(ys + dy, xs + dx, width)
        expected = np.where(before_first, BEFORE_FIRST, planes[0][y, x])
        top, left = ROWS_ABOVE + dy, COLUMNS_AROUND + dx
        assert np.array_equal(out[0][top : top + height, left : left + width], expected)
        # What is looked up lies in an earlier step, or is nothing at all.
        assert (before_first | (x + 2 * y < xs + 2 * ys)).all()


@settings(max_examples=25, deadline=None)
@given(edges, edges, st.sampled_from(sorted(CONTENTS)), st.sampled_from(["six", "all neighbours"]))
def test_the_context_of_whole_planes_is_the_schoolbook_context(h: int, w: int, content: str, spec_name: str) -> None:
    model = random_model(SPECS[spec_name], seed=1)
    tile = CONTENTS[content](h, w, 3, h + w)
    context = plane_context(model.spec, coding_planes(tile))
    book = schoolbook.Context(schoolbook.Model(model.file_bytes), h, w)
    for step in schoolbook.wavefront(h, w):
        for y, x in step:
            pixel = schoolbook.PixelModel(book, y, x)
            assert context.inputs[:, y, x].tolist() == pixel.inputs
            assert context.bases[:, y, x].tolist() == pixel.bases
            assert context.exponent[y, x] == pixel.e
            for c, channel in enumerate((1, 0, 2)):
                value = book.pixels[c][y, x] = int(tile[y, x, channel])
                if c:
                    pixel.predict_adaptively(c)
                pixel.t.append(schoolbook.scaled(16 * value - pixel.bases[c], pixel.e))
            assert context.predictions[:, y, x].tolist() == pixel.adaptive
            pixel.record()


@pytest.mark.parametrize("channels", [1, 3])
def test_coding_planes_and_back(channels: int) -> None:
    tile = CONTENTS["noise"](4, 5, channels, 0)
    planes = coding_planes(tile)
    assert planes.shape == (3, 4, 5)
    assert np.array_equal(planes[0], tile[:, :, 1 if channels == 3 else 0])
    assert np.array_equal(image_tile(planes, channels), tile)

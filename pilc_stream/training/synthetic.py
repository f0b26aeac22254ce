"""Training pictures of the kinds that photographs lack: screens, pages, charts, cartoons, gradients, few colours.

Each kind is one function of a generator and an edge, listed with its statistics in `KINDS`. Nothing is read from disk:
the shapes are drawn by Pillow, the typeface is Pillow's own. Pictures repeat exactly for one version of NumPy and one
of Pillow; another Pillow may draw a line or a letter slightly differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from pilc_stream.errors import UsageError
from pilc_stream.training.artwork import cartoon, flat, gradient, line_art, logo, overlays, pattern, photo_like, worded
from pilc_stream.training.drawing import (
    BAYER,
    SMALLEST_EDGE,
    Pixels,
    chance,
    clipped,
    some_colours,
)
from pilc_stream.training.screens import chart, diagram, fringed_page, screen, terminal, text_page


class Kind(NamedTuple):
    """A kind of picture: `draw(generator, edge)` gives uint8 `(edge, edge, 3)`.

    `equal_share` bounds the kind's mean share of pixels that equal their western neighbour, at edges of 64 to 256.
    """

    draw: Callable[[np.random.Generator, int], Pixels]
    equal_share: tuple[float, float]


def synthetic_pictures(count: int, edge: int, seed: int) -> Iterator[Pixels]:
    """`count` pictures, uint8 `(edge, edge, 3)`, of kinds chosen evenly; picture `i` depends on (seed, i, edge) alone.

    Raises UsageError for a negative count or seed, and for an edge below `SMALLEST_EDGE`.
    """
    if count < 0 or seed < 0 or edge < SMALLEST_EDGE:
        raise UsageError(
            f"synthetic pictures: count {count}, edge {edge}, seed {seed}; "
            f"give a count and a seed of at least 0 and an edge of at least {SMALLEST_EDGE}"
        )
    return (_any_of(KINDS, np.random.default_rng((seed, number)), edge) for number in range(count))


def _any_of(kinds: dict[str, Kind], random: np.random.Generator, edge: int) -> Pixels:
    return list(kinds.values())[random.integers(len(kinds))].draw(random, edge)


DRAWN = {
    "text page": Kind(text_page, (0.5, 0.8)),
    "fringed page": Kind(fringed_page, (0.5, 0.8)),
    "terminal": Kind(terminal, (0.75, 0.95)),
    "screen": Kind(screen, (0.75, 0.97)),
    "chart": Kind(chart, (0.7, 0.97)),
    "diagram": Kind(diagram, (0.5, 0.97)),
    "cartoon": Kind(cartoon, (0.65, 0.97)),
    "line art": Kind(line_art, (0.55, 0.95)),
    "logo": Kind(logo, (0.75, 0.98)),
    "overlays": Kind(overlays, (0.25, 0.75)),
    "gradient": Kind(gradient, (0.2, 0.65)),
    "flat": Kind(flat, (0.9, 1.0)),
    "pattern": Kind(pattern, (0.5, 0.8)),
    "worded": Kind(worded, (0.03, 0.3)),
}


def _base(random: np.random.Generator, edge: int) -> Pixels:
    return photo_like(random, edge) if chance(random, 0.4) else _any_of(DRAWN, random, edge)


def _palette(random: np.random.Generator, edge: int) -> Pixels:
    """2 to 64 colours, each the nearest of its place; sometimes enlarged, sometimes in colours of no order."""
    times = int(random.choice([1, 1, 1, 2, 4]))
    small = Image.fromarray(_base(random, max(SMALLEST_EDGE, -(-edge // times))))
    count = int(2 ** random.uniform(1, 6))
    reduced = small.quantize(count, dither=Image.Dither.NONE)
    if chance(random, 0.3):
        reduced.putpalette([value for colour in some_colours(random, 256) for value in colour])
    return np.asarray(reduced.convert("RGB")).repeat(times, axis=0).repeat(times, axis=1)[:edge, :edge]


def _dithered(random: np.random.Generator, edge: int) -> Pixels:
    """Few levels or colours with their errors spread, or with an ordered threshold."""
    source = Image.fromarray(photo_like(random, edge) if chance(random, 0.6) else gradient(random, edge))
    if chance(random, 0.25):
        return np.array(source.convert("1").convert("RGB"))
    if chance(random, 0.5):
        colours = source.quantize(int(2 ** random.uniform(1, 6)))
        return np.array(source.quantize(palette=colours, dither=Image.Dither.FLOYDSTEINBERG).convert("RGB"))
    threshold = np.tile(BAYER, (edge // 4 + 1, edge // 4 + 1))[:edge, :edge, None]
    step = 255 / int(random.integers(1, 8))
    return clipped(np.floor(np.asarray(source) / step + threshold) * step)


def _grey(random: np.random.Generator, edge: int) -> Pixels:
    return np.array(Image.fromarray(_base(random, edge)).convert("L").convert("RGB"))


def _collage(random: np.random.Generator, edge: int) -> Pixels:
    """Four other pictures around a point."""
    pixels = _base(random, edge)
    y, x = (int(value) for value in random.integers(1, edge, 2))
    for part in (np.s_[:y, x:], np.s_[y:, :x], np.s_[y:, x:]):
        pixels[part] = _base(random, edge)[part]
    return pixels


KINDS = {
    **DRAWN,
    "palette": Kind(_palette, (0.65, 0.95)),
    "dithered": Kind(_dithered, (0.25, 0.55)),
    "grey": Kind(_grey, (0.25, 0.7)),
    "collage": Kind(_collage, (0.25, 0.65)),
}

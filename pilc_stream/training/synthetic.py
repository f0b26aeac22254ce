"""Training pictures of the kinds that photographs lack: screens, pages, charts, cartoons, gradients, few colours.

Each kind is one function of a generator and an edge, listed with its statistics in `KINDS`. Nothing is read from disk:
the shapes are drawn by Pillow, the typeface is Pillow's own. Pictures repeat exactly for one version of NumPy and one
of Pillow; another Pillow may draw a line or a letter slightly differently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from pilc_stream.errors import UsageError

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]
Point = tuple[float, float]

SMALLEST_EDGE = 8
LETTERS = "eeeeeeetttttaaaaoooooiiiinnnnsssrrrrhhhllddccuummffppgwybvkxjqz" * 3 + "ETAOSINRCMP0123456789"
MARKS = (" ", " ", " ", " ", " ", " ", ", ", ". ", ": ", " - ", "; ", " (", ") ", "/", "_", " = ")
BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16 + 1 / 32
# Red, green and blue stripes of a screen's pixel, each softened over its neighbours.
STRIPE_FILTER = np.array([1, 2, 3, 2, 1]) / 9


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


class _Sheet:
    """Paper to draw on in coordinates of the finished picture, `scale` times finer than it."""

    def __init__(self, edge: int, ground: Colour, scale: int = 1, crisp_text: bool = False) -> None:
        self.edge, self.scale = edge, scale
        self.image = Image.new("RGB", (edge * scale, edge * scale), ground)
        # In this mode a colour of four values is blended into what lies below.
        self.draw = ImageDraw.Draw(self.image, "RGBA")
        self.draw.fontmode = "1" if crisp_text else "L"

    def box(self, corners: Sequence[float], fill: Sequence[int] | None, outline: Colour | None = None) -> None:
        x0, y0, x1, y1 = (value * self.scale for value in corners)
        colour = None if fill is None else tuple(fill)
        self.draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), colour, outline, self.scale)

    def round_box(self, corners: Sequence[float], radius: float, fill: Colour, outline: Colour | None = None) -> None:
        x0, y0, x1, y1 = (value * self.scale for value in corners)
        placed = (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))
        self.draw.rounded_rectangle(placed, radius * self.scale, fill, outline, self.scale)

    def disc(self, centre: Point, radius: float, fill: Sequence[int]) -> None:
        x, y, r = centre[0] * self.scale, centre[1] * self.scale, radius * self.scale
        self.draw.ellipse((x - r, y - r, x + r, y + r), tuple(fill))

    def line(self, points: Sequence[Point], ink: Colour, width: float = 1) -> None:
        placed = [(x * self.scale, y * self.scale) for x, y in points]
        self.draw.line(placed, ink, max(1, round(width * self.scale)), joint="curve")

    def region(self, points: Sequence[Point], fill: Sequence[int]) -> None:
        self.draw.polygon([(x * self.scale, y * self.scale) for x, y in points], tuple(fill))

    def text(self, place: Point, words: str, size: int, ink: Colour, bold: bool = False) -> None:
        placed = (place[0] * self.scale, place[1] * self.scale)
        self.draw.text(placed, words, ink, _typeface(size * self.scale), stroke_width=self.scale // 2 if bold else 0)

    def pixels(self, filter: Image.Resampling = Image.Resampling.BOX) -> Pixels:
        if self.scale == 1:
            return np.array(self.image)
        return np.array(self.image.resize((self.edge, self.edge), filter))


@lru_cache(maxsize=64)
def _typeface(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _any_of(kinds: dict[str, Kind], random: np.random.Generator, edge: int) -> Pixels:
    return list(kinds.values())[random.integers(len(kinds))].draw(random, edge)


def _chance(random: np.random.Generator, share: float) -> bool:
    return bool(random.random() < share)


def _colour(random: np.random.Generator, low: int = 0, high: int = 255) -> Colour:
    r, g, b = (int(value) for value in random.integers(low, high, 3, endpoint=True))
    return r, g, b


def _colours(random: np.random.Generator, count: int) -> list[Colour]:
    """Colours that go together: greys, one hue, primaries, or any."""
    scheme = random.integers(4)
    if scheme == 0:
        return [(int(v),) * 3 for v in random.integers(0, 256, count)]
    if scheme == 1:
        hue = np.array(_colour(random))
        mixed = [hue + (255 - hue) * s if s > 0 else hue * (1 + s) for s in random.uniform(-0.9, 0.9, count)]
        return [(int(c[0]), int(c[1]), int(c[2])) for c in mixed]
    if scheme == 2:
        steps = 51 * random.integers(0, 6, (count, 3))
        return [(int(c[0]), int(c[1]), int(c[2])) for c in steps]
    return [_colour(random) for _ in range(count)]


def _paper_and_ink(random: np.random.Generator) -> tuple[Colour, Colour]:
    scheme = random.random()
    if scheme < 0.35:
        return (255, 255, 255), (0, 0, 0)
    if scheme < 0.6:
        return _colour(random, 215), _colour(random, 0, 90)
    if scheme < 0.9:
        return _colour(random, 0, 60), _colour(random, 160)
    return _colour(random), _colour(random)


def _words(random: np.random.Generator, length: int) -> str:
    parts = []
    while length > 0:
        word = "".join(LETTERS[i] for i in random.integers(0, len(LETTERS), random.integers(1, 10)))
        parts += [word, MARKS[random.integers(len(MARKS))]]
        length -= len(word) + 1
    return "".join(parts)


def _filter(random: np.random.Generator) -> Image.Resampling:
    return (Image.Resampling.BOX, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)[random.integers(3)]


def _text_lines(random: np.random.Generator, sheet: _Sheet, ink: Colour, size: int, left: float) -> None:
    """Lines of one size down the sheet from above its upper edge, with gaps between paragraphs."""
    y = -float(random.integers(0, size))
    while y < sheet.edge:
        if _chance(random, 0.85):
            sheet.text((left, y), _words(random, int(2.2 * sheet.edge / size)), size, ink, _chance(random, 0.1))
        y += round(size * 1.3)


def _text_page(random: np.random.Generator, edge: int) -> Pixels:
    paper, ink = _paper_and_ink(random)
    sheet = _Sheet(edge, paper, int(random.integers(1, 4)), _chance(random, 0.25))
    size = int(random.choice([8, 10, 11, 12, 13, 14, 16, 18, 24, 36]))
    _text_lines(random, sheet, ink, size, float(random.integers(-edge // 2, 12)))
    if _chance(random, 0.15):
        turned = sheet.image.rotate(random.normal(0, 3), Image.Resampling.BICUBIC, fillcolor=paper)
        sheet.image.paste(turned)
    return sheet.pixels(_filter(random))


def _fringed_page(random: np.random.Generator, edge: int) -> Pixels:
    """Text drawn for the three stripes of a screen's pixel: its upright edges are coloured."""
    sheet = _Sheet(edge, (0, 0, 0), 3)
    _text_lines(random, sheet, (255, 255, 255), int(random.integers(9, 18)), float(random.integers(-edge // 2, 8)))
    rows = np.asarray(sheet.image)[:, :, 0].reshape(edge, 3, 3 * edge).mean(axis=1) / 255
    soft = np.pad(rows, ((0, 0), (2, 2)))
    soft = sum(weight * soft[:, i : i + 3 * edge] for i, weight in enumerate(STRIPE_FILTER))
    paper, ink = (np.array(colour, np.float64) for colour in _paper_and_ink(random))
    return _clipped(paper + (ink - paper) * soft.reshape(edge, edge, 3) ** random.uniform(0.7, 1.2))


def _terminal(random: np.random.Generator, edge: int) -> Pixels:
    """Source text in columns of one width, in several colours."""
    paper, ink = _paper_and_ink(random)
    inks = [ink, *_colours(random, 4)]
    sheet = _Sheet(edge, paper, 1, _chance(random, 0.3))
    size = int(random.integers(9, 18))
    step, row = round(size * 0.62), round(size * 1.25)
    for y in range(-int(random.integers(row)), edge, row):
        column, colour = 2 * int(random.integers(0, 5)), inks[0]
        if _chance(random, 0.1):
            sheet.box((0, y, edge, y + row), _colours(random, 1)[0])
        for letter in _words(random, int(random.integers(0, max(1, edge // step)))):
            colour = inks[random.integers(5)] if letter in " (_" else colour
            sheet.text((column * step, y), letter, size, colour)
            column += 1
    return sheet.pixels()


def _screen(random: np.random.Generator, edge: int) -> Pixels:
    """Windows of frames, fields, buttons, lists, icons; now and then a photo in one."""
    dark = _chance(random, 0.3)
    desk, face = (_colour(random, 0, 50), _colour(random, 30, 70)) if dark else (_colour(random), _colour(random, 200))
    ink = (235, 235, 235) if dark else (20, 20, 20)
    rim = _colour(random, 70, 110) if dark else _colour(random, 120, 190)
    accent, size = _colour(random), int(random.choice([10, 11, 12, 13, 15]))
    row = round(size * random.uniform(1.5, 2.2))
    sheet = _Sheet(edge, desk, 1, _chance(random, 0.2))
    for _ in range(int(random.integers(1, 4))):
        left, top = (int(v) for v in random.integers(-edge // 2, max(1, edge // 2), 2))
        wide, high = (int(v) for v in random.integers(edge // 2, 3 * edge // 2 + 2, 2))
        sheet.box((left, top, left + wide, top + high), face, rim)
        sheet.box((left + 1, top + 1, left + wide - 1, top + row), accent if _chance(random, 0.5) else rim)
        sheet.text((left + 6, top + 2), _words(random, 12), size, ink, bold=True)
        for y in range(top + row + 4, min(top + high - row, edge), row + int(random.integers(2, 8))):
            x = left + 6
            while x < min(left + wide, edge):
                width = int(random.integers(1, 8)) * row
                _widget(random, sheet, (x, y, min(x + width, left + wide - 6), y + row), size, (face, ink, rim, accent))
                x += width + int(random.integers(4, 24))
    if _chance(random, 0.2):
        inner = Image.fromarray(_photo_like(random, max(SMALLEST_EDGE, edge // 2)))
        sheet.image.paste(inner, (int(random.integers(edge)), int(random.integers(edge))))
    return sheet.pixels()


def _widget(
    random: np.random.Generator,
    sheet: _Sheet,
    box: tuple[int, int, int, int],
    size: int,
    colours: tuple[Colour, Colour, Colour, Colour],
) -> None:
    """One control in its box (left, top, right, bottom); colours: face, ink, rim, accent."""
    face, ink, rim, accent = colours
    x0, y0, x1, y1 = box
    if x1 - x0 < 8:
        return
    middle, kind = (y0 + y1) / 2, random.integers(8)
    label = _words(random, max(1, (x1 - x0) // size))[: max(1, 2 * (x1 - x0 - 6) // size)]
    if kind <= 2:
        sheet.text((x0, y0 + 2), label, size, ink)
    elif kind == 3:
        sheet.box(box, (255, 255, 255) if sum(face) > 380 else (10, 10, 10), rim)
        sheet.text((x0 + 4, y0 + 2), label, size, ink)
    elif kind == 4:
        sheet.round_box(box, 4, face, rim)
        shade = (*rim, 90)
        sheet.box((x0 + 2, middle, x1 - 2, y1 - 1), shade)
        sheet.text((x0 + 5, y0 + 2), label, size, ink)
    elif kind == 5:
        sheet.box(box, accent)
        sheet.text((x0 + 4, y0 + 2), label, size, (255, 255, 255))
    elif kind == 6:
        sheet.box((x0, middle - 1, x1, middle + 2), rim)
        sheet.disc((random.uniform(x0, x1), middle), 5, accent)
    else:
        icon = Image.fromarray(_logo(random, max(SMALLEST_EDGE, y1 - y0)))
        sheet.image.paste(icon, (x0, y0))


def _chart(random: np.random.Generator, edge: int) -> Pixels:
    """Lines, bars, points or filled areas over a grid, with axes and figures."""
    paper, ink = _paper_and_ink(random)
    sheet = _Sheet(edge, paper, int(random.integers(1, 5)))
    left, floor = random.uniform(0, edge / 5), random.uniform(0.7, 1) * edge
    step = random.uniform(8, max(9, edge / 3))
    grid = tuple((p * 3 + i) // 4 for p, i in zip(paper, ink, strict=True))
    for k in range(1 + int(edge / step)):
        level, place = round(floor - k * step), round(left + k * step)
        sheet.line([(left, level), (edge, level)], (grid[0], grid[1], grid[2]))
        sheet.text((max(0, left - 22), level - 6), f"{k * random.integers(1, 200) / 10:g}", 9, ink)
        sheet.text((place, floor + 3), str(k), 9, ink)
    for colour in _colours(random, int(random.integers(1, 5))):
        xs = np.linspace(left, edge, int(random.integers(4, 60)))
        heights = np.cumsum(random.normal(0, 1, len(xs))) * edge / 10 + random.uniform(0.2, 0.6) * edge
        points = [(float(x), float(floor - abs(h))) for x, h in zip(xs, heights, strict=True)]
        kind = random.integers(4)
        if kind == 0:
            sheet.line(points, colour, random.uniform(1, 3))
        elif kind == 1:
            for x, y in points:
                sheet.box((round(x), round(y), round(x + 0.7 * (xs[1] - xs[0])) + 1, max(round(y), floor)), colour)
        elif kind == 2:
            for x, y in points:
                sheet.disc((x, y), 2.5, colour)
        else:
            sheet.region([(left, floor), *points, (edge, floor)], (*colour, int(random.integers(60, 256))))
    sheet.line([(left, 0), (left, floor), (edge, floor)], ink)
    return sheet.pixels()


def _diagram(random: np.random.Generator, edge: int) -> Pixels:
    """Labelled boxes and discs joined by lines."""
    paper, ink = _paper_and_ink(random)
    fills, size = [paper, *_colours(random, 3)], int(random.integers(9, 17))
    sheet = _Sheet(edge, paper, int(random.integers(1, 4)))
    places: list[Point] = [(float(x), float(y)) for x, y in random.integers(0, edge, (random.integers(3, 12), 2))]
    for a, b in pairwise(places):
        corner = (a[0], b[1]) if _chance(random, 0.7) else a
        sheet.line([a, corner, b], ink, int(random.integers(1, 4)))
    for x, y in places:
        wide, high = random.integers(1, 6) * size, random.integers(1, 4) * size
        fill = fills[random.integers(len(fills))]
        if _chance(random, 0.7):
            radius = float(random.choice([0, 0, 4, 8]))
            sheet.round_box((x - wide / 2, y - high / 2, x + wide / 2, y + high / 2), radius, fill, ink)
        else:
            sheet.disc((x, y), size, ink)
            sheet.disc((x, y), size - 1.5, fill)
        sheet.text((x - wide / 2 + 3, y - size / 2), _words(random, 5), size, ink)
    return sheet.pixels(_filter(random))


def _blob(random: np.random.Generator, edge: int) -> list[Point]:
    """A closed smooth outline of any size and place."""
    turn = np.linspace(0, 2 * math.pi, 72)
    radius = np.full(72, 1.0)
    for wave in range(1, int(random.integers(2, 7))):
        radius += random.normal(0, 0.35 / wave) * np.cos(wave * turn + random.uniform(0, 7))
    reach = edge * random.uniform(0.05, 0.5)
    x = random.uniform(0, edge) + reach * random.uniform(0.3, 1.2) * radius * np.cos(turn)
    y = random.uniform(0, edge) + reach * radius * np.sin(turn)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _cartoon(random: np.random.Generator, edge: int) -> Pixels:
    """Flat regions with curved edges, mostly with dark outlines; smooth or not."""
    colours = _colours(random, int(random.integers(2, 9)))
    sheet = _Sheet(edge, colours[0], int(random.choice([1, 2, 3, 4])))
    outline = random.choice([0, 1, 2, 3.5])
    ink = _colour(random, 0, 40)
    for _ in range(int(random.integers(3, 16))):
        points = _blob(random, edge)
        sheet.region(points, colours[random.integers(len(colours))])
        if outline:
            sheet.line([*points, points[1]], ink, outline)
    return sheet.pixels(_filter(random))


def _line_art(random: np.random.Generator, edge: int) -> Pixels:
    """Free strokes and hatching in one ink."""
    paper, ink = _paper_and_ink(random)
    sheet = _Sheet(edge, paper, int(random.choice([1, 2, 4])))
    for _ in range(int(random.integers(3, 25))):
        if _chance(random, 0.2):
            (x, y), reach, gap = random.uniform(0, edge, 2), edge * random.uniform(0.05, 0.35), random.uniform(2, 6)
            for k in np.arange(0, reach, gap):
                sheet.line([(x + k, y), (x + k - reach / 2, y + reach)], ink)
        else:
            bend = np.cumsum(random.normal(0, 0.15, 60)) + random.uniform(0, 7)
            step = edge * random.uniform(0.005, 0.03)
            x, y = np.cumsum([np.cos(bend), np.sin(bend)], axis=1) * step + random.uniform(0, edge, (2, 1))
            sheet.line(list(zip(x.tolist(), y.tolist(), strict=True)), ink, random.uniform(0.7, 4))
    return sheet.pixels(_filter(random))


def _logo(random: np.random.Generator, edge: int) -> Pixels:
    """A few plain shapes about a centre, and a large word."""
    paper, ink = _paper_and_ink(random)
    sheet = _Sheet(edge, paper, int(random.choice([1, 3, 4])))
    centre = (edge * random.uniform(0.3, 0.7), edge * random.uniform(0.3, 0.7))
    for colour in _colours(random, int(random.integers(1, 6))):
        reach = edge * random.uniform(0.08, 0.45)
        if _chance(random, 0.5):
            sheet.disc(centre, reach, colour)
        else:
            turn = random.uniform(0, 7) + np.arange(n := int(random.integers(3, 13))) * 2 * math.pi / n
            star = reach * np.where(np.arange(n) % 2, random.uniform(0.4, 1), 1)
            x, y = centre[0] + star * np.cos(turn), centre[1] + star * np.sin(turn)
            sheet.region(list(zip(x.tolist(), y.tolist(), strict=True)), colour)
    if _chance(random, 0.6):
        size = max(6, int(edge * random.uniform(0.1, 0.4)))
        sheet.text(
            (edge * random.uniform(-0.1, 0.3), edge * random.uniform(0, 0.7)), _words(random, 4), size, ink, True
        )
    return sheet.pixels(_filter(random))


def _overlays(random: np.random.Generator, edge: int) -> Pixels:
    """Translucent, blurred and shaded shapes over each other, as posters have them."""
    image = Image.fromarray(_gradient(random, edge) if _chance(random, 0.5) else _cartoon(random, edge))
    for _ in range(int(random.integers(2, 12))):
        mask = Image.new("L", (2 * edge, 2 * edge))
        points = [(2 * x, 2 * y) for x, y in _blob(random, edge)]
        ImageDraw.Draw(mask).polygon(points, int(random.integers(40, 256)))
        mask = mask.resize((edge, edge), Image.Resampling.BOX)
        if _chance(random, 0.25):
            mask = mask.filter(ImageFilter.GaussianBlur(random.uniform(1, 6)))
        shaded = _chance(random, 0.4)
        image.paste(Image.fromarray(_gradient(random, edge)) if shaded else _colour(random), (0, 0), mask)
    return np.array(image)


def _clipped(values: NDArray[np.float64]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _gradient(random: np.random.Generator, edge: int) -> Pixels:
    """Between two or three colours, along a line or from a centre; plain, with noise or with ordered dithering."""
    y, x = np.mgrid[:edge, :edge] / edge
    turn = random.choice([0, math.pi / 2, random.uniform(0, 7)])
    along = x * math.cos(turn) + y * math.sin(turn)
    if _chance(random, 0.35):
        along = np.hypot(x - random.random(), y - random.random())
    along = (along - along.min()) / np.ptp(along)
    stops = np.array(_colours(random, int(random.integers(2, 4))), np.float64)
    if _chance(random, 0.5):
        stops[1:] = stops[0] + (stops[1:] - stops[0]) * random.uniform(0.02, 0.4)
    places = np.linspace(0, 1, len(stops))
    values = np.stack([np.interp(along, places, stops[:, channel]) for channel in range(3)], axis=-1)
    finish = random.random()
    if finish < 0.2:
        values += random.uniform(-0.5, 0.5, values.shape)
    elif finish < 0.35:
        values = np.floor(values + np.resize(np.tile(BAYER, (edge // 4 + 1, edge // 4 + 1)), (edge, edge))[:, :, None])
    return _clipped(values)


def _flat(random: np.random.Generator, edge: int) -> Pixels:
    """One colour; mostly with a band, a corner, a few odd pixels or the least noise."""
    pixels = np.full((edge, edge, 3), _colours(random, 1)[0], np.uint8)
    kind = random.integers(4)
    if kind == 1:
        cut = int(random.integers(1, edge))
        pixels[cut:, int(random.integers(0, edge)) :] = _colour(random)
    elif kind == 2:
        ys, xs = random.integers(0, edge, (2, random.integers(1, 1 + edge)))
        pixels[ys, xs] = _colour(random)
    elif kind == 3:
        odd = random.random((edge, edge)) < random.uniform(0.001, 0.1)
        pixels = np.where(odd[:, :, None], np.clip(pixels, 1, 255) - 1, pixels).astype(np.uint8)
    return pixels


def _pattern(random: np.random.Generator, edge: int) -> Pixels:
    """A small tile repeated: checks, stripes, or any bitmap; sometimes enlarged."""
    colours = np.array(_colours(random, int(random.integers(2, 6))), np.uint8)
    high, wide = (int(v) for v in random.integers(1, 13, 2))
    tile = random.integers(0, len(colours), (high, wide))
    if _chance(random, 0.4):
        tile = np.add.outer(np.arange(high), np.arange(wide)) // int(random.integers(1, 5)) % len(colours)
    times = int(random.choice([1, 1, 2, 4, 8]))
    tile = tile.repeat(times, axis=0).repeat(times, axis=1)
    return colours[np.tile(tile, (edge // tile.shape[0] + 1, edge // tile.shape[1] + 1))[:edge, :edge]]


def _waves(random: np.random.Generator, edge: int, fineness: float) -> NDArray[np.float64]:
    """Smooth random heights with mean 0 and spread 1, float64 `(edge, edge)`: octaves, the finer the weaker."""
    heights = np.zeros((edge, edge))
    size, weight = 2, 1.0
    while size < 2 * edge:
        coarse = Image.fromarray(random.normal(0, weight, (size, size)).astype(np.float32))
        heights += np.asarray(coarse.resize((edge, edge), Image.Resampling.BICUBIC))
        size, weight = size * 2, weight * fineness
    heights -= heights.mean()
    return np.divide(heights, max(1e-6, float(heights.std())))


def _photo_like(random: np.random.Generator, edge: int) -> Pixels:
    """Two textures with noise, parted by a soft or sharp border: a ground for words and shapes, no photograph."""
    layers = []
    for _ in range(2):
        light = _waves(random, edge, random.uniform(0.45, 0.8))[:, :, None] * random.uniform(8, 55)
        tint = _waves(random, edge, 0.4)[:, :, None] * random.normal(0, 9, 3)
        level = np.array(_colour(random, 30, 225))
        layers.append(level.mean() + (level - level.mean()) * random.random() + light + tint)
    border = np.clip(_waves(random, edge, 0.5) * random.choice([2.0, 20.0]) + 0.5, 0, 1)[:, :, None]
    mixed = layers[0] * border + layers[1] * (1 - border)
    return _clipped(mixed + random.normal(0, random.uniform(0, 4), mixed.shape))


def _worded(random: np.random.Generator, edge: int) -> Pixels:
    """Words, boxes and shapes over a texture or a gradient."""
    under = _photo_like(random, edge) if _chance(random, 0.7) else _gradient(random, edge)
    scale = int(random.integers(1, 4))
    sheet = _Sheet(edge, (0, 0, 0), scale)
    sheet.image.paste(Image.fromarray(under.repeat(scale, axis=0).repeat(scale, axis=1)))
    for _ in range(int(random.integers(1, 6))):
        x, y = random.uniform(-0.2, 0.8, 2) * edge
        size = int(random.integers(9, max(12, edge // 4)))
        if _chance(random, 0.4):
            fill = (*_colour(random), int(random.integers(80, 256)))
            sheet.box((x - 4, y - 2, x + random.uniform(0.2, 1) * edge, y + size * 1.4), fill)
        words = _words(random, 12)
        if _chance(random, 0.4):
            sheet.text((x + 1, y + 1), words, size, (0, 0, 0))
        sheet.text((x, y), words, size, _colours(random, 1)[0], _chance(random, 0.3))
    return sheet.pixels()


DRAWN = {
    "text page": Kind(_text_page, (0.5, 0.8)),
    "fringed page": Kind(_fringed_page, (0.5, 0.8)),
    "terminal": Kind(_terminal, (0.75, 0.95)),
    "screen": Kind(_screen, (0.75, 0.97)),
    "chart": Kind(_chart, (0.7, 0.97)),
    "diagram": Kind(_diagram, (0.5, 0.97)),
    "cartoon": Kind(_cartoon, (0.65, 0.97)),
    "line art": Kind(_line_art, (0.55, 0.95)),
    "logo": Kind(_logo, (0.75, 0.98)),
    "overlays": Kind(_overlays, (0.25, 0.75)),
    "gradient": Kind(_gradient, (0.2, 0.65)),
    "flat": Kind(_flat, (0.9, 1.0)),
    "pattern": Kind(_pattern, (0.5, 0.8)),
    "worded": Kind(_worded, (0.03, 0.3)),
}


def _base(random: np.random.Generator, edge: int) -> Pixels:
    return _photo_like(random, edge) if _chance(random, 0.4) else _any_of(DRAWN, random, edge)


def _palette(random: np.random.Generator, edge: int) -> Pixels:
    """2 to 64 colours, each the nearest of its place; sometimes enlarged, sometimes in colours of no order."""
    times = int(random.choice([1, 1, 1, 2, 4]))
    small = Image.fromarray(_base(random, max(SMALLEST_EDGE, -(-edge // times))))
    count = int(2 ** random.uniform(1, 6))
    reduced = small.quantize(count, dither=Image.Dither.NONE)
    if _chance(random, 0.3):
        reduced.putpalette([value for colour in _colours(random, 256) for value in colour])
    return np.asarray(reduced.convert("RGB")).repeat(times, axis=0).repeat(times, axis=1)[:edge, :edge]


def _dithered(random: np.random.Generator, edge: int) -> Pixels:
    """Few levels or colours with their errors spread, or with an ordered threshold."""
    source = Image.fromarray(_photo_like(random, edge) if _chance(random, 0.6) else _gradient(random, edge))
    if _chance(random, 0.25):
        return np.array(source.convert("1").convert("RGB"))
    if _chance(random, 0.5):
        colours = source.quantize(int(2 ** random.uniform(1, 6)))
        return np.array(source.quantize(palette=colours, dither=Image.Dither.FLOYDSTEINBERG).convert("RGB"))
    threshold = np.tile(BAYER, (edge // 4 + 1, edge // 4 + 1))[:edge, :edge, None]
    step = 255 / int(random.integers(1, 8))
    return _clipped(np.floor(np.asarray(source) / step + threshold) * step)


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

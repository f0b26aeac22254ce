"""What the synthetic pictures are drawn with: a sheet of paper, colours, words, shapes, and chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]
Point = tuple[float, float]

SMALLEST_EDGE = 8
"""Below this there is no room to draw in."""

LETTERS = "eeeeeeetttttaaaaoooooiiiinnnnsssrrrrhhhllddccuummffppgwybvkxjqz" * 3 + "ETAOSINRCMP0123456789"
MARKS = (" ", " ", " ", " ", " ", " ", ", ", ". ", ": ", " - ", "; ", " (", ") ", "/", "_", " = ")


BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16 + 1 / 32
"""Thresholds of ordered dithering."""


class Sheet:
    """Paper to draw on in coordinates of the finished picture, `scale` times finer than it."""

    def __init__(self, edge: int, ground: Colour, scale: int = 1, crisp_text: bool = False) -> None:
        self.edge, self.scale = edge, scale
        self.image = Image.new("RGB", (edge * scale, edge * scale), ground)
        # In this mode a colour of four values is blended into what lies below.
        self.draw = ImageDraw.Draw(self.image, "RGBA")
        self.draw.fontmode = "1" if crisp_text else "L"

    def box(self, corners: Sequence[float], fill: Sequence[int] | None, outline: Colour | None = None) -> None:
        """A rectangle, its far edge not included."""
        x0, y0, x1, y1 = (value * self.scale for value in corners)
        colour = None if fill is None else tuple(fill)
        self.draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), colour, outline, self.scale)

    def round_box(self, corners: Sequence[float], radius: float, fill: Colour, outline: Colour | None = None) -> None:
        """A rectangle with round corners."""
        x0, y0, x1, y1 = (value * self.scale for value in corners)
        placed = (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))
        self.draw.rounded_rectangle(placed, radius * self.scale, fill, outline, self.scale)

    def disc(self, centre: Point, radius: float, fill: Sequence[int]) -> None:
        """A filled circle."""
        x, y, r = centre[0] * self.scale, centre[1] * self.scale, radius * self.scale
        self.draw.ellipse((x - r, y - r, x + r, y + r), tuple(fill))

    def line(self, points: Sequence[Point], ink: Colour, width: float = 1) -> None:
        """A line through the points."""
        placed = [(x * self.scale, y * self.scale) for x, y in points]
        self.draw.line(placed, ink, max(1, round(width * self.scale)), joint="curve")

    def region(self, points: Sequence[Point], fill: Sequence[int]) -> None:
        """A filled polygon."""
        self.draw.polygon([(x * self.scale, y * self.scale) for x, y in points], tuple(fill))

    def text(self, place: Point, words: str, size: int, ink: Colour, bold: bool = False) -> None:
        """Words from a place on."""
        placed = (place[0] * self.scale, place[1] * self.scale)
        self.draw.text(placed, words, ink, typeface(size * self.scale), stroke_width=self.scale // 2 if bold else 0)

    def pixels(self, filter: Image.Resampling = Image.Resampling.BOX) -> Pixels:
        """The finished picture, uint8 `(edge, edge, 3)`."""
        if self.scale == 1:
            return np.array(self.image)
        return np.array(self.image.resize((self.edge, self.edge), filter))


@lru_cache(maxsize=64)
def typeface(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own typeface at a size."""
    return ImageFont.load_default(size=size)


def chance(random: np.random.Generator, share: float) -> bool:
    """True with that probability."""
    return bool(random.random() < share)


def any_colour(random: np.random.Generator, low: int = 0, high: int = 255) -> Colour:
    """A colour with each channel in `[low, high]`."""
    r, g, b = (int(value) for value in random.integers(low, high, 3, endpoint=True))
    return r, g, b


def some_colours(random: np.random.Generator, count: int) -> list[Colour]:
    """Colours that go together: greys, one hue, primaries, or any."""
    scheme = random.integers(4)
    if scheme == 0:
        return [(int(v),) * 3 for v in random.integers(0, 256, count)]
    if scheme == 1:
        hue = np.array(any_colour(random))
        mixed = [hue + (255 - hue) * s if s > 0 else hue * (1 + s) for s in random.uniform(-0.9, 0.9, count)]
        return [(int(c[0]), int(c[1]), int(c[2])) for c in mixed]
    if scheme == 2:
        steps = 51 * random.integers(0, 6, (count, 3))
        return [(int(c[0]), int(c[1]), int(c[2])) for c in steps]
    return [any_colour(random) for _ in range(count)]


def paper_and_ink(random: np.random.Generator) -> tuple[Colour, Colour]:
    """A ground and a colour that stands out from it."""
    scheme = random.random()
    if scheme < 0.35:
        return (255, 255, 255), (0, 0, 0)
    if scheme < 0.6:
        return any_colour(random, 215), any_colour(random, 0, 90)
    if scheme < 0.9:
        return any_colour(random, 0, 60), any_colour(random, 160)
    return any_colour(random), any_colour(random)


def some_words(random: np.random.Generator, length: int) -> str:
    """About `length` letters of words."""
    parts = []
    while length > 0:
        word = "".join(LETTERS[i] for i in random.integers(0, len(LETTERS), random.integers(1, 10)))
        parts += [word, MARKS[random.integers(len(MARKS))]]
        length -= len(word) + 1
    return "".join(parts)


def any_filter(random: np.random.Generator) -> Image.Resampling:
    """A way to reduce a picture."""
    return (Image.Resampling.BOX, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)[random.integers(3)]


def blob(random: np.random.Generator, edge: int) -> list[Point]:
    """A closed smooth outline of any size and place."""
    turn = np.linspace(0, 2 * math.pi, 72)
    radius = np.full(72, 1.0)
    for wave in range(1, int(random.integers(2, 7))):
        radius += random.normal(0, 0.35 / wave) * np.cos(wave * turn + random.uniform(0, 7))
    reach = edge * random.uniform(0.05, 0.5)
    x = random.uniform(0, edge) + reach * random.uniform(0.3, 1.2) * radius * np.cos(turn)
    y = random.uniform(0, edge) + reach * radius * np.sin(turn)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def clipped(values: NDArray[np.float64]) -> Pixels:
    """Values rounded to bytes."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)

"""Synthetic pictures of what computers show: pages of text, terminals, windows, charts, diagrams."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from PIL import Image

from pilc_stream.training.artwork import logo, photo_like
from pilc_stream.training.drawing import (
    SMALLEST_EDGE,
    Colour,
    Pixels,
    Point,
    Sheet,
    any_colour,
    any_filter,
    chance,
    clipped,
    paper_and_ink,
    some_colours,
    some_words,
)

# Red, green and blue stripes of a screen's pixel, each softened over its neighbours.
STRIPE_FILTER = np.array([1, 2, 3, 2, 1]) / 9


def text_lines(random: np.random.Generator, sheet: Sheet, ink: Colour, size: int, left: float) -> None:
    """Lines of one size down the sheet from above its upper edge, with gaps between paragraphs."""
    y = -float(random.integers(0, size))
    while y < sheet.edge:
        if chance(random, 0.85):
            sheet.text((left, y), some_words(random, int(2.2 * sheet.edge / size)), size, ink, chance(random, 0.1))
        y += round(size * 1.3)


def text_page(random: np.random.Generator, edge: int) -> Pixels:
    """A page of text."""
    paper, ink = paper_and_ink(random)
    sheet = Sheet(edge, paper, int(random.integers(1, 4)), chance(random, 0.25))
    size = int(random.choice([8, 10, 11, 12, 13, 14, 16, 18, 24, 36]))
    text_lines(random, sheet, ink, size, float(random.integers(-edge // 2, 12)))
    if chance(random, 0.15):
        turned = sheet.image.rotate(random.normal(0, 3), Image.Resampling.BICUBIC, fillcolor=paper)
        sheet.image.paste(turned)
    return sheet.pixels(any_filter(random))


def fringed_page(random: np.random.Generator, edge: int) -> Pixels:
    """Text drawn for the three stripes of a screen's pixel: its upright edges are coloured."""
    sheet = Sheet(edge, (0, 0, 0), 3)
    text_lines(random, sheet, (255, 255, 255), int(random.integers(9, 18)), float(random.integers(-edge // 2, 8)))
    rows = np.asarray(sheet.image)[:, :, 0].reshape(edge, 3, 3 * edge).mean(axis=1) / 255
    soft = np.pad(rows, ((0, 0), (2, 2)))
    soft = sum(weight * soft[:, i : i + 3 * edge] for i, weight in enumerate(STRIPE_FILTER))
    paper, ink = (np.array(colour, np.float64) for colour in paper_and_ink(random))
    return clipped(paper + (ink - paper) * soft.reshape(edge, edge, 3) ** random.uniform(0.7, 1.2))


def terminal(random: np.random.Generator, edge: int) -> Pixels:
    """Source text in columns of one width, in several colours."""
    paper, ink = paper_and_ink(random)
    inks = [ink, *some_colours(random, 4)]
    sheet = Sheet(edge, paper, 1, chance(random, 0.3))
    size = int(random.integers(9, 18))
    step, row = round(size * 0.62), round(size * 1.25)
    for y in range(-int(random.integers(row)), edge, row):
        column, colour = 2 * int(random.integers(0, 5)), inks[0]
        if chance(random, 0.1):
            sheet.box((0, y, edge, y + row), some_colours(random, 1)[0])
        for letter in some_words(random, int(random.integers(0, max(1, edge // step)))):
            colour = inks[random.integers(5)] if letter in " (_" else colour
            sheet.text((column * step, y), letter, size, colour)
            column += 1
    return sheet.pixels()


def screen(random: np.random.Generator, edge: int) -> Pixels:
    """Windows of frames, fields, buttons, lists, icons; now and then a photo in one."""
    dark = chance(random, 0.3)
    desk, face = (
        (any_colour(random, 0, 50), any_colour(random, 30, 70))
        if dark
        else (any_colour(random), any_colour(random, 200))
    )
    ink = (235, 235, 235) if dark else (20, 20, 20)
    rim = any_colour(random, 70, 110) if dark else any_colour(random, 120, 190)
    accent, size = any_colour(random), int(random.choice([10, 11, 12, 13, 15]))
    row = round(size * random.uniform(1.5, 2.2))
    sheet = Sheet(edge, desk, 1, chance(random, 0.2))
    for _ in range(int(random.integers(1, 4))):
        left, top = (int(v) for v in random.integers(-edge // 2, max(1, edge // 2), 2))
        wide, high = (int(v) for v in random.integers(edge // 2, 3 * edge // 2 + 2, 2))
        sheet.box((left, top, left + wide, top + high), face, rim)
        sheet.box((left + 1, top + 1, left + wide - 1, top + row), accent if chance(random, 0.5) else rim)
        sheet.text((left + 6, top + 2), some_words(random, 12), size, ink, bold=True)
        for y in range(top + row + 4, min(top + high - row, edge), row + int(random.integers(2, 8))):
            x = left + 6
            while x < min(left + wide, edge):
                width = int(random.integers(1, 8)) * row
                _widget(random, sheet, (x, y, min(x + width, left + wide - 6), y + row), size, (face, ink, rim, accent))
                x += width + int(random.integers(4, 24))
    if chance(random, 0.2):
        inner = Image.fromarray(photo_like(random, max(SMALLEST_EDGE, edge // 2)))
        sheet.image.paste(inner, (int(random.integers(edge)), int(random.integers(edge))))
    return sheet.pixels()


def _widget(
    random: np.random.Generator,
    sheet: Sheet,
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
    label = some_words(random, max(1, (x1 - x0) // size))[: max(1, 2 * (x1 - x0 - 6) // size)]
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
        icon = Image.fromarray(logo(random, max(SMALLEST_EDGE, y1 - y0)))
        sheet.image.paste(icon, (x0, y0))


def chart(random: np.random.Generator, edge: int) -> Pixels:
    """Lines, bars, points or filled areas over a grid, with axes and figures."""
    paper, ink = paper_and_ink(random)
    sheet = Sheet(edge, paper, int(random.integers(1, 5)))
    left, floor = random.uniform(0, edge / 5), random.uniform(0.7, 1) * edge
    step = random.uniform(8, max(9, edge / 3))
    grid = tuple((p * 3 + i) // 4 for p, i in zip(paper, ink, strict=True))
    for k in range(1 + int(edge / step)):
        level, place = round(floor - k * step), round(left + k * step)
        sheet.line([(left, level), (edge, level)], (grid[0], grid[1], grid[2]))
        sheet.text((max(0, left - 22), level - 6), f"{k * random.integers(1, 200) / 10:g}", 9, ink)
        sheet.text((place, floor + 3), str(k), 9, ink)
    for colour in some_colours(random, int(random.integers(1, 5))):
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


def diagram(random: np.random.Generator, edge: int) -> Pixels:
    """Labelled boxes and discs joined by lines."""
    paper, ink = paper_and_ink(random)
    fills, size = [paper, *some_colours(random, 3)], int(random.integers(9, 17))
    sheet = Sheet(edge, paper, int(random.integers(1, 4)))
    places: list[Point] = [(float(x), float(y)) for x, y in random.integers(0, edge, (random.integers(3, 12), 2))]
    for a, b in pairwise(places):
        corner = (a[0], b[1]) if chance(random, 0.7) else a
        sheet.line([a, corner, b], ink, int(random.integers(1, 4)))
    for x, y in places:
        wide, high = random.integers(1, 6) * size, random.integers(1, 4) * size
        fill = fills[random.integers(len(fills))]
        if chance(random, 0.7):
            radius = float(random.choice([0, 0, 4, 8]))
            sheet.round_box((x - wide / 2, y - high / 2, x + wide / 2, y + high / 2), radius, fill, ink)
        else:
            sheet.disc((x, y), size, ink)
            sheet.disc((x, y), size - 1.5, fill)
        sheet.text((x - wide / 2 + 3, y - size / 2), some_words(random, 5), size, ink)
    return sheet.pixels(any_filter(random))

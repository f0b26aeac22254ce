"""Synthetic pictures that are drawn or painted: cartoons, line art, logos, gradients, patterns, texture."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from pilc_stream.training.drawing import (
    BAYER,
    Pixels,
    Sheet,
    any_colour,
    any_filter,
    blob,
    chance,
    clipped,
    paper_and_ink,
    some_colours,
    some_words,
)


def cartoon(random: np.random.Generator, edge: int) -> Pixels:
    """Flat regions with curved edges, mostly with dark outlines; smooth or not."""
    colours = some_colours(random, int(random.integers(2, 9)))
    sheet = Sheet(edge, colours[0], int(random.choice([1, 2, 3, 4])))
    outline = random.choice([0, 1, 2, 3.5])
    ink = any_colour(random, 0, 40)
    for _ in range(int(random.integers(3, 16))):
        points = blob(random, edge)
        sheet.region(points, colours[random.integers(len(colours))])
        if outline:
            sheet.line([*points, points[1]], ink, outline)
    return sheet.pixels(any_filter(random))


def line_art(random: np.random.Generator, edge: int) -> Pixels:
    """Free strokes and hatching in one ink."""
    paper, ink = paper_and_ink(random)
    sheet = Sheet(edge, paper, int(random.choice([1, 2, 4])))
    for _ in range(int(random.integers(3, 25))):
        if chance(random, 0.2):
            (x, y), reach, gap = random.uniform(0, edge, 2), edge * random.uniform(0.05, 0.35), random.uniform(2, 6)
            for k in np.arange(0, reach, gap):
                sheet.line([(x + k, y), (x + k - reach / 2, y + reach)], ink)
        else:
            bend = np.cumsum(random.normal(0, 0.15, 60)) + random.uniform(0, 7)
            step = edge * random.uniform(0.005, 0.03)
            x, y = np.cumsum([np.cos(bend), np.sin(bend)], axis=1) * step + random.uniform(0, edge, (2, 1))
            sheet.line(list(zip(x.tolist(), y.tolist(), strict=True)), ink, random.uniform(0.7, 4))
    return sheet.pixels(any_filter(random))


def logo(random: np.random.Generator, edge: int) -> Pixels:
    """A few plain shapes about a centre, and a large word."""
    paper, ink = paper_and_ink(random)
    sheet = Sheet(edge, paper, int(random.choice([1, 3, 4])))
    centre = (edge * random.uniform(0.3, 0.7), edge * random.uniform(0.3, 0.7))
    for colour in some_colours(random, int(random.integers(1, 6))):
        reach = edge * random.uniform(0.08, 0.45)
        if chance(random, 0.5):
            sheet.disc(centre, reach, colour)
        else:
            turn = random.uniform(0, 7) + np.arange(n := int(random.integers(3, 13))) * 2 * math.pi / n
            star = reach * np.where(np.arange(n) % 2, random.uniform(0.4, 1), 1)
            x, y = centre[0] + star * np.cos(turn), centre[1] + star * np.sin(turn)
            sheet.region(list(zip(x.tolist(), y.tolist(), strict=True)), colour)
    if chance(random, 0.6):
        size = max(6, int(edge * random.uniform(0.1, 0.4)))
        sheet.text(
            (edge * random.uniform(-0.1, 0.3), edge * random.uniform(0, 0.7)), some_words(random, 4), size, ink, True
        )
    return sheet.pixels(any_filter(random))


def overlays(random: np.random.Generator, edge: int) -> Pixels:
    """Translucent, blurred and shaded shapes over each other, as posters have them."""
    image = Image.fromarray(gradient(random, edge) if chance(random, 0.5) else cartoon(random, edge))
    for _ in range(int(random.integers(2, 12))):
        mask = Image.new("L", (2 * edge, 2 * edge))
        points = [(2 * x, 2 * y) for x, y in blob(random, edge)]
        ImageDraw.Draw(mask).polygon(points, int(random.integers(40, 256)))
        mask = mask.resize((edge, edge), Image.Resampling.BOX)
        if chance(random, 0.25):
            mask = mask.filter(ImageFilter.GaussianBlur(random.uniform(1, 6)))
        shaded = chance(random, 0.4)
        image.paste(Image.fromarray(gradient(random, edge)) if shaded else any_colour(random), (0, 0), mask)
    return np.array(image)


def gradient(random: np.random.Generator, edge: int) -> Pixels:
    """Between two or three colours, along a line or from a centre; plain, with noise or with ordered dithering."""
    y, x = np.mgrid[:edge, :edge] / edge
    turn = random.choice([0, math.pi / 2, random.uniform(0, 7)])
    along = x * math.cos(turn) + y * math.sin(turn)
    if chance(random, 0.35):
        along = np.hypot(x - random.random(), y - random.random())
    along = (along - along.min()) / np.ptp(along)
    stops = np.array(some_colours(random, int(random.integers(2, 4))), np.float64)
    if chance(random, 0.5):
        stops[1:] = stops[0] + (stops[1:] - stops[0]) * random.uniform(0.02, 0.4)
    places = np.linspace(0, 1, len(stops))
    values = np.stack([np.interp(along, places, stops[:, channel]) for channel in range(3)], axis=-1)
    finish = random.random()
    if finish < 0.2:
        values += random.uniform(-0.5, 0.5, values.shape)
    elif finish < 0.35:
        values = np.floor(values + np.resize(np.tile(BAYER, (edge // 4 + 1, edge // 4 + 1)), (edge, edge))[:, :, None])
    return clipped(values)


def flat(random: np.random.Generator, edge: int) -> Pixels:
    """One colour; mostly with a band, a corner, a few odd pixels or the least noise."""
    pixels = np.full((edge, edge, 3), some_colours(random, 1)[0], np.uint8)
    kind = random.integers(4)
    if kind == 1:
        cut = int(random.integers(1, edge))
        pixels[cut:, int(random.integers(0, edge)) :] = any_colour(random)
    elif kind == 2:
        ys, xs = random.integers(0, edge, (2, random.integers(1, 1 + edge)))
        pixels[ys, xs] = any_colour(random)
    elif kind == 3:
        odd = random.random((edge, edge)) < random.uniform(0.001, 0.1)
        pixels = np.where(odd[:, :, None], np.clip(pixels, 1, 255) - 1, pixels).astype(np.uint8)
    return pixels


def pattern(random: np.random.Generator, edge: int) -> Pixels:
    """A small tile repeated: checks, stripes, or any bitmap; sometimes enlarged."""
    colours = np.array(some_colours(random, int(random.integers(2, 6))), np.uint8)
    high, wide = (int(v) for v in random.integers(1, 13, 2))
    tile = random.integers(0, len(colours), (high, wide))
    if chance(random, 0.4):
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


def photo_like(random: np.random.Generator, edge: int) -> Pixels:
    """Two textures with noise, parted by a soft or sharp border: a ground for words and shapes, no photograph."""
    layers = []
    for _ in range(2):
        light = _waves(random, edge, random.uniform(0.45, 0.8))[:, :, None] * random.uniform(8, 55)
        tint = _waves(random, edge, 0.4)[:, :, None] * random.normal(0, 9, 3)
        level = np.array(any_colour(random, 30, 225))
        layers.append(level.mean() + (level - level.mean()) * random.random() + light + tint)
    border = np.clip(_waves(random, edge, 0.5) * random.choice([2.0, 20.0]) + 0.5, 0, 1)[:, :, None]
    mixed = layers[0] * border + layers[1] * (1 - border)
    return clipped(mixed + random.normal(0, random.uniform(0, 4), mixed.shape))


def worded(random: np.random.Generator, edge: int) -> Pixels:
    """Words, boxes and shapes over a texture or a gradient."""
    under = photo_like(random, edge) if chance(random, 0.7) else gradient(random, edge)
    scale = int(random.integers(1, 4))
    sheet = Sheet(edge, (0, 0, 0), scale)
    sheet.image.paste(Image.fromarray(under.repeat(scale, axis=0).repeat(scale, axis=1)))
    for _ in range(int(random.integers(1, 6))):
        x, y = random.uniform(-0.2, 0.8, 2) * edge
        size = int(random.integers(9, max(12, edge // 4)))
        if chance(random, 0.4):
            fill = (*any_colour(random), int(random.integers(80, 256)))
            sheet.box((x - 4, y - 2, x + random.uniform(0.2, 1) * edge, y + size * 1.4), fill)
        words = some_words(random, 12)
        if chance(random, 0.4):
            sheet.text((x + 1, y + 1), words, size, (0, 0, 0))
        sheet.text((x, y), words, size, some_colours(random, 1)[0], chance(random, 0.3))
    return sheet.pixels()

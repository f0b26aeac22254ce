"""The codec `wave` in plain Python integers, one sub-pixel after the other: sections 4 to 7 of FORMAT.md alone."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from schoolbook_layout import Tile, must

CODED_TO_ARRAY = {1: [0], 3: [1, 0, 2]}
W, N, NW, NE, WW, NN = (0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0)
Watch = Callable[[dict[str, Any]], None]


# Section 4: streams.


class Lanes:
    """States and words of a stream."""

    def __init__(self, stream: bytes, lanes: int) -> None:
        must(len(stream) % 2 == 0 and len(stream) >= 4 * lanes, "a stream of impossible length")
        self.states = [int.from_bytes(stream[4 * i : 4 * i + 4], "little") for i in range(lanes)]
        must(min(self.states) >= 1 << 16, "a first state that no encoder writes")
        self.words = [int.from_bytes(stream[i : i + 2], "little") for i in range(4 * lanes, len(stream), 2)]
        self.used = 0

    def symbol(self, lane: int, start: Sequence[int]) -> int:
        state = self.states[lane]
        slot = state % 65536
        v = max(v for v in range(256) if start[v] <= slot)
        end = start[v + 1] if v < 255 else 65536
        state = (end - start[v]) * (state // 65536) + slot - start[v]
        if state < 65536:
            must(self.used < len(self.words), "too few words")
            state = state * 65536 + self.words[self.used]
            self.used += 1
        self.states[lane] = state
        return v

    def finish(self) -> None:
        must(self.used == len(self.words), "words left over")
        must(all(state == 65536 for state in self.states), "a lane ends elsewhere")


def most_symbols(model: Model) -> int:
    """K: how many symbols a lane decodes at most from a state or a word."""
    largest = max(b - a for row in model.cdf for a, b in zip(row, [*row[1:], 65536], strict=True))
    state, count = (1 << 32) - 1, 0
    while state >= 65536:
        state = largest * (state >> 16) + min(state % 65536, largest - 1)
        count += 1
    return count


def wavefront(height: int, width: int) -> Iterator[list[tuple[int, int]]]:
    for t in range(width + 2 * height - 2):
        yield [(y, t - 2 * y) for y in range(height) if 0 <= t - 2 * y < width]


def decode_tile(
    model: Model, stream: bytes, height: int, width: int, channels: int, lanes: int, watch: Watch | None = None
) -> Tile:
    reader = Lanes(stream, lanes)
    must(height * width * channels <= most_symbols(model) * (lanes + len(reader.words)), "too few words by far")
    context = Context(model, height, width)
    for step in wavefront(height, width):
        pixels = [PixelModel(context, y, x) for y, x in step]
        for c in range(channels):
            for k, pixel in enumerate(pixels):
                row, centre = pixel.predict(c)
                lane = k % lanes
                before = reader.states[lane], reader.used
                symbol = reader.symbol(lane, model.cdf[row])
                pixel.known(c, (symbol + centre - 128) % 256, channels)
                if watch:
                    watch({**pixel.facts, "lane": lane, "row": row, "centre": centre, "symbol": symbol,
                           "start": model.cdf[row][symbol], "state": before[0],
                           "word": reader.words[before[1]] if reader.used > before[1] else None})  # fmt: skip
        for pixel in pixels:
            pixel.record()
    reader.finish()
    order = CODED_TO_ARRAY[channels]
    planes = [context.pixels[order.index(a)] for a in range(channels)]
    return [[[plane[y, x] for plane in planes] for x in range(width)] for y in range(height)]


def decode_view(model: Model, stream: bytes, height: int, width: int, channels: int, lanes: int) -> Tile:
    must(len(stream) > 0 and stream[0] < (48 if channels == 3 else 8), "no view")
    view, exchanged = stream[0], bool(stream[0] & 4)
    coded = decode_tile(model, stream[1:], *((width, height) if exchanged else (height, width)), channels, lanes)
    if view & 1:
        coded = [row[::-1] for row in coded]
    if view & 2:
        coded = coded[::-1]
    if exchanged:
        coded = [[coded[y][x] for y in range(width)] for x in range(height)]
    order = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))[view >> 3]
    places = [order.index(channel) for channel in range(channels)]
    return [[[pixel[place] for place in places] for pixel in row] for row in coded]


# Section 5: the context.


def clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


def floor_log2(value: int) -> int:
    return value.bit_length() - 1


def log8(value: int) -> int:
    n = floor_log2(value)
    return 8 * n + (8 * value >> n) - 8


def scaled(value: int, e: int) -> int:
    return clamp((value + (2**e >> 1)) >> e, -127, 127)


def logerr(magnitude: int) -> int:
    return log8(magnitude + 8) - 24


class Context:
    """What is known of a tile."""

    def __init__(self, model: Model, height: int, width: int) -> None:
        self.model, self.height, self.width = model, height, width
        self.pixels: list[dict[tuple[int, int], int]] = [{}, {}, {}]
        self.sub_errors: list[dict[tuple[int, int], list[int]]] = [{}, {}, {}]
        self.errors: list[dict[tuple[int, int], int]] = [{}, {}, {}]
        self.left: list[dict[tuple[int, int], list[int]]] = [{}, {}, {}]
        """Per channel and pixel: the weights and the two running means that it left behind."""

    def p(self, c: int, y: int, x: int) -> int:
        if y < 0:
            x, y = x + 2 * y, 0
        if x < 0:
            return 128 if y == 0 else self.p(c, y - 1, 0)
        return self.pixels[c][y, min(x, self.width - 1)]

    def outside(self, y: int, x: int) -> bool:
        return y < 0 or x < 0 or x >= self.width

    def sub_predictions(self, c: int, y: int, x: int) -> list[int]:
        west, north, north_west, north_east = (self.p(c, y + dy, x + dx) for dy, dx in (W, N, NW, NE))
        return [
            4 * west,
            4 * north,
            clamp(4 * (west + north - north_west), 0, 1020),
            clamp(2 * (west + north) + (north_east - north_west), 0, 1020),
            clamp(4 * (west + north_east - north), 0, 1020),
        ]

    def base(self, c: int, y: int, x: int) -> int:
        recent = []
        for i in range(5):
            at = {
                (dy, dx): 0 if self.outside(y + dy, x + dx) else self.sub_errors[c][y + dy, x + dx][i]
                for dy, dx in (W, N, NW, NE, WW, NN)
            }
            recent.append(2 * (at[W] + at[N] + at[NW] + at[NE]) + at[WW] + at[NN])
        q = floor_log2(min(recent) + 8) - 3
        weights = [16384 // min((r + 8) >> q, 127) ** 2 for r in recent]
        total = sum(a * p for a, p in zip(weights, self.sub_predictions(c, y, x), strict=True))
        return 4 * total // sum(weights)

    def error(self, c: int, y: int, x: int) -> int:
        return 0 if self.outside(y, x) else self.errors[c].get((y, x), 0)

    def start(self, c: int, y: int, x: int) -> list[int]:
        """The weights and running means that a pixel starts from."""
        taps = self.model.taps
        initial = [*[0] * taps, *[16384, 0][:c], 128, 128]
        if not self.left[c]:
            return initial
        west, north_east = (initial if self.outside(*at) else self.left[c][at] for at in ((y, x - 1), (y - 1, x + 1)))
        return [(a + b) >> 1 for a, b in zip(west, north_east, strict=True)]


class PixelModel:
    """One pixel: its context, and its channels one after the other."""

    def __init__(self, context: Context, y: int, x: int) -> None:
        self.context, self.y, self.x = context, y, x
        model = context.model
        n = len(model.neighbours)
        self.bases = [context.base(c, y, x) for c in range(3)]
        differences = [
            [16 * context.p(c, y + dy, x + dx) - self.bases[c] for dy, dx in model.neighbours] for c in range(3)
        ]
        distances = [sum(abs(d) for d in row) for row in differences]
        self.e = max(e for e in range(8) if sum(distances) >= 48 * n * (2**e - 1))
        s = sum(self.bases)
        self.inputs = [scaled(d, self.e) for row in differences for d in row]
        self.direct = list(self.inputs)
        self.inputs += [log8(distance + 16 * n) - log8(16 * n) for distance in distances]
        self.inputs += [clamp((3 * base - s) >> 6, -127, 127) for base in self.bases]
        self.inputs += [(s >> 6) - 96]
        for c in range(3):
            recorded = [context.error(c, y + dy, x + dx) for dy, dx in (W, N, NW, NE, WW, NN)]
            self.inputs += [scaled(error, self.e) for error in recorded[:4]]
            self.inputs += [logerr(sum(abs(error) for error in recorded))]
        self.states = [context.start(c, y, x) for c in range(3)]
        self.inputs += [logerr(mean >> 3) for state in self.states for mean in state[-2:]]
        self.s = [[scaled(d, self.e) for d in row[: model.taps]] for row in differences]
        self.t: list[int] = []
        self.features: list[list[int]] = []
        self.adaptive: list[int] = []
        self.predict_adaptively(0)
        self.inputs += [scaled(self.adaptive[0] - self.bases[0], self.e)]
        self.trunk = self.inputs
        for i in range(model.trunk_layers):
            self.trunk = model.units(f"trunk.{i}", self.trunk)
        self.earlier: list[int] = []
        self.errors: list[int] = []
        self.mean = 0
        self.facts: dict[str, Any] = {}

    def predict_adaptively(self, c: int) -> None:
        s, t = self.s, self.t
        if c == 0:
            values = s[0]
        elif c == 1:
            values = [2 * (b - a) for a, b in zip(s[0], s[1], strict=True)] + [t[0]]
        else:
            values = [2 * d - a - b for a, b, d in zip(*s, strict=True)] + [(t[0] + t[1]) >> 1, 2 * (t[0] - t[1])]
        total = sum(w * v for w, v in zip(self.states[c][:-2], values, strict=True))
        assert abs(total) < 1 << 31
        self.features.append(values)
        self.adaptive.append(clamp(self.bases[c] + (((((total + 512) >> 10) << self.e) + 8) >> 4), 0, 4080))

    def adapt(self, c: int, pixel: int) -> None:
        values, state = self.features[c], self.states[c]
        g = 16 * pixel - self.adaptive[c]
        power = [256, 32, 32][c] * len(values) + sum(v * v for v in values)
        gain = (scaled(g, self.e) * (4194304 // power) * 5 + 32) >> 6
        assert all(abs(gain * v) < 1 << 31 for v in values)
        weights = [clamp(w + ((gain * v + 32) >> 6), -32767, 32767) for w, v in zip(state[:-2], values, strict=True)]
        quick, slow = state[-2:]
        means = [quick + ((8 * abs(g) - quick + 2) >> 2), slow + ((8 * abs(g) - slow + 8) >> 4)]
        self.context.left[c][self.y, self.x] = weights + means
        self.context.errors[c][self.y, self.x] = -g

    # Section 6: the perceptron's heads.

    def predict(self, c: int) -> tuple[int, int]:
        """Table row and centre of a channel."""
        model = self.context.model
        if c > 0:
            self.predict_adaptively(c)
        adapted = [scaled(self.adaptive[c] - self.bases[c], self.e)]
        hidden = model.units(f"head.{c}.hidden", self.trunk + self.earlier + (adapted if c > 0 else []))
        (out,) = model.outputs(f"head.{c}.mean", hidden + self.direct + adapted)
        mean = self.adaptive[c] + ((clamp(out, -8191, 8191) * 2**self.e + 2) >> 2)
        if c > 0:
            for out, error in zip(model.outputs(f"head.{c}.coupling", hidden), self.errors, strict=True):
                mean += (clamp(out, -127, 127) * error + 32) >> 6
        self.mean = clamp(mean, -512, 4592)
        (out,) = model.outputs(f"head.{c}.scale", hidden)
        scale = clamp(out + 8 * self.e, 0, model.scale_count - 1)
        self.facts = {
            "y": self.y, "x": self.x, "channel": c, "base": self.bases[c], "e": self.e, "mean": self.mean,
            "scale": scale, "inputs": self.inputs,
        }  # fmt: skip
        return model.row_of[scale][(self.mean + 8) % 16], (self.mean + 8) >> 4

    def known(self, c: int, pixel: int, channels: int) -> None:
        for same in [c] if channels == 3 else [0, 1, 2]:
            self.context.pixels[same][self.y, self.x] = pixel
        error = 16 * pixel - self.mean
        self.errors.append(error)
        self.t.append(scaled(16 * pixel - self.bases[c], self.e))
        self.earlier += [scaled(error, self.e), logerr(abs(error)), self.t[c]]
        self.facts["pixel"] = pixel

    def record(self) -> None:
        here = self.y, self.x
        for c in range(3):
            pixel = self.context.pixels[c][here]
            predictions = self.context.sub_predictions(c, *here)
            self.context.sub_errors[c][here] = [min(abs(p - 4 * pixel), 255) for p in predictions]
        for c in range(len(self.t)):
            self.adapt(c, self.context.pixels[c][here])


# Section 7: the model file.


class Model:
    """A model file, read by hand and checked."""

    def __init__(self, file: bytes) -> None:
        length = int.from_bytes(file[:8], "little")
        self.header = json.loads(file[8 : 8 + length])
        self.data = file[8 + length :]
        metadata = self.header["__metadata__"]
        must(metadata["format"] == "pilc-wave-model", "another format")
        spec = json.loads(metadata["spec"])
        must(spec["context_version"] == 1, "another context")
        self.neighbours = [(dy, dx) for dy, dx in spec["neighbours"]]
        self.taps = spec["taps"]
        must(1 <= self.taps <= len(self.neighbours), "taps out of limits")
        for dy, dx in self.neighbours:
            must(-3 <= dy <= 0 and -3 <= dx <= 3 and -7 <= 2 * dy + dx <= -1, "a neighbour out of limits")
        self.trunk_layers, self.scale_count = len(spec["trunk"]), spec["scale_count"]
        self.cdf = self.matrix("cdf", "H")
        self.row_of = self.matrix("row_of", "H")
        must(len(self.cdf) <= 1 << 16 and all(len(row) == 256 for row in self.cdf), "a table of another shape")
        must(len(self.row_of) == self.scale_count and all(len(row) == 16 for row in self.row_of), "an index too short")
        must(max(map(max, self.row_of)) < len(self.cdf), "an index beyond the table")
        for row in self.cdf:
            must(row[0] == 0 and all(a < b for a, b in pairwise(row)), "a row that does not rise")
        self.layers: dict[str, tuple[list[list[int]], list[int], list[int]]] = {}
        sizes = self.layer_sizes(spec)
        for name, (outputs, inputs) in sizes.items():
            weight = self.matrix(f"{name}.weight", "b")
            bias, shift = self.vector(f"{name}.bias", "i"), self.vector(f"{name}.shift", "B")
            must(len(weight) == len(bias) == len(shift) == outputs, "units of another number")
            must(all(len(row) == inputs for row in weight), "inputs of another number")
            must(min(map(min, weight)) >= -127 and max(shift) <= 24, "a weight or shift out of limits")
            for row, b in zip(weight, bias, strict=True):
                must(255 * sum(map(abs, row)) + abs(b) < 1 << 24, "a sum that may not be exact")
            self.layers[name] = weight, bias, shift

    @staticmethod
    def layer_sizes(spec: dict[str, Any]) -> dict[str, tuple[int, int]]:
        n, head, trunk = len(spec["neighbours"]), spec["head"], spec["trunk"]
        sizes = {f"trunk.{i}": (width, trunk[i - 1] if i else 3 * n + 29) for i, width in enumerate(trunk)}
        for c in range(3):
            sizes[f"head.{c}.hidden"] = head, trunk[-1] + 3 * c + (c > 0)
            sizes[f"head.{c}.mean"] = 1, head + 3 * n + 1
            sizes[f"head.{c}.scale"] = 1, head
            if c:
                sizes[f"head.{c}.coupling"] = c, head
        return sizes

    def vector(self, name: str, kind: str) -> list[int]:
        begin, end = self.header[name]["data_offsets"]
        return [value for (value,) in struct.iter_unpack("<" + kind, self.data[begin:end])]

    def matrix(self, name: str, kind: str) -> list[list[int]]:
        rows, columns = self.header[name]["shape"]
        values = self.vector(name, kind)
        return [values[i * columns : (i + 1) * columns] for i in range(rows)]

    def outputs(self, name: str, values: Sequence[int]) -> list[int]:
        weight, bias, shift = self.layers[name]
        out = []
        for unit in range(len(bias)):
            total = bias[unit]
            for w, value in zip(weight[unit], values, strict=True):
                total += w * value
            out.append(total >> shift[unit])
        return out

    def units(self, name: str, values: Sequence[int]) -> list[int]:
        return [clamp(out, 0, 255) for out in self.outputs(name, values)]

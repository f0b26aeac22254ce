"""The codec `deep`, written from section 14 of FORMAT.md alone: the coder works on one unbounded number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable

from schoolbook_layout import Tile, must

ARRAY_CHANNELS = {1: [0], 2: [0, 1], 3: [1, 0, 2], 4: [1, 0, 2, 3]}
"""Where the array has the channels 0, 1, ... of the coder."""


def clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


class Chances:
    """What a context knows: two chances of a 1 and a divisor."""

    def __init__(self) -> None:
        self.f, self.s, self.d = 32768, 32768, 3

    def chance(self) -> int:
        return clamp((self.f + self.s) >> 1, 32, 65504)

    def learn(self, bit: int) -> None:
        t = 65536 * bit
        self.f, self.s = self.f + ((t - self.f) >> 4), self.s + (2 * (t - self.s)) // self.d
        self.d = min(self.d + 2, 400)


class BinaryDecoder:
    """The bits of a stream. Where the document shifts bytes out of 32 bits, here the numbers grow: `low`, `high` and
    `code` are all bytes so far, and the last four of them are what the document calls by these names."""

    def __init__(self, stream: bytes) -> None:
        must(len(stream) >= 4, "no four bytes")
        self.stream, self.used = stream, 4
        self.low, self.high, self.code = 0, 2**32 - 1, int.from_bytes(stream[:4], "big")
        self.contexts: defaultdict[Hashable, Chances] = defaultdict(Chances)

    def bit(self, *context: Hashable) -> int:
        chances = self.contexts[context]
        middle = self.low + ((self.high - self.low) * chances.chance() >> 16)
        bit = int(self.code <= middle)
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        chances.learn(bit)
        while self.low >> 24 == self.high >> 24:
            must(self.used < len(self.stream), "too few bytes")
            self.low, self.high = self.low << 8, self.high << 8 | 255
            self.code = self.code << 8 | self.stream[self.used]
            self.used += 1
        return bit

    def finish(self) -> None:
        must(self.used == len(self.stream), "bytes left over")
        must(self.code == self.low, "the coder ends elsewhere")


class Plane:
    """What is known of one channel of a tile, by `(y, x)`."""

    def __init__(self) -> None:
        self.samples: dict[tuple[int, int], int] = {}
        self.errors: dict[tuple[int, int], int] = {}
        self.left_behind: dict[tuple[int, int], list[int]] = {}
        self.weights = [0] * 9

    def neighbours(self, y: int, x: int, half: int) -> dict[str, int]:
        """The samples around, others standing in for those that are missing."""
        v = self.samples
        west = v.get((y, x - 1), v.get((y - 1, x), half))
        north = v.get((y - 1, x), west)
        north_east = v.get((y - 1, x + 1), north)
        return {
            "W": west, "N": north, "NW": v.get((y - 1, x - 1), north), "NE": north_east,
            "WW": v.get((y, x - 2), west), "NN": v.get((y - 2, x), north), "NNE": v.get((y - 2, x + 1), north_east),
        }  # fmt: skip


def deep_tile(stream: bytes, height: int, width: int, channels: int, depth: int) -> Tile:
    must(len(stream) > 0 and 4096 * len(stream) >= height * width * channels, "too few bytes by far")
    bits = stream[0]
    must(1 <= bits <= depth, "bits out of limits")
    coder = BinaryDecoder(stream[1:])
    planes = [Plane() for _ in range(channels)]
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                decode_sample(coder, planes, y, x, c, bits)
    coder.finish()
    order = [ARRAY_CHANNELS[channels].index(a) for a in range(channels)]
    return [[[planes[c].samples[y, x] for c in order] for x in range(width)] for y in range(height)]


def decode_sample(coder: BinaryDecoder, planes: list[Plane], y: int, x: int, c: int, bits: int) -> None:
    m, plane = 1 << bits, planes[c]
    near = plane.neighbours(y, x, m // 2)
    w, n, nw, ne = (near[name] for name in ("W", "N", "NW", "NE"))
    p = [w, n, w + n - nw, w + ne - n, (2 * (w + n) + ne - nw) >> 2, n + ne - near["NNE"], near["WW"], near["NN"]]
    if c > 0:
        before, here = planes[c - 1].neighbours(y, x, m // 2), planes[c - 1].samples[y, x]
        p += [
            w + here - before["W"],
            n + here - before["N"],
            p[2] + here - before["W"] - before["N"] + before["NW"],
        ]

    def behind(dy: int, dx: int, i: int) -> int:
        return plane.left_behind[y + dy, x + dx][i] if (y + dy, x + dx) in plane.left_behind else 0

    recent = [
        2 * (behind(0, -1, i) + behind(-1, 0, i))
        + behind(-1, -1, i) + behind(-1, 1, i) + behind(0, -2, i) + behind(-2, 0, i)
        for i in range(len(p))
    ]  # fmt: skip
    shift = 0
    while (min(recent) + 4) >> shift >= 16:
        shift += 1
    a = [65536 // (min((e + 4) >> shift, 127) ** 2 + 1) for e in recent]
    base = sum(weight * value for weight, value in zip(a, p, strict=True)) // sum(a)

    features = [value - base for value in (w, n, nw, ne, near["WW"], near["NN"])] + [0, 0, 0]
    if c > 0:
        features[6:8] = [p[8] - base, p[9] - base]
    if c > 1:
        earlier = planes[c - 2].samples
        features[8] = earlier[y, x] - earlier.get((y, x - 1), earlier[y, x]) - (base - w)
    refined = base + ((sum(k * f for k, f in zip(plane.weights, features, strict=True)) + 32768) >> 16)
    centre = clamp(refined, 0, m - 1)

    around = 2 * (plane.errors.get((y, x - 1), 0) + plane.errors.get((y - 1, x), 0))
    around += plane.errors.get((y - 1, x + 1), 0) + (min(recent) >> 3)
    k = 0
    while around >= 4:
        around, k = around >> 1, k + 1
    error = decode_error(coder, c, min(around + 2 * k, 39), bits)
    v = (centre + error) % m

    plane.samples[y, x] = v
    plane.errors[y, x] = abs(v - centre)
    plane.left_behind[y, x] = [abs(value - v) for value in p]
    power = 9 + sum(f * f for f in features)
    plane.weights = [
        clamp(weight + ((v - refined) * f * 160) // power, -524288, 524288)
        for weight, f in zip(plane.weights, features, strict=True)
    ]


def decode_error(coder: BinaryDecoder, c: int, q: int, bits: int) -> int:
    node = 1
    for _ in range(5):
        node = 2 * node + coder.bit("token", c, q, node)
    token = node - 32
    must(token <= bits, "a token above the bits")
    if token == 0:
        return 0
    negative = coder.bit("sign", c, token)
    magnitude, node = 1, 1
    for count, place in enumerate(reversed(range(token - 1))):
        bit = coder.bit("bit", c, token, node if count < 3 else 8 + place)
        magnitude = 2 * magnitude + bit
        if count < 2:
            node = 2 * node + bit
    error = -magnitude if negative else magnitude
    must(-(1 << bits) // 2 <= error < (1 << bits) // 2, "an error out of limits")
    return error

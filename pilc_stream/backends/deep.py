"""The coder of the codec `deep`: samples of up to 16 bits, one after the other, on the CPU (Numba).

For what the wave codec's 8-bit tables cannot hold. No model: eight or eleven simple predictors weighted by their recent
errors give a base, a linear predictor that learns from pixel to pixel (NLMS) refines it, and what is left is coded bit
by bit with probabilities that adapt to the tile, under a context of the errors around. All on int64 with one defined
result, within 2**53; FORMAT.md says it in words. Encoder and decoder are one walk, so that they cannot disagree.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

SUB_PREDICTORS = 11
FEATURES = 9
ACTIVITIES = 40
TOKENS = 24
"""Contexts are laid out for so many sizes of an error, more than the 18 that there are."""

TREE = 32
"""A token takes five binary decisions; an error's bits have as many contexts below their token."""

CONTEXTS_PER_CHANNEL = ACTIVITIES * TREE + TOKENS + TOKENS * TREE
PROBABILITY_BITS = 16
LEAST_PROBABILITY = 32
SLOWEST = 400
WEIGHT_BITS = 16
WEIGHT_LIMIT = 1 << 19
STEP = 160
REGULARISER = 9
FLUSH_BYTES = 4
WORD = 0xFFFFFFFF
OUT_OF_BYTES = -1
BROKEN = -2


@njit(cache=True)
def _sample(values: Any, y: int, x: int, c: int, otherwise: Any) -> Any:
    """The sample at a place, or `otherwise` where the tile has none."""
    if y < 0 or x < 0 or x >= values.shape[1]:
        return otherwise
    return values[y, x, c]


@njit(cache=True)
def _predict(values: Any, y: int, x: int, c: int, half: int, predictions: Any) -> int:
    """Fill in the sub-predictions of a sample; their number."""
    above = _sample(values, y - 1, x, c, half)
    w = _sample(values, y, x - 1, c, above)
    n = _sample(values, y - 1, x, c, w)
    nw = _sample(values, y - 1, x - 1, c, n)
    ne = _sample(values, y - 1, x + 1, c, n)
    predictions[0] = w
    predictions[1] = n
    predictions[2] = w + n - nw
    predictions[3] = w + ne - n
    predictions[4] = (2 * (w + n) + ne - nw) >> 2
    predictions[5] = n + ne - _sample(values, y - 2, x + 1, c, ne)
    predictions[6] = _sample(values, y, x - 2, c, w)
    predictions[7] = _sample(values, y - 2, x, c, n)
    if c == 0:
        return 8
    # The channel before, at this pixel and its neighbours, with the same padding.
    here = values[y, x, c - 1]
    above = _sample(values, y - 1, x, c - 1, half)
    w_before = _sample(values, y, x - 1, c - 1, above)
    n_before = _sample(values, y - 1, x, c - 1, w_before)
    nw_before = _sample(values, y - 1, x - 1, c - 1, n_before)
    predictions[8] = w + here - w_before
    predictions[9] = n + here - n_before
    predictions[10] = w + n - nw + here - w_before - n_before + nw_before
    return SUB_PREDICTORS


@njit(cache=True)
def _blend(predictions: Any, errors: Any, count: int) -> int:
    """The mean of the predictions, weighted by the inverse squares of their recent errors."""
    shift = 0
    while (errors[:count].min() + 4) >> shift >= 16:
        shift += 1
    total, weighted = 0, 0
    for i in range(count):
        unit = min((errors[i] + 4) >> shift, 127)
        weight = 65536 // (unit * unit + 1)
        total += weight
        weighted += weight * predictions[i]
    return weighted // total


@njit(cache=True)
def _fill_features(values: Any, y: int, x: int, c: int, base: int, predictions: Any, features: Any) -> None:
    """Distances of what is known from the base: neighbours, then what earlier channels did."""
    features[0] = predictions[0] - base
    features[1] = predictions[1] - base
    features[2] = predictions[0] + predictions[1] - predictions[2] - base
    features[3] = predictions[3] - predictions[0] + predictions[1] - base
    features[4] = predictions[6] - base
    features[5] = predictions[7] - base
    if c > 0:
        features[6] = predictions[8] - base
        features[7] = predictions[9] - base
    if c > 1:
        here = values[y, x, c - 2]
        features[8] = here - _sample(values, y, x - 1, c - 2, here) - (base - predictions[0])


@njit(cache=True)
def _activity(amount: int) -> int:
    """A context from the errors around: half octaves."""
    rest, halvings = amount, 0
    while rest >= 4:
        rest >>= 1
        halvings += 1
    return min(rest + 2 * halvings, ACTIVITIES - 1)


@njit(cache=True, nogil=True)
def code_tile(values: Any, bits: int, stream: Any, decoding: bool) -> int:
    """Code the tile `values` into `stream`, or decode it from there; the bytes used.

    `values`: int64 `(h, w, c)` in ``[0, 2**bits)``, written when decoding; `stream`: uint8. OUT_OF_BYTES where the
    stream is too short, BROKEN where it is not what an encoder writes.
    """
    height, width, channels = values.shape
    modulus, half = 1 << bits, (1 << bits) >> 1
    low, high, code, position = 0, WORD, 0, 0
    if decoding:
        if len(stream) < FLUSH_BYTES:
            return OUT_OF_BYTES
        for i in range(FLUSH_BYTES):
            code = code << 8 | stream[i]
        position = FLUSH_BYTES
    # Two probabilities that adapt fast and slowly, and what the slow one divides by.
    chances = np.full((channels * CONTEXTS_PER_CHANNEL, 3), 1 << (PROBABILITY_BITS - 1), np.int64)
    chances[:, 2] = 3
    weights = np.zeros((channels, FEATURES), np.int64)
    sub_errors = np.zeros((3, width + 2, channels, SUB_PREDICTORS), np.int64)
    errors_above = np.zeros((channels, width + 2), np.int64)
    predictions = np.zeros(SUB_PREDICTORS, np.int64)
    errors = np.zeros(SUB_PREDICTORS, np.int64)
    features = np.zeros(FEATURES, np.int64)
    for y in range(height):
        row, above, second = y % 3, (y + 2) % 3, (y + 1) % 3
        for x in range(width):
            for c in range(channels):
                count = _predict(values, y, x, c, half, predictions)
                for i in range(count):
                    errors[i] = (
                        2 * (sub_errors[row, x, c, i] + sub_errors[above, x + 1, c, i])
                        + sub_errors[above, x, c, i]
                        + sub_errors[above, x + 2, c, i]
                        + sub_errors[second, x + 1, c, i]
                    )
                    if x > 0:
                        errors[i] += sub_errors[row, x - 1, c, i]
                base = _blend(predictions, errors, count)
                features[:] = 0
                _fill_features(values, y, x, c, base, predictions, features)
                refined = base + (((weights[c] * features).sum() + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS)
                centre = min(max(refined, 0), modulus - 1)
                around = 2 * (errors_above[c, x] + errors_above[c, x + 1]) + errors_above[c, x + 2]
                tree_at = (c * ACTIVITIES + _activity(around + (errors[:count].min() >> 3))) * TREE
                signs_at = channels * ACTIVITIES * TREE + c * TOKENS
                bits_at = channels * (ACTIVITIES * TREE + TOKENS) + c * TOKENS * TREE

                error, token, magnitude, negative = 0, 0, 0, 0
                if not decoding:
                    error = (values[y, x, c] - centre + half) % modulus - half
                    magnitude, negative = abs(error), 1 * (error < 0)
                    while magnitude >> token:
                        token += 1
                # Five decisions for the token, one for the sign, then the error's bits below the leading one.
                node, step, found = 1, 0, 1
                while True:
                    place = token - 2 - (step - 6)
                    if step < 5:
                        context, bit = tree_at + node, token >> (4 - step) & 1
                    elif step == 5:
                        context, bit = signs_at + token, negative
                    else:
                        context = bits_at + token * TREE + (node if step < 9 else 8 + place)
                        bit = magnitude >> place & 1
                    chance = (chances[context, 0] + chances[context, 1]) >> 1
                    chance = min(max(chance, LEAST_PROBABILITY), (1 << PROBABILITY_BITS) - LEAST_PROBABILITY)
                    middle = low + ((high - low) * chance >> PROBABILITY_BITS)
                    if decoding:
                        bit = 1 * (code <= middle)
                    if bit:
                        high = middle
                    else:
                        low = middle + 1
                    target = bit << PROBABILITY_BITS
                    chances[context, 0] += (target - chances[context, 0]) >> 4
                    chances[context, 1] += 2 * (target - chances[context, 1]) // chances[context, 2]
                    chances[context, 2] = min(chances[context, 2] + 2, SLOWEST)
                    while (low ^ high) >> 24 == 0:
                        if position >= len(stream):
                            return OUT_OF_BYTES
                        if decoding:
                            code = (code << 8 & WORD) | stream[position]
                        else:
                            stream[position] = low >> 24
                        position += 1
                        low, high = low << 8 & WORD, (high << 8 & WORD) | 255
                    if step < 5:
                        node = 2 * node + bit
                        if step == 4:
                            token, node = node - TREE, 1
                            if token == 0:
                                break
                            if token > bits:
                                return BROKEN
                    elif step == 5:
                        negative = bit
                        if token == 1:
                            break
                    else:
                        found = 2 * found + bit
                        if step < 8:
                            node = 2 * node + bit
                        if place == 0:
                            break
                    step += 1

                if decoding:
                    error = 0 if token == 0 else (-found if negative else found)
                    if error < -half or error >= max(half, 1):
                        return BROKEN
                    values[y, x, c] = (centre + error) % modulus
                value = values[y, x, c]
                for i in range(count):
                    sub_errors[row, x + 1, c, i] = abs(predictions[i] - value)
                errors_above[c, x + 1] = abs(value - centre)
                power = REGULARISER + (features * features).sum()
                for i in range(FEATURES):
                    moved = weights[c, i] + (value - refined) * features[i] * STEP // power
                    weights[c, i] = min(max(moved, -WEIGHT_LIMIT), WEIGHT_LIMIT)
    if decoding:
        return position if code == low and position == len(stream) else BROKEN
    if position + FLUSH_BYTES > len(stream):
        return OUT_OF_BYTES
    for i in range(FLUSH_BYTES):
        stream[position + i] = low >> (24 - 8 * i) & 255
    return position + FLUSH_BYTES


def encode_tile(tile: NDArray[Any], bits: int) -> bytes | None:
    """The stream of a tile `(h, w, c)` of unsigned samples below ``2**bits``; None where it outgrows them."""
    stream = np.empty(tile.nbytes + FLUSH_BYTES, np.uint8)
    used = code_tile(tile.astype(np.int64), bits, stream, False)
    return stream[:used].tobytes() if used >= 0 else None


def decode_tile(stream: memoryview, height: int, width: int, channels: int, bits: int) -> NDArray[np.int64] | int:
    """The tile again, or OUT_OF_BYTES or BROKEN."""
    values = np.zeros((height, width, channels), np.int64)
    outcome = int(code_tile(values, bits, np.frombuffer(stream, np.uint8).copy(), True))
    return values if outcome >= 0 else outcome

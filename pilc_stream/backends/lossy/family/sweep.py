"""Convolutions as matrix products of each place's surroundings: exact wherever products are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pilc_stream.backends.lossy.family.machine import Machine

Tap = tuple[int, int]
"""A place of a kernel: how many rows down and columns right of the output's."""

PATCH_NUMBERS = 1 << 22
"""At most so many numbers of surroundings are held at a time."""


def convolution_taps(weight: NDArray[Any]) -> tuple[list[Tap], NDArray[Any]]:
    """The taps of a convolution `(outputs, inputs, k, k)`, and its matrix `(taps times inputs, outputs)`."""
    outputs, inputs, edge, _ = weight.shape
    half = edge // 2
    taps = [(y - half, x - half) for y in range(edge) for x in range(edge)]
    return taps, weight.transpose(2, 3, 1, 0).reshape(edge * edge * inputs, outputs)


def phase_taps(weight: NDArray[Any]) -> list[tuple[list[Tap], NDArray[Any]]]:
    """Taps and matrices of a transposed convolution `(inputs, outputs, k, k)` of stride 2, for the places top left, top
    right, bottom left and bottom right that each place becomes."""
    edge = weight.shape[2]
    half = edge // 2
    out = []
    for below in range(2):
        for right in range(2):
            # Place y of the inputs meets places 2 y + k - half of the outputs.
            kernel = [
                (y, x)
                for y in range(edge)
                for x in range(edge)
                if (below + half - y) % 2 == 0 and (right + half - x) % 2 == 0
            ]
            taps = [((below + half - y) // 2, (right + half - x) // 2) for y, x in kernel]
            out.append((taps, np.concatenate([weight[:, :, y, x] for y, x in kernel])))
    return out


def swept(
    machine: Machine,
    product: Callable[[Any, Any], Any],
    values: Any,
    matrix: Any,
    taps: Sequence[Tap],
    stride: int,
    places: tuple[int, int],
) -> Any:
    """The products of `matrix` with the surroundings of every `stride`-th place of `(h, w, c)`, 0 outside."""
    height, width, channels = values.shape
    rows, columns = places
    downs, rights = [dy for dy, _ in taps], [dx for _, dx in taps]
    top, left = max(0, -min(downs)), max(0, -min(rights))
    bottom = max(0, stride * (rows - 1) + max(downs) + 1 - height)
    right = max(0, stride * (columns - 1) + max(rights) + 1 - width)
    wide = machine.padded(values, (top, bottom), (left, right))
    step = max(1, PATCH_NUMBERS // (columns * len(taps) * channels))
    out = []
    for first in range(0, rows, step):
        count = min(step, rows - first)
        parts = []
        for dy, dx in taps:
            begin = top + dy + stride * first
            part = wide[begin : begin + stride * (count - 1) + 1 : stride, left + dx :]
            parts.append(part[:, : stride * (columns - 1) + 1 : stride])
        out.append(product(machine.joined(parts, 2).reshape(count * columns, len(taps) * channels), matrix))
    return machine.joined(out, 0).reshape(rows, columns, -1)


def interleaved(machine: Machine, phases: Sequence[Any]) -> Any:
    """Four arrays `(h, w, c)` as one `(2 h, 2 w, c)`: top left, top right, bottom left, bottom right of each place."""
    height, width, channels = phases[0].shape
    places = machine.joined(phases, 2).reshape(height, width, 2, 2, channels).swapaxes(1, 2)
    return places.reshape(2 * height, 2 * width, channels)

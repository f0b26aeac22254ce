"""What the family's networks are computed with: arrays of a library on a device, channels last. Here NumPy's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pilc_stream.backends.lossy.family.sweep import Tap, convolution_taps, interleaved, phase_taps, swept


class Machine(Protocol):
    """Arrays of a library, which all have `reshape`, `swapaxes`, `sum`, `mean`, `clip` and operators as NumPy's."""

    def integers(self, values: NDArray[Any]) -> Any:
        """Whole numbers, int64."""

    def factors(self, values: NDArray[Any]) -> Any:
        """Whole numbers, as `product` multiplies them."""

    def floats(self, values: NDArray[Any]) -> Any:
        """float32."""

    def host(self, values: Any) -> NDArray[Any]:
        """As a NumPy array."""

    def product(self, values: Any, factors: Any) -> Any:
        """The matrix product of whole numbers, int64: exact for sums below ``2**53``."""

    def joined(self, parts: Sequence[Any], axis: int) -> Any:
        """Arrays one after the other."""

    def padded(self, values: Any, rows: tuple[int, int], columns: tuple[int, int]) -> Any:
        """`(h, w, c)` with so many rows and columns of 0 before and behind."""

    def rolled(self, values: Any, by: int) -> Any:
        """`(h, w, c)` with rows and columns moved down and right, around the border."""

    def largest(self, values: Any) -> Any:
        """The largest along the last axis."""

    def where(self, condition: Any, values: Any, otherwise: Any) -> Any:
        """One or the other."""

    def root(self, values: Any) -> Any:
        """The square root of whole numbers in ``[0, 2**52)``, rounded down."""

    def exp(self, values: Any) -> Any:
        """Of floats."""

    def gelu(self, values: Any) -> Any:
        """Of floats."""

    def kernel(self, weight: NDArray[Any], transposed: bool) -> Any:
        """The weight of a convolution as `convolved` takes it, or (`transposed`) as `widened` does."""

    def convolved(self, values: Any, kernel: Any, edge: int, stride: int) -> Any:
        """A convolution of floats with a kernel of `edge` a side, 0 outside, at every `stride`-th place."""

    def widened(self, values: Any, kernel: Any) -> Any:
        """A transposed convolution of floats to twice the resolution."""


class HostMachine:
    """NumPy. Products are those of `dtype`: float64, or int64, which is slow and exact by itself."""

    def __init__(self, dtype: DTypeLike) -> None:
        self._dtype = np.dtype(dtype)

    def integers(self, values: NDArray[Any]) -> NDArray[Any]:
        """int64."""
        return np.asarray(values, np.int64)

    def factors(self, values: NDArray[Any]) -> NDArray[Any]:
        """Of the type of products."""
        return np.ascontiguousarray(values, self._dtype)

    def floats(self, values: NDArray[Any]) -> NDArray[Any]:
        """float32."""
        return np.asarray(values, np.float32)

    def host(self, values: NDArray[Any]) -> NDArray[Any]:
        """Itself."""
        return values

    def product(self, values: NDArray[Any], factors: NDArray[Any]) -> NDArray[Any]:
        """Exact."""
        found = values.astype(self._dtype, copy=False) @ factors.astype(self._dtype, copy=False)
        return np.asarray(found).astype(np.int64, copy=False)

    def joined(self, parts: Sequence[NDArray[Any]], axis: int) -> NDArray[Any]:
        """Concatenated."""
        return np.concatenate(parts, axis)

    def padded(self, values: NDArray[Any], rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
        """Filled up."""
        return np.pad(values, (rows, columns, (0, 0)))

    def rolled(self, values: NDArray[Any], by: int) -> NDArray[Any]:
        """Rolled."""
        return np.roll(values, (by, by), (0, 1))

    def largest(self, values: NDArray[Any]) -> NDArray[Any]:
        """Maxima."""
        return np.asarray(values.max(-1))

    def where(self, condition: Any, values: Any, otherwise: Any) -> NDArray[Any]:
        """Chosen."""
        return np.asarray(np.where(condition, values, otherwise))

    def root(self, values: NDArray[Any]) -> NDArray[Any]:
        """Whole roots."""
        found = np.sqrt(values.astype(np.float64)).astype(np.int64)
        # Whatever the square root of floats rounds to, the result is defined.
        found = found - (found * found > values)
        return np.asarray(found + ((found + 1) * (found + 1) <= values))

    def exp(self, values: NDArray[Any]) -> NDArray[Any]:
        """Exponentials."""
        return np.asarray(np.exp(values))

    def gelu(self, values: NDArray[Any]) -> NDArray[Any]:
        """By an error function that is exact to 1.5e-7 (Abramowitz and Stegun 7.1.26)."""
        apart = np.abs(values) * np.float32(0.5**0.5)
        t = 1 / (1 + np.float32(0.3275911) * apart)
        series = np.zeros_like(t)
        for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
            series = (series + np.float32(factor)) * t
        tail = series * np.exp(-apart * apart)
        return np.asarray(values * np.where(values > 0, 1 - tail / 2, tail / 2), np.float32)

    def kernel(self, weight: NDArray[Any], transposed: bool) -> list[tuple[list[Tap], NDArray[Any]]]:
        """Taps and matrices, of a transposed convolution one for each of the four places that a place becomes."""
        found = phase_taps(weight) if transposed else [convolution_taps(weight)]
        return [(taps, np.ascontiguousarray(matrix, np.float32)) for taps, matrix in found]

    def convolved(self, values: NDArray[Any], kernel: Any, edge: int, stride: int) -> NDArray[Any]:
        """By matrix products."""
        height, width, _ = values.shape
        taps, matrix = kernel[0]
        places = -(-height // stride), -(-width // stride)
        return np.asarray(swept(self, np.matmul, values, matrix, taps, stride, places))

    def widened(self, values: NDArray[Any], kernel: Any) -> NDArray[Any]:
        """By matrix products."""
        found = [swept(self, np.matmul, values, matrix, taps, 1, values.shape[:2]) for taps, matrix in kernel]
        return np.asarray(interleaved(self, found))

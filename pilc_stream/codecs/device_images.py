"""Where images lie that are decoded into one tensor on a device, each tile at its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pilc_stream.records.payload import Header

ALIGNMENT = 16


@dataclass(frozen=True)
class DeviceImages:
    """`places`: of every tile of the images of these `headers`, in order, its first byte in a tensor of `pixel_bytes`,
    and bytes from row to row."""

    headers: Sequence[Header]
    begins: Sequence[int]
    places: Sequence[tuple[int, int]]
    pixel_bytes: int

    @staticmethod
    def of(headers: Sequence[Header]) -> DeviceImages:
        """Images one behind the other."""
        places, begins, total = [], [], 0
        for header in headers:
            row_bytes = header.width * header.channels
            for y, x, _, _ in header.tiling.tiles():
                places.append((total + y * row_bytes + x * header.channels, row_bytes))
            begins.append(total)
            # Images begin at multiples of 16 bytes, as those who read them by vectors like it.
            total += -(-header.height * row_bytes // ALIGNMENT) * ALIGNMENT
        return DeviceImages(headers, begins, places, total)

    def views(self, pixels: Any) -> list[Any]:
        """The images in a torch tensor uint8 `(pixel_bytes,)`."""
        shape, raw_bytes = self.headers[0].shape, self.headers[0].raw_bytes
        if all(header.shape == shape for header in self.headers):
            # Views of all at once: one by one they take longer than decoding small images does.
            rows = pixels.view(len(self.headers), self.pixel_bytes // len(self.headers))
            return list(rows[:, :raw_bytes].unflatten(1, shape).unbind())
        return [
            pixels[begin : begin + header.raw_bytes].view(header.shape)
            for header, begin in zip(self.headers, self.begins, strict=True)
        ]

"""Payloads of images that come in bands of rows: a row of tiles is coded when its last row is there.

The bytes are those of the codec for the whole image. Streams wait in a temporary file once they are many, since the
directory of a payload, and with it each checksum, is known only when the last tile is coded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.codecs.base import TileCoder
from pilc_stream.records.payload import CHECKSUM_BYTES, Header, PayloadWriter, Sink, pack_head
from pilc_stream.records.tiling import MIN_TILE_LOG2, Region

SPILL_BYTES = 1 << 25
"""Of streams that are held in memory."""

PIECE_BYTES = 1 << 20
"""Of streams that are copied at a time."""

BAND_BYTES = 3 << 26
"""Of a row of tiles at most: 2048 rows of 32768 pixels of three bytes."""


def most_tile_log2(width: int, pixel_bytes: int) -> int:
    """The largest tiles of which a row of an image so wide is within BAND_BYTES, as a power of two."""
    return max(MIN_TILE_LOG2, (BAND_BYTES // (width * pixel_bytes)).bit_length() - 1)


class BandEncoder:
    """Codes one image by one codec, from the top down."""

    def __init__(self, coder: TileCoder, dtype: np.dtype[Any], streams: IO[bytes]) -> None:
        """`streams`: an empty file for the tiles' streams."""
        header = coder.header
        self.header, self._encode, self._tiling = header, coder.encode, header.tiling
        self._rows = np.empty((self._tiling.tile_height, header.width, header.channels), dtype)
        self._filled = self._first = 0
        self._lengths: list[int] = []
        self._streams = streams
        self._failed = False

    def push(self, band: NDArray[Any]) -> None:
        """The next rows `(rows, w, c)`."""
        while len(band):
            wanted = min(len(self._rows), self.header.height - self._first)
            taken = band[: wanted - self._filled]
            self._rows[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            band = band[len(taken) :]
            if self._filled == wanted:
                self._code(self._rows[:wanted])
                self._first += wanted
                self._filled = 0

    def _code(self, rows: NDArray[Any]) -> None:
        if self._failed:
            return
        step = self._tiling.tile_width
        for stream in self._encode([rows[:, x : x + step] for x in range(0, self.header.width, step)]):
            if stream is None:
                self._failed = True
                return
            self._lengths.append(len(stream))
            self._streams.write(stream)

    @property
    def payload_bytes(self) -> int | None:
        """Of the payload without extras; None where a tile has no stream."""
        if self._failed:
            return None
        return len(pack_head(self.header, self._lengths)) + sum(self._lengths) + CHECKSUM_BYTES * len(self._lengths)

    def write(self, sink: Sink, extras: bytes = b"") -> None:
        """Write the payload; all rows must have been there."""
        writer = PayloadWriter(sink, replace(self.header, extras=extras), self._lengths)
        self._streams.seek(0)
        for length in self._lengths:
            while length:
                piece = self._streams.read(min(length, PIECE_BYTES))
                writer.write(piece)
                length -= len(piece)
            writer.end_tile()


def rows_of_tiles(header: Header) -> Iterator[Region]:
    """What to decode at a time so that no tile is decoded twice, from the top down."""
    step = header.tiling.tile_height
    for y in range(0, header.height, step):
        yield Region(y, 0, min(step, header.height - y), header.width)

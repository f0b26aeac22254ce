"""The codec of the PILC paper (Kang et al., CVPR 2022): autoregressive residuals, a VQ code book, semi-dynamic tables.

Tile by tile, and each tile by itself:

1. A linear predictor gives the residual image.
2. Each block of 8 x 8 pixels gets an index into a code book; a small convolutional decoder turns the indices of the
   tile into a mean and a scale for every sub-pixel's residual, all in one pass.
3. rANS codes the indices first, then the residuals, each by one of a few hundred integer tables made beforehand and
   picked by its mean and scale (the semi-dynamic coder).

A decoder reads the indices, runs the network once, decodes all residuals in parallel and undoes the prediction last:
nothing that the network or the coder needs depends on a decoded pixel.

What is the paper's: these three parts, their order, integer tables picked by (mean, scale), single images of any size.

What is a published re-implementation's (alipay/Finite_State_Autoregressive_Entropy_Coding): the three-way predictor's
taps (left, upper left and upper neighbour for the first channel; for the others the earlier channel at the same place
and to the left, and the own left neighbour); a code book of 256; means and scales on a grid.

What is ours: exact integers throughout; channels in the order G, R, B; predictors with 12 to 20 taps, one of 64 for
each block, sent beside its code (in prototypes the three fixed taps cost a sixth more on Kodak); taps in the row above
for every channel (8 % of Kodak), so that pixels are undone along a wavefront, not row by row; codes for blocks of
8 x 8, not 2 x 2, chosen by the bits that they cost, coded by tables that see the neighbouring codes; predictors and
code book made by clustering blocks by their bits, and only the decoder network by gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.context import CHANNELS
from pilc_stream.arith.rans import PRECISION_BITS, most_symbols_per_word
from pilc_stream.backends.base import STATE_BYTES, WORD_BYTES, TileJob
from pilc_stream.backends.pilc import PilcEngine
from pilc_stream.backends.pilc.base import block_grid
from pilc_stream.codecs.base import Image, TileCoder, check_all_tiles, check_image, header_fields
from pilc_stream.codecs.raw import RawCodec
from pilc_stream.codecs.tiled import paste
from pilc_stream.errors import FormatError, TruncatedError, UsageError
from pilc_stream.models.pilc import PilcModel
from pilc_stream.records.payload import Header, Payload, pack_payload
from pilc_stream.records.tiling import DEFAULT_TILE_LOG2, Region, Tiling, default_lanes_log2

NAME = "pilc"
CHANNEL_COUNTS = (1, CHANNELS)


class PilcCodec:
    """Encodes 8-bit grey and RGB images. What would not get smaller is stored by `raw` instead."""

    name = NAME

    def __init__(self, model: PilcModel, engine: PilcEngine, tile_log2: int = DEFAULT_TILE_LOG2) -> None:
        self.model, self.engine, self.tile_log2 = model, engine, tile_log2

    @property
    def profile(self) -> str:
        """The model's name."""
        return self.model.profile

    @property
    def model_sha256(self) -> str:
        """The digest of the model file in hex."""
        return self.model.sha256

    @property
    def model_bytes(self) -> bytes:
        """The model file."""
        return self.model.file_bytes

    def refuses(self, image: NDArray[Any]) -> str | None:
        """Why this codec cannot take the image; None where it can."""
        if image.dtype != np.uint8:
            return f"samples of {image.dtype}; the codec 'pilc' takes uint8"
        channels = 1 if image.ndim == 2 else image.shape[2]
        if channels not in CHANNEL_COUNTS:
            return f"{channels} channels; the codec 'pilc' takes 1 (grey) or 3 (RGB)"
        return None

    def encode(self, images: Sequence[NDArray[Any]], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
        """One payload per image; UsageError for a refused one."""
        headers = [
            self._header(image, extra) for image, extra in zip(images, extras or [None] * len(images), strict=True)
        ]
        tiles: list[NDArray[np.uint8]] = []
        lanes: list[int] = []
        for image, header in zip(images, headers, strict=True):
            three_axes = image.reshape(header.height, header.width, header.channels)
            for y, x, height, width in header.tiling.tiles():
                tiles.append(three_axes[y : y + height, x : x + width])
                lanes.append(header.lanes_log2)
        streams = iter(self.engine.encode_tiles(self.model, tiles, lanes))
        payloads = [pack_payload(header, [next(streams) for _ in range(header.tile_count)]) for header in headers]
        return [_smaller(*each) for each in zip(payloads, images, headers, strict=True)]

    def tile_coder(self, image: NDArray[Any], most_log2: int) -> TileCoder:
        """What codes an image like this, in tiles of at most ``2**most_log2``."""
        header = PilcCodec(self.model, self.engine, min(self.tile_log2, most_log2))._header(image, None)

        def encode(tiles: Sequence[NDArray[Any]]) -> list[bytes]:
            return self.engine.encode_tiles(self.model, tiles, [header.lanes_log2] * len(tiles))

        return TileCoder(header, encode)

    def _header(self, image: NDArray[Any], extras: bytes | None) -> Header:
        check_image(image)
        reason = self.refuses(image)
        if reason:
            raise UsageError(f"image of shape {image.shape}: {reason}; use the codec 'raw'")
        return Header(
            codec=self.name,
            model_digest=self.model.short_digest,
            tile_log2=self.tile_log2,
            lanes_log2=default_lanes_log2(Tiling(image.shape[0], image.shape[1], self.tile_log2)),
            extras=extras or b"",
            **header_fields(image),
        )


def _smaller(payload: bytes, image: NDArray[Any], header: Header) -> bytes:
    if len(payload) < header.raw_bytes:
        return payload
    stored = RawCodec().encode([image], [header.extras])[0]
    return payload if len(payload) <= len(stored) else stored


class PilcDecoder:
    """Decodes payloads of one model."""

    def __init__(self, model: PilcModel, engine: PilcEngine) -> None:
        self.model, self.engine = model, engine
        largest = max(
            int(np.diff(model.tensors[name].astype(np.int64), axis=1, append=1 << PRECISION_BITS).max())
            for name in ("cdf", "code.cdf", "predictor.cdf")
        )
        self._symbols_per_word = most_symbols_per_word(largest)

    def decode(self, payloads: Sequence[Payload], regions: Sequence[Region | None]) -> list[Image]:
        """The images, or their regions from the tiles that touch them."""
        wanted_tiles = [self._checked(*each) for each in zip(payloads, regions, strict=True)]
        jobs = [
            job for payload, wanted in zip(payloads, wanted_tiles, strict=True) for job in self._jobs(payload, wanted)
        ]
        tiles = iter(self.engine.decode_tiles(self.model, jobs))
        out: list[Image] = []
        for payload, region, wanted in zip(payloads, regions, wanted_tiles, strict=True):
            header = payload.header
            y0, x0, height, width = region or Region(0, 0, header.height, header.width)
            image = np.empty((height, width, header.channels), np.uint8)
            for index in wanted:
                paste(image, y0, x0, next(tiles), header.tiling.tile(index))
            out.append(image[:, :, 0] if header.two_axes else image)
        return out

    def _checked(self, payload: Payload, region: Region | None) -> list[int]:
        """The indices of the tiles to decode, their checksums checked."""
        header = payload.header
        if header.bit_depth != 8 or header.channels not in CHANNEL_COUNTS:
            raise FormatError(
                f"payload (pilc): {header.channels} channels of {header.bit_depth} bits; there are 1 or 3 of 8"
            )
        wanted = list(range(len(payload.tiles))) if region is None else header.tiling.touching(region)
        check_all_tiles(payload, wanted)
        return wanted

    def _jobs(self, payload: Payload, wanted: Sequence[int]) -> Iterator[TileJob]:
        header = payload.header
        for index in wanted:
            _, _, height, width = header.tiling.tile(index)
            job = TileJob(payload.tiles[index], height, width, header.channels, header.lanes_log2)
            self._check_length(job)
            yield job

    def _check_length(self, job: TileJob) -> None:
        """Raise TruncatedError where no stream of this length can hold the tile (as for the codec `wave`).

        Checked before any backend sees the tile: what a hostile header announces takes memory and time only in
        proportion to the bytes that come with it.
        """
        rows, columns = block_grid(job.height, job.width)
        symbols = job.height * job.width * job.channels + 2 * rows * columns
        lanes = 1 << job.lanes_log2
        words = max(0, len(job.stream) - STATE_BYTES * lanes) // WORD_BYTES
        if symbols > self._symbols_per_word * (lanes + words):
            raise TruncatedError(
                f"tile: a stream of {len(job.stream)} bytes cannot hold {job.height} x {job.width} pixels of "
                f"{job.channels} channels under this model; the header or the stream is not what was encoded"
            )

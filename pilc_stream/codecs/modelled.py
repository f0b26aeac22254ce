"""What codecs have in common that code tiles by a model and an engine: headers, frames of payloads, regions, bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.context import CHANNELS
from pilc_stream.arith.rans import PRECISION_BITS, most_symbols_per_word
from pilc_stream.backends import DeviceEngine, TileEngine, TileJob
from pilc_stream.backends.base import STATE_BYTES, WORD_BYTES, PlacingEngine
from pilc_stream.codecs.base import Image, TileCoder, check_all_tiles, check_image, header_fields
from pilc_stream.codecs.device_images import DeviceImages
from pilc_stream.codecs.raw import RawCodec
from pilc_stream.codecs.tiled import paste
from pilc_stream.codecs.views import checked_view, decode_views, from_views, planes_in_view, view_shape
from pilc_stream.errors import DeviceError, FormatError, TruncatedError, UsageError
from pilc_stream.models.model import CodecModel
from pilc_stream.records.payload import Header, Payload, pack_payload
from pilc_stream.records.tiling import MAX_TILE_LOG2, Region, Tiling, default_lanes_log2

CHANNEL_COUNTS = (1, CHANNELS)

Model = TypeVar("Model", bound=CodecModel)


class WithModel(Generic[Model]):
    """A codec's model, as payloads and data sets name it."""

    model: Model

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


class ModelCodec(WithModel[Model]):
    """Encodes 8-bit grey and RGB images. What would not get smaller is stored by `raw` instead."""

    name: ClassVar[str]
    has_views = False
    """Whether each stream begins with the view of its tile that it codes."""

    def __init__(self, model: Model, engine: TileEngine[Model], tile_log2: int | None = None) -> None:
        """`tile_log2`: tiles of at most ``2**tile_log2`` a side; the model's where none is given."""
        self.model, self.engine = model, engine
        self.tile_log2 = model.tile_log2 if tile_log2 is None else tile_log2

    def refuses(self, image: NDArray[Any]) -> str | None:
        """Why this codec cannot take the image; None where it can."""
        if image.dtype != np.uint8:
            return f"samples of {image.dtype}; the {self.name} codec takes uint8"
        channels = 1 if image.ndim == 2 else image.shape[2]
        if channels not in CHANNEL_COUNTS:
            return f"{channels} channels; the {self.name} codec takes 1 (grey) or 3 (RGB)"
        return None

    def encode(self, images: Sequence[NDArray[Any]], extras: Sequence[bytes | None] | None = None) -> list[bytes]:
        """One payload per image; UsageError for a refused one."""
        headers: list[Header] = []
        tiles: list[NDArray[np.uint8]] = []
        lanes: list[int] = []
        counts: list[int] = []
        # Images of one shape have one header and one tiling; there may be 100,000 of them.
        known: dict[tuple[object, ...], tuple[Header, tuple[Region, ...]]] = {}
        for image, extra in zip(images, extras or [None] * len(images), strict=True):
            key = (image.dtype, *image.shape)
            if key not in known:
                known[key] = self._layout(image)
            header, places = known[key]
            headers.append(replace(header, extras=extra) if extra else header)
            counts.append(len(places))
            three_axes = image if image.ndim == 3 else image[:, :, None]
            if len(places) == 1:
                tiles.append(three_axes)
            else:
                tiles += [three_axes[y : y + height, x : x + width] for y, x, height, width in places]
            lanes += [header.lanes_log2] * len(places)

        streams = iter(self._streams(tiles, lanes))
        payloads = [pack_payload(header, list(islice(streams, n))) for header, n in zip(headers, counts, strict=True)]
        return [
            payload if len(payload) < header.raw_bytes else _smaller(payload, image, header)
            for payload, image, header in zip(payloads, images, headers, strict=True)
        ]

    def tile_coder(self, image: NDArray[Any], most_log2: int) -> TileCoder:
        """What codes an image like this, in tiles of at most ``2**most_log2``."""
        header, _ = self._layout(image, most_log2)

        def encode(tiles: Sequence[NDArray[Any]]) -> list[bytes]:
            return self._streams(tiles, [header.lanes_log2] * len(tiles))

        return TileCoder(header, encode)

    def _streams(self, tiles: Sequence[NDArray[Any]], lanes_log2: Sequence[int]) -> list[bytes]:
        """One stream per tile, as the header announces them."""
        return self.engine.encode_tiles(self.model, tiles, lanes_log2)

    def _layout(self, image: NDArray[Any], most_log2: int = MAX_TILE_LOG2) -> tuple[Header, tuple[Region, ...]]:
        """The header of an image without extras, and its tiles, of at most ``2**most_log2`` a side."""
        check_image(image)
        reason = self.refuses(image)
        if reason:
            raise UsageError(f"image of shape {image.shape}: {reason}; use the codec 'raw'")
        tile_log2 = min(self.tile_log2, most_log2)
        tiling = Tiling(image.shape[0], image.shape[1], tile_log2)
        header = Header(
            codec=self.name,
            model_digest=self.model.short_digest,
            tile_log2=tile_log2,
            lanes_log2=default_lanes_log2(tiling),
            views=self.has_views,
            **header_fields(image),
        )
        return header, tuple(tiling.tiles())


def _smaller(payload: bytes, image: NDArray[Any], header: Header) -> bytes:
    stored = RawCodec().encode([image], [header.extras])[0]
    return payload if len(payload) <= len(stored) else stored


def checked_tiles(payload: Payload, region: Region | None) -> list[int]:
    """The indices of the tiles that the image or its region needs, their checksums checked; FormatError where the
    samples are none that these codecs write."""
    header = payload.header
    if header.bit_depth != 8 or header.channels not in CHANNEL_COUNTS:
        raise FormatError(
            f"payload ({header.codec}): {header.channels} channels of {header.bit_depth} bits; there are 1 or 3 of 8"
        )
    wanted = list(range(len(payload.tiles))) if region is None else header.tiling.touching(region)
    check_all_tiles(payload, wanted)
    return wanted


class ModelDecoder(Generic[Model]):
    """Decodes payloads of one model."""

    name: ClassVar[str]

    def __init__(self, model: Model, engine: TileEngine[Model]) -> None:
        self.model, self.engine = model, engine
        largest = max(
            int(np.diff(cdf.astype(np.int64), axis=1, append=1 << PRECISION_BITS).max()) for cdf in self.tables()
        )
        self._symbols_per_word = most_symbols_per_word(largest)

    def tables(self) -> Sequence[NDArray[np.uint16]]:
        """All tables of the model: uint16 `(rows, symbols)`, the start of each symbol's interval."""
        raise NotImplementedError

    def symbols(self, job: TileJob) -> int:
        """How many symbols a tile's stream holds."""
        return job.height * job.width * job.channels

    def decode(self, payloads: Sequence[Payload], regions: Sequence[Region | None]) -> list[Image]:
        """The images, or their regions from the tiles that touch them."""
        jobs, views, wanted_tiles = self._jobs(payloads, regions)
        if isinstance(self.engine, PlacingEngine) and all(region is None for region in regions):
            return self._decode_whole(self.engine, payloads, jobs, views)
        tiles = iter(from_views(self.engine.decode_tiles(self.model, jobs), views))
        out: list[Image] = []
        for payload, region, wanted in zip(payloads, regions, wanted_tiles, strict=True):
            header = payload.header
            if region is None and len(wanted) == 1:
                # Of its own: engines give views of larger memory.
                image = next(tiles).copy()
                out.append(image[:, :, 0] if header.two_axes else image)
                continue
            y0, x0, height, width = region or Region(0, 0, header.height, header.width)
            image = np.empty((height, width, header.channels), np.uint8)
            for index in wanted:
                paste(image, y0, x0, next(tiles), header.tiling.tile(index))
            out.append(image[:, :, 0] if header.two_axes else image)
        return out

    def _decode_whole(
        self,
        engine: PlacingEngine[Model],
        payloads: Sequence[Payload],
        jobs: Sequence[TileJob],
        views: Sequence[int],
    ) -> list[Image]:
        images: list[Image] = []
        places: list[NDArray[np.uint8]] = []
        for payload in payloads:
            header = payload.header
            image = np.empty((header.height, header.width, header.channels), np.uint8)
            if len(payload.tiles) == 1:
                places.append(image)
            else:
                tiles = header.tiling.tiles()
                places += [image[y : y + height, x : x + width] for y, x, height, width in tiles]
            images.append(image[:, :, 0] if header.two_axes else image)
        turned = [planes_in_view(place, view) if view else place for place, view in zip(places, views, strict=True)]
        engine.decode_to_places(self.model, jobs, turned)
        return images

    def decode_to_tensors(self, payloads: Sequence[Payload]) -> list[Any]:
        """The images as torch tensors in the device's memory, which each tile was decoded into at its place.

        Raises DeviceError where the engine is not a device's.
        """
        if not isinstance(self.engine, DeviceEngine):
            raise DeviceError(f"device {self.engine.name!r}: images cannot stay there; only those of 'cuda' can")
        jobs, views, _ = self._jobs(payloads, [None] * len(payloads))
        images = DeviceImages.of([payload.header for payload in payloads])
        return images.views(decode_views(self.engine, self.model, jobs, images.places, images.pixel_bytes, views))

    def _jobs(
        self, payloads: Sequence[Payload], regions: Sequence[Region | None]
    ) -> tuple[list[TileJob], list[int], list[list[int]]]:
        """The tiles to decode, their checksums checked, the view that each is, and for each payload the indices of its
        own."""
        jobs: list[TileJob] = []
        views: list[int] = []
        wanted_tiles: list[list[int]] = []
        for payload, region in zip(payloads, regions, strict=True):
            header = payload.header
            wanted = checked_tiles(payload, region)
            wanted_tiles.append(wanted)
            tiling = header.tiling
            for index in wanted:
                # Most pictures of a large batch are small: one tile, as large as they are.
                _, _, height, width = tiling.tile(index) if len(payload.tiles) > 1 else (0, 0, *header.shape[:2])
                stream, view = payload.tiles[index], 0
                if header.views:
                    view, stream = checked_view(stream, header.channels), stream[1:]
                    height, width = view_shape(height, width, view)
                job = TileJob(stream, height, width, header.channels, header.lanes_log2)
                self._check_length(job)
                jobs.append(job)
                views.append(view)
        return jobs, views, wanted_tiles

    def _check_length(self, job: TileJob) -> None:
        """Raise TruncatedError where no stream of this length can hold the tile.

        A lane decodes at most `most_symbols_per_word` symbols from its state and as many from each word, so there are
        at most that many times lanes plus words. Checked before any backend sees the tile: what a hostile header
        announces takes memory and time only in proportion to the bytes that come with it.
        """
        lanes = 1 << job.lanes_log2
        words = max(0, len(job.stream) - STATE_BYTES * lanes) // WORD_BYTES
        if self.symbols(job) > self._symbols_per_word * (lanes + words):
            raise TruncatedError(
                f"tile: a stream of {len(job.stream)} bytes cannot hold {job.height} x {job.width} pixels of "
                f"{job.channels} channels under this model; the header or the stream is not what was encoded"
            )
